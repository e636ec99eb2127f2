"""``heartbeat backtest``: what would a ttl have done to the beats that a topic still holds? Reads, prints, and writes nothing anywhere.

Names and times come about as in the sink. A silence at the end of the log is judged at the moment at which reading began: all that was
committed by then has been read, so nothing that was sent is missing from it.
"""

from __future__ import annotations

import gc
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import javaproperties

from heartbeat import logs
from heartbeat.beats import history_report, template
from heartbeat.beats.histories import Histories, View
from heartbeat.beats.history import Rule
from heartbeat.beats.settings import KEYS, Settings
from heartbeat.connect import client_properties, connector_files
from heartbeat.connect.connector_config import OVERRIDE, converter_settings
from heartbeat.connect.converters import Converter, StringConverter, find_converter
from heartbeat.connect.log_reader import LogReader
from heartbeat.display import visible
from heartbeat.errors import ConnectError, InvalidConfig, StartError, UsageError

_TOP: Final = 20
_DEFAULT_KEY: Final = "${key}"
_DURATION: Final = re.compile(r"(?:\d+[smhdw])+")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

Progress = Callable[[int], None]
"""Told how many offsets are done."""


@dataclass(frozen=True, slots=True)
class Request:
    """The command line; None where it says nothing. ``default_bootstrap`` counts if neither it nor a file names a broker."""

    topics: tuple[str, ...]
    default_bootstrap: str = "127.0.0.1:9092"
    bootstrap: str | None = None
    key: str | None = None
    ttl_s: int | None = None
    grace_s: float = 5.0
    connector: Path | None = None
    client_config: Path | None = None
    since: str | None = None
    top: int | None = None
    json: bool = False


@dataclass(frozen=True, slots=True)
class _Plan:
    topics: tuple[str, ...]
    template: template.Template
    rule: Rule
    settings: Settings
    key: Converter
    value: Converter
    client: Mapping[str, str]


def run(request: Request) -> str:
    """Return the report.

    Raises:
        UsageError: the command line or a file it names is wrong.
        ConnectError: the topics cannot be read, or hold nothing that could be judged.
    """
    plan = _plan(request)
    now_ms = time.time_ns() // 1_000_000
    since_ms = None if request.since is None else max(0, now_ms - _duration_s(request.since) * 1000)
    with _uncollected():
        outcome = _outcome(plan, now_ms, since_ms)
        if not outcome.summaries:
            raise ConnectError(f"No record of {', '.join(plan.topics)} could be taken as a beat: {_why(outcome, request.since)}")
        if request.json:
            return history_report.as_json(outcome, request.top)
        return history_report.as_text(outcome, request.top or _TOP)


def _outcome(plan: _Plan, now_ms: int, since_ms: int | None) -> history_report.Outcome:
    view = View(plan.template, plan.key.convert, plan.settings.reading, since_ms or 0, now_ms)
    histories = Histories(view, plan.rule, most_sources=plan.settings.limits.most)
    reader = LogReader(plan.client, plan.key.convert, plan.value.convert)
    try:
        records = look_back(reader, plan.topics, since_ms, histories)
    finally:
        reader.close()
    return history_report.Outcome(
        topics=plan.topics,
        template=plan.template.text,
        rule=plan.rule,
        since_ms=since_ms,
        until_ms=now_ms,
        records=records,
        skipped=histories.skipped,
        summaries=list(histories.finish(now_ms)),
    )


def look_back(reader: LogReader, topics: Sequence[str], since_ms: int | None, histories: Histories) -> int:
    """Read what the topics hold into the histories; return the number of records read."""
    spans = reader.spans(topics, since_ms)
    total = sum(span.end - span.start for span in spans.values())
    read = 0
    with _progress(total) as tell:
        for records in reader.read(spans):
            histories.add(records)
            read += len(records)
            tell(total - reader.remaining())
            reached_ms = reader.reached_ms()
            if histories.full and reached_ms is not None:
                histories.settle(reached_ms)
                reader.wait_for_slowest(histories.crowded)
    return read


