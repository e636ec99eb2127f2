"""Figure ``silence``: 100,000 sources fall silent within one second: when all of them are DOWN in Redis, and what a channel is sent."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench import machine
from bench.results import Section, row
from bench.setting import Setting, wait_until
from bench.watched import SLACK_MS, monitor, scene
from bench.workloads import Workload

_LIVING = Workload("living", 996, 996)
_SOURCES = 100_000
_SPREAD_MS = 1_000
_AHEAD_MS = 500
_TTL_MS = 6_000
_GRACE_MS = 5_000
_ROUNDS = 3
_MOST_S = 5
_MOST_MESSAGES = 20


@dataclass(frozen=True, slots=True)
class _Post:
    at_ms: int
    body: bytes


@dataclass(frozen=True, slots=True)
class _Run:
    """Times are seconds after deadline + grace + slack, of the first source, or of the last one."""

    all_s: float
    all_after_last_s: float
    median_s: float
    messages: int
    told_s: float
    cpu_s: float
    peak_rss_mb: float


def silence(setting: Setting) -> Section:
    """Seconds until the last of 100,000 flips is persisted, and the messages that tell of them."""
    runs = [_run(setting) for _ in range(_ROUNDS)]
    rows = [
        row("all flips persisted, after the first was due", [run.all_s for run in runs], "s", _MOST_S),
        row("all flips persisted, after the last was due", [run.all_after_last_s for run in runs], "s"),
        row("half of them, after the first was due", [run.median_s for run in runs], "s"),
        row("messages to the channel", [run.messages for run in runs], "messages", _MOST_MESSAGES, 0),
        row("the last message taken, after the last was due", [run.told_s for run in runs], "s"),
        row("the monitor's CPU for all of it", [run.cpu_s for run in runs], "s"),
        row("the monitor's peak RSS", [run.peak_rss_mb for run in runs], "MB", None, 0),
    ]
    notes = [
        f"{_SOURCES:,} sources, whose last beats (`hb-ttl` {_TTL_MS / 1000:g} s) are spread evenly over {_SPREAD_MS / 1000:g} s, "
        f"{_LIVING.total:,} others live. Due: deadline + grace ({_GRACE_MS / 1000:g} s) + slack (1 s). Persisted: the ids in the stream.",
        "One webhook, which takes every message at once; `group_wait_s` is its default of 2 s. Each run fails unless every source is in "
        "the stream once and in one message.",
    ]
    return Section("silence", f"{_SOURCES:,} sources fall silent in one second.", rows, notes)


def _run(setting: Setting) -> _Run:
    with scene(setting, _LIVING) as living, _receiver() as (url, posts), monitor(living, url) as process:
        first_ms = time.time_ns() // 1_000_000 + _AHEAD_MS
        beats = {f"gone-{number:011d}": first_ms + number * _SPREAD_MS // _SOURCES for number in range(_SOURCES)}
        cpu_s = machine.cpu_s(process.pid)
        living.last_beats(beats, _TTL_MS)
        wait_until(lambda: living.index.sources() == _LIVING.total + _SOURCES, "all are in the index", every_s=0.05)
        living.wait_for_downs(_SOURCES)
        wait_until(lambda: _told(posts) >= _SOURCES, "the channel knows all of them", process.check_alive, every_s=0.2)
        cpu_s, peak_rss_mb = machine.cpu_s(process.pid) - cpu_s, machine.peak_rss_mb(process.pid)
        found = living.persisted(beats, _TTL_MS)
    named = [flip["source"] for post in posts for flip in json.loads(post.body)["flips"]]
    if len(named) != _SOURCES or set(named) != beats.keys():
        raise RuntimeError(f"{len(named)} flips were delivered, of {len(set(named))} sources, not {_SOURCES}")
    due_ms = first_ms + _TTL_MS + _GRACE_MS + SLACK_MS
    at_ms = sorted(one.at_ms for one in found)
    return _Run(
        all_s=(at_ms[-1] - due_ms) / 1000,
        all_after_last_s=(at_ms[-1] - due_ms - _SPREAD_MS) / 1000,
        median_s=(at_ms[_SOURCES // 2] - due_ms) / 1000,
        messages=len(posts),
        told_s=(posts[-1].at_ms - due_ms - _SPREAD_MS) / 1000,
        cpu_s=cpu_s,
        peak_rss_mb=peak_rss_mb,
    )


def _told(posts: list[_Post]) -> int:
    """Return how many flips have come, without parsing them: that would take the cores from what is measured."""
    return sum(post.body.count(b'"incident":') for post in list(posts))


@contextmanager
def _receiver() -> Iterator[tuple[str, list[_Post]]]:
    """Receive what a webhook sends: its URL, and the messages so far."""
    posts: list[_Post] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posts.append(_Post(time.time_ns() // 1_000_000, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", posts
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
