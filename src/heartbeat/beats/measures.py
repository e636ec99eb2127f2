"""The sink's own figures for ``GET /metrics``, read from what a task's thread replaces and never changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Final

from heartbeat.beats.catch_up import lag
from heartbeat.beats.clock import Clock
from heartbeat.connect.api import Measure

if TYPE_CHECKING:
    from heartbeat.beats.holdings import Holdings
    from heartbeat.beats.sources import Sources

_NO_LABELS: Final[Mapping[str, str]] = {}
_BEATS: Final[Mapping[str, str]] = {
    "applied": "Beats written: the newest of each source in a batch.",
    "coalesced": "Records that needed no write of their own, because the batch had a newer one of their source.",
    "stale": "Beats that the index already knew, or knew better.",
    "expired": "Beats that were past their deadline when they arrived.",
    "clamped": "Beats from the future, taken as now.",
    "refused": "New sources, or runs, for which there was no room.",
    "occupied": "Beats whose public key holds another type of value.",
    "goodbyes": "Planned goodbyes.",
    "garbled": "Headers that could not be understood.",
}


def of(sources: Sources, holdings: Holdings, clock: Clock) -> list[Measure]:
    """Return all figures of one task."""
    return [*_of_sources(sources), *_of_partitions(holdings, clock)]


def _of_sources(sources: Sources) -> Iterator[Measure]:
    for field in fields(sources.counts):
        yield Measure(f"heartbeat_beats_{field.name}", "counter", _BEATS[field.name], {}, getattr(sources.counts, field.name))
    yield _gauge("sources_known", "Sources this task remembers.", sources.known)
    if sources.indexed is not None:
        yield _gauge("sources_indexed", "Sources in the connector's index, the dead included.", sources.indexed)
    took = sources.redis_s
    yield Measure("heartbeat_redis_batches", "counter", "Batches that Redis has acknowledged.", {}, took.count)
    text = "Seconds from sending a batch until all its replies were read."
    yield Measure("heartbeat_redis_batch_seconds", "counter", text, {}, took.total)
    yield _gauge("redis_batch_seconds_max", "The longest of these since the task started.", took.longest)


def _of_partitions(holdings: Holdings, clock: Clock) -> Iterator[Measure]:
    now_ms = clock.now_ms()
    yield Measure(
        "heartbeat_canaries",
        "counter",
        "Records of a monitor that look how far the path reaches, and are beats of nobody.",
        {},
        holdings.canaries,
    )
    for reason, count in holdings.claims.items():
        yield Measure("heartbeat_claims", "counter", "Partitions taken over, and refused by Redis, by reason.", {"reason": reason}, count)
    for partition, held in holdings.held.items():
        labels = {"topic": partition.topic, "partition": str(partition.partition)}
        yield _gauge("lag_records", "Offsets between what is applied and the newest known end.", lag({partition: held}), labels)
        for name, at_ms, text in (
            ("until", held.stored.until_ms, "Age of the moment until which all that was committed is applied."),
            ("since", held.stored.since_ms, "For how long our looking has had no gap."),
        ):
            if at_ms is not None:
                yield _gauge(f"proven_{name}_age_seconds", text, (now_ms - at_ms) / 1000, labels)
    yield _gauge("redis_clock_ahead_seconds", "How far the clock of Redis is ahead of ours.", clock.redis_ahead_ms / 1000)


def _gauge(name: str, text: str, value: float, labels: Mapping[str, str] = _NO_LABELS) -> Measure:
    return Measure(f"heartbeat_{name}", "gauge", text, labels, value)
