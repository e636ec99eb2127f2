"""The same REST requests to a real Connect worker and to ours: every difference stands in ``docs/compatibility.md``, or is a bug.

Compared are the status, the headers of Connect's own and the body, after what must differ (ports, versions, the plugin's
class and keys, stack traces) has been replaced by a common name. A documented difference that no longer exists is a failure too.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from . import parts
from .broker import Kafka
from .compat_requests import RECORDS, TOPIC, Request, requests
from .parts import Redis
from .programs import eventually

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"
HEADERS = ("content-type", "content-length", "location", "server", "date", "connection")
REQUESTS = {request.id: request for request in requests()}
SEEN_S = 15.0
KAFKA = "4.1.0"


@dataclass(frozen=True, slots=True)
class Side:
    """A worker under comparison: what templates stand for, and so what its replies are stripped of."""

    url: str
    tag: str
    sink: str
    plugin: str
    """The class that the plugin listing names; ``sink`` may be another name of it."""
    version: str
    """The plugin's version."""
    options: Mapping[str, str]

    def render(self, template: str) -> str:
        """Fill a path or a body in."""
        options = json.dumps(dict(self.options))[1:-1]
        simple = self.sink.rpartition(".")[2]
        filled = template.replace('"SINKOPTIONS":""', options).replace("SIDE-", f"{self.tag}-").replace("SINKCLASS", self.sink)
        return filled.replace("SINKALIAS", simple).replace("SINKSHORT", simple.removesuffix("Connector"))

    def neutral(self, reply: str) -> str:
        """Replace what names this side in a reply."""
        simple = self.sink.rpartition(".")[2]
        classes = {self.plugin: "SINKCLASS", self.sink: "SINKCLASS", simple: "SINKALIAS", simple.removesuffix("Connector"): "SINKSHORT"}
        for own, common in {urlsplit(self.url).netloc: "WORKER", f"{self.tag}-": "SIDE-", **classes}.items():
            reply = reply.replace(own, common)
        return "VERSION" if reply in (self.version, KAFKA) else reply


def jvm_side(url: str) -> Side:
    """Kafka's own worker with the sink that it ships."""
    sink = "org.apache.kafka.connect.file.FileStreamSinkConnector"
    return Side(url, "jvm", sink, sink, KAFKA, {"file": "/dev/null"})


def our_side(url: str, redis: Redis) -> Side:
    """Our worker with its sink, by the name under which configurations know it."""
    options = {"redis.host": "127.0.0.1", "redis.port": str(redis.port)}
    plugin = "heartbeat.beats.sink.HeartbeatSink"
    return Side(url, "our", "com.example.RedisHeartbeatSinkConnector", plugin, metadata.version("redis-heartbeat-sink"), options)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply without what must differ. ``body`` is None if there is none, a string if it is not JSON."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Difference:
    """One place of one reply in which the two workers differ."""

    request: str
    place: str
    connect: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.request} {self.place}\n  Connect: {self.connect!r}\n  ours:    {self.ours!r}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the document: patterns of requests and of places that may, and do, differ."""

    request: str
    place: str

    def covers(self, difference: Difference) -> bool:
        """Tell whether this row is about ``difference``."""
        return fnmatchcase(difference.request, self.request) and fnmatchcase(difference.place, self.place)


def _send(side: Side, request: Request) -> tuple[http.client.HTTPResponse, bytes]:
    address = urlsplit(side.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=100)
    headers = {"Accept": request.accept} if request.accept else {}
    body = None if request.body is None else side.render(request.body).encode("utf-8", "surrogateescape")
    if request.content_type and (body is not None or request.content_type != "application/json"):
        headers["Content-Type"] = request.content_type
    try:
        connection.request(request.method, side.render(request.path), body, headers)
        reply = connection.getresponse()
        return reply, reply.read()
    finally:
        connection.close()


def _answer(side: Side, request: Request) -> Reply:
    """Send a request; a GET again until it shows what it waits for, the last reply counts in any case."""
    seen: list[tuple[http.client.HTTPResponse, bytes]] = []

    def shown() -> bool:
        seen.append(_send(side, request))
        return re.search(request.until, seen[-1][1].decode(errors="replace")) is not None

    with contextlib.suppress(AssertionError):  # what is seen instead is a difference, and a better message
        eventually(shown, request.until, timeout_s=SEEN_S)
    if request.leaves:
        _send(side, Request(0, "", "DELETE", f"/connectors/{request.leaves}"))
    reply, content = seen[-1]
    headers = {name.lower(): value for name, value in reply.getheaders()}
    return Reply(reply.status, reply.reason, _headers(side, headers, content, request.method), neutral_body(side, content))


def _headers(side: Side, headers: Mapping[str, str], content: bytes, method: str) -> dict[str, str]:
    """Keep what Connect's clients see; a body may come with its length or in chunks."""
    kept = {name: side.neutral(value) for name, value in headers.items() if name in HEADERS}
    if content or method == "HEAD":
        assert method == "HEAD" or headers.get("content-length", str(len(content))) == str(len(content))
        kept["content-length"] = "of the body" if {"content-length", "transfer-encoding"} & headers.keys() else "none"
    kept.update({name: "any" for name in ("server", "date") if name in kept})
    return kept


