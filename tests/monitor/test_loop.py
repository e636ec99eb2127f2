"""A loop goes on whatever one turn meets, and ends when it is told to."""

from __future__ import annotations

import threading

import pytest

from heartbeat.monitor.loop import Loop

DEADLINE_S = 20.0


def test_turns_are_taken_until_it_is_stopped_and_then_it_cleans_up() -> None:
    taken, ended = threading.Event(), threading.Event()

    def turn() -> float:
        taken.set()
        return 60.0

    loop = Loop("turns", turn, ended.set)
    loop.start()
    assert taken.wait(DEADLINE_S)
    loop.stop()
    assert loop.join(DEADLINE_S), "a long wait ends at once"
    assert ended.is_set()


def test_a_turn_that_fails_is_logged_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    again, left = threading.Event(), [ValueError("broken")]

    def turn() -> float:
        if left:
            raise left.pop()
        again.set()
        return 60.0

    loop = Loop("turns", turn)
    loop.start()
    assert again.wait(DEADLINE_S)
    loop.stop()
    assert loop.join(DEADLINE_S)
    assert "turns: a turn failed" in caplog.text
