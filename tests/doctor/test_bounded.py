"""Looks that hang or fail do not take the others along."""

from __future__ import annotations

import threading

from heartbeat.doctor.bounded import Failed, at_once
from heartbeat.errors import ConnectError


def test_a_look_that_hangs_or_fails_leaves_the_others_their_answers() -> None:
    free = threading.Event()

    def refuse() -> str:
        raise ConnectError("refused")

    def stumble() -> str:
        raise KeyError

    def hang() -> str:
        free.wait(60)
        return "late"

    found = at_once({"well": lambda: "seen", "refused": refuse, "stumbles": stumble, "hangs": hang}, 2.0)
    free.set()
    assert found["well"] == "seen"
    assert found["refused"] == Failed("refused")
    assert found["stumbles"] == Failed("KeyError")
    assert isinstance(found["hangs"], Failed)
