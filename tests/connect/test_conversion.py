"""From messages to batches: nothing is skipped silently, nothing is moved to a neighbour, columns stay aligned."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes import FakeMessage, Where, end_of_log, records, together

from heartbeat.connect.api import TopicPartition
from heartbeat.connect.conversion import Conversion, Pending, Tolerance
from heartbeat.connect.converters import ByteArrayConverter, JsonConverter
from heartbeat.errors import ConnectError, DataError

P, Q = TopicPartition("t", 0), TopicPartition("t", 1)
BROKEN, GOOD = b"{", b"7"


def conversion(**tolerance: bool) -> Conversion:
    return Conversion("c-0", ByteArrayConverter(), JsonConverter(schemas_enable=False), Tolerance(**tolerance))


def where(pending: Pending) -> list[Where]:
    return [(m.topic(), m.partition(), m.offset()) for m in pending.messages]


def messages(*data: bytes) -> list[FakeMessage]:
    return [FakeMessage(("t", 0, offset), each) for offset, each in enumerate(data)]


def test_a_record_that_does_not_decode_fails_by_default_with_its_cause() -> None:
    with pytest.raises(ConnectError, match="Tolerance exceeded in error handler") as caught:
        conversion().convert(messages(GOOD, BROKEN), {P: 2})
    assert isinstance(caught.value.__cause__, DataError)


def test_tolerated_records_are_counted_and_their_offsets_stand() -> None:
    made = conversion(skip=True)
    pending = made.convert(messages(BROKEN, GOOD, BROKEN), {P: 3})
    assert (where(pending), pending.next_offsets, made.skipped) == ([("t", 0, 1)], {P: 3}, 2)


@given(st.lists(st.booleans(), max_size=20))
def test_keys_values_and_places_stay_aligned_whatever_is_skipped(good: list[bool]) -> None:
    made = Conversion("c-0", ByteArrayConverter(), JsonConverter(schemas_enable=False), Tolerance(skip=True))
    given_ = [FakeMessage(("t", 0, n), str(n).encode() if fine else BROKEN) for n, fine in enumerate(good)]
    batch = made.batch(made.convert(given_, {P: len(good)}))
    kept = [n for n, fine in enumerate(good) if fine]
    assert [(record.offset, record.value) for record in batch] == [(n, n) for n in kept]
    assert batch.values() == kept
    assert len(batch.keys()) == len(batch.timestamps_ms()) == len(batch) == len(kept)


def test_converters_that_cannot_fail_are_asked_only_when_the_plugin_asks() -> None:
    lazy = Conversion("c-0", ByteArrayConverter(), ByteArrayConverter(), Tolerance())
    pending = lazy.convert(messages(GOOD, BROKEN), {P: 2})
    assert (pending.keys, pending.values) == (None, None)
    assert lazy.batch(pending).values() == [GOOD, BROKEN]


def test_what_a_plugin_does_to_its_columns_does_not_reach_the_kept_records() -> None:
    made = conversion()
    pending = made.convert(messages(GOOD, GOOD), {P: 2})
    made.batch(pending).values().clear()
    assert made.batch(pending).values() == [7, 7]


def test_a_null_value_is_a_value_and_not_an_error() -> None:
    made = conversion()
    assert made.batch(made.convert([FakeMessage(("t", 0, 0), None)], {P: 1})).values() == [None]


DELIVERIES = st.lists(
    st.tuples(st.sampled_from([0, 1]), st.lists(st.booleans(), min_size=1, max_size=4)),
    max_size=5,
)


@given(DELIVERIES)
def test_joining_deliveries_is_the_same_as_one_delivery_of_all(parts: list[tuple[int, list[bool]]]) -> None:
    offsets = {0: 0, 1: 0}
    deliveries = []
    for partition, flags in parts:
        here = [records("t", partition, [offsets[partition] + n], GOOD if fine else BROKEN) for n, fine in enumerate(flags)]
        offsets[partition] += len(flags)
        deliveries.append(together(*here))
    made = conversion(skip=True)
    joined = Pending()
    for delivery in deliveries:
        joined = joined.joined(made.convert(delivery.messages, delivery.next_offsets))
    whole = together(*deliveries)
    at_once = conversion(skip=True).convert(whole.messages, whole.next_offsets)
    assert (where(joined), joined.next_offsets) == (where(at_once), at_once.next_offsets)
    assert list(joined.values or []) == list(at_once.values or [])


def test_keeping_only_some_partitions_keeps_columns_with_their_records() -> None:
    made = conversion()
    both = together(records("t", 0, [0], b"10"), records("t", 1, [0], b"20"), records("t", 0, [1], b"11"))
    kept = made.convert(both.messages, both.next_offsets).only({P})
    assert (where(kept), kept.values, kept.next_offsets) == ([("t", 0, 0), ("t", 0, 1)], [10, 11], {P: 2})
    assert not kept.only(set()).messages
    assert kept.only(set()).next_offsets == {}


def test_a_position_without_records_outlives_a_join_on_either_side() -> None:
    made = conversion()
    end, some = end_of_log("t", 1, 9), records("t", 0, [0], GOOD)
    position = made.convert(end.messages, end.next_offsets)
    pending = made.convert(some.messages, some.next_offsets)
    assert position.joined(pending).next_offsets == pending.joined(position).next_offsets == {P: 1, Q: 9}
    assert where(position.joined(pending)) == [("t", 0, 0)]


@pytest.mark.parametrize(("log_records", "place"), [(True, "topic='t', partition=0, offset=0"), (False, "")])
def test_a_failure_is_logged_with_stage_and_class_and_place_only_where_asked_and_never_the_payload(
    caplog: pytest.LogCaptureFixture, log_records: bool, place: str
) -> None:
    made = conversion(skip=True, log_failures=True, log_records=log_records)
    with caplog.at_level(logging.ERROR):
        made.convert([FakeMessage(("t", 0, 0), b'{"secret-payload')], {P: 1})
    text = caplog.records[0].getMessage()
    stage = "Error encountered in task c-0. Executing stage 'VALUE_CONVERTER' with class 'org.apache.kafka.connect.json.JsonConverter'"
    assert text.startswith(stage)
    assert ("topic='t'" in text) is log_records
    assert place in text
    assert "secret-payload" not in caplog.text


def test_the_reporter_speaks_also_when_the_record_is_not_tolerated(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConnectError):
        conversion(log_failures=True).convert(messages(BROKEN), {P: 1})
    assert "Executing stage 'VALUE_CONVERTER'" in caplog.text
