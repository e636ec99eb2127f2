"""run.sh: which way it goes, and what it leaves behind when Docker will not. Docker itself is played, in its own words."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from tests.real.programs import free_port

from .conftest import Demo
from .stage import HEARTBEAT, Stage, eventually

DOCKER = """
echo "$*" >>"$PLAY/calls"
name=$1
if [ "$1" = compose ]; then
  shift
  if [ "$1" = --profile ]; then shift 2; fi
  name=compose-$1
fi
if [ -f "$PLAY/$name.out" ]; then cat "$PLAY/$name.out"; fi
if [ -f "$PLAY/$name.err" ]; then cat "$PLAY/$name.err" >&2; fi
if [ -f "$PLAY/$name.waits" ]; then sleep 60; fi
if [ -f "$PLAY/$name.code" ]; then exit "$(cat "$PLAY/$name.code")"; fi
"""
MODEL = """\
name: sink
services:
  kafka-connect:
    build:
      context: /somewhere
    ports:
      - mode: ingress
        host_ip: 127.0.0.1
        target: 8083
        published: "{rest}"
        protocol: tcp
  redis:
    image: redis:7-alpine
    ports:
      - mode: ingress
        host_ip: 127.0.0.1
        target: 6379
        published: "{redis}"
        protocol: tcp
