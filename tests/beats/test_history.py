"""One source's beats against tables, and against a model that keeps them all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat.beats.history import BYE, MOST_DOWNS, Down, History, Rule, Summary, on_grid

RULE = Rule(ttl_ms=60_000, grace_ms=5_000)
HOUR = 3_600_000


def told(*portions: Sequence[int], marks: Mapping[int, int] | None = None, rule: Rule = RULE, until: int | None = None) -> Summary:
    """What a history says after these portions, at their end if ``until`` says no other moment."""
    history = History()
    for portion in portions:
        history.settle(portion, {stamp: mark for stamp, mark in (marks or {}).items() if stamp in portion}, rule)
    last = max((portion[-1] for portion in portions if portion), default=0)
    return history.summary("pump:7", rule, last if until is None else until)


def periods(summary: Summary) -> list[tuple[int, int | None]]:
    return [(down.down_at_ms, down.ended_ms) for down in summary.downs]


def seconds(*stamps: float) -> list[int]:
    return [round(stamp * 1000) for stamp in stamps]


def test_beats_in_time_raise_nothing_and_have_the_quantiles_of_their_gaps() -> None:
    summary = told(seconds(0, 10, 20, 30, 42))
    assert summary.gaps is not None
    assert (summary.gaps.p50, summary.gaps.p90, summary.gaps.longest) == (10_000, 12_000, 12_000)
    assert (summary.beats, summary.down_count, summary.open, summary.first_ms, summary.last_ms) == (5, 0, False, 0, 42_000)


def test_a_silence_is_down_from_ttl_and_grace_after_the_last_beat_until_the_next() -> None:
    summary = told(seconds(0, 10, 100, 110))
    (down,) = summary.downs
    assert (down.last_beat_ms, down.down_at_ms, down.ended_ms, down.lasted_ms) == (10_000, 75_000, 100_000, 25_000)
    assert not summary.open


@pytest.mark.parametrize(("silence_s", "downs"), [(65, 0), (65.001, 1)])
def test_a_beat_at_the_very_moment_of_down_is_in_time(silence_s: float, downs: int) -> None:
    assert told(seconds(0, silence_s)).down_count == downs


@pytest.mark.parametrize(("until_s", "is_open"), [(75, False), (75.001, True), (10_000, True)])
def test_a_silence_at_the_end_of_the_log_is_judged_at_the_moment_of_reading(until_s: float, is_open: bool) -> None:
    summary = told(seconds(0, 10), until=round(until_s * 1000))
    assert (summary.open, summary.down_count) == (is_open, int(is_open))
    assert periods(summary) == ([(75_000, None)] if is_open else [])


@pytest.mark.parametrize(
    ("gap_s", "grace_s", "ttl_s"), [(10, 5, 5), (10.001, 5, 6), (10, 0, 10), (10, 0.5, 10), (3, 5, 1), (0, 0, 1), (65, 5, 60), (66, 5, 61)]
)
def test_the_smallest_ttl_covers_the_longest_gap_with_the_grace(gap_s: float, grace_s: float, ttl_s: int) -> None:
    rule = Rule(60_000, round(grace_s * 1000))
    assert told(seconds(0, gap_s), rule=rule).smallest_ttl_s == ttl_s


def test_a_source_with_one_beat_has_no_gap_and_no_smallest_ttl() -> None:
    summary = told([5])
    assert (summary.beats, summary.gaps, summary.smallest_ttl_s) == (1, None, None)


def test_silence_after_a_goodbye_is_neither_a_down_nor_a_gap() -> None:
    summary = told(seconds(0, 10, 20, 5000, 5010), marks={20_000: BYE}, until=5_010_000)
    assert (summary.beats, summary.byes, summary.down_count, summary.smallest_ttl_s) == (4, 1, 0, 5)
    assert told(seconds(0, 10, 20), marks={20_000: BYE}, until=HOUR).downs == ()


def test_a_goodbye_ends_a_down_but_is_no_proof_of_life() -> None:
    summary = told(seconds(0, 10, 200), marks={200_000: BYE}, until=HOUR)
    (down,) = summary.downs
    assert (down.ended_ms, down.by_bye) == (200_000, True)
    assert summary.smallest_ttl_s == 5


@pytest.mark.parametrize("portions", [[seconds(0, 100, 200)], [seconds(0), seconds(100), seconds(200)], [seconds(0, 100), seconds(200)]])
def test_a_ttl_of_its_own_holds_for_the_silence_after_that_beat_only(portions: list[list[int]]) -> None:
    assert periods(told(*portions, marks={0: 120_000})) == [(165_000, 200_000)]
    assert periods(told(*portions, marks={100_000: 30_000})) == [(65_000, 100_000), (135_000, 200_000)]
    assert periods(told(*portions, marks={200_000: 7_000}, until=300_000))[-1] == (212_000, None)


def test_a_late_beat_ends_the_down_that_it_falls_into() -> None:
    summary = told(seconds(0, 10, 300), seconds(60, 310))
    assert periods(summary) == [(125_000, 300_000)]
    assert (summary.late, summary.beats, summary.smallest_ttl_s) == (1, 5, 235)
    summary = told(seconds(0, 100), seconds(50, 110))
    assert (summary.down_count, summary.late, summary.smallest_ttl_s) == (0, 1, 45)


def test_a_late_beat_before_the_first_makes_a_gap_of_its_own() -> None:
    summary = told(seconds(1000, 1010), seconds(900, 1020))
    assert (summary.first_ms, periods(summary)) == (900_000, [(965_000, 1_000_000)])


def test_a_late_beat_where_nothing_is_remembered_is_only_counted() -> None:
    summary = told(seconds(0, 10, 20), seconds(15, 30))
    assert (summary.late, summary.beats, summary.down_count) == (1, 5, 0)


def test_the_longest_downs_are_remembered_and_all_are_counted() -> None:
    stamps, stamp = [0], 0
    for number in range(3 * MOST_DOWNS):
        stamp += 100_000 + (number * 37 % 150) * 1000
        stamps.append(stamp)
    summary = told(stamps, until=stamp + HOUR)
    assert summary.down_count == 3 * MOST_DOWNS + 1
    assert len(summary.downs) == MOST_DOWNS + 1
    assert summary.downs[-1].ended_ms is None
    gaps = sorted(b - a for a, b in pairwise(stamps))
    assert sorted(down.silence_ms for down in summary.downs[:-1]) == gaps[-MOST_DOWNS:]
    assert list(summary.downs) == sorted(summary.downs, key=lambda down: down.last_beat_ms)


@given(st.integers(0, 2**45))
def test_the_grid_is_off_by_less_than_one_percent_and_maps_to_itself(gap: int) -> None:
    assert abs(on_grid(gap) - gap) <= gap / 100
    assert on_grid(on_grid(gap)) == on_grid(gap)


@dataclass(frozen=True)
class Model:
    """All beats kept, and each question answered from the start."""

    downs: list[tuple[int, int | None, bool]]
    gaps: list[int]
    beats: int
    byes: int


def model(stamps: Sequence[int], marks: Mapping[int, int], rule: Rule, until: int) -> Model:
    beats = [stamp for stamp in stamps if marks.get(stamp) != BYE]
    found = Model([], [], len(beats), len(stamps) - len(beats))
    ordered = sorted(stamps)
    for here, following in zip(ordered, [*ordered[1:], None], strict=True):
        if marks.get(here) == BYE:
            continue
        down_at = here + marks.get(here, rule.ttl_ms) + rule.grace_ms
        goodbye = following is not None and marks.get(following) == BYE
        if down_at < (until if following is None else following):
            found.downs.append((down_at, following, goodbye))
        if following is not None and not goodbye:
            found.gaps.append(following - here)
    return found


def rank(values: Sequence[int], share: float) -> int:
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


STAMPS = st.lists(st.integers(0, 500_000), min_size=1, max_size=40)


@given(STAMPS, st.data(), st.integers(0, 30_000), st.integers(1, 200))
def test_a_history_says_what_a_model_says_that_keeps_every_beat(stamps: list[int], data: st.DataObject, grace: int, ttl_s: int) -> None:
    rule = Rule(ttl_s * 1000, grace)
    signs = st.one_of(st.just(BYE), st.integers(1, 200_000))
    marks = data.draw(st.dictionaries(st.sampled_from(stamps), signs, max_size=6), label="marks")
    until = max(stamps) + data.draw(st.integers(0, 300_000), label="silence at the end")
    ordered = sorted(stamps)
    cuts = sorted(data.draw(st.lists(st.sampled_from(ordered), max_size=4), label="cuts"))
    portions = [[s for s in ordered if low <= s < high] for low, high in zip([-1, *cuts], [*cuts, until + 1], strict=True)]
    expected = model(stamps, marks, rule, until)
    summary = told(*portions, marks=marks, rule=rule, until=until)
    assert [(down.down_at_ms, down.ended_ms, down.by_bye) for down in summary.downs] == expected.downs
    assert (summary.beats, summary.byes, summary.late) == (expected.beats, expected.byes, 0)
    if not expected.gaps:
        assert (summary.gaps, summary.smallest_ttl_s) == (None, None)
    else:
        assert summary.gaps is not None
        exact = [rank(expected.gaps, share) for share in (0.5, 0.9, 0.99)]
        assert [summary.gaps.p50, summary.gaps.p90, summary.gaps.p99, summary.gaps.longest] == [*exact, max(expected.gaps)]


@given(STAMPS, st.integers(0, 30_000))
def test_the_smallest_ttl_has_no_false_alarm_and_a_smaller_one_has(stamps: list[int], grace: int) -> None:
    ordered = sorted(stamps)
    ttl_s = told(ordered, rule=Rule(60_000, grace)).smallest_ttl_s
    if ttl_s is None:
        assert len(ordered) == 1
        return
    assert not told(ordered, rule=Rule(ttl_s * 1000, grace)).downs
    if ttl_s > 1:
        assert told(ordered, rule=Rule((ttl_s - 1) * 1000, grace)).downs


@given(st.lists(st.integers(0, 10_000_000), min_size=400, max_size=900), st.integers(1, 5))
def test_quantiles_of_many_different_gaps_are_off_by_one_percent_at_most(gaps: list[int], portions: int) -> None:
    stamps = [0]
    for gap in gaps:
        stamps.append(stamps[-1] + gap)
    size = len(stamps) // portions + 1
    summary = told(*[stamps[start : start + size] for start in range(0, len(stamps), size)])
    assert summary.gaps is not None
    for found, share in ((summary.gaps.p50, 0.5), (summary.gaps.p90, 0.9), (summary.gaps.p99, 0.99)):
        exact = rank(gaps, share)
        assert abs(found - exact) <= exact / 100
    assert summary.gaps.longest == max(gaps)


def test_a_down_knows_its_times() -> None:
    down = Down(silence_ms=100, last_beat_ms=1000, allowed_ms=65, ended_ms=1100, by_bye=False)
    assert (down.down_at_ms, down.lasted_ms) == (1065, 35)
