"""What is said of a catch-up, by a clock that the test moves."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest
from tests.beats.parts import P0, P1

from heartbeat.beats.catch_up import CatchUp, lag, line
from heartbeat.beats.proof import Sample, Sight
from heartbeat.connect.api import TopicPartition


@dataclass(frozen=True, slots=True)
class Known:
    sight: Sight


def behind(*records: int) -> dict[TopicPartition, Known]:
    """Partitions with so many records between what is applied and the end."""
    return {TopicPartition("t", number): Known(Sight(100, held=Sample(1, 100 + count))) for number, count in enumerate(records)}


def note(catch_up: CatchUp, *notes: tuple[float, int]) -> None:
    for now_s, count in notes:
        catch_up.note(behind(count), now_s)


def test_the_lag_is_what_lies_before_the_newest_known_end_of_each_partition() -> None:
    assert lag({}) == 0
    assert lag({P0: Known(Sight(100))}) == 0
    assert lag(behind(5, 0, 7)) == 12
    assert lag({P0: Known(Sight(10, held=Sample(1, 20), waiting=Sample(2, 50))), P1: Known(Sight(90, held=Sample(1, 20)))}) == 40


def test_a_catch_up_that_lasts_says_a_line_a_second_and_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    catch_up = CatchUp()
    note(catch_up, (0.0, 100_000), (1.0, 80_000), (1.9, 70_000))
    assert caplog.messages == []
    note(catch_up, (2.0, 60_000), (2.5, 50_000), (2.9, 45_000), (3.0, 40_000), (4.2, 10_000), (5.0, 0), (6.0, 0))
    assert caplog.messages == [
        "Catching up: 40,000 of 100,000 records (40 %), 20,000/s, 3 s left",
        "Catching up: 60,000 of 100,000 records (60 %), 20,000/s, 2 s left",
        "Catching up: 90,000 of 100,000 records (90 %), 21,429/s, 0 s left",
        "Caught up after 5.0 s",
    ]


def test_a_short_catch_up_is_not_worth_a_word(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    note(CatchUp(), (0.0, 100_000), (1.0, 50_000), (1.9, 0), (10.0, 0))
    assert caplog.messages == []


def test_a_few_records_behind_is_everyday_life(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    note(CatchUp(), *((float(second), 999) for second in range(10)))
    assert caplog.messages == []


def test_a_backlog_that_grows_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    catch_up = CatchUp()
    note(catch_up, (0.0, 10_000), (1.9, 5_000), (2.0, 50_000), (3.9, 40_000))
    assert caplog.messages == []
    note(catch_up, (4.0, 30_000))
    assert caplog.messages == ["Catching up: 20,000 of 50,000 records (40 %), 10,000/s, 3 s left"]


@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_a_catch_up_that_does_not_move_has_no_time_left_to_tell(seconds: float) -> None:
    assert line(0, 5_000, seconds) == "Catching up: 0 of 5,000 records (0 %), 0/s, time left unknown"