def neutral_body(side: Side, content: bytes) -> Any:
    """Parse a body and replace what must differ; None if there is none, text if it is not JSON."""
    if not content:
        return None
    try:
        return _neutral(side, json.loads(content))
    except ValueError:
        return side.neutral(content.decode(errors="replace"))


def _neutral(side: Side, value: Any) -> Any:
    """Replace what must differ in a JSON value."""
    if isinstance(value, str):
        text = re.sub(r"(available connectors are: ).*", r"\1...", side.neutral(value), flags=re.DOTALL)
        return re.sub(r"(available versions: ).*", r"\1...", text)
    if isinstance(value, list):
        items = [_neutral(side, item) for item in value]
        return _keyed(side, sorted(items) if all(str(item).startswith("SIDE-") for item in items) else items)
    if not isinstance(value, dict):
        return value
    plain = {
        side.neutral(key): _neutral(side, item) for key, item in value.items() if side.options.get(key) != item or key not in side.options
    }
    if len(plain) < len(value):
        plain["SINKOPTIONS"] = ""
    fixed = {"commit": "COMMIT", "task.class": "TASKCLASS"}
    plain.update({key: fixed[key] for key in fixed.keys() & plain.keys()})
    if "commit" in plain:
        plain["version"] = value["version"]  # of Kafka, not of the plugin
    if isinstance(plain.get("trace"), str):
        plain["trace"] = plain["trace"].partition("\n")[0]
    unordered = "connector.class" in plain or plain.keys() <= {"status", "info"} or all(key.startswith("SIDE-") for key in plain)
    return dict(sorted(plain.items())) if unordered else plain


def _keyed(side: Side, items: list[Any]) -> Any:
    """Turn a list of named things into a map by name, so that one more does not shift all others; the plugin's own keys go."""
    names = [_name(item) for item in items]
    if not items or not all(names) or len(set(names)) < len(names):
        return items
    return {name: item for name, item in zip(names, items, strict=True) if name not in side.options}


def _name(item: Any) -> str:
    if not isinstance(item, dict):
        return ""
    if "class" in item:
        return f"{item['class']}:{item['type']}"
    return str(item["value"]["name"] if isinstance(item.get("value"), dict) and "definition" in item else item.get("name", ""))


