"""``heartbeat status`` against a real server of a monitor's state, and against what else may listen there."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.monitor.views import RULES, SEEN, Seen
from tests.patience import patient
from tests.real.programs import free_port

from heartbeat.beats.connection import Connection, Server
from heartbeat.beats.keys import CONNECTORS, Keys
from heartbeat.embedded.ports import LOOPBACK
from heartbeat.embedded.redis import EmbeddedRedis
from heartbeat.errors import UsageError
from heartbeat.monitor.deliver import DelivererState
from heartbeat.monitor.flips import incident_of
from heartbeat.monitor.status import ALL_UP, MOST_SHOWN, NOT_KNOWN, SOME_DOWN, report, run
from heartbeat.monitor.view import InForce
from heartbeat.monitor.vision import Blindness
from heartbeat.monitor.watch import Look
from heartbeat.monitor.web import serve

HOUR = 3_600_000


@pytest.fixture(scope="module")
def redis() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def connection(redis: EmbeddedRedis) -> Iterator[Connection]:
    connection = Connection(patient(redis.host, redis.port))
    connection.call("FLUSHALL")
    yield connection
    connection.close()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def store(connection: Connection, connector: str, **rooms: Mapping[str, int]) -> None:
    connection.call("SADD", CONNECTORS, connector)
    connection.call("HSET", Keys(connector).proof, "ttl", 60_000)
    for room, scores in rooms.items():
        connection.call("ZADD", getattr(Keys(connector), room), *(word for source, at in scores.items() for word in (at, source)))


@contextmanager
def monitor(
    redis: EmbeddedRedis, *, tick_ms: int | None = None, error: str = "", told: tuple[DelivererState, ...] = (), **looks: Look
) -> Iterator[str]:
    """A monitor that sees this, and has just looked if nothing else is said; its URL."""
    tick_ms = now_ms() + HOUR if tick_ms is None else tick_ms  # a tick to come stays fresh, however slow the machine is
    observation = replace(SEEN, tick_ms=tick_ms, connectors=looks, error=error)
    server = serve("127.0.0.1:0", Seen(observation, told, InForce(RULES, patient(redis.host, redis.port))))
    server.start()
    try:
        yield server.origin
    finally:
        server.stop()


def test_who_has_said_goodbye_is_shown_and_missed_by_nobody(redis: EmbeddedRedis, connection: Connection) -> None:
    store(connection, "c", deadlines={"a": now_ms() + HOUR}, expected={"left": 1}, gone={"left": 2})
    with monitor(redis, c=Look(sources=1)) as url:
        text, code = report(url, now_ms())
    assert code == ALL_UP
    assert text.splitlines()[1].split()[:2] == ["left", "PAUSED"]


def test_when_all_are_up_it_says_so_and_ends_with_0(redis: EmbeddedRedis, connection: Connection) -> None:
    store(connection, "c", deadlines={"a": now_ms() + HOUR, "b": now_ms() + 2 * HOUR})
    with monitor(redis, c=Look(sources=2)) as url:
        text, code = report(url, now_ms())
    assert code == ALL_UP
    head, first, second, last = text.splitlines()
    assert head.split() == ["SOURCE", "STATE", "SINCE", "LAST", "BEAT", "CONNECTOR", "TAGS"]
    assert first.split()[:3] == ["a", "UP", "-"]
    assert second.split()[:2] == ["b", "UP"]
    assert last == f"2 source(s): 0 DOWN, 0 UNKNOWN, 0 LATE, 2 UP (by the monitor at {url})"


def test_the_worst_come_first_whatever_their_connector(redis: EmbeddedRedis, connection: Connection) -> None:
    now = now_ms()
    store(connection, "a", deadlines={"a-up": now + HOUR, "a-unknown": now - HOUR}, expected={"a-new": now})
    store(connection, "z", deadlines={"z-up": now + HOUR}, down={"pump-z": now - 2 * HOUR})
    with monitor(redis, a=Look(sources=2, unknown=1), z=Look(sources=1, down=1)) as url:
        text, code = report(url, now)
    assert code == SOME_DOWN
    assert [line.split()[0] for line in text.splitlines()[1:-1]] == ["pump-z", "a-unknown", "a-new", "a-up", "z-up"]
    assert text.splitlines()[1].split() == ["pump-z", "DOWN", "1h59m", "ago", "2h1m", "ago", "z", "plant-1"]
    assert text.splitlines()[-1].startswith("5 source(s): 1 DOWN, 1 UNKNOWN, 0 LATE, 1 NEW, 2 UP (")


def test_a_source_that_is_unknown_ends_it_with_2(redis: EmbeddedRedis, connection: Connection) -> None:
    store(connection, "c", deadlines={"s": now_ms() - HOUR, "t": now_ms() + HOUR})
    with monitor(redis, c=Look(sources=2, unknown=1)) as url:
        assert report(url, now_ms())[1] == NOT_KNOWN


def test_a_declared_or_late_source_is_not_down(redis: EmbeddedRedis, connection: Connection) -> None:
    """The deadline is ahead, and within the twenty seconds in which a pump counts as late."""
    store(connection, "c", deadlines={"pump-1": now_ms() + 19_000}, expected={"new": now_ms()})
    with monitor(redis, c=Look(sources=1)) as url:  # the monitor's own count knows nothing of a warning
        text, code = report(url, now_ms())
    assert [line.split()[1] for line in text.splitlines()[1:-1]] == ["LATE", "NEW"]
    assert text.splitlines()[-1].startswith("2 source(s): 0 DOWN, 0 UNKNOWN, 1 LATE, 1 NEW, 0 UP (")
    assert code == ALL_UP


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (Look(sources=1, blind=Blindness("broker", "Kafka does not answer\x1b[31m", 0)), "BLIND c for "),
        (Look(sources=1, paused="PAUSED"), "PAUSED c: an operator has done so"),
        (Look(sources=1, error="Redis refuses us"), "The index of c cannot be looked at: Redis refuses us"),
    ],
)
def test_a_pipeline_that_proves_nothing_ends_it_with_2(redis: EmbeddedRedis, connection: Connection, look: Look, words: str) -> None:
    store(connection, "c", deadlines={"s": now_ms() + HOUR})
    with monitor(redis, c=look) as url:
        text, code = report(url, now_ms())
    assert code == NOT_KNOWN
    assert text.startswith(words)
    assert "\x1b" not in text


def test_a_monitor_that_no_longer_looks_is_not_believed(redis: EmbeddedRedis, connection: Connection) -> None:
    store(connection, "c", deadlines={"s": now_ms() + HOUR})
    with monitor(redis, tick_ms=now_ms() - HOUR, c=Look(sources=1)) as url:
        text, code = report(url, now_ms())
    assert code == NOT_KNOWN
    assert text.startswith("The monitor has looked at nothing for 1h")
    with monitor(redis, tick_ms=0) as url:
        assert report(url, now_ms())[1] == NOT_KNOWN


def test_nothing_to_watch_is_not_all_up(redis: EmbeddedRedis, connection: Connection) -> None:
    with monitor(redis) as url:
        text, code = report(url, now_ms())
    assert code == NOT_KNOWN
    assert text.startswith("No connector has sources in this Redis yet")


def test_a_channel_that_fails_is_named_and_makes_nobody_unknown(redis: EmbeddedRedis, connection: Connection) -> None:
    store(connection, "c", deadlines={"s": now_ms() + HOUR})
    failing = DelivererState("o\x1bps", last_error="HTTP 404")
    with monitor(redis, told=(failing, DelivererState("quiet")), c=Look(sources=1)) as url:
        text, code = report(url, now_ms())
        told = json.loads(report(url, now_ms(), as_json=True)[0])
    assert code == ALL_UP
    assert text.splitlines()[0] == r"Channel o\x1bps did not take its last message: HTTP 404"
    assert (told["doubts"], told["channels"]) == ([], {"o\x1bps": "HTTP 404"})


@pytest.mark.parametrize("moment", range(8))
def test_who_is_judged_between_two_questions_does_not_pass_for_up(redis: EmbeddedRedis, connection: Connection, moment: int) -> None:
    keys = Keys("c")
    store(connection, "c", deadlines={"s": 1, "up": now_ms() + HOUR})

    class Judging(Seen):
        """Judges when it is asked for its settings for the n-th time, which is before each page."""

        asked = 0

        def settings(self) -> InForce:
            if Judging.asked == moment:
                connection.calls(("ZREM", keys.deadlines, "s"), ("ZADD", keys.down, 1, "s"))
            Judging.asked += 1
            return InForce(RULES, patient(redis.host, redis.port))

    server = serve("127.0.0.1:0", Judging(replace(SEEN, tick_ms=now_ms() + HOUR, connectors={"c": Look(sources=2)})))
    server.start()
    try:
        assert report(server.origin, now_ms())[1] != ALL_UP
    finally:
        server.stop()


def test_of_many_the_first_are_shown_and_the_rest_counted(redis: EmbeddedRedis, connection: Connection) -> None:
    store(connection, "c", deadlines={f"up-{n:04}": now_ms() + HOUR for n in range(2_500)}, down={f"down-{n}": 1 for n in range(3)})
    with monitor(redis, c=Look(sources=2_500, down=3)) as url:
        text, code = report(url, now_ms())
        all_text, all_code = report(url, now_ms(), everything=True)
    lines, all_lines = text.splitlines(), all_text.splitlines()
    assert (code, all_code) == (SOME_DOWN, SOME_DOWN)
    assert len(lines) == 1 + MOST_SHOWN + 2
    assert lines[1].startswith("down-0")
    assert lines[-2] == "... and 2,453 more: --all shows them"
    assert lines[-1] == all_lines[-1]
    assert lines[-1].startswith("2,503 source(s): 3 DOWN, 0 UNKNOWN, 0 LATE, 2,500 UP (")
    assert len(all_lines) == 1 + 2_503 + 1
    assert len({line.split()[0] for line in all_lines[1:-1]}) == 2_503


@pytest.mark.parametrize("ups", [1, 100])
def test_the_last_line_counts_what_the_table_shows(redis: EmbeddedRedis, connection: Connection, ups: int) -> None:
    """With 100 more than can be shown, those who are not shown are as the monitor counts them."""
    now = now_ms()
    store(connection, "held", deadlines={"held": now - HOUR})
    store(connection, "c", deadlines={"pump": now + 19_000, **{f"up-{n}": now + HOUR for n in range(ups)}}, expected={"new": now})
    with monitor(redis, c=Look(sources=1 + ups), held=Look(sources=1, unknown=1, paused="PAUSED")) as url:
        text, _ = report(url, now)
    assert [line.split()[1] for line in text.splitlines()[2:5]] == ["PAUSED", "LATE", "NEW"]
    assert text.splitlines()[-1].startswith(f"{3 + ups} source(s): 0 DOWN, 0 UNKNOWN, 1 PAUSED, 1 LATE, 1 NEW, {ups} UP (")


def test_json_holds_what_the_table_shows(redis: EmbeddedRedis, connection: Connection) -> None:
    store(connection, "c", deadlines={"up": now_ms() + HOUR}, down={"pump": 5})
    with monitor(redis, c=Look(sources=1, down=1)) as url:
        text, code = report(url, now_ms(), as_json=True)
    told = json.loads(text)
    assert (told["status"], told["monitor"], told["doubts"], told["more"], code) == ("down", url, [], 0, SOME_DOWN)
    assert [(row["name"], row["state"], row["incident"]) for row in told["sources"]] == [
        ("pump", "DOWN", incident_of("c", "pump", 5)),
        ("up", "UP", None),
    ]


def test_names_can_do_no_harm_to_a_terminal(redis: EmbeddedRedis, connection: Connection) -> None:
    names = ["\x1b[2Jgone", "line\nbreak", "\u202eliam", "zero\u200bwidth", "\x9b31m", "raw\udcff", "long" * 50]
    store(connection, "c", down=dict.fromkeys(names, 1))
    with monitor(redis, c=Look(down=len(names))) as url:
        text, _ = report(url, now_ms())
        told, _ = report(url, now_ms(), as_json=True)
    assert all(character.isprintable() or character == "\n" for character in text)
    assert len(text.splitlines()) == 1 + len(names) + 1
    assert r"\u202eliam" in text
    assert "long" * 14 + "lon…" in text
    assert told.isascii()
    assert {row["name"] for row in json.loads(told)["sources"]} == {*names[:-2], "raw\\xff", names[-1]}


# --- what else may be there


def test_where_nobody_listens_it_says_what_to_do() -> None:
    url = f"http://{LOOPBACK}:{free_port()}"
    text, code = report(url, now_ms())
    assert code == NOT_KNOWN
    assert text.startswith(f"The monitor at {url} cannot be asked: Connection refused")
    assert "heartbeat monitor monitor.toml" in text
    told, code = report(url, now_ms(), as_json=True)
    assert (json.loads(told)["status"], json.loads(told)["monitor"], code) == ("unknown", url, NOT_KNOWN)


REFUSED = "Redis at there:1: Connection refused"


@pytest.mark.parametrize(
    ("seen", "first"),
    [
        ({"error": REFUSED}, f"The monitor cannot look at Redis: {REFUSED}"),
        ({"error": REFUSED, "connectors": {}}, f"The monitor cannot look at Redis: {REFUSED}"),
        ({"connectors": {"c": Look(sources=1, blind=Blindness("redis", REFUSED, 0))}}, "BLIND c for "),
        ({}, "The sources cannot be read: it answers 503: Redis at 127.0.0.1"),
    ],
)
def test_a_redis_that_is_away_is_what_the_monitor_says(seen: dict[str, Any], first: str) -> None:
    observation = replace(SEEN, **{"tick_ms": now_ms() + HOUR, "connectors": {"c": Look(sources=1)}, **seen})
    server = serve("127.0.0.1:0", Seen(observation, (), InForce(RULES, Server(LOOPBACK, free_port()))))
    server.start()
    try:
        text, code = report(server.origin, now_ms())
        told = json.loads(report(server.origin, now_ms(), as_json=True)[0])
    finally:
        server.stop()
    assert code == NOT_KNOWN
    assert text.startswith(first)
    assert text.splitlines()[-1].startswith("Who is up and who is down is not known now")
    assert "No connector has sources" not in text
    assert "heartbeat monitor" not in text, "one runs, and another would see as little"
    assert (told["status"], told["sources"], bool(told["doubts"])) == ("unknown", [], True)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that gives everybody this answer."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Location", "http://elsewhere.invalid/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer((LOOPBACK, 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>", "not answer as a monitor does"),
        (200, b'{"connectors": 5}', "not answer as a monitor does"),
        (200, b"\xff", "not answer as a monitor does"),
        (200, b"[" * 100_000, "not answer as a monitor does"),
        (302, b"", "it answers 302"),
        (500, b'{"error": "\\u001b[31mred"}', r"it answers 500: \x1b[31mred"),
        (404, b"[]", "it answers 404: Not Found"),
    ],
)
def test_somebody_else_who_answers_is_not_taken_for_a_monitor(status: int, body: bytes, words: str) -> None:
    with answering(status, body) as url:
        text, code = report(url, now_ms())
    assert code == NOT_KNOWN
    assert words in text
    assert "starts one" not in text
    assert "--url says where it listens" in text


def test_who_accepts_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heartbeat.monitor.status._TIMEOUT_S", 0.2)
    with socket.create_server((LOOPBACK, 0)) as hanging:
        text, code = report(f"http://{LOOPBACK}:{hanging.getsockname()[1]}", now_ms())
    assert code == NOT_KNOWN
    assert "no answer in" in text
    assert "starts one" in text


def test_no_proxy_is_followed(redis: EmbeddedRedis, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{LOOPBACK}:{free_port()}")
    store(connection, "c", deadlines={"s": now_ms() + HOUR})
    with monitor(redis, c=Look(sources=1)) as url:
        assert run(url)[1] == ALL_UP


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://host", "http://", "http://host:0", "http://host:x", "http://[::1"])
def test_what_is_no_url_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="--url"):
        report(url, now_ms())


def test_a_password_in_the_url_is_not_printed() -> None:
    url = f"http://me:hunter22@{LOOPBACK}"
    assert "hunter22" not in report(f"{url}:{free_port()}", now_ms())[0]
    assert "hunter22" not in report(f"{url}:0", now_ms(), as_json=True)[0]


def test_a_password_in_the_url_of_a_monitor_that_answers_is_not_printed(redis: EmbeddedRedis, connection: Connection) -> None:
    with monitor(redis) as url:
        for as_json in (True, False):
            text = report(url.replace("//", "//me:hunter22@"), now_ms(), as_json=as_json)[0]
            assert "hunter22" not in text
            assert url in text
