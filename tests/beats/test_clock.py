"""Two clocks, and which of them counts."""

from __future__ import annotations

import pytest

from heartbeat.beats.clock import MOST_SKEW_MS, Clock

NOW = 1_755_138_687_438


@pytest.mark.parametrize(
    ("ahead_ms", "earlier_ms", "agree"),
    [
        (0, NOW, True),
        (5, NOW, True),
        (-5, NOW - 5, True),
        (MOST_SKEW_MS, NOW, True),
        (-MOST_SKEW_MS, NOW - MOST_SKEW_MS, True),
        (MOST_SKEW_MS + 1, NOW, False),
        (-MOST_SKEW_MS - 1, NOW - MOST_SKEW_MS - 1, False),
        (86_400_000, NOW, False),
    ],
)
def test_the_earlier_of_two_clocks_counts_and_beyond_a_bound_they_disagree(ahead_ms: int, earlier_ms: int, agree: bool) -> None:
    clock = Clock(lambda: NOW)
    clock.told(NOW + ahead_ms)
    assert (clock.earlier_ms(), clock.agree, clock.now_ms(), clock.redis_ahead_ms) == (earlier_ms, agree, NOW, ahead_ms)


def test_until_redis_has_told_our_own_clock_is_all_there_is() -> None:
    assert Clock(lambda: NOW).earlier_ms() == NOW
    assert Clock(lambda: NOW).agree


def test_clocks_that_agree_again_are_believed_again() -> None:
    clock = Clock(lambda: NOW)
    clock.told(NOW + 10_000)
    assert not clock.agree
    clock.told(NOW + 10)
    assert clock.agree


def test_the_difference_is_kept_while_our_clock_goes_on() -> None:
    times = iter([NOW, NOW + 1_000])
    clock = Clock(lambda: next(times))
    clock.told(NOW - 300)
    assert clock.earlier_ms() == NOW + 700
