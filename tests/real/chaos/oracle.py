"""The oracle: a run's history in, everything that was told wrongly, or not told, out. Pure.

**Acknowledged in time.** A beat counts by its own time (DESIGN section 5): its record's timestamp, at most the moment it was sent plus the
allowed skew. Kafka's word is the acknowledgement as the producer saw it. A DOWN names the deadline D it was judged on, and until when
everything committed is said to have been applied, P. It is false if Kafka had acknowledged, before D + slack or before P, a beat whose
deadline is later than D: D + slack is what proof of silence needs at least, P is what this verdict claims. This holds at every moment and
during every fault; no allowance is made for any, because what Kafka had acknowledged by then was there to be read. What Kafka acknowledged
later was not in time, whoever is to blame (a broker that was stopped, a producer that retried); a record without an acknowledgement may be
in the log or not: it can neither make a verdict false nor is a verdict on it asked for. D itself must be somebody's deadline: that of a
record that may be in the log, or its time is made up. A goodbye that was acknowledged so is the last word; a DOWN after it is false.

**Within its budget.** Verdicts are asked for in quiet times only: between the moment the last fault is over (its own end, and the time
its victims need to be back: sessions, reconnects) plus ``settle`` and the beginning of the next. At a moment of such a time every
source that has been silent for grace, slack and ``tell`` must have an open incident, every one that has been alive for ``tell`` by
acknowledged beats must have none, and no pipeline's may be open. Whoever was away for a shorter time may have been told or not.
A timestamp beyond the allowed skew counts as of when it is read, and anew when Redis has lost that it was: such a source is silent only
as of the last fault.

**Told** is what the receiver answered with success. It holds idempotency keys against each other as such a receiver does: an incident is
open if its opening was told and no end of it was. An end alone tells of both ("was down").
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from .history import SKEW_MS, Fault, History, Record, Says, Seen, Verdict
from .truth import Life

_STEP_MS = 5_000


_SOON_MS: Final = 10_000
"""So long before a loss a verdict may have been stored that nobody was told."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """The monitor's settings, and what it may take. ``tell_ms`` covers the sample, the tick, the grouping and a few attempts."""

    grace_ms: int
    slack_ms: int
    settle_ms: int
    tell_ms: int


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """Something that was wrong: which rule, about whom, and what was seen."""

    rule: str
    subject: str
    seen: str


def violations(history: History, budgets: Budgets) -> list[Violation]:
    """Return everything that was wrong, each once."""
    by_source: defaultdict[str, list[Record]] = defaultdict(list)
    for record in history.records:
        by_source[record.source].append(record)
    lives = {source.name: Life(source, by_source[source.name]) for source in history.sources}
    found = set(_identities([*history.told, *history.kept]))
    found |= set(_order(history.told, history.faults))
    for seen in _first_of_each([*history.kept, *history.told]):
        if seen.verdict.to == "DOWN":
            found |= set(_false(seen.verdict, lives.get(seen.verdict.source), budgets))
    for life in lives.values():
        found |= set(_repeated(life, history))
    moments = list(_quiet_moments(history, budgets))
    for over_ms, at_ms in moments:
        found |= set(_untold(history, lives.values(), budgets, over_ms, at_ms))
    found |= set(_undelivered(history, [at_ms for _, at_ms in moments], budgets))
    return sorted(found)


def _first_of_each(seen: Iterable[Seen]) -> list[Seen]:
    first: dict[str, Seen] = {}
    for one in sorted(seen, key=lambda one: one.at_ms):
        first.setdefault(one.verdict.key, one)
    return list(first.values())


# What was said


def _false(verdict: Verdict, life: Life | None, budgets: Budgets) -> Iterator[Violation]:
    """Say what is false about a DOWN."""
    subject, deadline = verdict.source, verdict.deadline_ms
    if life is None or not life.records or deadline is None:
        yield Violation("a DOWN is about a source that has beaten, and names a deadline", subject, repr(verdict))
        return
    if verdict.reason == "fail":
        if not any(0 <= verdict.at_ms - r.stamp_ms <= SKEW_MS for r in life.records if r.says is Says.FAIL):
            yield Violation("a DOWN for a fail has one", subject, repr(verdict))
        return
    known_by = max(deadline + budgets.slack_ms, verdict.proven_until_ms or 0)
    alive_until = life.deadline_known_by(known_by)
    if alive_until is not None and alive_until > deadline:
        yield Violation("no source is DOWN whose beat Kafka acknowledged in time", subject, f"alive until {alive_until}: {verdict}")
    if (verdict.proven_until_ms or 0) < deadline + budgets.slack_ms:
        yield Violation("a DOWN is proven", subject, repr(verdict))
    if verdict.at_ms != deadline + budgets.grace_ms:
        yield Violation("a DOWN is dated by its deadline and the grace", subject, repr(verdict))
    acked = [r for r in life.records if r.acked_ms is not None and r.acked_ms < known_by]
    newest = max(acked, key=lambda record: record.stamp_ms, default=None)
    if newest is not None and newest.says is Says.BYE:
        yield Violation("no source is DOWN that said goodbye", subject, f"{newest}: {verdict}")
    if not any(_makes(record, deadline, life.source.ttl_ms) for record in life.records):
        yield Violation("the deadline of a DOWN is one that the source had", subject, repr(verdict))


