"""Sight within the whole chain, in a model: logs, two tasks, one Redis, and what may go wrong between any two commands.

The claim: whenever Redis says that ``until`` of a partition is T, every record committed to it before T has had its effect in
this very Redis. ``Task`` holds the few lines that decide the order; each mutation of them must break the claim.

What the model takes for granted: commits are exact (no leader that was deposed and does not know it); a log that was made anew
is looked at before it has grown to where somebody was in the old one; a record compacted away is superseded by a newer one;
connections to Redis end where a replica takes over; there is one clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from heartbeat.beats.proof import LONGEST_GAP_MS, Answer, Sight

PARTITIONS = ("p", "q")
HORIZON_MS = 8_000
MUCH = 1_000


class Violation(AssertionError):
    """Redis says what is not so."""


class Unapplied(Exception):
    """A batch is not applied: Redis refused a command, or its reply was not read."""


class Broken(Unapplied):
    """The connection to Redis is gone."""


@dataclass(slots=True)
class Entry:
    """What stands at one offset: a record, alone or of a producer's transaction, or the mark that ends a transaction."""

    offset: int
    producer: int | None = None
    mark: bool = False
    appended_ms: int = 0
    committed_ms: int | None = None
    open: bool = False


class Log:
    """A partition. ``made`` counts how often its topic was made anew."""

    def __init__(self, made: int = 0) -> None:
        self.entries: list[Entry] = []
        self.end = 0
        self.epoch = 0
        self.made = made

    def append(self, now: int, producer: int | None = None) -> None:
        alone = producer is None
        self.entries.append(Entry(self.end, producer, False, now, now if alone else None, open=not alone))
        self.end += 1

    def finish(self, now: int, producer: int, commit: bool) -> None:
        mine = [entry for entry in self.entries if entry.open and entry.producer == producer]
        for entry in mine:
            entry.open, entry.committed_ms = False, now if commit else None
        if mine:
            self.entries.append(Entry(self.end, producer, mark=True))
            self.end += 1

    def compact(self, place: int) -> None:
        """Drop an entry, but never the last one and none of a transaction that is open."""
        if place < len(self.entries) - 1 and not self.entries[place].open:
            del self.entries[place]

    @property
    def stable(self) -> int:
        """The last stable offset: where the oldest open transaction begins."""
        return next((entry.offset for entry in self.entries if entry.open), self.end)

    def first_since(self, time_ms: int) -> int:
        return next((entry.offset for entry in self.entries if not entry.mark and entry.appended_ms >= time_ms), self.end)


class Spot(NamedTuple):
    """A record, wherever it is spoken of."""

    partition: str
    made: int
    offset: int


class Seen(NamedTuple):
    """A sight as Redis holds it. Without the epoch of ``until`` nobody could go on where it ended."""

    since_ms: int | None
    until_ms: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Proof:
    """What Redis holds of a partition; ``log`` is the id of the one in which it was seen.

    ``made`` and ``excused`` are the model's own: of which log, and what was beyond the horizon.
    """

    token: str
    offset: int | None = None
    seen: Seen | None = None
    made: int = 0
    excused: tuple[int, int] = (0, 0)
    log: int | None = None


@dataclass(frozen=True, slots=True)
class State:
    """What one Redis contains after a command."""

    keys: frozenset[Spot] = frozenset()
    deadlines: frozenset[Spot] = frozenset()
    proofs: Mapping[str, Proof] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Move:
    """What ``advance`` is told of one partition."""

    token: str
    expected: int | None
    offset: int
    seen: Seen | None
    made: int
    server: int | None


Script = Callable[[Proof, Move], Proof | None]


class Redis:
    """A stream of commands, as the states between them. A replica has a beginning of it, and at least what it has confirmed."""

    def __init__(self) -> None:
        self.states = [State()]
        self.confirmed = 0
        self.process = 0
        self.server = 0
        self.full = 0
        self.changed = False

    @property
    def state(self) -> State:
        return self.states[-1]

    def execute(self, connection: int, state: State) -> None:
        self.reachable(connection)
        self.states.append(state)
        self.changed = True

    def reachable(self, connection: int) -> None:
        if connection != self.process:
            raise Broken

    def write(self, connection: int, spot: Spot) -> bool:
        """Set a key; refuse while the memory is full."""
        self.reachable(connection)
        if self.full:
            self.full -= 1
            return False
        self.execute(connection, replace(self.state, keys=self.state.keys | {spot}))
        return True

    def index(self, connection: int, spots: Iterable[Spot]) -> bool:
        self.execute(connection, replace(self.state, deadlines=self.state.deadlines.union(spots)))
        return True

    def advance(self, connection: int, moves: Mapping[str, Move], script: Script) -> set[str]:
        """Return the partitions that were refused."""
        proofs = dict(self.state.proofs)
        refused = set()
        for partition, move in moves.items():
            stored = proofs.get(partition, Proof("nobody's"))
            if (moved := script(stored, move)) is None or move.server not in (None, self.server):
                refused.add(partition)
            else:
                proofs[partition] = moved
        self.execute(connection, replace(self.state, proofs=proofs))
        return refused

    def flush(self) -> None:
        self.execute(self.process, State())

    def fail_over(self, lost: int, *, unnoticed: bool = False) -> None:
        """A replica takes over that lacks so many commands; behind a proxy our connections may outlive that."""
        del self.states[max(self.confirmed + 1, len(self.states) - lost) :]
        self.process += not unnoticed
        self.server += 1
        self.changed = True


