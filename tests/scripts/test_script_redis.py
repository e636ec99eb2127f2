"""check-redis.sh and heartbeat-monitor.sh: what they say of a key, and whom they tell."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.real.programs import free_port

from .conftest import Demo
from .stage import Stage, eventually

CHECK = "scripts/check-redis.sh"
MONITOR = "scripts/heartbeat-monitor.sh"
ALERT = "⚠️  ALERT: Heartbeat key expired! System may be down."
UNKNOWN = "❔ UNKNOWN: Redis does not answer; nothing can be said about the heartbeat."


@pytest.fixture(params=["heartbeat", "redis-cli"])
def host(request: pytest.FixtureRequest, beside_demo: Stage) -> Stage:
    """Each client in turn."""
    if request.param == "redis-cli":
        if shutil.which("redis-cli") is None:
            pytest.skip("redis-cli is missing: apt install redis-tools")
        beside_demo.add("redis-cli")
    return beside_demo


@contextmanager
def mute_server() -> Iterator[int]:
    """A port where connections are accepted and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_check_shows_value_ttl_and_age_of_a_live_key(host: Stage, demo: Demo) -> None:
    stamp = int(time.time() * 1000) - 7_000
    demo.redis("SET", "heartbeat", str(stamp), "EX", "50")
    done = host.run(CHECK)
    assert done.returncode == 0, done.stderr
    alive, value, ttl = done.stdout.splitlines()
    assert alive == f"✅ ALIVE: heartbeat in Redis at 127.0.0.1:{demo.redis_port}"
    seen = re.fullmatch(rf"Value: {stamp} \(\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d, (\d+) s ago\)", value)
    assert seen
    assert 6 <= int(seen[1]) <= 60
    left = re.fullmatch(r"TTL:   (\d+) s left", ttl)
    assert left
    assert 0 <= int(left[1]) <= 50


def test_check_takes_another_key(host: Stage, demo: Demo) -> None:
    demo.redis("SET", "my-service-heartbeat", "1755138932496", "EX", "50")
    assert host.run(CHECK, "my-service-heartbeat").returncode == 0
    assert host.run(CHECK, REDIS_KEY="my-service-heartbeat").returncode == 0
    assert host.run(CHECK).returncode == 1


def test_check_says_that_a_key_has_expired(host: Stage) -> None:
    done = host.run(CHECK)
    assert done.returncode == 1
    assert "EXPIRED" in done.stdout


def test_check_knows_nothing_of_a_key_without_ttl(host: Stage, demo: Demo) -> None:
    demo.redis("SET", "heartbeat", "mine")
    done = host.run(CHECK)
    assert done.returncode == 2
    assert "somebody else wrote it" in done.stdout


@pytest.mark.parametrize("value", ["mine", "0175513893249", "175513893249", "17551389324960", "1755138932496 "])
def test_check_knows_nothing_of_a_value_that_is_no_beat(host: Stage, demo: Demo, value: str) -> None:
    demo.redis("SET", "heartbeat", value, "EX", "50")
    done = host.run(CHECK)
    assert done.returncode == 2
    assert "written by somebody else" in done.stdout


def test_check_knows_nothing_of_a_key_of_another_type(host: Stage, demo: Demo) -> None:
    demo.redis("RPUSH", "heartbeat", "1755138932496")
    demo.redis("EXPIRE", "heartbeat", "50")
    done = host.run(CHECK)
    assert done.returncode == 2
    assert "written by somebody else" in done.stdout
    assert "WRONGTYPE" in done.stdout


@pytest.mark.parametrize("variable", ["REDIS_HOST", "REDIS_PORT", "HEARTBEAT_REDIS_PORT"])
def test_an_address_that_is_given_wins_over_embedded_mode(beside_demo: Stage, demo: Demo, variable: str) -> None:
    demo.redis("SET", "heartbeat", "1755138932496", "EX", "50")
    port = str(free_port())
    (beside_demo.root / ".env").write_text(f"OTHER=1\n{variable}={port}\nHEARTBEAT_REDIS_PORT='{port}' # taken\n")
    assert beside_demo.run(CHECK).returncode == 0
    done = beside_demo.run(CHECK, **{variable: "127.0.0.1" if variable == "REDIS_HOST" else port})
    assert done.returncode == 2
    assert f"Redis at 127.0.0.1:{port} does not answer" in done.stdout


@pytest.mark.parametrize("flock", [True, False])
def test_what_a_dead_embedded_mode_left_is_no_address(stage: Stage, flock: bool) -> None:
    if flock:
        if shutil.which("flock") is None:
            pytest.skip("flock is missing: apt install util-linux")
        stage.add("flock")
    stage.play("redis-cli", "exit 1")
    # With flock, not even a process that has this number now makes it alive.
    pid = os.getpid() if flock else 2**22 + 1
    left = stage.root.parent / "tmp" / f"redis-heartbeat-sink-{os.getuid()}-{pid}.json"
    left.write_text(f'{{"pid":{pid},"kafka":"127.0.0.1:1","redis_host":"127.0.0.1","redis_port":1,"rest":"http://127.0.0.1:1"}}')
    assert "Redis at 127.0.0.1:6379 does not answer" in stage.run(CHECK, HEARTBEAT_REDIS_PORT="").stdout
    (stage.root / ".env").write_text("HEARTBEAT_REST_PORT=1\nHEARTBEAT_REDIS_PORT='16379' # 6379 is taken\n")
    assert "Redis at 127.0.0.1:16379 does not answer" in stage.run(CHECK, HEARTBEAT_REDIS_PORT="").stdout


