"""setup.sh: what it applies, what it says, and what it does with files and workers that are not as they should be."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from tests.real.programs import free_port

from heartbeat.embedded.ports import Forward

from .conftest import Demo
from .stage import Stage, eventually

SETUP = "scripts/setup.sh"
NAME = "redis-heartbeat-sink"
FILE = f"config/{NAME}.json"


@pytest.fixture(params=["python", "jq"])
def host(request: pytest.FixtureRequest, beside_demo: Stage, demo: Demo) -> Stage:
    """Each reader of JSON in turn: ours where Python is, jq in a container that has no Python."""
    demo.delete_connectors()
    if request.param == "jq":
        if shutil.which("jq") is None:
            pytest.skip("jq is missing: apt install jq")
        (beside_demo.root / ".venv").unlink()
        beside_demo.add("jq")
    return beside_demo


def edit(stage: Stage, old: str, new: str) -> None:
    file = stage.root / FILE
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_it_creates_leaves_alone_and_updates(host: Stage, demo: Demo) -> None:
    first, second = host.run(SETUP), host.run(SETUP)
    edit(host, '"redis.ttl": "60"', '"redis.ttl": "120"')
    third = host.run(SETUP)
    said = [done.stdout.splitlines() for done in (first, second, third)]
    assert [lines[0] for lines in said] == [f"Connector {NAME}: {verb}" for verb in ("created", "unchanged", "updated")]
    assert [done.returncode for done in (first, second, third)] == [0, 0, 0]
    for lines in said:
        status = json.loads(lines[1])
        assert status["connector"]["state"] == "RUNNING"
        assert [task["state"] for task in status["tasks"]] == ["RUNNING"]


def test_a_number_in_the_file_is_what_connect_stores_as_text(host: Stage, demo: Demo) -> None:
    edit(host, '"redis.ttl": "60"', '"redis.ttl": 60')
    assert [host.run(SETUP).stdout.splitlines()[0] for _ in range(2)] == [f"Connector {NAME}: created", f"Connector {NAME}: unchanged"]


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('"redis.ttl": "60",', '"redis.ttl": "120" // 120', "line 10, column 24"),
        ('"redis.ttl": "60",', '"redis.ttl": "60"', "line 11, column 5"),
        ('"redis.ttl": "60",', '"redis.ttl": "60,', "line 10, column 22"),
    ],
    ids=["a comment", "a missing comma", "a missing quote"],
)
def test_a_broken_file_is_refused_with_line_and_column(beside_demo: Stage, demo: Demo, old: str, new: str, place: str) -> None:
    demo.delete_connectors()
    edit(beside_demo, old, new)
    done = beside_demo.run(SETUP)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{NAME}.json: {place}: " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert demo.connectors() == []


@pytest.mark.parametrize("comment", ["", " // 120"])
def test_every_reader_names_the_place_in_one_form(host: Stage, demo: Demo, comment: str) -> None:
    edit(host, '"redis.ttl": "60",', f'"redis.ttl": "60"{comment}')
    done = host.run(SETUP)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{NAME}.json: line {10 if comment else 11}, column " in done.stderr
    assert done.stderr.endswith("; JSON has no comments\n") is bool(comment)
    assert len(done.stderr.splitlines()) == 1
    assert demo.connectors() == []


@pytest.mark.parametrize("text", ["", "[]", '{"name": "x"}', '{"config": {}}'])
def test_a_file_that_is_no_connector_is_refused(host: Stage, demo: Demo, text: str) -> None:
    (host.root / FILE).write_text(text)
    done = host.run(SETUP)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("after", ["}", "{}", '{"name": "x", "config": {}}'], ids=["a brace", "an empty object", "another connector"])
def test_what_follows_the_object_is_refused_and_no_password_is_shown(host: Stage, demo: Demo, after: str) -> None:
    edit(host, '"redis.ttl": "60",', '"redis.ttl": "60", "redis.password": "hunter2",')
    with (host.root / FILE).open("a") as file:
        file.write(after)
    done = host.run(SETUP)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stderr
    assert demo.connectors() == []


def test_nothing_is_applied_if_one_of_the_files_is_broken(beside_demo: Stage, demo: Demo) -> None:
    demo.delete_connectors()
    broken = beside_demo.root / "config" / "broken.json"
    broken.write_text("{")
    assert beside_demo.run(SETUP, FILE, str(broken)).returncode == 1
    assert demo.connectors() == []


def test_a_config_that_connect_refuses_is_told_in_its_words(host: Stage, demo: Demo) -> None:
    edit(host, '"redis.port": "6379"', '"redis.port": "many"')
    done = host.run(SETUP)
    assert done.returncode == 1
    assert f"refuses {NAME} (400): Connector configuration is invalid" in done.stderr
    assert "redis.port" in done.stderr
    assert demo.connectors() == []


def test_a_service_that_beats_every_half_hour_has_a_connector_of_its_own(beside_demo: Stage, demo: Demo) -> None:
    demo.delete_connectors()
    done = beside_demo.run(SETUP, FILE, "config/service-heartbeat-sink.json")
    assert done.returncode == 0, done.stderr
    assert demo.connectors() == [NAME, "service-heartbeat-sink"]
    assert beside_demo.run("scripts/batch-job-example.sh", "true").returncode == 0
    eventually(lambda: 60 < int(demo.redis("TTL", "service-heartbeat")) <= 2100, "the service's key outlives its half hour")
    eventually(lambda: 0 < int(demo.redis("TTL", "heartbeat")) <= 60, "and the other key does not")


def test_it_waits_for_a_worker_that_comes_later(beside_demo: Stage, demo: Demo) -> None:
    demo.delete_connectors()
    port = free_port()
    with beside_demo.running(SETUP, CONNECT_URL=f"http://127.0.0.1:{port}") as setup:
        setup.says("Waiting for Kafka Connect")
        with Forward(port, demo.rest.removeprefix("http://")):
            assert setup.process.wait(30) == 0, setup.text()
        setup.says(f"Connector {NAME}: created")


def test_a_proxy_for_the_world_is_not_asked_for_connect(beside_demo: Stage, demo: Demo) -> None:
    demo.delete_connectors()
    done = beside_demo.run(SETUP, http_proxy=f"http://127.0.0.1:{free_port()}", SETUP_WAIT_S="1")
    assert done.returncode == 0, done.stderr


def test_it_does_not_wait_for_ever(stage: Stage) -> None:
    stage.play("python3", f'exec {sys.executable} "$@"')
    done = stage.run(SETUP, CONNECT_URL=f"http://127.0.0.1:{free_port()}", SETUP_WAIT_S="1")
    assert done.returncode == 3
    assert "did not answer within 1 s" in done.stderr


def test_it_creates_the_topics_where_kafka_tools_are(beside_demo: Stage, demo: Demo, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    beside_demo.play("kafka-topics", f'echo "$@" >>{calls}; [ -e {calls}.second ] || echo "Created topic x."; touch {calls}.second')
    beside_demo.add("touch")
    said = [beside_demo.run(SETUP, KAFKA_BOOTSTRAP="kafka:29092").stdout.splitlines()[0] for _ in range(2)]
    assert said == ["Topic heartbeat-topic: created", "Topic heartbeat-topic: exists"]
    assert calls.read_text().splitlines()[0] == (
        "--bootstrap-server kafka:29092 --create --if-not-exists --topic heartbeat-topic --partitions 1 --replication-factor 1"
    )


def test_a_topic_that_cannot_be_created_ends_it(beside_demo: Stage, demo: Demo) -> None:
    demo.delete_connectors()
    beside_demo.play("kafka-topics", "echo 'Broker may not be available.' >&2; exit 1")
    done = beside_demo.run(SETUP, KAFKA_BOOTSTRAP="kafka:29092")
    assert done.returncode == 3
    assert "Broker may not be available." in done.stderr
    assert demo.connectors() == []