@dataclass(frozen=True, slots=True)
class Question:
    """Where does a partition end? ``reached`` is how far it was known to reach by then; ``made`` is the model's own."""

    task: Task
    partition: str
    token: str
    asked_ms: int
    reached: int
    made: int


@dataclass(slots=True)
class Holding:
    """A partition as the task sees it that has claimed it. Replaced by the next claim: identity says "still mine"."""

    token: str
    expected: int | None
    sight: Sight
    fetched: int
    made: int


@dataclass(frozen=True, slots=True)
class Part:
    """What a batch has of one partition."""

    partition: str
    holding: Holding
    spots: list[Spot]
    next_offset: int


class Task:
    """One task. What its methods do in which order is what the claim rests on; mutations override one of them."""

    sight: type[Sight] = Sight

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.assigned: set[str] = set()
        self.holdings: dict[str, Holding] = {}
        self.made_anew: set[str] = set()
        self.connection = world.redis.process
        self.server = world.redis.server
        self.under_way: Iterator[None] | None = None

    def time_ms(self, question: Question) -> int:
        """T was noted before the question was sent."""
        return question.asked_ms

    def end(self, log: Log) -> int:
        """The high watermark, read_uncommitted, also where the consumer reads committed records only."""
        return log.end

    def reached(self, holding: Holding) -> int:
        """What was delivered counts as well as what was applied, and so does an end that was seen."""
        return max(holding.fetched, holding.sight.reached)

    def reached_by_question(self, question: Question, holding: Holding) -> int:
        return question.reached

    def next_offset(self, applied: int, offsets: Sequence[int], end: int | None) -> int:
        """Past the last record, and where the log ended also past what follows it without being one."""
        return max([applied, *(offset + 1 for offset in offsets), *([] if end is None else [end])])

    def put(self, parts: list[Part]) -> Iterator[None]:
        """The effects first; only behind all their replies what speaks of them."""
        yield from self.write(parts)
        yield from self.advance(parts)

    def applied(self, replies: Sequence[bool]) -> bool:
        return all(replies)

    def accepts(self, stored: Proof, move: Move) -> bool:
        """The script's own condition: what Redis holds is what this task knows of."""
        return (stored.token, stored.offset) == (move.token, move.expected)

    def kept(self, stored: Seen | None) -> Seen | None:
        """What is left of a stored sight while looking begins anew: ``until`` stays true, but nobody may go on from there."""
        return None if stored is None else stored._replace(since_ms=None)

    def script(self, stored: Proof, move: Move) -> Proof | None:
        if not self.accepts(stored, move):
            return None
        log = stored.log if move.seen is None else move.made
        return replace(stored, offset=move.offset, seen=move.seen or self.kept(stored.seen), made=move.made, log=log)

    def connection_for_advance(self) -> int:
        """The one that brought the replies: another may lead to a server that lacks what was acknowledged."""
        return self.connection

    def turn(self, appetite: int) -> Iterator[None]:
        """Go around once; before each command there is a point where anything may happen."""
        try:
            for partition in sorted(self.assigned - self.holdings.keys()):
                yield
                self.claim(partition)
            yield from self.put(self.poll(appetite))
        except Unapplied:
            self.connection = self.world.redis.process
            for holding in self.holdings.values():
                holding.fetched = holding.sight.applied

    def claim(self, partition: str) -> None:
        redis, log = self.world.redis, self.world.logs[partition]
        token = self.world.fresh_token()
        stored = redis.state.proofs.get(partition, Proof(token))
        made_anew = partition in self.made_anew or self.of_another(stored, log)
        claimed = replace(stored, token=token)
        if stored.offset is None or made_anew:
            start = log.first_since(self.world.now - HORIZON_MS)
            sight, claimed = self.sight(start), replace(claimed, excused=(log.made, start))
        else:
            start = min(stored.offset, self.world.committed.get(partition, stored.offset))
            sight = resumed(self.sight, start, stored.seen)
        redis.execute(self.connection, replace(redis.state, proofs={**redis.state.proofs, partition: claimed}))
        self.server = redis.server
        self.made_anew.discard(partition)
        self.holdings[partition] = Holding(token, stored.offset, sight, start, log.made)

    def expected_server(self) -> int | None:
        """The one that was claimed on: behind a proxy that hides a failover another may have taken its place."""
        return self.server

    def of_another(self, stored: Proof, log: Log) -> bool:
        """Whether the stored offset is one of a log that is gone."""
        return (stored.offset is not None and stored.offset > log.end) or stored.log not in (None, log.made)

    def poll(self, appetite: int) -> list[Part]:
        parts = []
        for partition, holding in [] if self.world.down else list(self.holdings.items()):
            log = self.world.logs[partition]
            end = log.stable if self.world.committed_only else log.end
            if holding.fetched > log.end:
                self.give_up(partition)
                continue
            taken = [entry for entry in log.entries if holding.fetched <= entry.offset < end]
            at_end = len(taken) <= appetite
            del taken[appetite:]
            offsets = [entry.offset for entry in taken if not entry.mark and self.world.shown(entry)]
            holding.fetched = max(holding.fetched, end) if at_end else taken[-1].offset + 1
            position = self.next_offset(holding.sight.applied, offsets, end if at_end else None)
            parts.append(Part(partition, holding, [Spot(partition, log.made, offset) for offset in offsets], position))
        return parts

    def give_up(self, partition: str) -> None:
        """The log is another one: what was stored speaks of one that is gone."""
        del self.holdings[partition]
        self.made_anew.add(partition)

    def write(self, parts: list[Part]) -> Iterator[None]:
        redis, replies = self.world.redis, []
        spots = [spot for part in parts for spot in part.spots]
        for spot in spots:
            yield
            replies.append(redis.write(self.connection, spot))
        if spots:
            yield
            replies.append(redis.index(self.connection, spots))
        yield
        redis.reachable(self.connection)
        if not self.applied(replies):
            raise Unapplied

    def advance(self, parts: list[Part]) -> Iterator[None]:
        yield
        moves = {}
        for partition, holding, next_offset in ((part.partition, part.holding, part.next_offset) for part in parts):
            if self.holdings.get(partition) is holding:
                seen = stored_sight(holding.sight.advanced(next_offset))
                moves[partition] = Move(holding.token, holding.expected, next_offset, seen, holding.made, self.expected_server())
        connection = self.connection_for_advance()
        refused = self.world.redis.advance(connection, moves, self.script)
        yield
        self.world.redis.reachable(connection)
        for part in parts:
            if part.partition not in moves or self.holdings.get(part.partition) is not part.holding:
                continue
            if part.partition in refused:
                del self.holdings[part.partition]
            else:
                part.holding.expected = part.next_offset
                part.holding.sight = part.holding.sight.advanced(part.next_offset)

    def step(self, appetite: int) -> bool:
        """Go on to the next point of the turn that is under way; tell whether it has one."""
        if self.under_way is None:
            self.under_way = self.turn(appetite)
        for _ in self.under_way:
            return True
        self.under_way = None
        return False

    def ask(self, partition: str) -> Question | None:
        holding = self.holdings.get(partition)
        if holding is None:
            return None
        made = self.world.logs[partition].made
        return Question(self, partition, holding.token, self.world.now, self.reached(holding), made)

    def hear(self, question: Question, end: int, epoch: int) -> None:
        """Take an answer, unless it is one to a question that was asked under an earlier claim."""
        holding = self.holdings.get(question.partition)
        if holding is None or holding.token != question.token:
            return
        answer = Answer(self.time_ms(question), self.reached_by_question(question, holding), end, epoch)
        self.world.taken[question.partition].append((answer.time_ms, epoch, question.made))
        holding.sight = holding.sight.answered(answer)
        if answer.end < answer.applied:
            self.give_up(question.partition)

    def crash(self) -> None:
        self.holdings.clear()
        self.made_anew.clear()
        self.under_way = None
        self.connection = self.world.redis.process


