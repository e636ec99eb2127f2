"""What the proof that lies in Redis lets us conclude from silence, partition by partition. Pure: facts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from heartbeat.beats import doubts
from heartbeat.beats.inspection import Index
from heartbeat.beats.partitions import Stored
from heartbeat.connect.api import TopicPartition
from heartbeat.doctor.findings import Finding, Level, fail, ok, warn
from heartbeat.doctor.judge_kafka import span
from heartbeat.doctor.target import Target

BLIND_MS: Final = 10_000
"""Older than this, nothing can be concluded from silence."""
_OLD_MS: Final = 3_000
_SETTLE_MS: Final = 120_000
_LISTED: Final = 10
_SAID_MS: Final = 6_000
_HELD: Final = {"PAUSED": "paused", "STOPPED": "stopped"}
_WHYS: Final = {
    doubts.BROKER: ("Kafka does not answer it where the logs end", "see the kafka lines above; if all is well there, the worker's network"),
    doubts.LAG: ("{:,} record(s) are known to it and not applied", "wait while the number falls; if it does not, see the worker's log"),
    doubts.CLOCKS: ("the clocks of Redis and of the worker are over 2 s apart", "set the clock that is wrong: timedatectl set-ntp true"),
    doubts.PAUSED: ("{:,} record(s) wait, as the connector is paused", "resume it"),
}
"""By what a task says: for people, and what to do."""


def no_index(target: Target, connectors: Sequence[str]) -> Finding:
    """Say that this Redis has no index of the connector."""
    there = f"; there is one of {', '.join(connectors)}" if connectors else ""
    text = f"this Redis holds no index of the connector{there}: nothing was ever applied here, or it was flushed just now"
    return fail(
        f"sight {target.name}",
        text,
        "see the lines above; if all is well there, this is another Redis than the worker's: --redis HOST:PORT",
    )


def judge(target: Target, index: Index, ends: Mapping[TopicPartition, int], held: Finding | None, fix: str) -> Iterator[Finding]:
    """Judge every partition of the connector's present set.

    ``held`` is the finding that the connector was paused or stopped: then old sight is no fault of its own. ``fix`` starts a
    connector again that does not see.
    """
    check = f"sight {target.name}"
    wanted = [TopicPartition(topic, number) for topic, count in sorted(index.topics.items()) for number in range(count)]
    wanted += sorted(index.proof.keys() - set(wanted)) if not wanted else []
    if not wanted:
        yield fail(check, "no partition is proven: the connector has not seen its topics yet", fix)
        return
    seen = {p: index.proof[p] for p in wanted if p in index.proof}
    bad = [*_unproven(check, [p for p in wanted if p not in seen], fix), *_each(check, index, seen, ends, fix)]
    if held is not None and bad:
        text = f"{len(bad)} of {len(wanted)} partition(s) are not in sight, as the connector is held: silence proves nothing"
        yield Finding(held.level, check, text, held.fix)
        return
    if bad and index.target.state in _HELD:
        since = span(index.asked_ms - index.target.at_ms)
        text = f"{len(bad)} of {len(wanted)} partition(s) are not in sight, as the connector was {_HELD[index.target.state]} {since} ago"
        yield warn(check, f"{text}: silence proves nothing", f"let it go on: PUT /connectors/{target.name}/resume on its worker")
        return
    if len(bad) > _LISTED:
        levels = max(finding.level for finding in bad[_LISTED:])
        bad[_LISTED:] = [Finding(levels, check, f"... and {len(bad) - _LISTED} more partition(s)", fix)]
    yield from bad
    if bad:
        yield from _said(check, index)
    if not any(finding.level is Level.FAIL for finding in bad):
        yield from _set(check, index, fix)
    if not bad:
        yield ok(check, _summary(target, index, seen, ends))


def _unproven(check: str, missing: Sequence[TopicPartition], fix: str) -> Iterator[Finding]:
    for partition in missing:
        yield fail(check, f"{_name(partition)} exists, but nobody proves it: no source of the connector can be called DOWN", fix)


def _each(
    check: str, index: Index, seen: Mapping[TopicPartition, Stored], ends: Mapping[TopicPartition, int], fix: str
) -> Iterator[Finding]:
    for partition, stored in seen.items():
        behind = _behind(stored, ends.get(partition))
        if stored.offset is not None and partition in ends and ends[partition] < stored.offset:
            text = f"{_name(partition)}: {stored.offset:,} records are applied, but the log ends at {ends[partition]:,}: it was made anew"
            yield fail(check, text, fix)
        elif stored.until_ms is None:
            yield fail(check, f"{_name(partition)} is not proven yet{behind}", f"wait while the number falls; if it does not: {fix}")
        elif (age_ms := index.asked_ms - stored.until_ms) > BLIND_MS:
            text = f"{_name(partition)} was last seen to its end {span(age_ms)} ago{behind}: blind, its sources are UNKNOWN, not DOWN"
            yield fail(check, text, fix)
        elif age_ms > _OLD_MS:
            text = f"{_name(partition)} was last seen to its end {span(age_ms)} ago{behind}: verdicts wait"
            yield warn(check, text, f"look again; if it stays: {fix}")


def _said(check: str, index: Index) -> Iterator[Finding]:
    """Pass on what tasks say of themselves; what is older than some seconds is of one that is gone."""
    for number, said in sorted(index.said.items()):
        if said.why in _WHYS and index.asked_ms - said.at_ms <= _SAID_MS:
            words, fix = _WHYS[said.why]
            yield warn(check, f"task {number} says why: {words.format(said.behind)}", fix)


def _set(check: str, index: Index, fix: str) -> Iterator[Finding]:
    if index.topics_at_ms is not None and index.asked_ms - index.topics_at_ms > BLIND_MS:
        text = f"which partitions there are was last asked {span(index.asked_ms - index.topics_at_ms)} ago: a new one would go unseen"
        yield warn(check, text, fix)


def _summary(target: Target, index: Index, seen: Mapping[TopicPartition, Stored], ends: Mapping[TopicPartition, int]) -> str:
    oldest = max(index.asked_ms - (stored.until_ms or 0) for stored in seen.values())
    shortest = min(index.asked_ms - (index.asked_ms if stored.since_ms is None else stored.since_ms) for stored in seen.values())
    behind = sum(max(0, ends[p] - (stored.offset or 0)) for p, stored in seen.items() if p in ends)
    told = f"{len(seen)} partition(s) seen to their ends at most {span(oldest)} ago, without a gap for {span(shortest)}"
    told += f", {behind:,} record(s) behind"
    settled_ms = min(target.ttl_ms or _SETTLE_MS, _SETTLE_MS)
    if shortest < settled_ms:
        told += f"; who fell silent before that is judged in {span(settled_ms - shortest)}"
    return told


def _behind(stored: Stored, end: int | None) -> str:
    return "" if end is None else f", {max(0, end - (stored.offset or 0)):,} record(s) behind"


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}-{partition.partition}"
