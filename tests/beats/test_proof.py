"""Each sentence about samples and about ``since``, by tables of what is asked, answered and applied."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat.beats.proof import LONGEST_GAP_MS, Answer, Sight

Step = tuple[int, int] | tuple[int, int, int] | int
"""(T, end) or (T, end, epoch) is an answer, asked for with what was applied so far; a number is a new applied offset."""


def after(*steps: Step, start: Sight | None = None) -> Sight:
    sight = start or Sight(applied=0)
    for step in steps:
        if isinstance(step, int):
            sight = sight.advanced(step)
        else:
            time_ms, end, *epoch = step
            sight = sight.answered(Answer(time_ms, sight.reached, end, *epoch))
    return sight


def seen(sight: Sight) -> tuple[int | None, int | None]:
    return sight.since_ms, sight.until_ms


NOTHING = (None, None)


@pytest.mark.parametrize(
    ("told", "steps", "expected"),
    [
        ("nothing is proven before the first sample", [5], NOTHING),
        ("a sample is held until everything below its end is applied", [(1_000, 3), 1, 2], NOTHING),
        ("and met once it is", [(1_000, 3), 1, 2, 3], (1_000, 1_000)),
        ("also where the applied offset goes beyond it", [(1_000, 3), 7], (1_000, 1_000)),
        ("at once where everything is applied already", [3, (1_000, 3)], (1_000, 1_000)),
        ("an empty log is proven without traffic", [(1_000, 0)], (1_000, 1_000)),
        ("an idle topic stays proven", [3, (1_000, 3), (2_000, 3), (3_000, 3)], (1_000, 3_000)),
        ("a newer sample does not take the place of the one that is held", [(1_000, 3), (2_000, 9), 3], (1_000, 1_000)),
        ("it waits, and is met in its turn", [(1_000, 3), (2_000, 9), 3, 9], (1_000, 2_000)),
        ("both are met by one advance", [(1_000, 3), (2_000, 9), 9], (1_000, 2_000)),
        ("the newest waits", [(1_000, 3), (2_000, 5), (3_000, 7), (4_000, 9), 3, 8], (1_000, 1_000)),
        ("and those between are not needed", [(1_000, 3), (2_000, 5), (3_000, 7), 3, 7], (1_000, 3_000)),
        ("what was held is met while the next one waits", [(1_000, 3), (2_000, 5), 3, (3_000, 9), 5], (1_000, 2_000)),
        ("lag ends sight at what is applied", [3, (1_000, 3), (2_000, 9), (3_000, 12), 8], (1_000, 1_000)),
        ("an open transaction keeps applied below the end", [3, (1_000, 3), (2_000, 5), (3_000, 6), 3], (1_000, 1_000)),
        ("and when it ends, the end of the log counts", [3, (1_000, 3), (2_000, 5), (3_000, 6), 6], (1_000, 3_000)),
    ],
)
def test_a_sample_counts_when_everything_below_its_end_is_applied(
    told: str, steps: list[Step], expected: tuple[int | None, int | None]
) -> None:
    assert seen(after(*steps)) == expected, told


SEEN: list[Step] = [5, (1_000, 5), (2_000, 5)]


@pytest.mark.parametrize(
    ("told", "steps", "expected"),
    [
        ("two seconds without a sample are no gap", [(4_000, 5)], (1_000, 4_000)),
        ("more are", [(4_001, 5)], (4_001, 4_001)),
        ("a gap is one of samples taken, not of samples met", [(3_500, 9), (5_000, 9), (6_500, 9), 9], (1_000, 6_500)),
        ("since begins with the sample after the gap, when it is met", [(5_000, 7)], (None, 2_000)),
        ("and not before", [(5_000, 7), 7], (5_000, 5_000)),
        ("what was held before a gap is not waited for", [(3_000, 8), (6_000, 9), 8], (None, 2_000)),
        ("what waited before a gap neither", [(3_000, 8), (4_000, 9), (7_000, 10), 9], (None, 2_000)),
        ("a gap under lag ends since where the lag is met", [(3_000, 8), (6_000, 9), (7_000, 11), 9], (6_000, 6_000)),
        ("another leader begins anew", [(3_000, 5, 1)], (3_000, 3_000)),
        ("the same one goes on", [(3_000, 5, 1), (4_000, 5, 1)], (3_000, 4_000)),
        ("one after the other begins anew twice", [(3_000, 5, 1), (4_000, 5, 2)], (4_000, 4_000)),
        ("another leader under lag drops what was held", [(3_000, 8, 1), 5], (None, 2_000)),
    ],
)
def test_since_begins_anew_after_a_gap_and_with_another_leader(
    told: str, steps: list[Step], expected: tuple[int | None, int | None]
) -> None:
    assert seen(after(*SEEN, *steps)) == expected, told


@pytest.mark.parametrize(
    ("told", "steps", "expected"),
    [
        ("an end below what was applied: another log, and nothing of it is applied", [(3_000, 4)], (None, 2_000)),
        ("an end below one that was seen, under lag, though not below what was applied", [(3_000, 9), (4_000, 8)], (None, 2_000)),
        ("whichever sample had seen it", [(3_000, 9), (4_000, 11), (5_000, 10)], (None, 2_000)),
        ("what was held of the old log is not waited for", [(3_000, 9), (4_000, 8), 8], (4_000, 4_000)),
        ("an empty new log has nothing to be waited for", [(3_000, 0)], (3_000, 3_000)),
    ],
)
def test_a_log_made_anew_begins_since_anew(told: str, steps: list[Step], expected: tuple[int | None, int | None]) -> None:
    assert seen(after(*SEEN, *steps)) == expected, told


def test_of_a_log_made_anew_nothing_is_applied() -> None:
    assert after(*SEEN, (3_000, 4)).applied == 0


def test_an_end_is_compared_with_what_was_applied_when_it_was_asked_for() -> None:
    asked = after(*SEEN)
    applied_meanwhile = asked.advanced(8)
    assert seen(applied_meanwhile.answered(Answer(3_000, asked.reached, 5))) == (1_000, 3_000)
    assert seen(applied_meanwhile.answered(Answer(3_000, applied_meanwhile.reached, 5))) == (None, 2_000)


@pytest.mark.parametrize(
    ("told", "late"),
    [
        ("doubled", Answer(2_000, 5, 5)),
        ("older than the newest taken", Answer(1_500, 5, 5)),
        ("older, with an end that is not reached", Answer(1_500, 5, 9)),
        ("older, with another end under the same T", Answer(2_000, 5, 6)),
        ("older, of the leader before", Answer(1_500, 5, 5, 7)),
        ("older, of the log before", Answer(1_500, 0, 4)),
        ("older, from before a gap", Answer(-9_000, 0, 5)),
    ],
)
def test_a_late_answer_says_nothing_new(told: str, late: Answer) -> None:
    sight = after(*SEEN)
    assert sight.answered(late) == sight, told


def test_answers_out_of_order_count_as_the_newest_alone() -> None:
    assert after(*SEEN, (3_500, 9), (3_000, 7), 7) == after(*SEEN, (3_500, 9), 7)


@pytest.mark.parametrize("before", [[], [(3_000, 9)], [(3_000, 9), (4_000, 12)]])
def test_an_interruption_begins_since_anew_and_leaves_until_as_it_was(before: list[Step]) -> None:
    sight = after(*SEEN, *before).interrupted()
    assert seen(sight) == (None, 2_000)
    assert seen(sight.advanced(12)) == (None, 2_000), "what was sampled before an interruption proves nothing after it"
    assert seen(after(12, (5_000, 12), (6_000, 12), start=sight)) == (5_000, 6_000)


@pytest.mark.parametrize(
    ("told", "steps", "expected"),
    [
        ("as it was stored", [], (1_000, 9_000)),
        ("the next sample within the gap goes on", [(11_000, 5, 3)], (1_000, 11_000)),
        ("one beyond it begins anew", [(11_001, 5, 3)], (11_001, 11_001)),
        ("one of another leader as well", [(10_000, 5, 4)], (10_000, 10_000)),
        ("one taken before the stored end says nothing new", [(8_999, 5, 3)], (1_000, 9_000)),
        ("what is not applied yet is waited for", [(10_000, 7, 3), (11_000, 8, 3)], (1_000, 9_000)),
        ("without a gap, once it is applied", [(10_000, 7, 3), (11_000, 8, 3), 8], (1_000, 11_000)),
    ],
)
def test_a_stored_sight_is_gone_on_with(told: str, steps: list[Step], expected: tuple[int | None, int | None]) -> None:
    resumed = Sight.resumed(applied=5, since_ms=1_000, until_ms=9_000, epoch=3)
    assert seen(after(*steps, start=resumed)) == expected, told


@pytest.mark.parametrize(
    ("told", "steps", "offset", "expected"),
    [
        ("before any sample nothing is known", [], 9, None),
        ("a record below every end may be as old as any", [(1_000, 3)], 2, None),
        ("one at the end came after the sample", [(1_000, 3)], 3, 1_000),
        ("also after it was met", [(1_000, 3), 3], 3, 1_000),
        ("the newest sample it lies beyond", [(1_000, 3), (2_000, 7), (3_000, 9), 3], 9, 3_000),
        ("an older one for an older record", [(1_000, 3), (2_000, 7), 3], 6, 1_000),
        ("of three: met", [(1_000, 3), (2_000, 5), 3, (3_000, 7)], 4, 1_000),
        ("of three: held", [(1_000, 3), (2_000, 5), 3, (3_000, 7)], 6, 2_000),
        ("of three: waiting", [(1_000, 3), (2_000, 5), 3, (3_000, 7)], 8, 3_000),
        ("after a gap only what was sampled since", [(1_000, 3), 3, (9_000, 7)], 6, None),
        ("of another log nothing", [(1_000, 3), 3, (2_000, 2)], 1, None),
    ],
)
def test_a_record_beyond_a_sampled_end_was_appended_after_it(told: str, steps: list[Step], offset: int, expected: int | None) -> None:
    assert after(*steps).appended_after_ms(offset) == expected, told


def test_after_an_interruption_no_record_is_dated() -> None:
    assert after((1_000, 3), (2_000, 5)).interrupted().appended_after_ms(9) is None


@pytest.mark.parametrize(
    ("steps", "reached"),
    [
        ([], 0),
        ([4], 4),
        ([(1_000, 3)], 3),
        ([(1_000, 3), (2_000, 8)], 8),
        ([(1_000, 3), (2_000, 8), 3], 8),
        ([(1_000, 3), 5], 5),
    ],
)
def test_a_log_reaches_as_far_as_was_applied_or_seen(steps: list[Step], reached: int) -> None:
    assert after(*steps).reached == reached


@given(st.lists(st.tuples(st.integers(1, LONGEST_GAP_MS), st.integers(0, 4), st.integers(0, 4)), max_size=30))
def test_sight_never_says_more_than_the_newest_sample_that_is_met(looks: list[tuple[int, int, int]]) -> None:
    """With neither gaps nor faults: since is the first sample's T, until that of some sample met, and only applying moves it."""
    sight, now, end, samples = Sight(applied=0), 0, 0, []
    for waited_ms, appended, applied in looks:
        now, end = now + waited_ms, end + appended
        samples.append((now, end))
        sight = after((now, end), min(end, sight.applied + applied), start=sight)
        met = [time_ms for time_ms, of in samples if of <= sight.applied]
        assert sight.until_ms is None or sight.until_ms in met
        assert sight.since_ms in (None, samples[0][0])
        assert replace(sight, taken_ms=None).advanced(sight.applied) == replace(sight, taken_ms=None)
    if looks:
        assert seen(sight.advanced(end)) == (samples[0][0], now)