def stored_sight(sight: Sight) -> Seen | None:
    if sight.since_ms is None or sight.until_ms is None or sight.epoch is None:
        return None
    return Seen(sight.since_ms, sight.until_ms, sight.epoch)


def resumed(sight: type[Sight], applied: int, seen: Seen | None) -> Sight:
    if seen is None or seen.since_ms is None:
        return sight(applied)
    return sight.resumed(applied, seen.since_ms, seen.until_ms, seen.epoch)


class World:
    """Everything at once. Each event is a method; after each one, what Redis says is held against what is so."""

    def __init__(self, task: type[Task] = Task, *, committed_only: bool = False, guarded: bool = True) -> None:
        self.now = 10_000
        self.committed_only = committed_only
        self.guarded = guarded
        self.logs = {partition: Log() for partition in PARTITIONS}
        self.taken: dict[str, list[tuple[int, int, int]]] = {partition: [] for partition in PARTITIONS}
        self.committed: dict[str, int] = {}
        self.redis = Redis()
        self.down = False
        self.questions: list[Question] = []
        self.answers: list[tuple[Question, int, int]] = []
        self.tokens = 0
        self.tasks = [task(self, number) for number in range(2)]
        self.tasks[0].assigned.update(PARTITIONS)
        self.owner = dict.fromkeys(PARTITIONS, 0)

    def run(self, events: Iterable[tuple[str, tuple[Any, ...]]]) -> World:
        for name, arguments in events:
            self.now += 1
            getattr(self, name)(*arguments)
            self.check()
        return self

    def fresh_token(self) -> str:
        self.tokens += 1
        return f"token {self.tokens}"

    def shown(self, entry: Entry) -> bool:
        """Whether the consumer gives this record to the task."""
        return not self.committed_only or entry.committed_ms is not None

    # What Kafka does

    def append(self, partition: str, count: int, producer: int | None = None) -> None:
        log = self.logs[partition]
        for _ in range(count):
            if log.end + 1 < self.lowest_elsewhere(partition):
                log.append(self.now, producer)

    def finish(self, partition: str, producer: int, commit: bool) -> None:
        if self.logs[partition].end + 1 < self.lowest_elsewhere(partition):
            self.logs[partition].finish(self.now, producer, commit)

    def compact(self, partition: str, place: int) -> None:
        self.logs[partition].compact(place)

    def elect(self, partition: str) -> None:
        self.logs[partition].epoch += 1

    def make_anew(self, partition: str) -> None:
        made = self.logs[partition].made
        if min(self.positions(partition, range(made + 1)), default=1) > 0:
            self.logs[partition] = Log(made + 1)
            self.committed.pop(partition, None)

    def lowest_elsewhere(self, partition: str) -> int:
        """How far this log may grow: to the lowest position that somebody still holds in one that it replaced."""
        positions = self.positions(partition, range(self.logs[partition].made)) if self.guarded else []
        return min(positions, default=MUCH)

    def positions(self, partition: str, made: range) -> list[int]:
        held = [task.holdings[partition] for task in self.tasks if partition in task.holdings]
        ours = [position for holding in held if holding.made in made for position in (holding.sight.applied, holding.fetched)]
        stored = [state.proofs[partition] for state in self.redis.states[self.redis.confirmed :] if partition in state.proofs]
        return ours + [proof.offset for proof in stored if proof.offset is not None and proof.made in made]

    def broker(self, down: bool) -> None:
        self.down = down

    # What happens to samples

    def ask(self, number: int, partition: str) -> None:
        question = self.tasks[number].ask(partition)
        self.questions += [] if question is None else [question]

    def sample(self, place: int) -> None:
        if place < len(self.questions) and not self.down:
            question = self.questions.pop(place)
            log = self.logs[question.partition]
            self.answers.append((question, question.task.end(log), log.epoch))

    def arrive(self, place: int, again: bool = False) -> None:
        if place < len(self.answers):
            question, end, epoch = self.answers[place] if again else self.answers.pop(place)
            question.task.hear(question, end, epoch)

    def lose(self, place: int) -> None:
        del self.questions[place : place + 1]
        del self.answers[place : place + 1]

    def look(self, number: int, partition: str) -> None:
        """Ask and hear at once."""
        question = self.tasks[number].ask(partition)
        if question is not None and not self.down:
            log = self.logs[partition]
            question.task.hear(question, question.task.end(log), log.epoch)

    # What happens to tasks

    def step(self, number: int, appetite: int) -> None:
        self.tasks[number].step(appetite)

    def turn(self, number: int, appetite: int) -> None:
        while self.tasks[number].step(appetite):
            self.check()

    def assign(self, number: int, partition: str) -> None:
        """The other task hears of it only if it is between two turns; else it is a zombie until it does."""
        self.owner[partition] = number
        self.tasks[number].assigned.add(partition)
        if self.tasks[1 - number].under_way is None:
            self.learn(1 - number)

    def learn(self, number: int) -> None:
        task = self.tasks[number]
        task.assigned = {partition for partition in PARTITIONS if self.owner[partition] == number}
        task.holdings = {partition: holding for partition, holding in task.holdings.items() if partition in task.assigned}

    def commit(self, number: int) -> None:
        for partition, holding in self.tasks[number].holdings.items():
            if self.owner[partition] == number:
                self.committed[partition] = holding.sight.applied

    def crash(self, number: int) -> None:
        self.tasks[number].crash()
        self.learn(number)

    def interrupt(self, number: int) -> None:
        """Clocks disagree."""
        for holding in self.tasks[number].holdings.values():
            holding.sight = holding.sight.interrupted()

    def wait(self, time_ms: int) -> None:
        self.now += time_ms

    # What happens to Redis

    def flush(self) -> None:
        self.redis.flush()

    def fail_over(self, lost: int, unnoticed: bool = False) -> None:
        self.redis.fail_over(lost, unnoticed=unnoticed)

    def confirm(self) -> None:
        self.redis.confirmed = len(self.redis.states) - 1

    def fill(self, commands: int) -> None:
        self.redis.full = commands

    def cut(self, number: int) -> None:
        self.tasks[number].connection = -1

    # What must hold

    def check(self) -> None:
        if self.redis.changed:
            self.redis.changed = False
            for partition, proof in self.redis.state.proofs.items():
                self.check_effects(partition, proof)
                if proof.seen is not None and not chained(self.taken[partition], proof.seen):
                    raise Violation(f"{proof.seen} of {partition} spans a gap: {self.taken[partition]}")

    def check_effects(self, partition: str, proof: Proof) -> None:
        log, state = self.logs[partition], self.redis.state
        first = proof.excused[1] if proof.excused[0] == log.made else 0
        until_ms = 0 if proof.seen is None else proof.seen.until_ms
        below = proof.offset or 0 if proof.made == log.made else 0
        for entry in log.entries:
            if entry.mark or entry.offset < first:
                continue
            proven = entry.committed_ms is not None and entry.committed_ms < until_ms
            if proven or (entry.offset < below and self.shown(entry)):
                spot = Spot(partition, log.made, entry.offset)
                if spot not in state.keys or spot not in state.deadlines:
                    raise Violation(f"{spot} committed at {entry.committed_ms} has had no effect, but Redis says {proof}")

    # What must come

    def calm(self) -> None:
        """Let all faults end, and see that sight returns, that it is not begun anew without a cause, and that lag does not stop it."""
        self.down, self.redis.full, self.questions, self.answers = False, 0, [], []
        self.tasks[1].crash()
        for partition in PARTITIONS:
            self.assign(0, partition)
        for _ in range(4):
            self.turn(0, MUCH)
        self.confirm()
        for partition in PARTITIONS:
            self.finish(partition, 0, True)
        first_ms = self.now + 700
        for number in range(5):
            self.round(appended=number % 2, appetite=MUCH)
        for partition in PARTITIONS:
            self.append(partition, 1, producer=0)
            self.finish(partition, 0, False)
        self.round(appended=0, appetite=MUCH)
        self.expect(first_ms, self.now)
        for partition in PARTITIONS:
            self.append(partition, 6)
        self.round(appended=2, appetite=2)
        lagging_ms = self.now
        for _ in range(7):
            self.round(appended=2, appetite=2)
        self.expect(first_ms, lagging_ms)

    def round(self, appended: int, appetite: int) -> None:
        """A while passes; between a sample and its arrival there is traffic, and a turn that applies it."""
        self.now += 700
        for partition in PARTITIONS:
            self.ask(0, partition)
        for _ in PARTITIONS:
            self.sample(0)
        for partition in PARTITIONS:
            self.append(partition, appended)
        self.turn(0, appetite)
        for _ in PARTITIONS:
            self.arrive(0)
        if appetite == MUCH:
            self.turn(0, appetite)
        self.check()

    def expect(self, since_ms: int, until_ms: int) -> None:
        for partition in PARTITIONS:
            proof = self.redis.state.proofs.get(partition)
            if proof is None or proof.seen is None or (proof.seen.since_ms or MUCH * self.now) > since_ms or proof.seen.until_ms < until_ms:
                raise Violation(f"{partition} is seen since {since_ms} and until {until_ms}, but Redis says {proof}")


