"""Small worlds to judge: what an index holds, what is asked of it, and what must come of it. A table, for tests and for mutations.

All times are ms from the judge's clock, which is set one second behind Redis's: so the time that counts is known to the ms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import msgspec

from heartbeat.beats.connection import Argument, Connection
from heartbeat.beats.keyspace import Info, time_ms
from heartbeat.beats.verdicts import Case, Closing, Returned, Terms, Verdicts

SILENCE, FAIL, NEVER_SEEN = "silence", "fail", "never_seen"
DOWN, UNPROVEN, KNOWN, MOVED, GONE = "down", "unproven", "known", "moved", "gone"
RECOVERED, STILL, BYE = "recovered", "still", "bye"
OPENED, ENDED, NOTHING = "opened", "ended", "nothing"

MIN: Final = 60_000
BEHIND: Final = 1_000
"""The judge's clock is so far behind Redis's."""
MOST_TAKEN: Final = 400
"""A world that took longer than this is another one by then: Redis's clock goes on."""
_ATTEMPTS: Final = 50
_CONNECTOR: Final = "c"
KEPT: Final = b"the open incident"


@dataclass(frozen=True, slots=True)
class World:
    """An index and a question. As it stands here, the source ``s:1`` is silent, and it is proven.

    ``since``, ``until`` and ``canary`` are of the partitions t/0, t/1 and u/0, None where the field is missing. ``seen`` and
    ``judged`` are what the asker read before, the deadline of the index unless given.
    """

    ask: str = SILENCE
    own: int = 0
    slack: int = 1_000
    settle: int = 2 * MIN
    canaries: bool = False
    default_ttl: int | None = MIN
    partitions: str | None = '{"t":2,"u":1}'
    asked_at: int | None = 0
    since: tuple[int | None, ...] = (-10 * MIN,) * 3
    until: tuple[int | None, ...] = (0,) * 3
    canary: tuple[int | None, ...] = (None,) * 3
    deadline: int | None = -10_000
    ttl: int | None = MIN
    down: float | None = None
    gone: int | None = None
    failing: int | None = None
    status: tuple[str, int] | None = None
    expected: int | None = None
    seen: int | None = None
    judged: int | None = None
    grace: int = 5_000
    blind: bytes | None = None
    blind_after: int = 10_000
    believed: bool = False


class Left(NamedTuple):
    """What a world looks like afterwards: (which flip, what it says is proven, which clock it was detected by)."""

    outcome: str
    flips: tuple[tuple[str, int | None, str], ...]
    deadline: float | None
    down: float | None
    gone: float | None
    failing: float | None
    blind: bytes | None


class Row(NamedTuple):
    """A world, what its question must be answered, and what changes in it beside what every such answer changes."""

    world: World
    outcome: str
    changes: Mapping[str, float | None] = {}


def leaves(row: Row) -> Left:
    """Return what must be left of a world."""
    world, outcome, _ = row
    seen = {name: getattr(world, name) for name in ("deadline", "down", "gone", "failing", "blind")}
    flips: tuple[str, ...] = ()
    if outcome == DOWN:
        judged = world.deadline if world.judged is None else world.judged
        flips, seen = ("flip",), seen | {"deadline": None, "down": _kept(judged or 0, failed=world.ask == FAIL), "failing": None}
    elif outcome == KNOWN:
        seen["failing"] = None
    elif outcome in (GONE, STILL):
        seen["deadline"] = None
    elif outcome == RECOVERED:
        flips, seen = ("recovered",), seen | {"down": None}
    elif outcome == BYE:
        flips, seen = ("bye",), seen | {"down": None, "deadline": None}
    elif outcome == OPENED:
        flips, seen = ("flip",), seen | {"blind": KEPT}
    elif outcome == ENDED:
        flips, seen = ("flip",), seen | {"blind": None}
    clock = "own" if world.own <= 0 else "redis"
    return Left(outcome, tuple((flip, proven(world), clock) for flip in flips), **(seen | dict(row.changes)))


