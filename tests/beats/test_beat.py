"""How records become beats: by tables, and by properties that hold for every batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat.beats.beat import ALLOWED_SKEW_MS, coalesce, newest_by_source, newest_of
from heartbeat.connect.api import NO_TIMESTAMP

NOW = 1_755_138_687_438
TTL = 60_000
stamps = st.just(NO_TIMESTAMP) | st.integers(0, 2 * NOW)
records = st.lists(st.tuples(st.sampled_from("abc"), stamps))


@pytest.mark.parametrize(
    ("timestamps", "newest"),
    [
        ([NOW], NOW),
        ([NOW - 5, NOW - 3, NOW - 4], NOW - 3),
        ([NOW + ALLOWED_SKEW_MS], NOW + ALLOWED_SKEW_MS),
        ([NOW + ALLOWED_SKEW_MS + 1], NOW + ALLOWED_SKEW_MS),
        ([2 * NOW, NOW - 1], NOW + ALLOWED_SKEW_MS),
        ([NO_TIMESTAMP], NOW),
        ([NOW - 1, NO_TIMESTAMP], NOW),
        ([NOW + 1, NO_TIMESTAMP], NOW + 1),
        ([0], 0),
    ],
)
def test_the_newest_beat_is_bounded_by_now_and_a_record_without_a_time_is_now(timestamps: list[int], newest: int) -> None:
    assert newest_of(timestamps, NOW) == newest
    assert newest_by_source([("s", stamp) for stamp in timestamps], NOW) == {"s": newest}


def test_each_source_has_its_own_newest_beat() -> None:
    assert newest_by_source([("a", 1), ("b", NO_TIMESTAMP), ("a", 5), ("c", 2)], NOW) == {"a": 5, "b": NOW, "c": 2}


@given(st.lists(stamps, min_size=1))
def test_one_source_is_the_special_case_of_many(timestamps: list[int]) -> None:
    assert {"s": newest_of(timestamps, NOW)} == newest_by_source([("s", stamp) for stamp in timestamps], NOW)


@given(records)
def test_the_order_of_delivery_does_not_matter(batch: list[tuple[str, int]]) -> None:
    def newest(of: list[tuple[str, int]]) -> dict[str, int]:
        return newest_by_source(of, NOW)

    assert newest(batch) == newest(sorted(batch)) == newest(batch[::-1]) == newest(batch * 2)


@given(records)
def test_no_beat_is_later_than_now_and_the_skew(batch: list[tuple[str, int]]) -> None:
    newest = newest_by_source(batch, NOW)
    assert all(0 <= beat <= NOW + ALLOWED_SKEW_MS for beat in newest.values())
    assert newest.keys() == {source for source, _ in batch}


@pytest.mark.parametrize(
    ("beat", "known", "alive"),
    [
        (NOW, None, True),
        (NOW - TTL + 1, None, True),
        (NOW - TTL, None, False),
        (NOW - TTL - 1, None, False),
        (NOW - 5, NOW - 6, True),
        (NOW - 5, NOW - 5, True),
        (NOW - 5, NOW - 4, False),
    ],
)
def test_a_beat_counts_if_its_deadline_is_ahead_and_nothing_newer_was_written(beat: int, known: int | None, alive: bool) -> None:
    result = coalesce({"s": beat}, {} if known is None else {"s": known}, TTL, NOW)
    assert result.alive == ({"s": beat} if alive else {})


def test_a_beat_of_the_epoch_counts_if_the_ttl_reaches_that_far() -> None:
    assert coalesce({"s": 0}, {}, NOW + 1, NOW).alive == {"s": 0}


def test_late_beats_are_counted_with_the_least_they_are_late() -> None:
    result = coalesce({"a": NOW - TTL - 7_000, "b": NOW - TTL - 3_000, "c": NOW - TTL - 9_000, "d": NOW}, {}, TTL, NOW)
    assert (result.expired, result.late_by_ms, result.alive) == (3, 3_000, {"d": NOW})


def test_a_beat_older_than_what_was_written_is_no_late_beat() -> None:
    assert coalesce({"s": NOW - 5}, {"s": NOW}, TTL, NOW).expired == 0


beats = st.dictionaries(st.sampled_from("abcd"), st.integers(0, NOW + ALLOWED_SKEW_MS))


@given(beats, beats, st.integers(1_000, 2 * NOW))
def test_what_is_written_is_never_expired_and_never_goes_back(newest: dict[str, int], known: dict[str, int], ttl: int) -> None:
    result = coalesce(newest, known, ttl, NOW)
    assert all(beat + ttl > NOW for beat in result.alive.values())
    assert all(beat >= known.get(source, 0) for source, beat in result.alive.items())
    assert result.alive.items() <= newest.items()
    assert result.expired == sum(beat + ttl <= NOW for beat in newest.values())


@given(beats, beats, st.integers(1_000, 120_000))
def test_two_batches_leave_what_one_joint_batch_would(first: dict[str, int], second: dict[str, int], ttl: int) -> None:
    one = dict(coalesce(first, {}, ttl, NOW).alive)
    two = {**one, **coalesce(second, one, ttl, NOW).alive}
    both = {source: max(first.get(source, -1), second.get(source, -1)) for source in first.keys() | second.keys()}
    assert two == coalesce(both, {}, ttl, NOW).alive
