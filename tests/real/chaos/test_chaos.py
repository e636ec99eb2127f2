"""An hour, or three minutes, of faults upon faults, with times between in which everything must have come right: no verdict may be wrong.

``HEARTBEAT_CHAOS_MINUTES`` says how long (``make chaos MINUTES=60``), ``HEARTBEAT_TEST_SEED`` repeats what was drawn; moments are the
machine's own, so a run is repeated in kind, not to the millisecond.
"""

from __future__ import annotations

import collections
import itertools
import os
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from ..scenario import now_ms
from .faults import KINDS, Kind
from .history import Fault, History
from .lives import cast, playing
from .monitor import BUDGETS
from .oracle import violations
from .receiver import Answer
from .stage import STAGES, TRANSACTION_SOURCES, Stage, standing

MINUTES = float(os.environ.get("HEARTBEAT_CHAOS_MINUTES") or 3)
QUIET_S = (BUDGETS.settle_ms + BUDGETS.tell_ms) / 1000 + 3
"""Long enough, once everything has healed, for everything to be told."""
WARM_UP_S = 5.0
ROUND_S = 50.0
"""About as long takes a round: two sets of faults, and the quiet after them."""


class Deck:
    """All kinds of faults, shuffled, again and again: each has its turn."""

    def __init__(self, drawn: random.Random) -> None:
        self._drawn = drawn
        self._left: list[Kind] = []

    def deal(self, many: int) -> list[Kind]:
        """Return some kinds of different parts; those that do not go together wait for the next time."""
        dealt: dict[str, Kind] = {}
        while len(dealt) < many:
            self._left = self._left or self._drawn.sample(KINDS, len(KINDS))
            found = next((kind for kind in self._left if kind.part not in dealt), None)
            if found is None:
                break
            self._left.remove(found)
            dealt[found.part] = found
        return list(dealt.values())


def break_at_once(stage: Stage, drawn: random.Random, kinds: list[Kind]) -> list[Fault]:
    """Begin each fault at a random moment, end each after a while, and return them when all are over."""
    faults: list[Fault] = []
    began_s = time.monotonic()
    agenda: list[tuple[float, Kind, float]] = sorted((drawn.uniform(0, 4), kind, drawn.uniform(0.2, 1) * kind.longest_s) for kind in kinds)
    running: list[tuple[float, Kind, ExitStack, int]] = []
    with ExitStack() as all_of_them:
        while agenda or running:
            at_s = time.monotonic() - began_s
            for step in [step for step in agenda if step[0] <= at_s]:
                agenda.remove(step)
                started_ms, fault = now_ms(), all_of_them.enter_context(ExitStack())
                fault.enter_context(step[1].act(stage, drawn))
                running.append((time.monotonic() - began_s + step[2], step[1], fault, started_ms))
            for over in [one for one in running if one[0] <= at_s]:
                running.remove(over)
                _, kind, fault, started_ms = over
                fault.close()
                faults.append(Fault(kind.name, started_ms, now_ms(), int(kind.heals_s * 1000), kind.loses))
            time.sleep(0.05)  # the faults' own time
    return faults


def drive(stage: Stage, drawn: random.Random, until_s: float) -> list[Fault]:
    """Break things until it is time for the last quiet; every second time things get the time to heal."""
    deck, faults = Deck(drawn), list[Fault]()
    while time.monotonic() + ROUND_S < until_s:
        for many, pause_s in ((drawn.randint(1, 3), drawn.uniform(0, 6)), (drawn.randint(2, 3), 0.0)):
            kinds = deck.deal(many)
            print(f"{time.strftime('%H:%M:%S')}", *(kind.name for kind in kinds), sep=", ", flush=True)  # noqa: T201  shown with a failure
            faults += break_at_once(stage, drawn, kinds)
            time.sleep(pause_s)  # the moment itself is random
        over_ms = max(fault.ended_ms + fault.heals_ms for fault in faults)
        time.sleep(max(0.0, (over_ms - now_ms()) / 1000) + QUIET_S)  # the quiet itself
    return faults


def _now_and_then_broken() -> Callable[[], Answer]:
    """Return what fails every eighth request, and never twice in a row: a provider as they are, at its best."""
    answers = itertools.cycle([Answer.BROKEN, *[Answer.OK] * 7, Answer.BUSY, *[Answer.OK] * 7])
    return lambda: next(answers)


@pytest.mark.timeout(MINUTES * 60 + 240)
def test_whatever_breaks_no_verdict_is_wrong_and_none_is_missing(tmp_path: Path) -> None:
    seed = int(os.environ.get("HEARTBEAT_TEST_SEED") or random.randrange(2**32))
    print(f"HEARTBEAT_TEST_SEED={seed}", flush=True)  # noqa: T201  pytest shows it with a failure, for doing it again
    drawn = random.Random(seed)
    roles = cast(drawn, STAGES)
    until_s = time.monotonic() + MINUTES * 60
    with standing(tmp_path) as stage:
        stage.receiver.choose = _now_and_then_broken()
        with playing(stage.kafka.bootstrap, roles, seed) as play:
            time.sleep(WARM_UP_S)  # until everybody has beaten
            began_ms = now_ms()
            faults = drive(stage, drawn, until_s)
            ended_ms = now_ms()
        stage.flips.stop()
        sources = [*(role.source for role in roles), *TRANSACTION_SOURCES]
        records = [*play.records(), *stage.doubtful]
        run = History(sources, records, faults, stage.receiver.told(), stage.flips.kept(), began_ms, ended_ms)
    wrong = violations(run, BUDGETS)
    _report(run, seed, len(wrong))
    if wrong:
        (tmp_path / "history.json").write_bytes(msgspec.json.encode(run))  # to be judged again, and looked at
    assert not wrong, "\n".join(map(str, wrong))


def _report(run: History, seed: int, wrong: int) -> None:
    """Say what the run was made of: one that told nothing has tested nothing."""
    told = collections.Counter(flip.to for flip in {seen.verdict.key: seen.verdict for seen in run.told}.values())
    acked = sum(record.acked_ms is not None for record in run.records)
    minutes = (run.ended_ms - run.began_ms) / 60_000
    print(  # noqa: T201
        f"seed {seed}: {minutes:.1f} minutes, {len(run.faults)} faults, {acked:,} of {len(run.records):,} records acknowledged, "
        f"told {dict(told)}, {wrong} wrong"
    )
    assert told["DOWN"] > 0
    assert told["UP"] > 0