def proven(world: World) -> int | None:
    """Return until when all is proven, by the definition of it: of every partition there is, if no clock is to be doubted."""
    ends = [*world.until, *world.since, *(world.canary if world.canaries else ())]
    counts: dict[str, int] = msgspec.json.decode(world.partitions or "{}")
    if counts != {"t": 2, "u": 1} or None in ends or world.asked_at is None or not -1_000 < world.own < 3_000:
        return None
    known = [world.asked_at] + [end for end in (*world.until, *(world.canary if world.canaries else ())) if end is not None]
    return None if max(known) > BEHIND else min(known)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where worlds are made: one Redis, one connector."""

    connection: Connection
    source: str = "s:1"
    verdicts: Verdicts = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "verdicts", Verdicts(self.connection, _CONNECTOR))

    def left(self, world: World) -> Left:
        """Make a world, ask its question, and return what is left; anew, should the machine have taken too long for it."""
        for _ in range(_ATTEMPTS):
            begun_ms = time_ms(self.connection.call("TIME"))
            zero = begun_ms - BEHIND
            self.make(world, zero)
            outcome = self.ask(world, zero)
            found = self._look(world, outcome, zero)
            if time_ms(self.connection.call("TIME")) - begun_ms < MOST_TAKEN:
                return found
        raise AssertionError("this machine is too slow to ask anything within so short a time")

    def make(self, world: World, zero: int) -> None:
        keys = self.verdicts.keys
        fields: dict[str, Argument | None] = {"ttl": world.default_ttl, "partitions": world.partitions}
        fields["partitions_at"] = _at(zero, world.asked_at)
        for n, p in enumerate(("t/0", "t/1", "u/0")):
            fields[f"{p}/since"], fields[f"{p}/until"] = _at(zero, world.since[n]), _at(zero, world.until[n])
            fields[f"{p}/canary"] = _at(zero, world.canary[n])
        scores = {keys.deadlines: world.deadline, keys.down: world.down, keys.gone: world.gone}
        scores |= {keys.fails: world.failing, keys.expected: world.expected}
        commands: list[Sequence[Argument]] = [("DEL", *keys.all)]
        commands += [("HSET", keys.proof, name, value) for name, value in fields.items() if value is not None]
        commands += [("ZADD", key, zero + score, self.source) for key, score in scores.items() if score is not None]
        if world.ttl is not None:
            commands.append(("HSET", keys.info, self.source, Info(zero - 60 * MIN, world.ttl).packed()))
        if world.status is not None:
            said, at = world.status
            text = msgspec.json.encode({"at_ms": zero + at, "partition": "t/0", "offset": 7, "status": said, "run": "", "message": "why"})
            commands.append(("HSET", keys.status, self.source, text))
        if world.blind is not None:
            commands.append(("SET", keys.blind, world.blind))
        self.connection.calls(*commands)

    def ask(self, world: World, zero: int) -> str:
        terms = Terms(zero + world.own, world.slack, world.settle, world.canaries)
        if world.ask == "blind":
            opened = self.verdicts.blind(terms, world.blind_after, KEPT, b"flip", believed=world.believed)
            return OPENED if opened else NOTHING
        if world.ask == "sighted":
            return ENDED if self.verdicts.sighted(terms, world.blind_after, KEPT, b"flip") else NOTHING
        if world.ask == "recover":
            deadline = _at(zero, world.deadline if world.seen is None else world.seen)
            score = zero + ((world.down if world.judged is None else world.judged) or 0)
            returned = Returned(self.source, math.floor(score), score % 1 > 0, deadline, _at(zero, world.gone))
            return self.verdicts.recover(terms, [Closing(returned, b"recovered", b"bye")])[0]
        judged = world.deadline if world.judged is None else world.judged
        seen = judged if world.seen is None else world.seen
        case = Case(world.ask, self.source, zero + (seen or 0), zero + (judged or 0), world.grace, b"flip")
        return self.verdicts.judge(terms, [case])[0]

    def _look(self, world: World, outcome: str, zero: int) -> Left:
        keys = self.verdicts.keys
        *scores, blind, entries = self.connection.calls(
            *(("ZSCORE", key, self.source) for key in (keys.deadlines, keys.down, keys.gone, keys.fails)),
            ("GET", keys.blind),
            ("XRANGE", keys.flips, "-", "+"),
        )
        flips = []
        for _, words in entries:
            entry = dict(zip(words[::2], words[1::2], strict=True))
            until, detected = entry[b"proven_until_ms"], int(entry[b"detected_ms"])
            clock = "own" if detected == zero + world.own else "redis"
            flips.append((entry[b"flip"].decode(), int(until) - zero if until.lstrip(b"-").isdigit() else None, clock))
        deadline, down, gone, failing = (None if score is None else float(score) - zero for score in scores)
        return Left(outcome, tuple(flips), deadline, down, gone, failing, blind)


def _kept(judged: int, *, failed: bool) -> float:
    """Return what is kept of a verdict."""
    return judged + 0.5 if failed else judged


def _at(zero: int, relative: int | None) -> int | None:
    return None if relative is None else zero + relative


def _but(n: int, value: int | None, others: int | None) -> tuple[int | None, ...]:
    """Return three values of which the one at ``n`` is another one."""
    return tuple(value if i == n else others for i in range(3))


_SILENT: Final = World()
_LONG: Final = replace(_SILENT, ttl=10 * MIN)
_STRANGE: Final = replace(_SILENT, ttl=None)
_FAILED: Final = World(FAIL, deadline=57_000, seen=-3_000, judged=-3_000, failing=-3_000, status=("fail", -3_000), grace=3_000)
_UNSEEN: Final = World(NEVER_SEEN, deadline=None, ttl=None, expected=-70_000, seen=-70_000, judged=-10_000)
_BACK: Final = World("recover", down=-10_000, deadline=50_000)
_FAILED_BEFORE: Final = replace(_BACK, down=-2_999.5)
_BLIND: Final = World("blind", until=(-10_001,) * 3, deadline=None)
_SIGHTED: Final = World("sighted", blind=KEPT, until=(-10_000,) * 3, deadline=None)


def _rows(base: World, **rows: Any) -> dict[str, Row]:
    """Return rows: name -> (outcome, what is otherwise than in ``base``[, what else changes])."""
    return {name.replace("_", " "): Row(replace(base, **row[1]), row[0], *row[2:]) for name, row in rows.items()}


def _of_each_partition() -> dict[str, Row]:
    """Return what one partition of several can spoil alone."""
    found: dict[str, Row] = {}
    for n, p in enumerate(("t/0", "t/1", "u/0")):
        found |= {
            f"{p} is proven just long enough after the deadline": Row(replace(_SILENT, until=_but(n, -9_000, 0)), DOWN),
            f"{p} is not proven long enough after the deadline": Row(replace(_SILENT, until=_but(n, -9_001, 0)), UNPROVEN),
            f"{p} has no until": Row(replace(_SILENT, until=_but(n, None, 0)), UNPROVEN),
            f"{p} has no since": Row(replace(_SILENT, since=_but(n, None, -10 * MIN)), UNPROVEN),
            f"{p} has no fields": Row(replace(_SILENT, since=_but(n, None, -10 * MIN), until=_but(n, None, 0)), UNPROVEN),
            f"{p} is proven for a time to come": Row(replace(_SILENT, until=_but(n, MIN, 0)), UNPROVEN),
            f"{p} was looked at for just one ttl": Row(replace(_SILENT, since=_but(n, -MIN, -10 * MIN)), DOWN),
            f"{p} was looked at for less than a ttl": Row(replace(_SILENT, since=_but(n, 1 - MIN, -10 * MIN)), UNPROVEN),
            f"{p} was looked at for just the settle time": Row(replace(_LONG, since=_but(n, -2 * MIN, -30 * MIN)), DOWN),
            f"{p} was looked at for less than the settle time": Row(replace(_LONG, since=_but(n, 1 - 2 * MIN, -30 * MIN)), UNPROVEN),
            f"{p} has a canary just late enough": Row(replace(_SILENT, canaries=True, canary=_but(n, -9_000, 0)), DOWN),
            f"{p} has too old a canary": Row(replace(_SILENT, canaries=True, canary=_but(n, -9_001, 0)), UNPROVEN),
            f"{p} has no canary": Row(replace(_SILENT, canaries=True, canary=_but(n, None, 0)), UNPROVEN),
        }
    return found


WORLDS: Final[Mapping[str, Row]] = {
    **_of_each_partition(),
    **_rows(
        _SILENT,
        silent_and_proven=(DOWN, {}),
        just_past_its_grace=(DOWN, {"deadline": -5_000}),
        within_its_grace=(UNPROVEN, {"deadline": -4_999}),
        within_its_grace_by_our_clock_though_not_by_that_of_Redis=(UNPROVEN, {"deadline": -9_500, "grace": 9_900, "until": (900,) * 3}),
        within_its_grace_by_the_clock_of_Redis_though_not_by_ours=(UNPROVEN, {"own": 2_500, "deadline": -9_500, "grace": 11_700}),
        clocks_that_differ_little=(DOWN, {"own": 2_500}),
        our_clock_far_behind=(UNPROVEN, {"own": -3_000, "deadline": -20_000}),
        our_clock_far_ahead=(UNPROVEN, {"own": 4_000, "deadline": -20_000}),
        a_partition_that_nobody_has_read=(UNPROVEN, {"partitions": '{"t":3,"u":1}'}),
        a_topic_that_nobody_has_read=(UNPROVEN, {"partitions": '{"t":2,"u":1,"v":1}'}),
        no_partition_set=(UNPROVEN, {"partitions": None}),
        an_empty_partition_set=(UNPROVEN, {"partitions": "{}"}),
        a_partition_set_of_unknown_age=(UNPROVEN, {"asked_at": None}),
        a_partition_set_just_new_enough=(DOWN, {"asked_at": -9_000}),
        a_partition_set_older_than_deadline_and_slack=(UNPROVEN, {"asked_at": -9_001}),
        a_partition_set_from_the_future=(UNPROVEN, {"asked_at": MIN}),
        more_slack_than_is_proven=(UNPROVEN, {"slack": 10_001}),
        as_much_slack_as_is_proven=(DOWN, {"slack": 10_000}),
        canaries_that_nobody_asks_for=(DOWN, {"canary": (-MIN,) * 3}),
        canaries_that_do_not_stand_in_for_sight=(UNPROVEN, {"canaries": True, "canary": (0,) * 3, "until": (0, -9_001, 0)}),
        a_goodbye_at_its_last_beat=(GONE, {"gone": -70_000}),
        a_goodbye_before_its_last_beat=(DOWN, {"gone": -70_001}),
        a_goodbye_before_its_last_beat_though_everybody_has_a_longer_ttl=(DOWN, {"gone": -70_001, "default_ttl": 3 * MIN}),
        a_goodbye_then_an_older_beat_that_is_delivered_again=(GONE, {"gone": -30_000}),
        another_deadline_than_was_seen=(MOVED, {"judged": -20_000}),
        a_beat_since_it_was_seen=(MOVED, {"deadline": MIN, "judged": -10_000}),
        an_earlier_deadline_than_was_seen=(MOVED, {"deadline": -20_000, "judged": -10_000}),
        no_deadline_any_more=(MOVED, {"deadline": None, "judged": -10_000}),
        down_already=(KNOWN, {"down": -10_000, "failing": -70_000}),
        down_on_an_earlier_deadline_already=(KNOWN, {"down": -90_000}),
        silent_with_a_fail_that_nobody_has_judged=(MOVED, {"failing": -70_000}),
    ),
    **_rows(
        _STRANGE,
        nobody_knows_its_ttl_but_we_looked_for_the_settle_time=(DOWN, {"since": (-2 * MIN,) * 3}),
        nobody_knows_its_ttl_and_we_looked_for_everybodys_only=(UNPROVEN, {"since": (1 - 2 * MIN,) * 3}),
        nobody_knows_its_ttl_and_settling_takes_longer_than_we_looked=(UNPROVEN, {"settle": 10 * MIN + 1}),
        nobody_knows_its_ttl_and_it_said_goodbye_at_its_last_beat_as_far_as_can_be_told=(GONE, {"gone": -70_000}),
        nobody_knows_its_ttl_and_it_said_goodbye_before=(DOWN, {"gone": -70_001}),
    ),
    **_rows(
        _FAILED,
        a_fail=(DOWN, {}),
        a_fail_of_whom_no_deadline_is_left=(DOWN, {"deadline": None}),
        a_fail_of_whom_no_deadline_and_no_ttl_is_left=(DOWN, {"deadline": None, "ttl": None}),
        a_fail_of_whom_no_ttl_is_kept=(DOWN, {"ttl": None}),
        an_old_fail=(DOWN, {"deadline": -10_000, "failing": -70_000, "seen": -70_000, "judged": -70_000, "status": ("fail", -70_000)}),
        a_fail_of_which_everybody_has_just_been_heard=(DOWN, {"until": (0, -3_000, 0)}),
        a_fail_after_which_others_may_have_said_more=(UNPROVEN, {"until": (0, -3_001, 0)}),
        a_fail_while_nothing_is_proven=(UNPROVEN, {"until": (0, None, 0)}),
        a_fail_while_clocks_disagree=(UNPROVEN, {"own": -3_000}),
        a_fail_that_is_no_more_to_be_judged=(MOVED, {"failing": None}),
        a_fail_after_which_another_came=(MOVED, {"failing": -2_000, "status": ("fail", -2_000)}),
        a_fail_that_is_not_the_newest_signal=(MOVED, {"status": ("ok", -2_000)}, {"failing": None}),
        an_ok_of_the_same_time=(MOVED, {"status": ("ok", -3_000)}, {"failing": None}),
        a_fail_of_another_time_than_the_newest=(MOVED, {"status": ("fail", -2_000)}, {"failing": None}),
        a_fail_of_which_no_signal_is_kept=(MOVED, {"status": None}, {"failing": None}),
        a_fresh_fail_and_a_beat_since=(DOWN, {"deadline": 57_001}, {"deadline": 57_001}),
        a_fresh_fail_and_a_beat_since_with_a_shorter_ttl=(DOWN, {"deadline": 7_001, "ttl": 10_000}, {"deadline": 7_001}),
        a_fresh_fail_and_a_beat_since_of_whom_no_ttl_is_kept=(
            DOWN,
            {"deadline": 57_001, "ttl": None},
            {"deadline": 57_001},
        ),
        a_fresh_fail_and_a_silence_since_that_is_proven=(MOVED, {"deadline": -1_000, "ttl": 1_000}, {"failing": None}),
        a_fresh_fail_and_a_silence_since_that_is_not_proven=(UNPROVEN, {"deadline": -999, "ttl": 1_000}),
        a_fresh_fail_and_a_silence_since_that_is_due_just_now=(UNPROVEN, {"deadline": 0, "ttl": 1_000}),
        a_fresh_fail_and_a_beat_that_is_not_due_yet=(DOWN, {"deadline": 1, "ttl": 1_000}, {"deadline": 1}),
        an_old_fail_of_whom_no_ttl_is_kept=(DOWN, {"ttl": None, "grace": 2_999}),
        an_old_fail_and_a_beat_since=(MOVED, {"deadline": 57_001, "grace": 2_999}, {"failing": None}),
        a_fail_and_a_goodbye_since=(MOVED, {"gone": -3_000}, {"failing": None}),
        a_fail_after_a_goodbye=(DOWN, {"gone": -3_001}),
        a_fail_of_one_that_is_down=(KNOWN, {"down": -20_000}),
    ),
    **_rows(
        _UNSEEN,
        never_seen=(DOWN, {}),
        never_seen_but_within_its_grace=(UNPROVEN, {"grace": 10_001}),
        never_seen_just_past_its_grace=(DOWN, {"grace": 10_000}),
        never_seen_but_unproven=(UNPROVEN, {"until": (0, -9_001, 0)}),
        never_seen_for_a_ttl_of_looking=(DOWN, {"since": (-MIN,) * 3}),
        never_seen_for_less_than_a_ttl_of_looking=(UNPROVEN, {"since": (1 - MIN,) * 3}),
        declared_and_known=(MOVED, {"deadline": -10_000}),
        declared_and_gone=(MOVED, {"gone": -MIN}),
        declared_at_another_time_than_was_seen=(MOVED, {"expected": -71_000}),
        declared_no_more=(MOVED, {"expected": None}),
        declared_when_the_ttl_was_another=(MOVED, {"default_ttl": MIN + 1}),
        declared_and_down=(KNOWN, {"down": -10_000}),
    ),
    **_rows(
        _BACK,
        a_beat_after_the_verdict=(RECOVERED, {}),
        a_beat_that_was_delivered_again=(STILL, {"deadline": -10_000}),
        an_older_beat_that_was_delivered_again=(STILL, {"deadline": -20_000}),
        a_later_beat_whose_deadline_has_passed=(STILL, {"deadline": -2_000}),
        a_later_beat_whose_deadline_has_passed_by_the_clock_of_Redis=(STILL, {"deadline": 500}),
        a_fail_at_the_newest_beat=(STILL, {"status": ("fail", -10_000)}),
        a_fail_before_the_newest_beat=(RECOVERED, {"status": ("fail", -10_001)}),
        an_ok_at_the_newest_beat=(RECOVERED, {"status": ("ok", -10_000)}),
        a_fail_at_the_newest_beat_of_whom_no_ttl_is_kept=(STILL, {"status": ("fail", -10_000), "ttl": None}),
        a_goodbye_while_down=(BYE, {"deadline": None, "gone": -1_000}),
        a_goodbye_at_the_beat_it_was_judged_on=(BYE, {"deadline": None, "gone": -70_000}),
        a_goodbye_before_the_beat_it_was_judged_on=(STILL, {"deadline": None, "gone": -70_001}, {"gone": None}),
        a_goodbye_that_nobody_said=(BYE, {"deadline": None, "gone": -1_000, "ttl": None}, {"gone": None}),
        a_goodbye_of_which_only_a_signal_is_kept=(BYE, {"deadline": None, "gone": -1_000, "ttl": None, "status": ("bye", -1_000)}),
        a_goodbye_at_the_newest_beat=(BYE, {"gone": -10_000}),
        a_goodbye_and_a_newer_beat=(RECOVERED, {"gone": -10_001}),
        a_goodbye_and_a_newer_beat_whose_deadline_has_passed=(BYE, {"deadline": -2_000, "gone": -62_001}, {"deadline": -2_000}),
        the_same_by_the_clock_of_Redis=(BYE, {"deadline": 500, "gone": -59_501}, {"deadline": 500}),
        the_same_after_a_fail_before_the_goodbye=(
            BYE,
            {"deadline": -2_000, "gone": -62_001, "status": ("fail", -62_002)},
            {"deadline": -2_000},
        ),
        a_goodbye_at_the_beat_it_was_judged_on_and_a_newer_one=(BYE, {"deadline": -2_000, "gone": -70_000}, {"deadline": -2_000}),
        a_goodbye_before_the_beat_it_was_judged_on_and_a_newer_one=(STILL, {"deadline": -2_000, "gone": -70_001}),
        a_goodbye_and_then_a_fail=(BYE, {"gone": -10_001, "status": ("fail", -10_000)}, {"deadline": 50_000, "failing": -10_000}),
        a_goodbye_then_an_older_beat=(BYE, {"deadline": -40_000, "gone": -60_000}),
        nothing_new_of_it=(MOVED, {"deadline": None, "seen": 50_000}),
        a_deadline_earlier_than_was_seen=(MOVED, {"seen": 50_001}),
        a_deadline_later_than_was_seen=(RECOVERED, {"seen": 49_999}),
        a_deadline_where_only_a_goodbye_was_seen=(MOVED, {"seen": -(10**12)}),
        another_verdict_than_was_seen=(MOVED, {"judged": -11_000}),
        down_no_more=(MOVED, {"down": None, "judged": -10_000}),
        a_beat_that_was_delivered_again_and_clocks_that_were_set_back=(STILL, {"down": 50_000}),
        back_while_nothing_is_proven=(RECOVERED, {"until": (None,) * 3}),
    ),
    **_rows(
        _FAILED_BEFORE,
        a_fail_that_was_delivered_again=(STILL, {"deadline": 57_000}),
        a_beat_before_the_fail_that_was_delivered_again=(STILL, {"deadline": 56_999}),
        a_fail_that_was_delivered_again_after_a_shorter_ttl=(STILL, {"deadline": 10 * MIN - 3_000, "ttl": 10 * MIN}),
        a_beat_right_after_the_fail=(RECOVERED, {"deadline": 57_001}),
        a_beat_after_the_fail_with_a_shorter_ttl=(RECOVERED, {"deadline": 7_001, "ttl": 10_000}),
        a_goodbye_after_the_fail=(BYE, {"deadline": None, "gone": -3_000}),
        a_goodbye_after_the_fail_by_another_ttl=(BYE, {"deadline": None, "gone": -3_000, "ttl": 1}),
        a_goodbye_before_the_fail=(STILL, {"deadline": None, "gone": -3_001}, {"gone": None}),
        a_beat_after_what_was_seen_was_no_news=(MOVED, {"deadline": 58_000, "seen": 57_000}),
    ),
    **_rows(
        _BLIND,
        blind=(OPENED, {}),
        just_not_blind=(NOTHING, {"until": (-10_000,) * 3}),
        blind_in_one_partition=(OPENED, {"until": (0, 0, -10_001)}),
        blind_because_a_partition_was_never_read=(OPENED, {"until": (0, 0, None)}),
        blind_because_no_canary_arrives=(OPENED, {"until": (0,) * 3, "canaries": True, "canary": (0, -10_001, 0)}),
        blind_because_clocks_disagree=(OPENED, {"until": (0,) * 3, "own": -3_000}),
        blind_without_partitions=(OPENED, {"until": (0,) * 3, "partitions": "{}"}),
        blind_already=(NOTHING, {"blind": b"another"}),
        blind_as_somebody_saw_while_nothing_could_be_written=(OPENED, {"until": (0,) * 3, "believed": True}),
        blind_already_and_as_somebody_saw=(NOTHING, {"blind": b"another", "believed": True}),
    ),
    **_rows(
        _SIGHTED,
        sighted=(ENDED, {}),
        not_sighted_yet=(NOTHING, {"until": (-10_001,) * 3}),
        not_sighted_in_one_partition=(NOTHING, {"until": (0, -10_001, 0)}),
        not_sighted_while_clocks_disagree=(NOTHING, {"until": (0,) * 3, "own": -3_000}),
        not_sighted_without_canaries=(NOTHING, {"until": (0,) * 3, "canaries": True}),
        sighted_but_of_another_incident=(NOTHING, {"blind": b"another"}),
        sighted_already=(NOTHING, {"blind": None}),
    ),
}