def _compare(place: str, connect: Any, ours: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield (place, Connect's, ours) for every leaf that differs; order counts where keys are in both."""
    if isinstance(connect, dict) and isinstance(ours, dict):
        common = [key for key in connect if key in ours], [key for key in ours if key in connect]
        if common[0] != common[1]:
            yield f"{place}#order", *common
        for key in connect | ours:
            yield from _compare(f"{place}.{key}", connect.get(key, "(absent)"), ours.get(key, "(absent)"))
    elif isinstance(connect, list) and isinstance(ours, list) and len(connect) == len(ours):
        for number, (one, other) in enumerate(zip(connect, ours, strict=True)):
            yield from _compare(f"{place}.{number}", one, other)
    elif connect != ours or type(connect) is not type(ours):
        yield place, connect, ours


def _differences(request: Request, connect: Reply, ours: Reply) -> list[Difference]:
    """Compare two replies; of those that differ in their status nothing else is worth a word."""
    if connect.status != ours.status:
        return [Difference(request.id, f"status {connect.status} -> {ours.status}", connect, ours)]
    headers = _compare("header", dict(sorted(connect.headers.items())), dict(sorted(ours.headers.items())))
    reasons = _compare("reason", connect.reason, ours.reason)
    return [Difference(request.id, *place) for place in [*reasons, *headers, *_compare("body", connect.body, ours.body)]]


def table(title: str) -> list[list[str]]:
    """Return the cells of the table under a heading of the document, without its head; backticks are dropped."""
    section = DOCUMENT.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows = [line.strip().strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("`", "") for cell in row] for row in rows[2:]]


RULES = [Rule(request, place) for request, place, *_ in table("Differences, request by request")]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, kafka: Kafka, redis_session: Redis) -> dict[str, list[Difference]]:
    """All differences by request: the whole conversation, first with Connect, then with ours."""
    kafka.create_topic(TOPIC, 2)
    kafka.produce(TOPIC, [("0", f"beat {number}") for number in range(RECORDS)])
    with parts.connect_jvm(tmp_path_factory.mktemp("connect"), kafka) as worker:  # not the shared one: some of it cannot be undone
        jvm = jvm_side(worker.url)
        expected = {ident: _answer(jvm, request) for ident, request in REQUESTS.items()}
    with parts.heartbeat_worker(tmp_path_factory.mktemp("compat"), kafka) as worker:
        ours = our_side(worker.url, redis_session)
        return {ident: _differences(request, expected[ident], _answer(ours, request)) for ident, request in REQUESTS.items()}


@pytest.mark.parametrize("ident", REQUESTS)
def test_a_reply_differs_from_connects_only_where_the_document_says_so(ident: str, found: dict[str, list[Difference]]) -> None:
    undocumented = [str(difference) for difference in found[ident] if not any(rule.covers(difference) for rule in RULES)]
    assert not undocumented, "\n".join(undocumented)


def test_every_documented_difference_still_exists(found: dict[str, list[Difference]]) -> None:
    everything = [difference for differences in found.values() for difference in differences]
    assert [rule for rule in RULES if not any(rule.covers(difference) for difference in everything)] == []


CIRCUMSTANCES = table("Differences by circumstance")


def test_the_endpoint_table_says_same_exactly_of_the_endpoints_that_are_the_same(found: dict[str, list[Difference]]) -> None:
    different = {REQUESTS[ident].endpoint for ident, differences in found.items() if differences}
    at_times = {int(number) for numbers, *_ in CIRCUMSTANCES for number in numbers.split(",")}
    told = {int(number): verdict if verdict.startswith("same") else "differs" for number, _, verdict, *_ in table("Endpoints")}
    assert told == {number: "differs" if number in different else "same, but" if number in at_times else "same" for number in range(1, 32)}


def test_every_difference_by_circumstance_is_held_by_a_test() -> None:
    tests = "".join(path.read_text() for path in (DOCUMENT.parents[1] / "tests").rglob("test_*.py"))
    assert CIRCUMSTANCES
    assert [row for row in CIRCUMSTANCES if f"\ndef {row[-1]}(" not in tests] == []