def chained(taken: Iterable[tuple[int, int, int]], seen: Seen) -> bool:
    """Whether samples of one log under one leader lead from since to until without a gap."""
    if seen.since_ms is None:
        return True
    kinds: dict[tuple[int, int], set[int]] = {}
    for time_ms, epoch, made in taken:
        if seen.since_ms <= time_ms <= seen.until_ms:
            kinds.setdefault((epoch, made), set()).add(time_ms)
    return any(
        {seen.since_ms, seen.until_ms} <= times
        and all(later - earlier <= LONGEST_GAP_MS for earlier, later in zip(sorted(times), sorted(times)[1:], strict=False))
        for times in kinds.values()
    )


def mixed(weights: Mapping[str, tuple[int, list[tuple[Any, ...]]]]) -> list[tuple[str, tuple[Any, ...]]]:
    return [(name, arguments) for name, (weight, choices) in weights.items() for arguments in choices * weight]


NUMBERS = [(0,), (1,)]
EITHER = [(number, partition) for number in (0, 1) for partition in PARTITIONS]
EVENTS = mixed(
    {
        "wait": (2, [(0,), (300,), (900,), (1_500,), (2_500,)]),
        "step": (3, [(number, appetite) for number in (0, 0, 1) for appetite in (1, 3)]),
        "turn": (2, [(number, appetite) for number in (0, 0, 1) for appetite in (2, MUCH)]),
        "append": (2, [(partition, count, producer) for partition in PARTITIONS for count, producer in ((1, None), (2, None), (1, 0))]),
        "finish": (1, [(partition, 0, commit) for partition in PARTITIONS for commit in (True, False)]),
        "compact": (1, [(partition, place) for partition in PARTITIONS for place in (0, 2)]),
        "elect": (1, [("p",), ("q",)]),
        "make_anew": (1, [("p",), ("q",)]),
        "broker": (1, [(True,), (False,), (False,)]),
        "ask": (4, EITHER),
        "sample": (4, [(0,), (0,), (1,)]),
        "arrive": (4, [(0,), (0,), (1,), (0, True)]),
        "lose": (1, [(0,)]),
        "look": (3, EITHER),
        "assign": (1, EITHER),
        "learn": (1, NUMBERS),
        "commit": (1, NUMBERS),
        "crash": (1, NUMBERS),
        "interrupt": (1, [(0,)]),
        "flush": (2, [()]),
        "fail_over": (2, [(1,), (2,), (3,), (8,)]),
        "confirm": (1, [()]),
        "fill": (1, [(1,)]),
        "cut": (1, NUMBERS),
    }
)
Event = tuple[str, tuple[Any, ...]]
LENGTH = 60
# From a seed: drawn one by one, events repeat each other so much that rare orders hardly come up. ``shortened`` shrinks them.
HISTORIES = st.integers(0, 2**64 - 1).map(lambda seed: Random(seed).choices(EVENTS, k=LENGTH))


