"""Canaries are nobody's beats: parted from a batch they leave it as it would be without them, and say when they were sent."""

from __future__ import annotations

import pytest
from tests.beats.parts import P0, P1, TTL, Message, batch_of

from heartbeat.beats import canaries
from heartbeat.beats.beat import Newest
from heartbeat.beats.canaries import Canaries
from heartbeat.beats.records import Reading, read
from heartbeat.beats.template import parse

NOW = 1_755_138_687_438


def canary(sent: str | None, number: int = 0, name: str | None = None, data: bytes | None = None) -> Message:
    return Message(NOW, name, number, marks=(("hb-canary", None if sent is None else sent.encode()),), data=data)


def test_a_batch_without_canaries_is_the_same_batch() -> None:
    for messages in ([], [Message(NOW, "s")], [Message(NOW, "s", marks=(("hb-ttl", b"5"), ("trace", b"x")))]):
        batch = batch_of(messages)
        parted, found = canaries.parted(batch, NOW)
        assert parted is batch
        assert found == canaries.NONE


def test_what_is_left_has_its_own_columns_and_the_offsets_of_the_whole() -> None:
    messages = [canary("5"), Message(1, "a", 0, 7), canary("6", 1), Message(2, "b", 1, 8, (("trace", b"x"),), None)]
    left, found = canaries.parted(batch_of(messages, {P0: 9, P1: 9}), NOW)
    assert (left.keys(), left.values(), left.timestamps_ms()) == (["a", "b"], [b"beat", None], [1, 2])
    assert (left.topics(), left.partitions(), left.offsets()) == (["t", "t"], [0, 1], [7, 8])
    assert left.headers() == [None, [("trace", b"x")]]
    assert left.with_headers() == {1: [("trace", b"x")]}
    assert left.next_offsets == {P0: 9, P1: 9}
    assert [record.key for record in left] == ["a", "b"]
    assert found == Canaries({P0: 5, P1: 6}, 2)


def test_a_record_that_is_given_up_is_the_one_meant_though_canaries_came_before_it() -> None:
    given_up: list[object] = []
    messages = [canary("5"), Message(1, None, 0, 7)]
    batch = batch_of(messages)
    batch._reject = lambda message, _: given_up.append(message)
    left, _ = canaries.parted(batch, NOW)
    ((index, error),) = read(left, parse("${key}"), Reading(TTL), {}, NOW).unfillable
    left.reject(index, error)
    assert given_up == [messages[1]]


@pytest.mark.parametrize(
    ("sent", "newest", "garbled"),
    [
        (["5", "7", "6"], {P0: 7}, 0),
        ([str(NOW)], {P0: NOW}, 0),
        ([str(NOW + 1)], {P0: NOW}, 0),
        (["999999999999999"], {P0: NOW}, 0),
        (["9999999999999999"], {}, 1),
        (["", None, "-1", "1.5", "now", "\N{ARABIC-INDIC DIGIT ONE}", "5 "], {}, 7),
        (["rubbish", "5"], {P0: 5}, 1),
    ],
)
def test_the_newest_counts_none_is_of_the_future_and_rubbish_says_nothing(
    sent: list[str | None], newest: dict[object, int], garbled: int
) -> None:
    left, found = canaries.parted(batch_of([canary(text) for text in sent]), NOW)
    assert len(left) == 0
    assert (found.newest_ms, found.count, found.garbled) == (newest, len(sent), garbled)


def test_of_several_headers_of_the_name_the_last_counts() -> None:
    message = Message(NOW, marks=(("hb-canary", b"9"), ("hb-canary", b"5")))
    assert canaries.parted(batch_of([message]), NOW)[1].newest_ms == {P0: 5}


@pytest.mark.parametrize("template", ["heartbeat", "${key}", "${header.source}", "${value.id}", "${topic}-${partition}"])
@pytest.mark.parametrize("tombstones", [False, True])
@pytest.mark.parametrize("name", [None, "s"])
@pytest.mark.parametrize("data", [None, b'{"id":"s"}'])
def test_a_canary_is_nobodys_beat_nor_goodbye_nor_fault(template: str, tombstones: bool, name: str | None, data: bytes | None) -> None:
    with_more = Message(NOW, name, marks=(("hb-canary", b"5"), ("hb-status", b"fail"), ("hb-ttl", b"x")), data=data)
    beat = Message(NOW - 1, "s", marks=(("source", b"s"),), data=b'{"id":"s"}')
    left, _ = canaries.parted(batch_of([canary("5", 0, name, data), beat, with_more]), NOW)
    found = read(left, parse(template), Reading(TTL, tombstones=tombstones), {}, NOW)
    assert found.newest == Newest({parse(template).names(batch_of([beat]))[0]: NOW - 1})
    assert (list(found.signals), list(found.unfillable), found.garbled) == ([], [], 0)
