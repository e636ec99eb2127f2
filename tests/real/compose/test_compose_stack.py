"""The stack as it is shipped: what it promises of its containers and images, and that it recovers from what happens to them."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import heartbeat

from ..programs import eventually, missing
from .engine import Engine, docker
from .stack import ROOT, SERVICES, Stack

EXPORTER = Path(__file__).parent / "exporter"
OWN_LAYERS_MB = 90
LAPTOP_MB = 3072
VOLUMES = {"zookeeper-data", "zookeeper-log", "kafka-data", "redis-data", "connect-config"}
DOCKERFILES = (ROOT / "Dockerfile", ROOT / "docker" / "test-runner" / "Dockerfile")
MINUTE_NS = 60_000_000_000


@pytest.fixture(scope="module")
def containers(stack: Stack) -> dict[str, Any]:
    """What the engine knows about each service's container."""
    return {service: stack.container(service) for service in SERVICES}


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_is_checked_restarted_bounded_and_not_privileged(containers: dict[str, Any], service: str) -> None:
    container = containers[service]
    host = container["HostConfig"]
    assert container["State"]["Health"]["Status"] == "healthy"
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["Init"] is True
    assert host["Privileged"] is False
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Memory"] > 0
    bindings = [binding for port in (host["PortBindings"] or {}).values() for binding in port]
    assert {binding["HostIp"] for binding in bindings} <= {"127.0.0.1"}


def test_all_of_it_fits_a_laptop(containers: dict[str, Any]) -> None:
    assert sum(container["HostConfig"]["Memory"] for container in containers.values()) <= LAPTOP_MB << 20


def test_a_health_check_that_starts_a_jvm_is_small_and_rare(containers: dict[str, Any]) -> None:
    environment = dict(entry.split("=", 1) for entry in containers["kafka"]["Config"]["Env"])
    assert environment["KAFKA_HEAP_OPTS"].endswith("-Xmx384m")
    check = containers["kafka"]["Config"]["Healthcheck"]
    assert "KAFKA_HEAP_OPTS=-Xmx64m" in " ".join(check["Test"])
    assert check["Interval"] >= MINUTE_NS


def test_the_usual_ports_are_published_unless_others_are_asked_for(stack: Stack) -> None:
    variables = {name: value for name, value in stack.environment.items() if not name.endswith("_PORT")}
    plain = Stack(stack.project, stack.directory)
    plain.environment = variables
    services = json.loads(plain.compose("--profile", "metrics", "config", "--format", "json"))["services"]
    published = {name: [(port["host_ip"], port["published"]) for port in service.get("ports", [])] for name, service in services.items()}
    assert {name: ports for name, ports in published.items() if ports} == {
        "kafka": [("127.0.0.1", "9092")],
        "redis": [("127.0.0.1", "6379")],
        "kafka-connect": [("127.0.0.1", "8083")],
        "redis-exporter": [("127.0.0.1", "9121")],
    }
    assert services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"] == "INTERNAL://kafka:29092,HOST://127.0.0.1:9092"


def test_our_worker_is_no_root_and_writes_nothing_but_its_volume(containers: dict[str, Any], stack: Stack) -> None:
    assert containers["kafka-connect"]["HostConfig"]["ReadonlyRootfs"] is True
    assert stack.exec("kafka-connect", "id", "-u") == "10001"
    told = containers["kafka-connect"]["Config"]["Env"]
    assert not [entry for entry in told if entry.startswith("PYTHONDONTWRITEBYTECODE")]
    compiled = (
        "import sys, pathlib, heartbeat as h; p = pathlib.Path(h.__file__).parent; print(len([*p.rglob('*.py')]), len([*p.rglob('*.pyc')]))"
    )
    sources, bytecode = map(int, stack.exec("kafka-connect", "python", "-c", compiled).split())
    assert sources == bytecode > 20


def test_our_image_says_what_it_is_and_adds_little_to_its_base(stack: Stack) -> None:
    image = json.loads(docker("image", "inspect", f"{stack.project}-kafka-connect"))[0]
    base = json.loads(docker("image", "inspect", "python:3.11-slim"))[0]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in image["Config"]["Labels"].items()}
    assert labels["version"] == heartbeat.__version__
    assert labels["title"] == "redis-heartbeat-sink"
    assert labels["licenses"] == "Apache-2.0"
    assert image["RootFS"]["Layers"][: len(base["RootFS"]["Layers"])] == base["RootFS"]["Layers"]
    assert image["Size"] - base["Size"] <= OWN_LAYERS_MB * 1_000_000


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_our_dockerfiles_build_on_nothing_of_third_party_images(dockerfile: Path) -> None:
    text = dockerfile.read_text(encoding="utf-8")
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) <= {"python:3.11-slim", "debian:bookworm-slim"}
    stages = dict(re.findall(r"^FROM (\S+)[^\n]*\n(.*?)(?=^FROM |\Z)", text, re.MULTILINE | re.DOTALL))
    assert not re.search(r"\b(apt|apt-get|apk|microdnf|yum)\b", stages.get("python:3.11-slim", ""))
    sources = re.findall(r"--from=(\S+)", text)
    assert set(sources) <= set(re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE))