def violation(task: type[Task], history: Sequence[Event], committed_only: bool) -> Violation | None:
    try:
        World(task, committed_only=committed_only).run(history).calm()
    except Violation as found:
        return found
    return None


def shortened(task: type[Task], history: Sequence[Event], committed_only: bool) -> list[Event]:
    """Leave out what a violation does not need."""
    short, size = list(history), LENGTH // 2
    while size:
        place = 0
        while place < len(short):
            shorter = short[:place] + short[place + size :]
            if violation(task, shorter, committed_only):
                short = shorter
            else:
                place += 1
        size //= 2
    return short


@settings(max_examples=400, derandomize=True, database=None)
@given(HISTORIES, st.booleans())
def test_what_redis_says_was_seen_has_had_its_effect_in_this_very_redis(history: list[Event], committed_only: bool) -> None:
    if violation(Task, history, committed_only):
        short = shortened(Task, history, committed_only)
        raise AssertionError(f"{violation(Task, short, committed_only)}\n{committed_only=}, after\n" + "\n".join(map(str, short)))


# Mutations


class KnowsNoIds(Task):
    def of_another(self, stored: Proof, log: Log) -> bool:
        return stored.offset is not None and stored.offset > log.end


class KnowsNoServer(Task):
    def expected_server(self) -> int | None:
        return None


