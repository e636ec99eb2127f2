"""From a batch of records to what it says of sources: beats, goodbyes, signals, and the records that name no source. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from heartbeat.beats import signals
from heartbeat.beats.beat import ALLOWED_SKEW_MS, Newest, lifted, newest_by_source, with_timestamps
from heartbeat.beats.proof import Sight
from heartbeat.beats.signals import Marks, Order, Signal
from heartbeat.beats.template import Template, Unfillable, fault, faults
from heartbeat.connect.api import Batch, TopicPartition


@dataclass(frozen=True, slots=True)
class Reading:
    """How records are to be understood."""

    most_ttl_ms: int
    processing_time: bool = False
    mirrored: bool = False
    tombstones: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What a batch says. ``unfillable`` are the records that have no source, by index; ``garbled`` counts useless headers."""

    newest: Newest
    signals: Sequence[Signal] = ()
    unfillable: Sequence[tuple[int, Unfillable]] = ()
    garbled: int = 0


class Watched(Protocol):
    """A held partition, as far as reading needs it."""

    @property
    def sight(self) -> Sight: ...


@dataclass(slots=True)
class _Said:
    """What headers and missing values say, by index."""

    marks: dict[int, Marks] = field(default_factory=dict)
    byes: set[int] = field(default_factory=set)
    ttls_ms: dict[int, int] = field(default_factory=dict)


def read(batch: Batch, template: Template, reading: Reading, held: Mapping[TopicPartition, Watched], now_ms: int) -> Found:
    """Return what the batch says of its sources. ``now_ms`` is the time of a record that has none."""
    stamps = [now_ms] * len(batch) if reading.processing_time else with_timestamps(batch.timestamps_ms(), now_ms)
    if not (reading.processing_time or reading.mirrored):
        stamps = _lifted(batch, stamps, held)
    names: Sequence[Any] = [template.constant] * len(batch) if template.constant is not None else template.names(batch)
    said = _said(batch, reading)
    found: list[Signal] = []
    beating_names, beating_stamps, ttls_ms = names, stamps, said.ttls_ms
    if said.marks or said.byes:
        # As with beats: a goodbye from the future would keep its source away until then.
        found = _signals(batch, names, [min(stamp, now_ms + ALLOWED_SKEW_MS) for stamp in stamps], said)
        if said.byes:
            beating = [i for i in range(len(names)) if i not in said.byes]
            beating_names, beating_stamps = [names[i] for i in beating], [stamps[i] for i in beating]
            ttls_ms = {new: said.ttls_ms[old] for new, old in enumerate(beating) if old in said.ttls_ms}
    newest = newest_by_source(beating_names, beating_stamps, now_ms + ALLOWED_SKEW_MS, ttls_ms)
    unfillable = _unfillable(names, newest, said.byes) if template.constant is None else []
    return Found(newest, found, unfillable, sum(marks.garbled for marks in said.marks.values()))


def _lifted(batch: Batch, stamps: list[int], held: Mapping[TopicPartition, Watched]) -> list[int]:
    """Return the timestamps, later where the record is known to have been appended later.

    While catching up no record lies beyond a sample, and where clocks are right none is older than one: then nothing is looked at.
    """
    after = {p: at_ms for p, end in batch.next_offsets.items() if p in held and (at_ms := held[p].sight.appended_after_ms(end - 1))}
    if not after or min(stamps) >= max(after.values()):
        return stamps
    where = zip(stamps, batch.topics(), batch.partitions(), batch.offsets(), strict=True)
    return [
        lifted(stamp, held[p].sight.appended_after_ms(offset)) if (p := TopicPartition(topic, number)) in after else stamp
        for stamp, topic, number, offset in where
    ]


def _said(batch: Batch, reading: Reading) -> _Said:
    said = _Said()
    for index, headers in batch.with_headers().items():
        marks = signals.read(headers, reading.most_ttl_ms)
        if marks is None:
            continue
        said.marks[index] = marks
        if marks.ttl_ms is not None:
            said.ttls_ms[index] = marks.ttl_ms
        if marks.status == signals.BYE:
            said.byes.add(index)
    if reading.tombstones:
        said.byes.update(index for index, value in enumerate(batch.values()) if value is None)
    return said


def _signals(batch: Batch, names: Sequence[Any], stamps: Sequence[int], said: _Said) -> list[Signal]:
    speaking = {i for i, marks in said.marks.items() if marks.status is not None} | said.byes
    topics, partitions, offsets = batch.topics(), batch.partitions(), batch.offsets()
    found = []
    for i in sorted(speaking):
        if fault(names[i]) is not None:
            continue
        marks = said.marks.get(i, Marks())
        status = signals.BYE if i in said.byes else marks.status or signals.OK
        order = Order(stamps[i], f"{topics[i]}/{partitions[i]}", offsets[i])
        found.append(Signal(names[i], order, status, marks.run, marks.message))
    return found


def _unfillable(names: Sequence[Any], newest: Newest, byes: Iterable[int]) -> list[tuple[int, Unfillable]]:
    """Take names that may not be used out of ``newest``; return the records that have them, or none, by index."""
    wrong = faults(newest.beats) | faults(newest.ahead) | faults(names[i] for i in byes)
    for name in wrong:
        newest.beats.pop(name, None)
        newest.ahead.pop(name, None)
    return [(index, wrong[name]) for index, name in enumerate(names) if name in wrong] if wrong else []
