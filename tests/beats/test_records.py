"""From records to what they say: beats, goodbyes, signals, and those that name nobody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tests.beats.parts import P0, P1, TTL, Message, batch_of

from heartbeat.beats.beat import ALLOWED_SKEW_MS, Newest
from heartbeat.beats.proof import Sample, Sight
from heartbeat.beats.records import Found, Reading
from heartbeat.beats.records import read as read_batch
from heartbeat.beats.signals import Order, Signal
from heartbeat.beats.template import parse
from heartbeat.connect.api import NO_TIMESTAMP, TopicPartition

NOW = 1_755_138_687_438
FAR = 4_102_444_800_000
READING = Reading(most_ttl_ms=TTL)


@dataclass(frozen=True, slots=True)
class Known:
    sight: Sight


def read(
    *messages: Message,
    template: str = "${key}",
    reading: Reading = READING,
    held: Mapping[TopicPartition, Known] | None = None,
    upto: Mapping[TopicPartition, int] | None = None,
) -> Found:
    found = read_batch(batch_of(messages, upto), parse(template), reading, held or {}, NOW)
    return replace(found, signals=tuple(found.signals), unfillable=tuple(found.unfillable))


def mark(name: str, value: str) -> tuple[str, bytes | None]:
    return f"hb-{name}", value.encode()


@pytest.mark.parametrize(
    ("stamp", "newest"),
    [
        (NO_TIMESTAMP, Newest({"s": NOW})),
        (0, Newest({"s": 0})),
        (-5, Newest({"s": 0})),
        (1, Newest({"s": 1})),
        (NOW, Newest({"s": NOW})),
        (NOW + ALLOWED_SKEW_MS, Newest({"s": NOW + ALLOWED_SKEW_MS})),
        (NOW + ALLOWED_SKEW_MS + 1, Newest({}, {"s": NOW + ALLOWED_SKEW_MS + 1})),
        (FAR, Newest({}, {"s": FAR})),
    ],
)
@pytest.mark.parametrize("template", ["s", "${key}"])
def test_every_timestamp_says_something(stamp: int, newest: Newest, template: str) -> None:
    assert read(Message(stamp, "s"), template=template) == Found(newest)


def test_each_source_has_its_newest_beat() -> None:
    found = read(Message(NOW - 2, "a"), Message(NOW, "b"), Message(NOW - 1, "a"), Message(NOW - 5, "a"))
    assert found == Found(Newest({"a": NOW - 1, "b": NOW}))


def test_a_null_value_is_a_beat_like_any_other_unless_it_is_a_goodbye() -> None:
    tombstone = Message(NOW, "a", at=7, data=None)
    assert read(tombstone) == Found(Newest({"a": NOW}))
    found = read(tombstone, Message(NOW, "b"), reading=Reading(TTL, tombstones=True))
    assert found == Found(Newest({"b": NOW}), (Signal("a", Order(NOW, "t/0", 7), "bye"),))


@pytest.mark.parametrize(("status", "alive"), [("ok", True), ("start", True), ("fail", True), ("bye", False)])
def test_every_signal_but_a_goodbye_is_proof_of_life(status: str, alive: bool) -> None:
    marks = (mark("status", status), mark("run", "r"), mark("message", "m"))
    found = read(Message(NOW, "a", 2, 5, marks))
    assert found.signals == (Signal("a", Order(NOW, "t/2", 5), status, "r", "m"),)
    assert found.newest.beats == ({"a": NOW} if alive else {})


@pytest.mark.parametrize("status", ["fail", "bye"])
def test_a_signal_from_the_future_counts_as_one_of_now(status: str) -> None:
    found = read(Message(FAR, "a", 0, 5, (mark("status", status),)))
    assert [signal.order for signal in found.signals] == [Order(NOW + ALLOWED_SKEW_MS, "t/0", 5)]


def test_a_goodbye_among_beats_leaves_the_ttls_with_the_records_that_brought_them() -> None:
    found = read(
        Message(NOW - 1, "x", marks=(mark("status", "bye"), mark("ttl", "1"))),
        Message(NOW, "a", marks=(mark("ttl", "2"),)),
        Message(NOW, "b"),
        Message(NOW - 1, "a", marks=(mark("ttl", "3"),)),
    )
    assert found.newest == Newest({"a": NOW, "b": NOW}, {}, {"a": 2_000})


def test_only_goodbyes_are_no_beats_at_all() -> None:
    found = read(*(Message(NOW, name, at=at, marks=(mark("status", "bye"),)) for at, name in enumerate("ab")))
    assert found.newest == Newest({})
    assert [signal.source for signal in found.signals] == ["a", "b"]


@pytest.mark.parametrize("name", ["ttl", "status"])
def test_garbage_in_headers_is_counted_and_the_record_stays_a_beat(name: str) -> None:
    found = read(Message(NOW, "a", marks=((f"hb-{name}", b"\xff\x00"),)), Message(NOW, "b", marks=(("other", None),)))
    assert found == Found(Newest({"a": NOW, "b": NOW}), garbled=1)


UNUSABLE: list[str | None] = [None, "", "hb:{x}:deadlines", "k" * 65_536]


@pytest.mark.parametrize("name", UNUSABLE, ids=["none", "empty", "reserved", "64 KiB"])
@pytest.mark.parametrize("stamp", [NOW, FAR])
def test_every_record_without_a_usable_name_is_told_by_its_index_and_says_nothing(name: str | None, stamp: int) -> None:
    found = read(Message(NOW, "a"), Message(stamp, name), Message(NOW, "b"), Message(stamp - 1, name))
    assert [index for index, _ in found.unfillable] == [1, 3]
    assert found.newest == Newest({"a": NOW, "b": NOW})


@pytest.mark.parametrize("name", UNUSABLE, ids=["none", "empty", "reserved", "64 KiB"])
@pytest.mark.parametrize("status", ["bye", "fail"])
def test_a_signal_without_a_usable_name_is_told_too(name: str | None, status: str) -> None:
    found = read(Message(NOW, name, marks=(mark("status", status),)), Message(NOW, "a"))
    assert [index for index, _ in found.unfillable] == [0]
    assert (found.signals, found.newest) == ((), Newest({"a": NOW}))


@pytest.mark.parametrize("name", ["{a} b", " ", "\r\n", "k" * 4_096])
def test_odd_names_are_names(name: str) -> None:
    assert read(Message(NOW, name)) == Found(Newest({name: NOW}))


def test_processing_time_is_now_whatever_the_record_says() -> None:
    found = read(Message(0, "a"), Message(FAR, "b"), reading=Reading(TTL, processing_time=True))
    assert found == Found(Newest({"a": NOW, "b": NOW}))


def sampled(**samples: Any) -> dict[TopicPartition, Known]:
    return {P0: Known(Sight(10, **samples))}


@pytest.mark.parametrize(
    ("stamp", "at", "beat"),
    [
        (NOW - 5_000, 10, NOW - 3_000),
        (NOW - 1_500, 10, NOW - 1_000),
        (NOW - 1_500, 20, NOW - 500),
        (NOW - 200, 20, NOW - 200),
        (NOW - 5_000, 9, NOW - 5_000),
    ],
)
def test_a_record_beyond_a_sample_was_appended_after_it(stamp: int, at: int, beat: int) -> None:
    """A slow producer's clock cannot make a living source look dead; by no more than clocks may differ."""
    held = sampled(met=Sample(NOW - 1_000, 10), held=Sample(NOW - 500, 20))
    message = Message(stamp, "a", at=at)
    assert read(message, held=held, upto={P0: at + 1}).newest.beats == {"a": beat}
    for reading in (Reading(TTL, mirrored=True), Reading(TTL, processing_time=True)):
        untouched = NOW if reading.processing_time else stamp
        assert read(message, held=held, upto={P0: at + 1}, reading=reading).newest.beats == {"a": untouched}


def test_only_records_of_the_sampled_partition_are_lifted() -> None:
    held = sampled(met=Sample(NOW, 10))
    messages = [Message(NOW - 1_500, "a", 0, 10), Message(NOW - 1_500, "b", 1, 10), Message(NOW - 1_500, "c", 0, 9)]
    found = read(*messages, held=held, upto={P0: 11, P1: 11})
    assert found.newest.beats == {"a": NOW, "b": NOW - 1_500, "c": NOW - 1_500}