class AsksFirst(Task):
    """T is taken when the answer has come."""

    def time_ms(self, question: Question) -> int:
        return self.world.now


class Replacing(Sight):
    """The newest sample replaces the one that is held."""

    def answered(self, answer: Answer) -> Sight:
        after = super().answered(answer)
        return replace(after, held=after.waiting or after.held, waiting=None)


class BlindToGaps(Sight):
    def _had_a_gap(self, answer: Answer) -> bool:
        return self.taken_ms is None or answer.epoch != self.epoch


class BlindToEpochs(Sight):
    def _had_a_gap(self, answer: Answer) -> bool:
        return self.taken_ms is None or answer.time_ms - self.taken_ms > LONGEST_GAP_MS


class BelievesLateAnswers(Sight):
    """An answer to an older question is taken as if it were new."""

    def answered(self, answer: Answer) -> Sight:
        return super(BelievesLateAnswers, replace(self, taken_ms=min(self.taken_ms or 0, answer.time_ms - 1))).answered(answer)


class MeetsEarly(Sight):
    """The applied offset one below the end is taken for the end."""

    def advanced(self, applied: int) -> Sight:
        return replace(super().advanced(applied + 1), applied=applied)


class HoldsNothing(Task):
    sight = Replacing


class OverlooksGaps(Task):
    sight = BlindToGaps


