"""``heartbeat status``: asks a running monitor who is down, and tells it as a table or as JSON, and by an exit code."""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final
from urllib.parse import SplitResult, urlencode, urlsplit

import msgspec

from heartbeat.display import duration, visible
from heartbeat.errors import ConnectError, UsageError
from heartbeat.monitor.flips import DOWN, LATE, NEW, PAUSED, UNKNOWN, UP
from heartbeat.monitor.sources import MOST_AT_ONCE, Source
from heartbeat.replies import body_of

DEFAULT_URL: Final = "http://127.0.0.1:8080"
MOST_SHOWN: Final = 50
ALL_UP, SOME_DOWN, NOT_KNOWN = 0, 1, 2
_WORST_FIRST: Final = (DOWN, UNKNOWN, PAUSED, LATE, NEW, UP)
_AS_ASKED: Final = (UNKNOWN, PAUSED, DOWN, LATE, NEW, UP)
"""Who is judged between two questions moves from UNKNOWN to DOWN, and must not fall between them: that would pass for all up."""
_ALWAYS_TOLD: Final = (DOWN, UNKNOWN, LATE, UP)
_WORDS: Final = {ALL_UP: "up", SOME_DOWN: "down", NOT_KNOWN: "unknown"}
_TIMEOUT_S: Final = 5.0
_MOST_BYTES: Final = 64 << 20
_MOST_PAGES: Final = 5_000
_DETECTION_FRESH_MS: Final = 10_000
_LONGEST_NAME: Final = 60
_PORTS: Final = {"http": 80, "https": 443}
_HEAD: Final = ("SOURCE", "STATE", "SINCE", "LAST BEAT", "CONNECTOR", "TAGS")


class _Blind(msgspec.Struct, frozen=True):
    stage: str
    message: str
    since_ms: int


class _Connector(msgspec.Struct, frozen=True):
    name: str
    sources: dict[str, int]
    blind: _Blind | None = None
    paused: str | None = None
    error: str | None = None


class _Stages(msgspec.Struct, frozen=True):
    detection: int | None


class _Pipeline(msgspec.Struct, frozen=True):
    connectors: list[_Connector]
    stages: _Stages
    channels: dict[str, str] = {}
    error: str | None = None


class _Page(msgspec.Struct, frozen=True):
    sources: list[Source]
    next: str | None


class _NoAnswer(ConnectError):
    """Nobody answers there."""


class _NotNow(ConnectError):
    """It answers that it cannot say that now: Redis is away."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the monitor said. ``more`` sources are not among the rows; ``unread`` says why there are none, if they cannot be read."""

    pipeline: _Pipeline
    rows: Sequence[Source] = ()
    more: int = 0
    unread: str = ""


