"""The oracle itself: a right history passes, and each wrong one is caught by the rule that it breaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from .history import Fault, History, Record, Says, Seen, Source, Verdict
from .oracle import Budgets, violations

TTL_MS = 4_000
BUDGETS = Budgets(grace_ms=1_000, slack_ms=1_000, settle_ms=6_000, tell_ms=8_000)
SOURCES = [Source("pump", "pumps", TTL_MS), Source("valve", "pumps", TTL_MS)]
END_MS = 100_000


def beats(source: str, from_ms: int, to_ms: int, *, acked: bool = True, off_ms: int = 0) -> list[Record]:
    """Return a beat a second, acknowledged after 10 ms."""
    return [Record(source, at + off_ms, at, at + 10 if acked else None) for at in range(from_ms, to_ms, 1_000)]


def flip(to: str, deadline_ms: int, at_ms: int, *, reason: str = "", source: str = "pump", incident: str = "") -> Verdict:
    incident = incident or f"i{deadline_ms}"
    reason = reason or {"DOWN": "silence", "UP": "recovered", "PAUSED": "bye"}.get(to, to.lower())
    proven_ms = deadline_ms + BUDGETS.slack_ms + 200
    return Verdict(f"{incident}:{to}", incident, source, "pumps", "?", to, reason, at_ms, None, deadline_ms, proven_ms)


def down(deadline_ms: int, **more: str) -> Verdict:
    return flip("DOWN", deadline_ms, deadline_ms + BUDGETS.grace_ms, **more)


def replace_in(verdict: Verdict, **more: Any) -> Verdict:
    """Return the verdict with something else in it."""
    changed: Verdict = msgspec.structs.replace(verdict, **more)
    return changed


def pairs(told: Sequence[Seen]) -> list[tuple[int, Verdict]]:
    return [(one.at_ms, one.verdict) for one in told]


def pipeline(to: str, incident: str = "blind-1") -> Verdict:
    return flip(to, 0, 50_000, source="pipeline:pumps", incident=incident)


def seen(*verdicts: tuple[int, Verdict]) -> list[Seen]:
    return [Seen(at_ms, verdict) for at_ms, verdict in verdicts]


PUMP = [*beats("pump", 0, 20_001), *beats("pump", 50_000, END_MS)]
"""Beats until 20,000 and again from 50,000 on."""
DEADLINE_MS = 20_000 + TTL_MS
DOWN, UP = down(DEADLINE_MS), flip("UP", DEADLINE_MS, 50_000)
TOLD = seen((26_500, DOWN), (51_000, UP))


def history(
    records: Sequence[Record] = PUMP, told: Sequence[Seen] = TOLD, *, faults: Sequence[Fault] = (), kept: Sequence[Seen] = ()
) -> History:
    return History(SOURCES, [*records, *beats("valve", 0, END_MS)], faults, told, kept, 0, END_MS)


def rules(run: History) -> set[str]:
    return {violation.rule for violation in violations(run, BUDGETS)}


RECEIVER = Fault("receiver", 20_000, 45_000)
FAILED = Record("pump", 20_500, 20_500, 20_510, Says.FAIL)
FAIL = flip("DOWN", 20_500 + TTL_MS, 20_500, reason="fail")
GONE = [*beats("pump", 0, 20_001), Record("pump", 20_500, 20_500, 20_510, Says.BYE)]

RIGHT = {
    "a DOWN and its recovery": history(),
    "told twice under one key": history(told=[*TOLD, *TOLD]),
    "was down, told when it was over": history(told=seen((51_000, UP)), faults=[RECEIVER]),
    "two silences": history(
        [*beats("pump", 0, 10_001), *PUMP[20:]],
        [*seen((16_500, down(14_000)), (21_000, flip("UP", 14_000, 20_000))), *TOLD],
    ),
    "not told during a fault, told when it has settled": history(
        told=seen((60_000, DOWN), (60_000, UP)), faults=[Fault("redis", 10_000, 45_000)]
    ),
    "acknowledged too late by a broker that was away": history(
        [*beats("pump", 0, 20_001), *(replace(late, acked_ms=40_000) for late in beats("pump", 21_000, 40_000)), *PUMP[21:]],
    ),
    "may be in the log or not": history([*PUMP, *beats("pump", 20_001, 21_500, acked=False)]),
    "a deadline lifted by the skew": history(
        [replace(r, acked_ms=(r.acked_ms or 0) + 500) for r in PUMP], seen((26_800, down(DEADLINE_MS + 300)), (51_000, UP))[:1] + seen(
            (51_000, flip("UP", DEADLINE_MS + 300, 50_000))
        )
    ),
    "lost with Redis before it was told, and dated otherwise when it was read anew": history(
        [replace(r, acked_ms=(r.acked_ms or 0) + 500) for r in PUMP],
        kept=[*seen((26_300, down(DEADLINE_MS + 300))), *TOLD],
        faults=[Fault("redis emptied", 26_500, 28_000, 5_000, loses=True)],
    ),
    "a fail, told and recovered": history([*PUMP[:21], FAILED, *PUMP[21:]], seen((21_000, FAIL), (51_000, flip("UP", 24_500, 50_000)))),
    "a goodbye without a word": history(GONE, []),
    "a goodbye of one that is down": history(
        [*PUMP[:21], Record("pump", 60_000, 60_000, 60_010, Says.BYE)], seen((26_500, DOWN), (61_000, flip("PAUSED", DEADLINE_MS, 60_000)))
    ),
    "blind and sighted again": history(
        told=[*TOLD, *seen((55_000, pipeline("BLIND")), (60_000, pipeline("SIGHTED")))], faults=[Fault("broker", 52_000, 58_000)]
    ),
    "concluded, and lost with Redis before it was told": history(
        told=seen((51_000, UP))[:0], records=[*beats("pump", 0, 20_001), *beats("pump", 30_000, END_MS)],
        kept=seen((26_300, DOWN)), faults=[Fault("flush", 26_400, 26_400, loses=True)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("run", RIGHT.values(), ids=RIGHT)
def test_nothing_is_found_in_a_right_history(run: History) -> None:
    assert violations(run, BUDGETS) == []


FALSE = "no source is DOWN whose beat Kafka acknowledged in time"
SILENCE = "every true silence is told"
AFTER = "a recovery is told after its DOWN"
RECOVERY = "every recovery follows"
ONE_OPEN = "a subject has one open incident at most"
WRONG = {
    "a DOWN of a source that beats": (history(told=[*TOLD, *seen((62_000, down(57_000)), (63_000, flip("UP", 57_000, 60_500)))]), FALSE),
    "a beat within slack had moved the deadline": (history([*PUMP, Record("pump", 20_600, 20_600, DEADLINE_MS + 900)]), FALSE),
    "a DOWN that says more was applied than was": (
        history(told=seen((51_000, replace_in(DOWN, proven_until_ms=50_500)), (51_500, UP))), FALSE,
    ),
    "a DOWN only in flips": (history(kept=seen((62_000, down(57_000)))), FALSE),
    "a DOWN with too little proof": (
        history(told=seen((26_500, replace_in(DOWN, proven_until_ms=DEADLINE_MS + 500)), (51_000, UP))), "a DOWN is proven",
    ),
    "a DOWN dated by when it was noticed": (
        history(told=seen((26_500, replace_in(DOWN, at_ms=26_400)), (51_000, UP))), "a DOWN is dated by its deadline and the grace",
    ),
    "a deadline made up": (
        history(told=seen((26_500, down(DEADLINE_MS + 1_500)), (51_000, flip("UP", DEADLINE_MS + 1_500, 50_000)))),
        "the deadline of a DOWN is one that the source had",
    ),
    "a DOWN after a goodbye": (history(GONE, seen((26_500, DOWN))), "no source is DOWN that said goodbye"),
    "a fail that nobody sent": (
        history(told=seen((10_500, flip("DOWN", 14_000, 10_000, reason="fail")), (11_500, flip("UP", 14_000, 11_000)), *pairs(TOLD))),
        "a DOWN for a fail has one",
    ),
    "a source that nobody knows": (
        history(told=[*TOLD, *seen((30_000, down(28_000, source="ghost")))]),
        "a DOWN is about a source that has beaten, and names a deadline",
    ),
    "a DOWN never told": (history(told=[]), SILENCE),
    "a DOWN told too late": (history(told=seen((45_000, DOWN), (51_000, UP))), SILENCE),
    "a silence not told after the fault": (history(PUMP[:21], [], faults=[Fault("redis", 21_000, 40_000, 5_000)]), SILENCE),
    "a fail never told": (
        history([*beats("pump", 0, 80_001), Record("pump", 80_500, 80_500, 80_510, Says.FAIL)], []), "every fail is told",
    ),
    "a DOWN concluded and not told": (
        history([*PUMP[:21], *beats("pump", 30_000, END_MS)], [], kept=seen((26_300, DOWN))), "what was concluded is told",
    ),
    "a recovery never told": (history(told=TOLD[:1]), RECOVERY),
    "a recovery concluded and not told": (history(told=TOLD[:1], records=PUMP[:21], kept=[*TOLD]), RECOVERY),
    "a recovery before its DOWN": (history(told=seen((51_000, UP), (52_000, DOWN)), faults=[RECEIVER]), AFTER),
    "a goodbye that ends nothing": (
        history([*PUMP[:21], Record("pump", 60_000, 60_000, 60_010, Says.BYE)], TOLD[:1]), "a goodbye ends what is open",
    ),
    "an incident left open while the next one begins": (
        history([*beats("pump", 0, 10_001), *PUMP[20:]], [*seen((16_500, down(14_000))), *TOLD]), ONE_OPEN,
    ),
    "two keys for one incident": (
        history(told=[*TOLD, *seen((52_000, down(DEADLINE_MS, incident="other")), (52_000, flip("UP", DEADLINE_MS, 0, incident="other")))]),
        "one incident has one key",
    ),
    "two incidents of one silence, though nobody was told of the first": (
        history(kept=[*seen((26_300, down(DEADLINE_MS + 9))), *TOLD], faults=[Fault("redis", 26_500, 28_000, 5_000)]),
        "one silence is one incident",
    ),
    "two incidents of one silence": (
        history(told=[*TOLD, *seen((52_000, down(DEADLINE_MS + 9)), (52_500, flip("UP", DEADLINE_MS + 9, 50_000)))]),
        "one silence is one incident",
    ),
    "two incidents of one fail": (
        history(
            [*PUMP[:21], FAILED, *beats("pump", 22_000, END_MS)],
            seen((21_000, FAIL), (22_500, flip("UP", 24_500, 22_000)), (40_000, flip("DOWN", 43_000, 20_500, reason="fail")),
                 (41_000, flip("UP", 43_000, 40_000))),
        ),
        "one fail is one incident",
    ),
    "one id for two subjects": (
        history(told=[*TOLD, *seen((60_000, flip("UP", DEADLINE_MS, 50_000, source="valve")))]), "an incident's id is its own",
    ),
    "a key that is not the incident's": (
        history(told=[*TOLD, *seen((60_000, replace_in(UP, key="another")))]), "a key is the incident and the transition",
    ),
    "a pipeline incident left open": (
        history(told=[*TOLD, *seen((55_000, pipeline("BLIND")))]), "no pipeline incident stays open after the fault",
    ),
    "two pipeline incidents at once": (
        history(told=[*TOLD, *seen((55_000, pipeline("BLIND")), (56_000, pipeline("BLIND", "blind-2")),
                                   (57_000, pipeline("SIGHTED")), (57_000, pipeline("SIGHTED", "blind-2")))]),
        ONE_OPEN,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("run", "rule"), WRONG.values(), ids=WRONG)
def test_a_wrong_history_is_caught_by_the_rule_it_breaks(run: History, rule: str) -> None:
    assert rule in rules(run)


def test_what_a_fault_excuses_is_excused_no_longer_than_it_lasts() -> None:
    late = history(told=seen((49_000, DOWN), (51_000, UP)), faults=[Fault("redis", 10_000, 30_000)])
    assert rules(late) == {SILENCE}
    assert not rules(replace(late, faults=[Fault("redis", 10_000, 36_000)]))


def test_a_timestamp_far_ahead_neither_makes_a_source_immortal_nor_is_its_silence_told_at_once() -> None:
    ahead = beats("pump", 0, 20_001, off_ms=3_600_000)
    told = seen((28_500, down(22_000 + TTL_MS)))
    assert not rules(history(ahead, told))
    assert SILENCE in rules(history(ahead, []))
    assert not rules(history(ahead, seen((90_500, down(75_000 + 2_000 + TTL_MS))), faults=[Fault("flush", 30_000, 75_000, loses=True)]))
