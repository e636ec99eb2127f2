"""What a backtest found, for people and for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from heartbeat.beats.beat import ALLOWED_SKEW_MS
from heartbeat.beats.histories import Skipped
from heartbeat.beats.history import Down, Rule, Summary
from heartbeat.display import duration, utf8, visible

_DOWNS_SHOWN: Final = 10
_REASONS_SHOWN: Final = 3
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was read under which rule. ``until_ms`` is when reading began: silence is judged up to then."""

    topics: Sequence[str]
    template: str
    rule: Rule
    since_ms: int | None
    until_ms: int
    records: int
    skipped: Skipped
    summaries: Sequence[Summary]


def ranked(summaries: Sequence[Summary]) -> list[Summary]:
    """Return the sources in the order of interest: the most DOWNs first, then the longest gap, then by name."""
    return sorted(summaries, key=lambda one: (-one.down_count, -(one.gaps.longest if one.gaps else 0), one.source))


def as_json(outcome: Outcome, top: int | None) -> str:
    """Return one JSON object: times in UTC as ISO 8601, durations with their unit in the name."""
    shown = ranked(outcome.summaries)[:top]
    found = {
        "topics": list(outcome.topics),
        "key": outcome.template,
        "ttl_s": outcome.rule.ttl_ms / 1000,
        "grace_s": outcome.rule.grace_ms / 1000,
        "since": None if outcome.since_ms is None else utc(outcome.since_ms),
        "until": utc(outcome.until_ms),
        "records": outcome.records,
        "left_out": {
            "unnamed": outcome.skipped.unnamed.total(),
            "unnamed_reasons": dict(outcome.skipped.unnamed.most_common()),
            "without_time": outcome.skipped.timeless,
            "before_since": outcome.skipped.before,
            "beyond_most_sources": outcome.skipped.beyond,
            "canaries": outcome.skipped.canaries,
        },
        "times_in_the_future": outcome.skipped.future,
        "headers_not_understood": outcome.skipped.headers,
        "total": _total(outcome.summaries),
    }
    # A line for each source: it can be searched by line, and a million of them are never objects all at once.
    sources = b",\n".join(msgspec.json.encode(_source(one)) for one in shown)
    head = msgspec.json.format(msgspec.json.encode(found), indent=2).removesuffix(b"\n}")
    return (head + b',\n  "sources": [\n' + sources + b"\n  ]\n}\n").decode()


def _total(summaries: Sequence[Summary]) -> dict[str, Any]:
    return {
        "sources": len(summaries),
        "beats": sum(one.beats for one in summaries),
        "late_beats": sum(one.late for one in summaries),
        "downs": sum(one.down_count for one in summaries),
        "open": sum(one.open for one in summaries),
        "smallest_ttl_s": _smallest(summaries),
    }


def _smallest(summaries: Sequence[Summary]) -> int | None:
    return max((one.smallest_ttl_s for one in summaries if one.smallest_ttl_s is not None), default=None)


def _source(one: Summary) -> dict[str, Any]:
    gaps = one.gaps
    return {
        "source": utf8(one.source),
        "beats": one.beats,
        "goodbyes": one.byes,
        "late_beats": one.late,
        "first": None if one.first_ms is None else utc(one.first_ms),
        "last": None if one.last_ms is None else utc(one.last_ms),
        "gaps_ms": None if gaps is None else {"p50": gaps.p50, "p90": gaps.p90, "p99": gaps.p99, "max": gaps.longest},
        "smallest_ttl_s": one.smallest_ttl_s,
        "down_count": one.down_count,
        "downs": [_down(down) for down in one.downs],
    }


def _down(down: Down) -> dict[str, Any]:
    return {
        "last_beat": utc(down.last_beat_ms),
        "down_at": utc(down.down_at_ms),
        "ended_at": None if down.ended_ms is None else utc(down.ended_ms),
        "ended_by": None if down.ended_ms is None else "bye" if down.by_bye else "beat",
        "lasted_s": down.lasted_ms / 1000,
        "open": down.ended_ms is None,
    }