def test_a_living_embedded_mode_is_known_by_its_lock(beside_demo: Stage, demo: Demo) -> None:
    if shutil.which("flock") is None:
        pytest.skip("flock is missing: apt install util-linux")
    beside_demo.add("flock")
    assert f"Redis at 127.0.0.1:{demo.redis_port}" in beside_demo.run(CHECK).stdout


def test_check_knows_nothing_where_redis_does_not_answer(host: Stage) -> None:
    done = host.run(CHECK, REDIS_PORT=str(free_port()))
    assert done.returncode == 2
    assert "UNKNOWN" in done.stdout


def test_check_does_not_wait_for_ever_for_a_redis_that_says_nothing(host: Stage) -> None:
    with mute_server() as port:
        done = host.run(CHECK, REDIS_PORT=str(port))
    assert done.returncode == 2


@pytest.mark.parametrize("script", [CHECK, MONITOR])
def test_a_machine_without_any_client_is_told_what_to_install(stage: Stage, script: str) -> None:
    done = stage.run(script)
    assert done.returncode == 2
    assert "apt install redis-tools" in done.stderr


def test_monitor_says_ok_warning_alert_and_unknown(host: Stage, demo: Demo) -> None:
    demo.redis("SET", "heartbeat", "1", "EX", "60")
    with host.running(MONITOR, CHECK_EVERY_S="1") as monitor:
        monitor.says("✅ OK: Heartbeat TTL: ")

        def warned() -> bool:
            demo.redis("SET", "heartbeat", "1", "EX", "9")  # again and again: the monitor may take longer than this to look
            return "🟡 WARNING: Heartbeat TTL low: " in monitor.text()

        eventually(warned, "a warning")
        demo.redis("DEL", "heartbeat")
        monitor.says(ALERT)
        demo.redis("SET", "heartbeat", "1")
        monitor.says("❔ UNKNOWN: the heartbeat key has no TTL: somebody else wrote it.")
    assert re.search(r"OK: Heartbeat TTL: [1-6]\ds\n", monitor.text())
    assert re.search(r"WARNING: Heartbeat TTL low: \ds\n", monitor.text())


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        ("10", "✅ OK: Heartbeat TTL: 10s"),  # the original's comment says "10 or less", its code and its users know "less than 10"
        ("9", "🟡 WARNING: Heartbeat TTL low: 9s"),
        ("0", "🟡 WARNING: Heartbeat TTL low: 0s"),  # the original says OK
        ("NOAUTH Authentication required.", "❔ UNKNOWN: Redis answers: NOAUTH Authentication required."),
        ("", "❔ UNKNOWN: Redis answers: "),
    ],
)
def test_monitor_judges_a_reply(stage: Stage, reply: str, line: str) -> None:
    stage.play("redis-cli", f"echo '{reply}'")
    with stage.running(MONITOR) as monitor:
        monitor.says(f"{line}\n")


def test_monitor_never_says_ok_of_a_redis_that_does_not_answer(host: Stage) -> None:
    with host.running(MONITOR, CHECK_EVERY_S="1", REDIS_PORT=str(free_port())) as monitor:
        monitor.says(UNKNOWN, times=2)
    assert "OK" not in monitor.text()


@dataclass
class Slack:
    """Stands in for Slack: answers with the next of ``answers`` (the last one again and again); None means that it hangs."""

    answers: list[int | None]
    bodies: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def answer(self) -> int | None:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def slack(*answers: int | None) -> Iterator[Slack]:
    receiver = Slack(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            status = receiver.answer()
            if status is None:
                receiver.ended.wait(60)
                return
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        receiver.url = f"http://127.0.0.1:{server.server_port}/services/secret"
        try:
            yield receiver
        finally:
            receiver.ended.set()
            server.shutdown()


def test_an_outage_is_told_once_and_the_next_one_again(beside_demo: Stage, demo: Demo) -> None:
    with slack(200) as receiver, beside_demo.running(MONITOR, CHECK_EVERY_S="1", SLACK_WEBHOOK_URL=receiver.url) as monitor:
        monitor.says(ALERT, times=3)
        assert receiver.bodies == ['{"text":"🚨 System heartbeat lost!"}']
        demo.redis("SET", "heartbeat", "1", "EX", "60")
        monitor.says("✅ OK")
        demo.redis("DEL", "heartbeat")
        eventually(lambda: len(receiver.bodies) == 2, "the second outage is told")
        assert "secret" not in monitor.text()


def test_an_outage_that_slack_refuses_is_told_again(beside_demo: Stage) -> None:
    with slack(500, 200) as receiver, beside_demo.running(MONITOR, CHECK_EVERY_S="1", SLACK_WEBHOOK_URL=receiver.url) as monitor:
        monitor.says(ALERT, times=4)
        assert monitor.text().count("Slack answered 500") == 1
        assert len(receiver.bodies) == 2


def test_the_monitor_goes_on_while_slack_hangs(beside_demo: Stage, demo: Demo) -> None:
    with slack(None) as receiver, beside_demo.running(MONITOR, CHECK_EVERY_S="1", SLACK_WEBHOOK_URL=receiver.url) as monitor:
        monitor.says("Slack did not answer")
        monitor.says(ALERT, times=2)
        demo.redis("SET", "heartbeat", "1", "EX", "60")
        monitor.says("✅ OK")


def test_the_webhook_is_in_no_list_of_processes(beside_demo: Stage) -> None:
    with slack(None) as receiver, beside_demo.running(MONITOR, SLACK_WEBHOOK_URL=receiver.url) as monitor:
        eventually(lambda: receiver.bodies, "Slack has been called")
        lines = monitor.others()
        assert any("curl" in line for line in lines)
        assert not any("secret" in line for line in lines)