def _makes(record: Record, deadline_ms: int, ttl_ms: int) -> bool:
    """Tell whether a record's deadline may be this one; one far ahead of its time counts as of when it is read, whenever that is."""
    if record.says is Says.BYE or record.earliest_ms + ttl_ms > deadline_ms:
        return False
    return record.ahead or deadline_ms <= record.latest_ms(0) + ttl_ms


def _identities(seen: Iterable[Seen]) -> Iterator[Violation]:
    """Hold ids and keys against what they stand for: one incident has one id, and one key for each transition, whoever tells it."""
    meant: dict[str, tuple[str, str]] = {}
    ids: dict[tuple[str, str, int], str] = {}
    for verdict in (one.verdict for one in seen):
        if verdict.key != f"{verdict.incident}:{verdict.to}":
            yield Violation("a key is the incident and the transition", verdict.source, repr(verdict))
        whose = (verdict.connector, verdict.source)
        if meant.setdefault(verdict.incident, whose) != whose:
            yield Violation("an incident's id is its own", verdict.source, repr(verdict))
        if verdict.to == "DOWN" and verdict.deadline_ms is not None:
            known = ids.setdefault((*whose, verdict.deadline_ms), verdict.incident)
            if known != verdict.incident:
                yield Violation("one incident has one key", verdict.source, f"{known}, {verdict.incident}: {verdict}")


def _repeated(life: Life, history: History) -> Iterator[Violation]:
    """Find two incidents of one silence, or of one fail: between two of them the source must have beaten.

    A verdict that was lost with its Redis before anybody was told is none: the first reading may have dated a beat by when it was appended,
    and what is read anew is dated by its own stamp.
    """
    if any(record.ahead for record in life.records):
        return  # counts as of when it is read
    told = {seen.verdict.incident for seen in history.told}
    losses = [fault for fault in history.faults if fault.loses]
    opened = {  # a fail is judged on its own time, and its silence would be on a deadline: that is compared
        seen.verdict.deadline_ms + (life.source.ttl_ms if seen.verdict.reason == "fail" else 0): seen.verdict
        for seen in (*history.told, *history.kept)
        if seen.verdict.to == "DOWN" and seen.verdict.source == life.source.name and seen.verdict.deadline_ms is not None
        if seen.verdict.incident in told or not any(fault.began_ms - _SOON_MS <= seen.at_ms <= fault.ended_ms for fault in losses)
    }
    deadlines = sorted(record.earliest_ms + life.source.ttl_ms for record in life.records if record.says is not Says.BYE)
    order = sorted(opened)
    for before, after in pairwise(order):
        if not any(before < deadline <= after for deadline in deadlines):
            seen = f"{opened[before]} and {opened[after]}"
            yield Violation("one silence is one incident", life.source.name, seen)
    for fail in life.fails(0, history.ended_ms):
        named = [verdict for verdict in opened.values() if verdict.reason == "fail" and 0 <= verdict.at_ms - fail.stamp_ms <= SKEW_MS]
        if len(named) > 1:
            yield Violation("one fail is one incident", life.source.name, f"{fail}: {named}")


def _order(told: Sequence[Seen], faults: Sequence[Fault]) -> Iterator[Violation]:
    """Hold each incident's end against its opening, and incidents of one subject against each other, as they first were told."""
    ended: dict[str, int] = {}
    open_ones: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for at_ms, verdict in ((seen.at_ms, seen.verdict) for seen in told):
        subject = open_ones[f"{verdict.connector}/{verdict.source}"]
        if not verdict.opens:
            ended.setdefault(verdict.incident, at_ms)
            subject.pop(verdict.incident, None)
        elif verdict.incident in ended:
            if verdict.incident not in subject and not _lost(faults, 0, at_ms) and not _told_before(told, verdict, ended[verdict.incident]):
                yield Violation("a recovery is told after its DOWN", verdict.source, f"ended at {ended[verdict.incident]}: {verdict}")
        else:
            if set(subject) - {verdict.incident}:
                yield Violation("a subject has one open incident at most", verdict.source, f"{sorted(subject)} open: {verdict}")
            subject[verdict.incident] = at_ms