class OverlooksEpochs(Task):
    sight = BlindToEpochs


class TakesLateAnswers(Task):
    sight = BelievesLateAnswers


class MeetsTooEarly(Task):
    sight = MeetsEarly


class IgnoresTheEndOfTheLog(Task):
    """Where the log ended past its last record is not counted."""

    def next_offset(self, applied: int, offsets: Sequence[int], end: int | None) -> int:
        return super().next_offset(applied, offsets, None)


class AdvancesFirst(Task):
    def put(self, parts: list[Part]) -> Iterator[None]:
        yield from self.advance(parts)
        yield from self.write(parts)


class AsksForTheStableEnd(Task):
    """End offsets read_committed."""

    def end(self, log: Log) -> int:
        return log.stable


class ComparesWithWhatIsAppliedNow(Task):
    """An end that was right when it was asked for lies below what has been applied since."""

    def reached_by_question(self, question: Question, holding: Holding) -> int:
        return self.reached(holding)


class ComparesWithWhatWasAppliedAlone(Task):
    def reached(self, holding: Holding) -> int:
        return holding.sight.applied


class ComparesWithNothingDelivered(Task):
    def reached(self, holding: Holding) -> int:
        return holding.sight.reached


class AsksForNoToken(Task):
    def accepts(self, stored: Proof, move: Move) -> bool:
        return stored.offset == move.expected


class AsksForNoOffset(Task):
    def accepts(self, stored: Proof, move: Move) -> bool:
        return stored.token == move.token


class OverlooksRefusedCommands(Task):
    def applied(self, replies: Sequence[bool]) -> bool:
        return True


class AdvancesOverAnyConnection(KnowsNoServer):
    """A connection that is opened anew when it is gone leads to the replica that lacks what was acknowledged."""

    def kept(self, stored: Seen | None) -> Seen | None:
        """What is left of a stored sight while looking begins anew: ``until`` stays true, but nobody may go on from there."""
        return None if stored is None else stored._replace(since_ms=None)

    def script(self, stored: Proof, move: Move) -> Proof | None:
        if not self.accepts(stored, move):
            return None
        log = stored.log if move.seen is None else move.made
        return replace(stored, offset=move.offset, seen=move.seen or self.kept(stored.seen), made=move.made, log=log)

    def connection_for_advance(self) -> int:
        self.connection = self.world.redis.process
        return self.connection


class GoesOnFromASightThatEnded(KnowsNoIds):
    """While looking begins anew, the stored sight stays as it is: a crash, and what was seen of another log is gone on with."""

    def kept(self, stored: Seen | None) -> Seen | None:
        return stored


class TrustsItsMemoryOfWrites(KnowsNoServer):
    """What was acknowledged once is not written again until the next claim, also where its ``advance`` was not acknowledged."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        self.known: set[Spot] = set()

    def claim(self, partition: str) -> None:
        self.known.clear()
        super().claim(partition)

    def write(self, parts: list[Part]) -> Iterator[None]:
        fresh = [replace(part, spots=[spot for spot in part.spots if spot not in self.known]) for part in parts]
        yield from super().write(fresh)
        self.known.update(spot for part in fresh for spot in part.spots)


class ForgetsThatALogWasMadeAnew(Task):
    """A sample showed it; the claim that follows looks at the log again, which has grown meanwhile."""

    def claim(self, partition: str) -> None:
        self.made_anew.discard(partition)
        super().claim(partition)


class AppliesWhatWasFetchedBeforeAClaim(Task):
    """A claim begins where the consumer stands, not where Redis does."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        self.fetched: dict[str, int] = {}

    def claim(self, partition: str) -> None:
        super().claim(partition)
        holding = self.holdings[partition]
        holding.fetched = max(holding.fetched, self.fetched.get(partition, 0))

    def expected_server(self) -> int | None:
        """The one that was claimed on: behind a proxy that hides a failover another may have taken its place."""
        return self.server

    def of_another(self, stored: Proof, log: Log) -> bool:
        """Whether the stored offset is one of a log that is gone."""
        return (stored.offset is not None and stored.offset > log.end) or stored.log not in (None, log.made)

    def poll(self, appetite: int) -> list[Part]:
        parts = super().poll(appetite)
        self.fetched.update({part.partition: part.next_offset for part in parts})
        return parts


