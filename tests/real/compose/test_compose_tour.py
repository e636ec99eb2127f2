"""The original README, typed from its first command to its last, on the stack that it describes."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from ..programs import eventually, missing, require
from . import stack as stacks
from .engine import Engine
from .seed_commands import BLOCKS, SUCCESS, SUPPORT, Block, Step
from .stack import ROOT, SERVICES, Stack
from .terminal import Terminal

SEED = ROOT.parent / "shared" / "seed"
CODE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONFIG = "config/redis-heartbeat-sink.json"
TREE_ENTRY = re.compile(r"^([│ ]*)[├└]── \S+ +(\S+)")


class Tour:
    """A person at the stack; what a block leaves running is remembered for those after it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._reply = ""
        self._left_running: dict[str, Terminal] = {}

    def step(self, step: Step) -> None:
        """Run one command. A question to Redis is asked again for a while: a beat takes its time."""
        if step.left_out:
            return

        def shows() -> bool:
            output = self.run(step.command, step.timeout_s)
            assert re.search(step.expects, output, re.MULTILINE), output
            return True

        eventually(shows, f"{step.command} shows {step.expects!r}", timeout_s=20.0 if "redis-cli" in step.command else 0.0)

    def run(self, command: str, timeout_s: float = 60.0) -> str:
        """Run a command to its end, which must be a good one, and return what it showed."""
        terminal = self.stack.terminal(command)
        try:
            assert terminal.wait(timeout_s) == 0, f"{command}:\n{terminal.output}"
            return terminal.output
        finally:
            terminal.end()

    @contextmanager
    def running(self, command: str) -> Iterator[Terminal]:
        """Have a command running while the block lasts."""
        terminal = self.stack.terminal(command)
        try:
            yield terminal
        finally:
            terminal.end()

    def end(self) -> None:
        """Close every terminal that is still open."""
        for terminal in self._left_running.values():
            terminal.end()

    def status(self, block: Block) -> None:
        self._reply = self.run(block.text.strip().replace("curl ", "curl -sS ", 1))

    def status_reply(self, block: Block) -> None:
        assert contains(json.loads(self._reply), json.loads(block.text))

    def continuous_messages(self, block: Block) -> None:
        before = self.stack.redis("GET", "heartbeat")
        self._left_running["producer"] = producer = self.stack.terminal(block.text.strip())

        def beats() -> bool:
            assert producer.read(0), producer.output
            return self.stack.redis("GET", "heartbeat") > before

        eventually(beats, "beats arrive")
        before = self.stack.redis("GET", "heartbeat")
        eventually(beats, "they go on arriving")

    def check_the_key_replies(self, block: Block) -> None:
        shown = [line.split("#")[0].rstrip() for line in block.text.splitlines() if line]
        commands = [line.removeprefix("$ ") for line in shown if line.startswith("$ ")]
        replies = [line for line in shown if not line.startswith("$ ")]
        for command, reply in zip(commands, replies, strict=True):
            assert re.fullmatch(re.sub(r"\d+", r"\\d+", re.escape(reply)), self.run(command).strip())

    def watch_for_a_minute(self, block: Block) -> None:
        self._left_running["loop"] = loop = self.stack.terminal(block.text)
        loop.wait_for(r"^=== 1회차 확인 ===\n\(integer\) (60|5\d)$", 20)

    def silence(self, block: Block) -> None:
        pkill, watch = commands_of(block)
        self.run(pkill)
        self._left_running["producer"].wait(20)
        loop = self._left_running["loop"]
        assert loop.wait(100) == 0
        left = [int(ttl) for ttl in re.findall(r"^\(integer\) (-?\d+)$", loop.output, re.MULTILINE)]
        assert len(left) == 12
        assert left[2:] == sorted(left[2:], reverse=True), "no beat came after the producer was stopped"
        assert left[-1] < left[2] - 20
        with self.running(watch) as terminal:
            terminal.wait_for(r"^-2$", 40)
            terminal.interrupt()

    def change_the_ttl(self, block: Block) -> None:
        with self._edited(block):
            beat_ms = self.stack.produce("with a longer TTL")
            self.stack.wait_for_beat(beat_ms)
            assert 60 < int(self.stack.redis("TTL", "heartbeat")) <= 120
        assert self.stack.redis("DEL", "heartbeat") == "1"

    def change_the_key(self, block: Block) -> None:
        with self._edited(block):
            self.stack.wait_for_beat(self.stack.produce("under another name"), "my-service-heartbeat")
        assert self.stack.redis("DEL", "my-service-heartbeat") == "1"

    def follow_the_log(self, block: Block) -> None:
        with self.running(block.text.strip()) as log:
            log.wait_for(SUCCESS, 20)
            seen = len(re.findall(SUCCESS, log.output, re.MULTILINE))
            self.stack.produce("to be seen in the log")
            log.wait_for(rf"(?:[\s\S]*?{SUCCESS}){{{seen + 1}}}", 20)
            log.interrupt()
            log.wait(20)

    def success_line(self, block: Block) -> None:
        assert re.fullmatch(SUCCESS, block.text.strip())

    def restart_the_connector(self, block: Block) -> None:
        assert self.run(block.text.strip().replace("curl ", "curl -sS ", 1)).strip() == ""
        self.stack.wait_for_running()
        self.stack.wait_for_beat(self.stack.produce("after the restart"))

    def shell_monitor(self, block: Block) -> None:
        require("redis-cli", "redis-tools")
        script = self.stack.directory / "heartbeat-monitor-of-the-original.sh"
        script.write_text(self.stack.localised(block.text))
        self.stack.wait_for_beat(self.stack.produce("monitored"))
        with self.running(f"bash {script.name}") as monitor:
            monitor.wait_for(r"^✅ OK: Heartbeat TTL: \d+s$", 20)
            assert self.stack.redis("EXPIRE", "heartbeat", "9") == "1"
            monitor.wait_for(r"^🟡 WARNING: Heartbeat TTL low: \ds$", 20)
            monitor.wait_for(r"^⚠️  ALERT: Heartbeat key expired! System may be down\.$", 30)

    def prometheus(self, block: Block) -> None:
        asked = self.stack.directory / "asked.yml"
        asked.write_text("services:\n" + "".join(f"  {line}" for line in block.text.splitlines(keepends=True)))
        wanted = json.loads(self.stack.compose("-f", asked.name, "config", "--format", "json"))["services"]["redis-exporter"]
        ours = json.loads(self.stack.compose("--profile", "metrics", "config", "--format", "json"))["services"]["redis-exporter"]
        assert ours["image"].split(":")[0] == wanted["image"]
        assert contains(ours["environment"], wanted["environment"])
        assert [port["target"] for port in ours["ports"]] == [port["target"] for port in wanted["ports"]] == [9121]

    def project_tree(self, block: Block) -> None:
        told = ROOT / "docs" / "original.md"
        for path in tree(block.text):
            # What was Java is told of where the original's files are mapped to ours.
            assert (ROOT / path).exists() or Path(path).name in told.read_text(encoding="utf-8"), path

    def shipped_config(self, block: Block) -> None:
        assert json.loads((ROOT / CONFIG).read_text(encoding="utf-8")) == json.loads(block.text)

    def use_case_microservice(self, block: Block) -> None:
        entry = commands_of(block)[0]
        assert entry.startswith("*/30 * * * * ")
        before = self.stack.redis("GET", "heartbeat")
        self.stack.exec("test-runner", "bash", "-c", entry.removeprefix("*/30 * * * * "))
        eventually(lambda: self.stack.redis("GET", "heartbeat") > before, "the service's beat arrives")

    def use_case_batch_job(self, block: Block) -> None:
        with self.running("docker compose exec -T test-runner bash -c 'timeout 60 bash -s' <<'JOB'\n" + block.text + "JOB\n"):
            reader = "kafka-console-consumer --topic heartbeat-topic --bootstrap-server kafka:29092 --from-beginning"
            with self.running(f"docker compose exec test-runner {reader}") as records:
                records.wait_for(r"^batch-start-.*\n(.*\n)*?batch-running-", 40)

    def use_case_alert(self, block: Block) -> None:
        require("redis-cli", "redis-tools")
        with web_hook() as (url, bodies):
            script = block.text.replace("https://hooks.slack.com", url)
            assert url in script
            self.stack.wait_for_beat(self.stack.produce("no reason for an alert"))
            self.run(script)
            assert bodies == []
            self.stack.redis("DEL", "heartbeat")
            self.run(script)
        assert [json.loads(body) for body in bodies] == [{"text": "🚨 System heartbeat lost!"}]

    @contextmanager
    def _edited(self, block: Block) -> Iterator[None]:
        """Have the block's changes in the config and applied, as a person applies them, while the block lasts."""
        changes = json.loads(re.sub(r" //.*", "", block.text))["config"]  # the original's comment is not JSON
        file = self.stack.directory / CONFIG
        shipped = file.read_text(encoding="utf-8")
        config = json.loads(shipped)
        config["config"].update(changes)
        try:
            file.write_text(json.dumps(config), encoding="utf-8")
            assert "updated" in self.stack.set_up()
            self.stack.wait_for_running()
            yield
        finally:
            file.write_text(shipped, encoding="utf-8")
        assert "updated" in self.stack.set_up()
        assert "unchanged" in self.stack.set_up()
        self.stack.wait_for_running()