def _told_before(told: Sequence[Seen], verdict: Verdict, at_ms: int) -> bool:
    return any(seen.verdict.key == verdict.key and seen.at_ms <= at_ms for seen in told)


def _lost(faults: Sequence[Fault], from_ms: int, to_ms: int) -> bool:
    return any(fault.loses and fault.began_ms <= to_ms and fault.ended_ms >= from_ms for fault in faults)


# What was not said


def _quiet_moments(history: History, budgets: Budgets) -> Iterator[tuple[int, int]]:
    """Return the moments at which everything must have been told, each with when the last fault before was over."""
    over_ms = history.began_ms
    for fault in sorted([*history.faults, Fault("the end", history.ended_ms, history.ended_ms)], key=lambda fault: fault.began_ms):
        at_ms = over_ms + budgets.settle_ms + budgets.tell_ms
        while at_ms <= fault.began_ms:
            yield over_ms, at_ms
            at_ms += _STEP_MS
        over_ms = max(over_ms, fault.ended_ms + fault.heals_ms)


def _untold(history: History, lives: Iterable[Life], budgets: Budgets, over_ms: int, at_ms: int) -> Iterator[Violation]:
    told = [seen for seen in history.told if seen.at_ms <= at_ms]
    ended = {seen.verdict.incident for seen in told if not seen.verdict.opens}
    still_open: defaultdict[str, list[Verdict]] = defaultdict(list)
    for verdict in {seen.verdict.key: seen.verdict for seen in told if seen.verdict.opens}.values():
        if verdict.incident not in ended:
            still_open[verdict.source].append(verdict)
            if verdict.about_pipeline:
                yield Violation("no pipeline incident stays open after the fault", verdict.source, f"at {at_ms}: {verdict}")
    for life in lives:
        yield from _misjudged(life, still_open[life.source.name], budgets, over_ms, at_ms)


def _undelivered(history: History, moments: Sequence[int], budgets: Budgets) -> Iterator[Violation]:
    """Hold what was concluded against what was told by the first quiet moment after, unless Redis has lost it meanwhile."""
    heard_ms: dict[str, int] = {}
    ended_ms: dict[str, int] = {}
    for seen in history.told:
        heard_ms.setdefault(seen.verdict.incident, seen.at_ms)
        if not seen.verdict.opens:
            ended_ms.setdefault(seen.verdict.incident, seen.at_ms)
    for seen in _first_of_each(history.kept):
        verdict, next_one = seen.verdict, bisect_left(moments, seen.at_ms + budgets.tell_ms)
        if next_one == len(moments) or _lost(history.faults, seen.at_ms, moments[next_one]):
            continue
        told_ms = heard_ms if verdict.opens else ended_ms
        heard = verdict.opens or verdict.incident in heard_ms
        if heard and told_ms.get(verdict.incident, history.ended_ms + 1) > moments[next_one]:
            rule = "what was concluded is told" if verdict.opens else "every recovery follows"
            yield Violation(rule, verdict.source, f"{verdict}, at {moments[next_one]}")


def _misjudged(life: Life, still_open: Sequence[Verdict], budgets: Budgets, over_ms: int, at_ms: int) -> Iterator[Violation]:
    """Hold what is told of a source at a quiet moment against what is true of it."""
    source, since_told_ms = life.source.name, at_ms - budgets.tell_ms
    last = life.last_word(at_ms)
    if last is None:
        return
    if last.says is Says.BYE:
        if last.acked_ms is not None and last.acked_ms <= since_told_ms and still_open:
            yield Violation("a goodbye ends what is open", source, f"at {at_ms}: {still_open}")
        return
    silent_ms = life.silent_since(at_ms, over_ms)
    due_ms = None if silent_ms is None else silent_ms + budgets.grace_ms + budgets.slack_ms
    acked = any(record.acked_ms is not None for record in life.records)
    if acked and due_ms is not None and due_ms <= since_told_ms and not still_open:
        yield Violation("every true silence is told", source, f"silent since {silent_ms}, fault over at {over_ms}, not told at {at_ms}")
    failed = life.fails(since_told_ms - budgets.tell_ms, at_ms)
    if not failed and still_open and life.alive_throughout(since_told_ms, at_ms):
        yield Violation("every recovery follows", source, f"alive, fault over at {over_ms}, open at {at_ms}: {still_open}")
    for fail in life.fails(over_ms, since_told_ms):
        if fail is last and fail.acked_ms is not None and fail.acked_ms <= since_told_ms and not still_open:
            yield Violation("every fail is told", source, f"{fail} at {at_ms}")
