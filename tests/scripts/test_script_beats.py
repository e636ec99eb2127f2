"""test-producer.sh and batch-job-example.sh: beats that stop when they should, by Java's producer or without it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.real.programs import free_port

from .conftest import Demo
from .stage import HEARTBEAT, Stage, Started, eventually

PRODUCER = "scripts/test-producer.sh"
BATCH = "scripts/batch-job-example.sh"


def pkill(script: Started) -> None:
    """``pkill -f kafka-console-producer``, within the script's session: this machine may have others."""
    if shutil.which("pkill") is None:
        pytest.skip("pkill is missing: apt install procps")
    subprocess.run(["pkill", "-s", str(script.process.pid), "-f", "kafka-console-producer"], check=True, timeout=30)


@pytest.fixture
def java(stage: Stage, tmp_path: Path) -> Path:
    """A kafka-console-producer that writes its arguments and every beat into a file, which is returned."""
    heard = tmp_path / "heard"
    stage.play("kafka-console-producer", f'echo "ARGUMENTS $*" >>{heard}; while read -r beat; do echo "$beat" >>{heard}; done')
    return heard


def beats(heard: Path, start: str = "") -> list[str]:
    lines = heard.read_text().splitlines() if heard.exists() else []
    return [line for line in lines if line.startswith(start) and not line.startswith("ARGUMENTS")]


def test_one_producer_sends_every_beat_until_pkill_stops_it(stage: Stage, java: Path) -> None:
    with stage.running(PRODUCER, BEAT_EVERY_S="1", KAFKA_BOOTSTRAP="kafka:29092") as producer:
        eventually(lambda: len(beats(java, "test-")) >= 3, "three beats")
        pkill(producer)
        assert producer.process.wait(30) == 0, producer.text()
        producer.says("The producer was stopped: no more beats.")
        assert producer.others() == []
    (arguments,) = [line for line in java.read_text().splitlines() if line.startswith("ARGUMENTS")]
    assert "--topic heartbeat-topic --bootstrap-server kafka:29092" in arguments
    assert "--producer-property client.id=kafka-console-producer" in arguments  # Java's command line has the name by this alone
    assert "Terminated" not in producer.text()


def test_a_producer_that_ends_by_itself_ends_the_script(stage: Stage) -> None:
    stage.play("kafka-console-producer", "echo 'no such broker' >&2; exit 1")
    done = stage.run(PRODUCER)
    assert done.returncode == 1
    assert "no such broker" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_script_is_stopped(stage: Stage, java: Path, tmp_path: Path, number: int) -> None:
    with stage.running(PRODUCER, BEAT_EVERY_S="1") as producer:
        producer.says("Beat test-")
        os.kill(producer.process.pid, number)
        producer.process.wait(30)
        eventually(lambda: producer.others() == [], "its processes are gone")
    if number == signal.SIGTERM:
        assert list((tmp_path / "tmp").iterdir()) == []


def test_without_java_the_beats_keep_the_key_alive_until_pkill_stops_them(beside_demo: Stage, demo: Demo) -> None:
    assert beside_demo.run("scripts/setup.sh").returncode == 0
    with beside_demo.running(PRODUCER, BEAT_EVERY_S="1") as producer:
        first = eventually(lambda: demo.redis("GET", "heartbeat"), "a beat")
        eventually(lambda: demo.redis("GET", "heartbeat") != first, "another beat")
        pkill(producer)
        assert producer.process.wait(30) == 0, producer.text()
        # A beat on its way is let go; one that Kafka has by then is applied before a beat of ours is.
        eventually(lambda: producer.others() == [], "its processes are gone")
        ours_ms = time.time_ns() // 1_000_000
        subprocess.run([HEARTBEAT, "send", "--bootstrap-server", demo.kafka, "ours"], capture_output=True, check=True, timeout=60)
        eventually(lambda: int(demo.redis("GET", "heartbeat")) >= ours_ms, "our beat")
        demo.redis("DEL", "heartbeat")
        assert beside_demo.run("scripts/check-redis.sh").returncode == 1


def test_a_machine_without_any_producer_is_told_what_to_install(stage: Stage) -> None:
    done = stage.run(PRODUCER)
    assert done.returncode == 2
    assert "no kafka-console-producer here" in done.stderr