def as_text(outcome: Outcome, top: int) -> str:
    """Return a table of sources and the list of DOWNs, of the ``top`` sources of most interest."""
    shown = ranked(outcome.summaries)[:top]
    return "\n".join([*_head(outcome), "", *_table(shown, outcome), *_downs(shown), *_notes(outcome)]) + "\n"


def _head(outcome: Outcome) -> Iterator[str]:
    total = _total(outcome.summaries)
    yield (
        f"{total['beats']:,} beats of {total['sources']:,} source(s) in {outcome.records:,} records of {', '.join(outcome.topics)}"
        f"{'' if outcome.since_ms is None else f' since {utc(outcome.since_ms)}'}, read up to {utc(outcome.until_ms)}"
    )
    rule = f"ttl {outcome.rule.ttl_ms / 1000:g} s and grace {outcome.rule.grace_ms / 1000:g} s"
    yield f"{rule}: {total['downs']:,} DOWN(s), {total['open']:,} of them open at the end"
    if total["smallest_ttl_s"] is not None:
        yield f"Smallest ttl without a false alarm for any source, with this grace: {total['smallest_ttl_s']} s"


def _table(shown: Sequence[Summary], outcome: Outcome) -> Iterator[str]:
    rows = [("SOURCE", "BEATS", "P50", "P90", "P99", "MAX", "DOWNS", "SMALLEST TTL")]
    for one in shown:
        gaps = [one.gaps.p50, one.gaps.p90, one.gaps.p99, one.gaps.longest] if one.gaps else []
        p50, p90, p99, longest = map(duration, gaps) if gaps else ("-",) * 4
        smallest = "-" if one.smallest_ttl_s is None else f"{one.smallest_ttl_s} s"
        rows.append((visible(one.source), f"{one.beats:,}", p50, p90, p99, longest, f"{one.down_count:,}", smallest))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *rest in rows:
        yield "  ".join([name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
    if len(shown) < len(outcome.summaries):
        yield f"... and {len(outcome.summaries) - len(shown):,} more source(s): --top shows more, --json all of them"


def _downs(shown: Sequence[Summary]) -> Iterator[str]:
    for one in shown:
        if one.down_count:
            yield ""
            yield f"DOWNs of {visible(one.source)}"
        listed = [*one.downs[-_DOWNS_SHOWN:]]
        if one.down_count > len(listed):
            yield f"  ... {one.down_count - len(listed):,} more, not shown"
        for down in listed:
            begun = f"  down at {utc(down.down_at_ms)}, last beat {utc(down.last_beat_ms)}, "
            if down.ended_ms is None:
                yield begun + f"open at the end of the log, for {duration(down.lasted_ms)} when it was read"
            else:
                ended = "ended by a goodbye" if down.by_bye else "recovered"
                yield begun + f"{ended} {utc(down.ended_ms)} after {duration(down.lasted_ms)}"


def _notes(outcome: Outcome) -> Iterator[str]:
    skipped = outcome.skipped
    late = sum(one.late for one in outcome.summaries)
    reasons = "; ".join(f"{reason} ({times:,})" for reason, times in skipped.unnamed.most_common(_REASONS_SHOWN))
    notes = [
        (skipped.unnamed.total(), f"record(s) name no source with {outcome.template}: {visible(reasons)}"),
        (skipped.timeless, "record(s) without a time were left out"),
        (skipped.before, "record(s) from before the time asked for were left out"),
        (skipped.beyond, "record(s) of sources beyond heartbeat.sources.max were left out"),
        (skipped.canaries, "canaries of a monitor, which are nobody's beats, were left out"),
        (skipped.future, f"record(s) from the future were taken as of {ALLOWED_SKEW_MS // 1000} s after reading began"),
        (skipped.headers, "header(s) hb-ttl or hb-status were not understood and had no effect"),
        (late, "beat(s) came long after later ones: quantiles and smallest ttl of their sources may be too high"),
    ]
    told = [f"{times:,} {words}" for times, words in notes if times]
    return iter(["", *told] if told else [])


def utc(stamp_ms: int) -> str:
    """Return epoch ms as ISO 8601 in UTC, to the millisecond."""
    return (_EPOCH + timedelta(milliseconds=stamp_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