MUTATIONS = [
    AsksFirst,
    HoldsNothing,
    OverlooksGaps,
    OverlooksEpochs,
    TakesLateAnswers,
    MeetsTooEarly,
    IgnoresTheEndOfTheLog,
    AdvancesFirst,
    AsksForTheStableEnd,
    ComparesWithWhatIsAppliedNow,
    AsksForNoToken,
    AsksForNoOffset,
    OverlooksRefusedCommands,
    AppliesWhatWasFetchedBeforeAClaim,
]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_is_noticed(mutation: type[Task]) -> None:
    # Generating alone: which history is the shortest does not matter here.
    @settings(max_examples=3_000, derandomize=True, database=None, phases=[Phase.generate], report_multiple_bugs=False)
    @given(HISTORIES, st.booleans())
    def search(history: list[Event], committed_only: bool) -> None:
        World(mutation, committed_only=committed_only).run(history).calm()

    with pytest.raises(Violation):
        search()


WRITTEN: list[Event] = [("turn", (0, MUCH)), ("append", ("q", 2)), *[("step", (0, MUCH))] * 5]
"""Two records are written and acknowledged, and have not been advanced over."""

# What a search would have to look for too long: a mutation, and the history that shows it.
RARE: list[tuple[type[Task], list[Event]]] = [
    (  # Under lag the topic is made anew, and is longer by then than what was applied of the old one.
        ComparesWithWhatWasAppliedAlone,
        [
            ("append", ("p", 6)),
            ("turn", (0, 2)),
            ("look", (0, "p")),
            ("make_anew", ("p",)),
            ("append", ("p", 4)),
            ("wait", (300,)),
            ("look", (0, "p")),
            ("append", ("p", 3)),
            ("turn", (0, MUCH)),
            ("turn", (0, MUCH)),
        ],
    ),
    (  # Two records were delivered and wait for Redis while the topic is made anew and gets two others.
        ComparesWithNothingDelivered,
        [
            ("append", ("p", 1)),
            ("turn", (0, MUCH)),
            ("append", ("p", 2)),
            ("step", (0, MUCH)),
            ("make_anew", ("p",)),
            ("append", ("p", 2)),
            ("look", (0, "p")),
            ("turn", (0, MUCH)),
        ],
    ),
    (
        ForgetsThatALogWasMadeAnew,
        [
            ("append", ("p", 3)),
            ("turn", (0, MUCH)),
            ("make_anew", ("p",)),
            ("append", ("p", 2)),
            ("look", (0, "p")),
            ("append", ("p", 3)),
            ("turn", (0, MUCH)),
            ("look", (0, "p")),
            ("turn", (0, MUCH)),
        ],
    ),
    # Acknowledged writes are lost with the process, the advance before them is not: the next one finds the offset it expects.
    (AdvancesOverAnyConnection, [*WRITTEN, ("fail_over", (3,)), ("turn", (0, MUCH))]),
    (TrustsItsMemoryOfWrites, [*WRITTEN, ("fail_over", (3,)), ("turn", (0, MUCH)), ("turn", (0, MUCH))]),
    (  # The new log has been claimed, the crash comes before the first sample of it.
        GoesOnFromASightThatEnded,
        [
            ("append", ("p", 2)),
            ("turn", (0, MUCH)),
            ("look", (0, "p")),
            ("turn", (0, MUCH)),
            ("make_anew", ("p",)),
            *[("turn", (0, MUCH))] * 3,
            ("crash", (0,)),
            ("turn", (0, MUCH)),
            ("look", (0, "p")),
            ("turn", (0, MUCH)),
        ],
    ),
]


@pytest.mark.parametrize(("mutation", "history"), RARE)
def test_a_rare_history_shows_a_mutation(mutation: type[Task], history: list[Event]) -> None:
    World(Task, guarded=False).run(history).calm()
    with pytest.raises(Violation):
        World(mutation, guarded=False).run(history).calm()


GROWN: list[Event] = [
    *[("append", ("p", 3)), ("turn", (0, MUCH)), ("look", (0, "p")), ("turn", (0, MUCH))],
    *[("crash", (0,)), ("make_anew", ("p",)), ("append", ("p", 5)), ("turn", (0, MUCH))],
]


def test_a_topic_made_anew_that_has_outgrown_the_stored_offset_is_not_taken_for_the_old_one() -> None:
    World(guarded=False).run(GROWN).calm()
    with pytest.raises(Violation):
        World(KnowsNoIds, guarded=False).run(GROWN)


def test_a_connection_that_outlives_a_failover_is_not_taken_for_one_to_the_same_redis() -> None:
    history: list[Event] = [*WRITTEN, ("fail_over", (3, True)), ("turn", (0, MUCH))]
    World().run(history).calm()
    with pytest.raises(Violation):
        World(KnowsNoServer).run(history)