def test_the_health_check_of_our_image_tells_a_deaf_worker(stack: Stack) -> None:
    check = "CONNECT_LISTENERS=http://127.0.0.1:{} python /opt/heartbeat/healthcheck.py || echo failed"
    assert "200 OK" in stack.exec("kafka-connect", "sh", "-c", check.format(8083))
    assert stack.exec("kafka-connect", "sh", "-c", check.format(8084)).endswith("failed")


def test_prometheus_can_read_the_key(stack: Stack, engine: Engine) -> None:
    stack.wait_for_beat(beat_ms := stack.produce("measured"))
    if engine.stand_in:
        image = "heartbeat-test-exporter"
        docker("build", "-q", "-t", image, str(EXPORTER), timeout_s=300)
        stack.environment["HEARTBEAT_EXPORTER_IMAGE"] = image
    stack.compose("--profile", "metrics", "up", "-d", "--wait", "redis-exporter")
    try:
        label = r'\{db="db0",key="heartbeat"\}'
        (value,) = re.findall(rf"^redis_key_value{label} (\S+)$", scrape(stack), re.MULTILINE)
        assert 0 <= float(value) - beat_ms <= 2_000
        stack.redis("DEL", "heartbeat")
        gone = scrape(stack)
        assert re.search(rf"^redis_key_size{label} 0$", gone, re.MULTILINE)
        assert "redis_key_value" not in gone
    finally:
        stack.compose("--profile", "metrics", "rm", "-sf", "redis-exporter")


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_process_comes_back_and_no_beat_is_missed(stack: Stack, service: str) -> None:
    before = stack.container(service)
    os.kill(main_process(before), signal.SIGKILL)
    beat_ms = stack.produce(f"while {service} is away")

    def is_back() -> bool:
        now = stack.container(service)
        return bool(now["RestartCount"] > before["RestartCount"] and now["State"].get("Health", {}).get("Status") == "healthy")

    eventually(is_back, f"{service} is healthy again", timeout_s=90)
    stack.wait_for_running()
    stack.wait_for_beat(beat_ms)
    stack.wait_for_beat(stack.produce(f"after {service} has come back"))
    assert {stack.container(other)["State"]["Status"] for other in SERVICES} == {"running"}


def test_down_and_up_again_keeps_everything_and_leaves_no_other_volume(stack: Stack) -> None:
    other = set(docker("volume", "ls", "-q", "--filter", "dangling=true").split())
    assert stack.redis("SET", "kept", "by appendonly") == "OK"
    stack.down()
    assert stack.volumes() == VOLUMES
    assert {name for name in docker("volume", "ls", "-q").split() if len(name) == 64} <= other
    stack.up()
    stack.wait_for_running()
    assert "unchanged" in stack.set_up()
    assert stack.redis("GET", "kept") == "by appendonly"
    stack.wait_for_beat(stack.produce("after the return"))


def test_down_with_v_forgets_everything(stack: Stack) -> None:
    stack.down("-v")
    assert stack.volumes() == set()
    stack.up()
    assert stack.rest("/connectors") == []
    assert stack.redis("DBSIZE") == "0"
    assert "created" in stack.set_up()


def scrape(stack: Stack) -> str:
    """Return the exporter's metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.ports.exporter}/metrics", timeout=10) as reply:
        return str(reply.read().decode())


def main_process(container: Any) -> int:
    """Return the pid, on this machine, of the process that a container is for: the child of its init."""
    init = container["State"]["Pid"]
    try:
        children = Path(f"/proc/{init}/task/{init}/children").read_text().split()
    except OSError:
        missing("the containers' processes", "the engine must run on this machine, and the test as root")
    assert len(children) == 1, f"{container['Name']}: init has {children}"
    if container["Id"] not in Path(f"/proc/{children[0]}/cgroup").read_text():  # an engine elsewhere: that pid is a stranger's here
        missing("the containers' processes", "the engine must run on this machine")
    return int(children[0])