"""
NO_REGISTRY = 'Get "https://registry.example/v2/": dial tcp: lookup registry.example on 10.0.0.53:53: no such host'
NO_ENGINE = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
UP = "compose up -d --wait --wait-timeout 300"
SETUP = "compose exec -T test-runner /scripts/setup.sh"
DOWN = "compose down --remove-orphans"


@dataclass(frozen=True, slots=True)
class Docker:
    """What the played docker answers, and what it was asked."""

    stage: Stage
    play: Path
    rest: int
    redis: int

    def answers(self, command: str, *, out: str = "", err: str = "", code: int = 0) -> None:
        """Say how the engine answers ``docker compose up`` (written ``compose-up``) and its like."""
        for suffix, text in (("out", out), ("err", err), ("code", str(code))):
            (self.play / f"{command}.{suffix}").write_text(text)

    def calls(self) -> list[str]:
        """What changes something, in the order in which it was asked for."""
        reading = ("version", "compose version", "compose config", "compose ps", "compose --profile * ps", "compose logs", "volume ls")
        lines = (self.play / "calls").read_text().splitlines() if (self.play / "calls").exists() else []
        return [line for line in lines if not line.startswith(reading)]

    def run(self, *arguments: str) -> CompletedProcess[str]:
        return self.stage.run("run.sh", *arguments)


@pytest.fixture
def clone(stage: Stage) -> Stage:
    """A clone whose installation is done and whose ``heartbeat`` says only what it was asked."""
    (stage.root / "scripts" / "install.sh").write_text("#!/bin/bash\n")
    programs = stage.root / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "heartbeat").write_text('#!/bin/bash\necho "heartbeat $*"\n')
    (programs / "heartbeat").chmod(0o755)
    return stage


@pytest.fixture
def docker(clone: Stage, tmp_path: Path) -> Docker:
    """An engine with Compose, on which nothing runs yet and everything works."""
    play = tmp_path / "play"
    play.mkdir()
    clone.play("docker", f"PLAY={play}\n{DOCKER}")
    rest, redis = free_port(), free_port()
    docker = Docker(clone, play, rest, redis)
    docker.answers("compose-config", out=MODEL.format(rest=rest, redis=redis))
    docker.answers("compose-exec", out="Connector redis-heartbeat-sink: created\n")
    return docker


def refusal(done: CompletedProcess[str]) -> str:
    """The one line on standard error."""
    (line,) = done.stderr.splitlines()
    return line


def test_with_docker_it_builds_starts_sets_up_and_says_what_to_try(docker: Docker) -> None:
    done = docker.run()
    assert done.returncode == 0, done.stderr
    assert docker.calls() == ["compose build", UP, SETUP]
    assert "Connector redis-heartbeat-sink: created" in done.stdout
    assert f"curl http://localhost:{docker.rest}/connectors/redis-heartbeat-sink/status" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("command", "words", "why"),
    [
        ("version", NO_ENGINE, "its engine does not answer"),
        ("version", "permission denied while trying to connect to the Docker daemon socket", "may not use Docker"),
        ("compose-version", "docker: 'compose' is not a docker command.", "no Compose plugin"),
    ],
)
def test_a_docker_that_does_not_answer_means_embedded_mode_or_a_refusal(docker: Docker, command: str, words: str, why: str) -> None:
    docker.answers(command, err=words, code=1)
    chosen = docker.run()
    assert chosen.returncode == 0
    assert chosen.stdout.splitlines()[-1] == "heartbeat demo"
    assert why in chosen.stdout
    forced = docker.run("--docker")
    assert forced.returncode == 2
    assert why in refusal(forced)
    assert "./run.sh --embedded" in refusal(forced)
    assert docker.calls() == []


def test_without_docker_it_is_embedded_mode(clone: Stage) -> None:
    done = clone.run("run.sh")
    assert "Docker is not installed: embedded mode instead." in done.stdout
    assert done.stdout.splitlines()[-1] == "heartbeat demo"
    assert clone.run("run.sh", "--docker").returncode == 2


@pytest.mark.parametrize("options", [["--embedded", "--every", "2"], ["--every", "2"]])
def test_embedded_mode_and_its_options_do_not_ask_docker(docker: Docker, options: list[str]) -> None:
    assert docker.run(*options).stdout.splitlines()[-1] == "heartbeat demo --every 2"
    assert not (docker.play / "calls").exists()


def test_options_of_embedded_mode_are_refused_for_docker(docker: Docker) -> None:
    done = docker.run("--docker", "--every", "2")
    assert done.returncode == 1
    assert "--every is for embedded mode" in refusal(done)


@pytest.mark.parametrize(("usual", "variable"), [("rest", "HEARTBEAT_REST_PORT=18083"), ("redis", "HEARTBEAT_REDIS_PORT=16379")])
def test_a_taken_port_is_named_before_anything_is_built(docker: Docker, usual: str, variable: str) -> None:
    port = docker.rest if usual == "rest" else docker.redis
    with socket.create_server(("127.0.0.1", port)):
        done = docker.run()
    assert done.returncode == 3
    assert f"port {port} is taken" in refusal(done)
    assert variable in refusal(done)
    assert docker.calls() == []


def test_a_stack_that_runs_already_has_its_ports_and_is_brought_up_to_date(docker: Docker) -> None:
    docker.answers("compose-ps", out="0123456789ab\n")
    with socket.create_server(("127.0.0.1", docker.rest)):
        done = docker.run()
    assert done.returncode == 0, done.stderr
    assert docker.calls() == ["compose build", UP, SETUP]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            f"failed to solve: debian:bookworm-slim: failed to resolve source metadata for registry.example/x: {NO_REGISTRY}",
            "debian:bookworm-slim could",
        ),
        ("failed to solve: write /var/lib/docker/tmp/x: no space left on device", "the disk is full: `docker system df`"),
        ('failed to solve: process "/bin/sh -c mvn" did not complete successfully: exit code: 1', "did not complete successfully"),
    ],
)
def test_a_build_that_fails_is_told_in_one_line_and_nothing_is_started(docker: Docker, words: str, expected: str) -> None:
    docker.answers("compose-build", err=f"#1 [internal] load build definition\n{words}\n", code=17)
    done = docker.run()
    assert done.returncode == 3
    assert expected in refusal(done)
    assert UP not in docker.calls()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            f" redis Pulling \n redis Error {NO_REGISTRY}\nError response from daemon: {NO_REGISTRY}",
            "the image of redis could not be pulled",
        ),
        ("Error response from daemon: pull access denied for nosuch/image, repository does not exist", "nosuch/image could not be pulled"),
        ("Error response from daemon: toomanyrequests: You have reached your pull rate limit.", "an image could not be pulled"),
        ("Error starting userland proxy: listen tcp4 127.0.0.1:{rest}: bind: address already in use", "HEARTBEAT_REST_PORT=18083"),
        ("Bind for 127.0.0.1:{rest} failed: port is already allocated", "port {rest} is taken"),
        ("mkdir /var/lib/docker/overlay2/1: no space left on device", "the disk is full"),
        ("dependency failed to start: container sink-kafka-connect-1 is unhealthy", "kafka-connect did not become healthy"),
        ("container sink-redis-1 exited (1)", "redis did not become healthy"),
        ("application not healthy after 300s", "application not healthy after 300s"),
    ],
)
def test_a_start_that_fails_is_told_in_one_line_and_taken_away(docker: Docker, words: str, expected: str) -> None:
    docker.answers("compose-up", err=words.format(rest=docker.rest) + "\n", code=1)
    done = docker.run()
    assert done.returncode == 3
    assert expected.format(rest=docker.rest) in refusal(done)
    assert docker.calls() == ["compose build", UP, f"{DOWN} -v"]


def test_an_interrupted_start_is_taken_away(docker: Docker) -> None:
    (docker.play / "compose-up.waits").touch()
    with docker.stage.running("run.sh") as run:
        eventually(lambda: UP in docker.calls(), "it starts the stack")
        os.killpg(run.process.pid, signal.SIGINT)  # what a terminal does for Ctrl-C
        assert run.process.wait(30) == 130, run.text()
        run.says("run.sh: interrupted")
    assert docker.calls()[-1] == f"{DOWN} -v"


def test_a_failed_start_costs_no_data_that_was_there_before(docker: Docker) -> None:
    docker.answers("volume", out="sink_redis-data\n")
    docker.answers("compose-up", err="application not healthy after 300s\n", code=1)
    assert docker.run().returncode == 3
    assert docker.calls()[-1] == DOWN


def test_a_failed_update_leaves_the_running_stack_alone(docker: Docker) -> None:
    docker.answers("compose-ps", out="0123456789ab\n")
    docker.answers("compose-up", err="application not healthy after 300s\n", code=1)
    assert docker.run().returncode == 3
    assert docker.calls() == ["compose build", UP]


def test_a_connector_that_cannot_be_set_up_takes_the_first_start_back(docker: Docker) -> None:
    docker.answers("compose-exec", err="setup.sh: /config/redis-heartbeat-sink.json: line 10, column 24: Expecting ',' delimiter\n", code=1)
    done = docker.run()
    assert done.returncode == 1
    assert "line 10, column 24" in done.stderr
    assert docker.calls()[-1] == f"{DOWN} -v"


def test_a_compose_file_that_compose_refuses_is_told_in_its_words(docker: Docker) -> None:
    docker.answers("compose-config", err="services.kafka Additional property is not allowed\n", code=15)
    done = docker.run()
    assert done.returncode == 2
    assert "Additional property is not allowed" in refusal(done)


@pytest.mark.parametrize(("data", "said"), [([], "its data stays"), (["-v"], "and its data")])
def test_down_takes_the_stack_away_and_with_v_its_data(docker: Docker, data: list[str], said: str) -> None:
    docker.answers("compose-ps", out="0123456789ab\n")
    done = docker.run("down", *data)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert docker.calls() == [" ".join(["compose --profile * down --remove-orphans", *data])]


def test_down_v_takes_the_data_of_a_stack_that_is_down_already(docker: Docker) -> None:
    docker.answers("volume", out="sink_redis-data\nsink_kraft-data\n")
    assert docker.run("down").stdout == "Nothing is running here.\n"
    assert "and its data" in docker.run("down", "-v").stdout
    # Compose leaves those of another file alone; what is still listed goes by its name.
    assert docker.calls() == ["compose --profile * down --remove-orphans -v", "volume rm sink_redis-data sink_kraft-data"]


@pytest.mark.parametrize("command", ["compose-ps", "volume"])
@pytest.mark.parametrize("arguments", [[], ["down", "-v"]], ids=["up", "down"])
def test_an_engine_that_does_not_answer_has_not_said_that_there_is_nothing(docker: Docker, command: str, arguments: list[str]) -> None:
    docker.answers(command, err="Error response from daemon: i/o timeout\n", code=1)
    done = docker.run(*arguments)
    assert done.returncode == 3
    assert "does not answer: Error response from daemon: i/o timeout" in refusal(done)
    assert docker.calls() == []


def test_down_without_an_installation_leaves_embedded_mode_and_takes_the_stack_away(docker: Docker, demo: Demo) -> None:
    shutil.rmtree(docker.stage.root / ".venv")
    docker.answers("compose-ps", out="0123456789ab\n")
    done = docker.stage.run("run.sh", "down", TMPDIR=str(demo.tmp))
    assert done.returncode == 0
    assert "heartbeat is not installed here: kill " in refusal(done)
    assert docker.calls() == ["compose --profile * down --remove-orphans"]


def test_down_says_that_nothing_runs(clone: Stage) -> None:
    done = clone.run("run.sh", "down")
    assert (done.returncode, done.stdout) == (0, "Nothing is running here.\n")


def test_down_that_docker_refuses_is_a_failure(docker: Docker) -> None:
    docker.answers("compose-ps", out="0123456789ab\n")
    docker.answers("compose-down", err="error while removing network: has active endpoints\n", code=1)
    done = docker.run("down")
    assert done.returncode == 3
    assert "has active endpoints" in refusal(done)


def test_embedded_mode_has_the_ports_and_down_ends_it(docker: Docker, demo: Demo) -> None:
    with socket.create_server(("127.0.0.1", docker.rest)):
        done = docker.stage.run("run.sh", TMPDIR=str(demo.tmp))
    assert "embedded mode is running. ./run.sh down ends it" in refusal(done)
    assert docker.stage.run("run.sh", "down", TMPDIR=str(demo.tmp)).stdout == "heartbeat demo --stop\n"


@pytest.fixture
def installed(stage: Stage) -> Iterator[Stage]:
    """A clone whose installation is done."""
    (stage.root / "scripts" / "install.sh").write_text("#!/bin/bash\n")
    (stage.root / ".venv").symlink_to(HEARTBEAT.parents[1])
    environment = {name: value for name, value in stage.environment.items() if not name.startswith("HEARTBEAT_")}  # they would win
    stage = dataclasses.replace(stage, environment=environment)
    yield stage
    stage.run("run.sh", "down")


def test_embedded_mode_runs_in_the_background_until_down(installed: Stage) -> None:
    ports = [word for option in ("kafka", "redis", "rest") for word in (f"--{option}-port", str(free_port()))]
    up = installed.run("run.sh", "--embedded", "-d", *ports)
    assert up.returncode == 0, up.stderr
    assert "Running in the background" in up.stdout
    assert "ALIVE" in installed.run("scripts/check-redis.sh").stdout
    again = installed.run("run.sh", "--embedded", "-d", *ports)
    assert again.returncode == 3
    assert refusal(again) == "run.sh: embedded mode is running already: ./run.sh down ends it"
    assert installed.run("run.sh", "down").stdout == "The demo has stopped.\n"
    assert installed.run("run.sh", "down").stdout == "Nothing is running here.\n"


def test_without_a_producer_the_background_is_ready_when_it_runs(installed: Stage) -> None:
    ports = [word for option in ("kafka", "redis", "rest") for word in (f"--{option}-port", str(free_port()))]
    up = installed.run("run.sh", "--embedded", "-d", "--no-producer", *ports)
    assert up.returncode == 0, up.stderr
    assert f"127.0.0.1:{ports[3]}" in up.stdout
    assert "Running in the background" in up.stdout


@pytest.mark.parametrize("said", ["UP: Heartbeat TTL: 60s", "LATE: Heartbeat TTL low: 4s"])
def test_a_beat_with_a_short_ttl_is_a_beat(clone: Stage, said: str) -> None:
    (clone.root / ".venv" / "bin" / "heartbeat").write_text(
        f"#!/bin/bash\necho 'Running on this machine only'\necho '{said}'\nexec sleep 10\n"
    )
    done = clone.run("run.sh", "--embedded", "-d")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Running in the background" in done.stdout


def test_a_demo_without_a_beat_is_ended(clone: Stage, tmp_path: Path) -> None:
    told = "echo 'Running on this machine only'; echo 'NEW: no beat yet'"
    script = f"#!/bin/bash\necho $$ >{tmp_path}/pid\n{told}\nexec sleep 60\n"
    (clone.root / ".venv" / "bin" / "heartbeat").write_text(script)
    done = clone.run("run.sh", "--embedded", "-d", DEMO_WAIT_S="2")
    assert done.returncode == 3
    assert "embedded mode was ended: no beat reached Redis in 2 s" in refusal(done)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("arguments", [["stop"], ["--embedded", "--every", "2", "dwon"], ["down", "everything"], ["--no-producer", "1"]])
def test_a_word_that_means_nothing_is_refused_before_anything_is_done(docker: Docker, arguments: list[str]) -> None:
    (docker.stage.root / "scripts" / "install.sh").write_text("#!/bin/bash\ntouch installed\n")
    done = docker.run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert refusal(done).startswith(f"run.sh: {arguments[-1]} is nothing that can be done")
    assert not (docker.stage.root / "installed").exists()
    assert not (docker.play / "calls").exists()


def test_embedded_mode_names_a_taken_port(installed: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = installed.run("run.sh", "--embedded", "-d", "--kafka-port", port)
    assert done.returncode == 3
    assert f"Cannot listen on port {port} of 127.0.0.1: it is already in use; choose another with --kafka-port." in refusal(done)
