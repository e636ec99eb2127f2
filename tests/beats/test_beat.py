"""How records become beats: by tables, and by properties that hold for every batch."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.beats.parts import TTL

from heartbeat.beats.beat import ALLOWED_SKEW_MS, Newest, alive_and_expired, lifted, newest_by_source, with_timestamps
from heartbeat.connect.api import NO_TIMESTAMP

NOW = 1_755_138_687_438
LATEST = NOW + ALLOWED_SKEW_MS
stamps = st.just(NO_TIMESTAMP) | st.integers(0, 2 * NOW)
records = st.lists(st.tuples(st.sampled_from("abc"), stamps))


def newest_of(records: Sequence[tuple[str, int]], ttls_ms: dict[int, int] | None = None) -> Newest:
    times = with_timestamps([stamp for _, stamp in records], NOW) if records else []
    return newest_by_source([name for name, _ in records], times, LATEST, ttls_ms)


@pytest.mark.parametrize(
    ("timestamps", "beats", "ahead"),
    [
        ([NOW], NOW, None),
        ([NOW - 5, NOW - 3, NOW - 4], NOW - 3, None),
        ([LATEST], LATEST, None),
        ([LATEST + 1], None, LATEST + 1),
        ([2 * NOW, NOW - 1], NOW - 1, 2 * NOW),
        ([LATEST + 1, 2 * NOW, LATEST + 2], None, 2 * NOW),
        ([NO_TIMESTAMP], NOW, None),
        ([NOW - 1, NO_TIMESTAMP], NOW, None),
        ([NOW + 1, NO_TIMESTAMP], NOW + 1, None),
        ([0], 0, None),
        ([1], 1, None),
    ],
)
@pytest.mark.parametrize("ttls_ms", [None, {0: 5_000}])
def test_the_newest_believable_beat_counts_and_a_record_without_a_time_is_now(
    timestamps: list[int], beats: int | None, ahead: int | None, ttls_ms: dict[int, int] | None
) -> None:
    newest = newest_of([("s", stamp) for stamp in timestamps], ttls_ms)
    assert newest.beats == ({} if beats is None else {"s": beats})
    assert newest.ahead == ({} if ahead is None else {"s": ahead})


def test_each_source_has_its_own_newest_beat() -> None:
    assert newest_of([("a", 1), ("b", NO_TIMESTAMP), ("a", 5), ("c", 2)]).beats == {"a": 5, "b": NOW, "c": 2}


def test_no_records_are_no_beats() -> None:
    assert newest_of([]) == Newest({})


@given(records)
def test_the_order_of_delivery_does_not_matter(batch: list[tuple[str, int]]) -> None:
    assert newest_of(batch) == newest_of(sorted(batch)) == newest_of(batch[::-1]) == newest_of(batch * 2)


@given(records)
def test_no_beat_is_later_than_now_and_the_skew_and_none_is_lost(batch: list[tuple[str, int]]) -> None:
    newest = newest_of(batch)
    assert all(0 <= beat <= LATEST for beat in newest.beats.values())
    assert all(raw > LATEST for raw in newest.ahead.values())
    assert newest.beats.keys() | newest.ahead.keys() == {source for source, _ in batch}


@given(records)
def test_a_ttl_of_one_record_changes_nobodys_newest_beat(batch: list[tuple[str, int]]) -> None:
    with_one = newest_of(batch, {0: 5_000} if batch else None)
    assert (with_one.beats, with_one.ahead) == (newest_of(batch).beats, newest_of(batch).ahead)


@pytest.mark.parametrize(
    ("batch", "ttls_ms", "expected"),
    [
        ([("a", 1), ("a", 5)], {1: 9_000}, {"a": 9_000}),
        ([("a", 5), ("a", 1)], {1: 9_000}, {}),
        ([("a", 1), ("a", 5)], {0: 9_000}, {}),
        ([("a", 1), ("b", 5)], {0: 9_000, 1: 8_000}, {"a": 9_000, "b": 8_000}),
        ([("a", LATEST + 5)], {0: 9_000}, {"a": 9_000}),
    ],
)
def test_the_ttl_is_that_of_the_newest_beat_not_the_longest(
    batch: list[tuple[str, int]], ttls_ms: dict[int, int], expected: dict[str, int]
) -> None:
    assert newest_of(batch, ttls_ms).ttls_ms == expected


@pytest.mark.parametrize(
    ("stamp", "after", "expected"),
    [
        (NOW, None, NOW),
        (NOW, NOW - 1, NOW),
        (NOW, NOW, NOW),
        (NOW - 1_500, NOW, NOW),
        (NOW - ALLOWED_SKEW_MS, NOW, NOW),
        (NOW - 3_600_000, NOW, NOW - 3_600_000 + ALLOWED_SKEW_MS),
    ],
)
def test_a_beat_is_no_earlier_than_its_record_was_appended_as_far_as_clocks_may_differ(
    stamp: int, after: int | None, expected: int
) -> None:
    assert lifted(stamp, after) == expected


@pytest.mark.parametrize(("age_ms", "alive"), [(0, True), (TTL - 1, True), (TTL, False), (TTL + 1, False), (NOW, False), (-2_000, True)])
@pytest.mark.parametrize("others", [{}, {"other": 5}])
def test_a_beat_is_expired_from_its_deadline_on(age_ms: int, alive: bool, others: dict[str, int]) -> None:
    beats = {"s": NOW - age_ms}
    assert alive_and_expired(beats, TTL, others, NOW) == ((beats, {}) if alive else ({}, beats))


def test_a_ttl_of_its_own_decides_whether_a_beat_is_expired() -> None:
    beats = {"long": NOW - TTL, "short": NOW - 5_000, "usual": NOW - 5_000}
    alive, expired = alive_and_expired(beats, TTL, {"long": TTL + 1, "short": 5_000}, NOW)
    assert (set(alive), set(expired)) == ({"long", "usual"}, {"short"})


beats = st.dictionaries(st.sampled_from("abcd"), st.integers(0, LATEST), min_size=1)
ttls = st.dictionaries(st.sampled_from("abcd"), st.integers(1_000, 2 * NOW))


@given(beats, ttls, st.integers(1_000, 2 * NOW))
def test_every_beat_is_either_alive_or_expired(found: dict[str, int], ttls_ms: dict[str, int], ttl_ms: int) -> None:
    alive, expired = alive_and_expired(found, ttl_ms, ttls_ms, NOW)
    assert {**alive, **expired} == found
    assert all(beat + ttls_ms.get(source, ttl_ms) > NOW for source, beat in alive.items())
    assert all(beat + ttls_ms.get(source, ttl_ms) <= NOW for source, beat in expired.items())