def test_a_job_runs_where_there_is_no_producer(stage: Stage) -> None:
    done = stage.run(BATCH, "bash", "-c", "echo at work; sleep 2; exit 7", BEAT_EVERY_S="1")
    assert (done.returncode, done.stdout) == (7, "at work\n")
    (warning,) = done.stderr.splitlines()
    assert "no kafka-console-producer here, so the job runs without beats" in warning


def test_a_job_does_not_wait_for_a_beat(stage: Stage, tmp_path: Path) -> None:
    stage.add("touch")
    stage.play(
        "kafka-console-producer", f"touch {tmp_path}/producing; until [ -e {tmp_path}/enough ]; do sleep 0.1; done; touch {tmp_path}/sent"
    )
    with stage.running(BATCH, "bash", "-c", f"until [ -e {tmp_path}/producing ]; do sleep 0.1; done; exit 7") as batch:
        assert batch.process.wait(30) == 7, batch.text()
        assert not (tmp_path / "sent").exists()
        (tmp_path / "enough").touch()
        eventually((tmp_path / "sent").exists, "the beat of a short job is sent all the same")


def test_a_beat_to_a_broker_that_is_not_there_is_one_line() -> None:
    line = [str(HEARTBEAT), "send", "--bootstrap-server", f"127.0.0.1:{free_port()}", "hello"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    (said,) = done.stderr.splitlines()
    assert said.startswith("heartbeat: ")


def test_the_embedded_broker_is_not_spoken_to_by_java(beside_demo: Stage, demo: Demo, tmp_path: Path) -> None:
    beside_demo.play("kafka-console-producer", f"touch {tmp_path}/java-was-here")
    assert beside_demo.run(BATCH, "true").returncode == 0
    assert not (tmp_path / "java-was-here").exists()


@pytest.mark.parametrize("code", [0, 7])
def test_a_job_beats_at_its_start_and_ends_with_its_own_code(stage: Stage, java: Path, code: int) -> None:
    done = stage.run(BATCH, "bash", "-c", f"echo at work; exit {code}")
    assert (done.returncode, done.stdout) == (code, "at work\n")
    assert len(beats(java, "batch-start-")) == 1


def test_a_job_beats_while_it_runs_and_no_longer(stage: Stage, java: Path, tmp_path: Path) -> None:
    job = f"until [ -e {tmp_path}/enough ]; do sleep 0.1; done; exit 3"
    with stage.running(BATCH, "bash", "-c", job, BEAT_EVERY_S="1") as batch:
        eventually(lambda: len(beats(java, "batch-running-")) >= 2, "two beats of the running job")
        (tmp_path / "enough").touch()
        assert batch.process.wait(30) == 3, batch.text()
        eventually(lambda: batch.others() == [], "nothing of it is left")
    assert batch.text() == ""


def test_a_job_reads_what_is_given_to_it(stage: Stage, java: Path) -> None:
    done = subprocess.run(
        ["bash", BATCH, "cat"], cwd=stage.root, env=dict(stage.environment), input="work", capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "work")


def test_a_signal_reaches_the_job(stage: Stage, java: Path, tmp_path: Path) -> None:
    job = f"trap 'echo tidying up; exit 5' TERM; touch {tmp_path}/ready; while :; do sleep 0.1; done"
    stage.add("touch")
    with stage.running(BATCH, "bash", "-c", job) as batch:
        eventually((tmp_path / "ready").exists, "the job runs")
        os.kill(batch.process.pid, signal.SIGTERM)
        assert batch.process.wait(30) == 5
        batch.says("tidying up")
        eventually(lambda: batch.others() == [], "nothing of it is left")


def test_a_killed_example_beats_no_more(stage: Stage, java: Path) -> None:
    with stage.running(BATCH, "sleep", "60", BEAT_EVERY_S="1") as batch:
        eventually(lambda: beats(java, "batch-running-"), "a beat of the running job")
        os.kill(batch.process.pid, signal.SIGKILL)
        batch.process.wait(30)
        eventually(lambda: batch.others() == ["sleep 60"], "only the job is left")


def test_a_beat_that_cannot_be_sent_does_not_stop_the_job(stage: Stage) -> None:
    stage.play("kafka-console-producer", "exit 1")
    done = stage.run(BATCH, "echo", "done", KAFKA_BOOTSTRAP=f"127.0.0.1:{free_port()}")
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "the job goes on" in done.stderr


def test_a_batch_without_a_job_is_told_how(stage: Stage) -> None:
    done = stage.run(BATCH)
    assert done.returncode == 2
    assert "usage" in done.stderr