def run(url: str, *, as_json: bool = False, everything: bool = False) -> tuple[str, int]:
    """Do the same now."""
    return report(url, time.time_ns() // 1_000_000, as_json=as_json, everything=everything)


def report(url: str, now_ms: int, *, as_json: bool = False, everything: bool = False) -> tuple[str, int]:
    """Return what to print, and the exit code: 0 all up, 1 some down, 2 if not all is known.

    The worst come first, at most 50 unless ``everything`` is wanted. LATE and NEW count as not down, and so does who has said
    goodbye; what an operator has paused is a doubt of its connector.

    Raises:
        UsageError: ``url`` is none; as JSON that is an answer like any other.
    """
    try:
        parts = _address(url)
    except UsageError as error:
        if not as_json:
            raise
        return _json({"status": _WORDS[NOT_KNOWN], "error": str(error)}), NOT_KNOWN
    origin = _origin(parts)
    try:
        answer = _ask(parts, MOST_SHOWN if not everything else None)
    except ConnectError as error:
        text = f"The monitor at {visible(origin)} cannot be asked: {visible(str(error))}"
        starts = "Does one run there? `heartbeat monitor monitor.toml` starts one, " if isinstance(error, _NoAnswer) else ""
        fix = f"{starts}--url says where it listens; its log says more."
        reply = {"status": _WORDS[NOT_KNOWN], "monitor": origin, "error": text}
        return (_json(reply) if as_json else f"{text}\n{fix}\n"), NOT_KNOWN
    doubts = list(_doubts(answer.pipeline, now_ms))
    if answer.unread and not answer.pipeline.error:  # that has said it
        doubts.append(f"The sources cannot be read: {answer.unread}")
    code = _code(answer, doubts)
    failing = answer.pipeline.channels
    if as_json:
        rows = [msgspec.to_builtins(row) for row in answer.rows]
        told = {"doubts": doubts, "channels": failing, "sources": rows, "more": answer.more}
        return _json({"status": _WORDS[code], "monitor": origin, **told}), code
    # No doubt: who is down is known all the same, and only hears nobody of it.
    channels = [f"Channel {name} did not take its last message: {error}" for name, error in failing.items()]
    return "\n".join([*map(visible, (*doubts, *channels)), *_table(answer, now_ms)]) + f" (by the monitor at {visible(origin)})\n", code


def _code(answer: _Answer, doubts: Sequence[str]) -> int:
    states = {row.state for row in answer.rows}
    if DOWN in states:
        return SOME_DOWN
    return NOT_KNOWN if doubts or UNKNOWN in states else ALL_UP


def _doubts(pipeline: _Pipeline, now_ms: int) -> Iterator[str]:
    """Yield why not all may be believed: silence proves nothing while a connector is blind, or nobody looks."""
    if pipeline.error:
        yield f"The monitor cannot look at Redis: {pipeline.error}"
    age_ms = pipeline.stages.detection
    if age_ms is None or age_ms > _DETECTION_FRESH_MS:
        yield f"The monitor has looked at nothing{'' if age_ms is None else f' for {duration(age_ms)}'}: nobody is found to be down now"
    elif not pipeline.connectors and not pipeline.error:
        yield "No connector has sources in this Redis yet: is a worker running, and does the monitor read the Redis that it writes?"
    for connector in pipeline.connectors:
        if connector.error:
            yield f"The index of {connector.name} cannot be looked at: {connector.error}"
        if connector.blind is not None:
            blind = connector.blind
            yield f"BLIND {connector.name} for {duration(max(0, now_ms - blind.since_ms))}: {blind.stage}: {blind.message}"
        elif connector.paused:
            yield f"{connector.paused} {connector.name}: an operator has done so; who is silent is not judged"


def _table(answer: _Answer, now_ms: int) -> Iterator[str]:
    if answer.rows:
        rows = [_HEAD, *(_cells(row, now_ms) for row in answer.rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        yield from ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    if answer.more:
        yield f"... and {answer.more:,} more: --all shows them"
    counts = _counts(answer)
    told = ", ".join(f"{counts[state]:,} {state}" for state in _WORST_FIRST if counts[state] or state in _ALWAYS_TOLD)
    yield "Who is up and who is down is not known now" if answer.unread else f"{counts.total():,} source(s): {told}"


def _counts(answer: _Answer) -> Counter[str]:
    """Return how many are in each state: of the rows if those are all, else as the monitor counts, who knows less of each source."""
    counts = Counter(row.state for row in answer.rows)
    if not answer.more:
        return counts
    told: Counter[str] = Counter()
    for connector in answer.pipeline.connectors:
        for state, count in connector.sources.items():
            told[PAUSED if connector.paused and state == "unknown" else state.upper()] += count
    total = told.pop("TOTAL", 0)
    # What rules and declarations say of a source only its row knows: there are no fewer LATE and NEW ones than are shown.
    counts |= told
    counts[UP] = max(0, total - sum(counts[state] for state in (DOWN, UNKNOWN, PAUSED, LATE)))
    return counts


def _cells(row: Source, now_ms: int) -> tuple[str, ...]:
    tags = ", ".join(map(visible, row.tags))
    name, state = visible(row.name, _LONGEST_NAME), visible(row.state)
    return name, state, _ago(row.since_ms, now_ms), _ago(row.last_beat_ms, now_ms), visible(row.connector), tags


def _ago(at_ms: int | None, now_ms: int) -> str:
    return "-" if at_ms is None else f"{duration(max(0, now_ms - at_ms))} ago"


def _json(reply: Any) -> str:
    """Return JSON in ASCII alone: exact for programs, and harmless to a terminal, whatever the names are."""
    return json.dumps(reply, indent=2) + "\n"


# Asking


def _address(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname or (parts.port is not None and not parts.port):
            raise ValueError("no address")
    except ValueError as error:
        raise UsageError(f"--url: a URL such as {DEFAULT_URL} is needed") from error
    return parts


def _origin(parts: SplitResult) -> str:
    """Return where it is, without a password that may stand in the URL."""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _ask(parts: SplitResult, most: int | None) -> _Answer:
    """Ask for the pipeline, and for the worst sources, one more than are wanted: it tells whether there are others."""
    pipeline = _get(parts, "/api/v1/pipeline", _Pipeline)
    rows: list[Source] = []
    wanted = None if most is None else most + 1
    try:
        for state in _AS_ASKED:
            if wanted is None or len(rows) < wanted or state == DOWN:
                rows += islice(_rows(parts, state, min(wanted or MOST_AT_ONCE, MOST_AT_ONCE)), wanted)
    except _NotNow as error:
        return _Answer(pipeline, unread=str(error))
    rows.sort(key=lambda row: _WORST_FIRST.index(row.state))
    shown = rows[:most]
    total = sum(connector.sources.get("total", 0) for connector in pipeline.connectors)
    beaten = sum(row.state != NEW for row in shown)
    # The count is of another moment than the rows: it alone cannot say that nobody is left.
    return _Answer(pipeline, shown, max(total - beaten, 1) if len(rows) > len(shown) else 0)


def _rows(parts: SplitResult, state: str, at_once: int) -> Iterator[Source]:
    """Yield sources in a state, page by page."""
    query: dict[str, str | int] = {"state": state, "limit": at_once}
    for _ in range(_MOST_PAGES):
        page = _get(parts, f"/api/v1/sources?{urlencode(query)}", _Page)
        yield from (row for row in page.sources if row.state == state)
        if page.next is None:
            return
        query["cursor"] = page.next


def _get(parts: SplitResult, path: str, kind: Any) -> Any:
    """Ask for a page. No proxy of the environment is followed: what is asked for is mostly on this very machine."""
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    connection = kinds[parts.scheme](parts.hostname or "", parts.port or _PORTS[parts.scheme], timeout=_TIMEOUT_S)
    try:
        connection.request("GET", parts.path.rstrip("/") + path, headers={"Accept": "application/json"})
        reply = connection.getresponse()
        body = body_of(reply, _TIMEOUT_S, _MOST_BYTES)
        if reply.status != 200:
            kind_of = _NotNow if reply.status == 503 else ConnectError
            raise kind_of(f"it answers {reply.status}: {_reason(body) or reply.reason}")
        return msgspec.json.decode(body, type=kind)
    except TimeoutError as error:
        raise _NoAnswer(f"no answer in {_TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise _NoAnswer(error.strerror or str(error)) from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError, http.client.HTTPException) as error:
        raise ConnectError(f"it does not answer as a monitor does: {error}") from error
    finally:
        connection.close()


def _reason(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body, type=dict[str, Any]).get("error", ""))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""