def contains(whole: Any, part: Any) -> bool:
    """Tell whether everything in ``part`` is in ``whole``, which may say more."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(whole[key], value) for key, value in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and len(whole) == len(part) and all(map(contains, whole, part))
    return bool(whole == part)


def commands_of(block: Block) -> list[str]:
    """Return a block's lines that are commands or parts of one."""
    return [line for line in block.text.splitlines() if line and not line.startswith("#")]


def tree(text: str) -> Iterator[str]:
    """Yield the paths of a drawn tree, below its root."""
    folders: list[str] = []
    for line in text.splitlines():
        if entry := TREE_ENTRY.match(line):
            del folders[len(entry[1]) // 4 :]
            yield "".join(folders) + entry[2]
            folders.append(entry[2])


@contextmanager
def web_hook() -> Iterator[tuple[str, list[bytes]]]:
    """Have somebody who takes alerts; yield the address and the bodies that were posted to it."""
    bodies: list[bytes] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def tour(engine: Engine, parent: Path) -> Iterator[Tour]:
    """A person with a copy of the repository, who has started nothing yet."""
    with stacks.copied("sink-connector-research", parent) as stack:
        tour = Tour(stack)
        try:
            yield tour
        finally:
            tour.end()


def test_the_table_holds_every_block_of_the_original_and_no_other() -> None:
    if not SEED.is_dir():
        missing("the original's document", f"it belongs into {SEED.parent.name}/{SEED.name} beside the clone")
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(SEED.glob("*.txt")))
    assert CODE.findall(text) == [(block.language, block.text) for block in BLOCKS]
    for step in SUPPORT:
        assert f"`{step.command}`" in text


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.steps], ids=lambda block: block.name)
def test_no_command_of_a_block_is_passed_over(block: Block) -> None:
    assert "\n".join(step.command for step in block.steps).splitlines() == commands_of(block)
    assert [step.command for step in block.steps if step.left_out] == [
        step.command for step in block.steps if step.command in ("sleep 30", "docker image prune -f")
    ]


# Before the last block, which takes everything down, stand the commands of the last section: it is read when something is running.
@pytest.mark.parametrize("block", [*BLOCKS[:-1], *SUPPORT, BLOCKS[-1]], ids=lambda it: it.name if isinstance(it, Block) else it.command)
def test_the_command_does_what_the_original_says(tour: Tour, block: Block | Step) -> None:
    if isinstance(block, Step):
        tour.step(block)
        return
    for step in block.steps:
        tour.step(step)
    if not block.steps:
        getattr(tour, block.name.replace("-", "_"))(block)


def test_nothing_is_left_after_the_clean_up(tour: Tour) -> None:
    assert tour.stack.volumes() == set()
    assert tour.stack.compose("ps", "-aq") == ""


def test_the_services_have_the_originals_names(tour: Tour) -> None:
    assert set(tour.stack.compose("config", "--services").split()) == set(SERVICES)