@contextmanager
def _uncollected() -> Iterator[None]:
    """Leave the cycle collector off: what is kept has no cycles, and is much to look through again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def _progress(total: int) -> Iterator[Progress]:
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("reading"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TaskProgressColumn(show_speed=True),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=total)
        yield lambda done: bar.update(task, completed=done)


def _why(outcome: history_report.Outcome, since: str | None) -> str:
    skipped = outcome.skipped
    if skipped.unnamed:
        reason, _ = skipped.unnamed.most_common(1)[0]
        return f"{skipped.unnamed.total():,} name no source with {outcome.template}, {visible(reason)}; see --key"
    if skipped.timeless:
        return f"{skipped.timeless:,} have no time"
    if skipped.canaries:
        return f"{skipped.canaries:,} are canaries of a monitor, and no beats"
    return "there is none" if since is None else f"there is none of the last {since}"


def _plan(request: Request) -> _Plan:
    try:
        given = {} if request.connector is None else connector_files.read(request.connector).config
        config: dict[str, Any] = KEYS.load(given)
        client = _client(request, given)
    except InvalidConfig as error:
        raise UsageError("; ".join(error.errors)) from error
    except StartError as error:
        raise UsageError(str(error)) from error
    if not math.isfinite(request.grace_s):
        raise UsageError(f"--grace {request.grace_s}: a number of seconds is needed")
    if request.ttl_s is not None:
        config["redis.ttl"] = request.ttl_s
    key = request.key if request.key is not None else config["redis.key"] if given else _DEFAULT_KEY
    try:
        parsed = template.parse(key)
    except ValueError as error:
        raise UsageError(f"--key {key}: {error}") from error
    if not key:
        raise UsageError("--key may not be empty")
    settings = Settings.of(config)
    return _Plan(
        topics=_topics(request.topics, given),
        template=parsed,
        rule=Rule(settings.limits.ttl_ms, round(request.grace_s * 1000)),
        settings=settings,
        key=_converter("key", given),
        value=_converter("value", given),
        client=client,
    )


def _topics(topics: tuple[str, ...], config: Mapping[str, str | None]) -> tuple[str, ...]:
    named = topics or tuple(filter(None, (topic.strip() for topic in (config.get("topics") or "").split(","))))
    if not named:
        raise UsageError("no topic: name one with --topic, or a --connector whose file has topics")
    return tuple(dict.fromkeys(named))


def _converter(role: str, config: Mapping[str, str | None]) -> Converter:
    """Return the connector's converter; the worker's, which is not known here, is taken to be the one for text."""
    name = config.get(f"{role}.converter")
    if name is None:
        return StringConverter()
    plugin = find_converter(name)
    if plugin is None:
        raise UsageError(f"{role}.converter: Class {name} could not be found.")
    try:
        return plugin.build(plugin.config.load(converter_settings(role, config)))
    except InvalidConfig as error:
        raise UsageError("; ".join(error.errors)) from error


def _client(request: Request, config: Mapping[str, str | None]) -> dict[str, str]:
    """Return the client's properties: the connector's overrides, the file over them, the option over both."""
    java = {name.removeprefix(OVERRIDE): text for name, text in config.items() if name.startswith(OVERRIDE) and text is not None}
    if request.client_config is not None:
        try:
            with request.client_config.open("rb") as file:  # as bytes: Java reads these files as Latin-1
                java |= dict(javaproperties.load(file))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"cannot read client properties {request.client_config}: {reason}") from error
    java = {"bootstrap.servers": request.default_bootstrap, **java}
    if request.bootstrap is not None:
        java["bootstrap.servers"] = request.bootstrap
    logs.secrets.add(client_properties.secrets(java))
    return client_properties.translate(java).properties


def _duration_s(text: str) -> int:
    """Return the seconds of a duration such as ``90s``, ``15m``, ``1h30m``, ``7d`` or ``2w``."""
    if not _DURATION.fullmatch(text) or len(text) > 40:
        raise UsageError(f"--since {text}: a duration is a number and a unit, such as 90s, 15m, 1h30m, 7d or 2w")
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"(\d+)([smhdw])", text))
