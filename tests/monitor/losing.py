"""A world in which everything can be lost: sources whose words Kafka has, a Redis that forgets, monitors that are killed and frozen, and a
receiver that keeps what it was told. In one process, a step at a time: a minute of it goes further than an hour of real faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
from tests.monitor.judging import TTL, Clock, Index, Kafka, Settled

from heartbeat.beats import keys
from heartbeat.beats.connection import Connection
from heartbeat.beats.keyspace import Info
from heartbeat.beats.outbox import Outbox
from heartbeat.beats.stream_ids import order
from heartbeat.errors import RetriableError
from heartbeat.monitor.channels import TransportError
from heartbeat.monitor.deliver import Deliverer, Pace
from heartbeat.monitor.detect import Detector
from heartbeat.monitor.flips import Flip
from heartbeat.monitor.flips_topic import FlipsTopic
from heartbeat.monitor.kafka import Record
from heartbeat.monitor.losses import LATELY_MS
from heartbeat.monitor.messages import Message
from heartbeat.monitor.recorder import Recorder
from heartbeat.monitor.rules import Rules
from heartbeat.monitor.settings import Defaults, Monitor, Settings
from heartbeat.monitor.settings import Kafka as KafkaSettings

CONNECTOR = "pumps"
CHANNEL = "ops"
RECORDER = "kafka:heartbeat-flips"
GONE_AT_ONCE = 1
"""The ttl, in ms, of a beat after which its source is silent: time cannot be made to pass, but a source may promise to be back soon."""
BEHIND = 5_000
"""So far behind the clock everything is said, in ms, and 2 ms apart: so what happens does not depend on how fast a test runs. It may take
for as long as nobody is blind by it, which is half a minute; who is to be blind has not been proven for more than that."""
SETTINGS = Settings(Monitor(slack_s=0.0, settle_s=0.0, blind_after_s=40.0), defaults=Defaults(grace_s=0.0, channels=(CHANNEL,)))


class Died(BaseException):
    """A process was killed in the middle of a step."""


@dataclass(slots=True)
class Source:
    """What Kafka has of a source: its newest beat, the ttl of that, its newest signal, its goodbye; 0 where there is none."""

    name: str
    beat_ms: int = 0
    ttl_ms: int = TTL
    signal_ms: int = 0
    status: str = ""

    @property
    def is_down(self) -> bool:
        """Tell whether it should be DOWN, once it was looked at."""
        if self.status == "bye" and self.signal_ms >= self.beat_ms:
            return False
        return self.ttl_ms == GONE_AT_ONCE or (self.status == "fail" and self.signal_ms >= self.beat_ms)

    def say(self, word: str, at_ms: int) -> None:
        """Say something: ``beat``, ``silent`` (a beat, and none in time after it), ``ok`` (one that ends a fail), ``fail`` or ``bye``."""
        if word != "bye":
            self.beat_ms, self.ttl_ms = at_ms, GONE_AT_ONCE if word == "silent" else TTL
        if word in ("fail", "bye", "ok"):
            self.signal_ms, self.status = at_ms, word


@dataclass(slots=True)
class Receiver:
    """Who is told. Each flip counts when it comes first, by its key. ``losses`` tells how often data was lost so far."""

    fate: Callable[[], str]
    losses: Callable[[], int]
    first: dict[str, Flip] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)
    _ended: dict[str, int] = field(default_factory=dict)

    def take(self, message: Message) -> None:
        """Take a message. A beginning is late if its end was told before, and that cannot have been lost since."""
        for flip in message.flips:
            if flip.key in self.first:
                continue
            self.first[flip.key] = flip
            if not flip.opens:
                self._ended[flip.incident] = self.losses()
            elif self._ended.get(flip.incident) == self.losses():
                self.late.append(flip.key)

    @property
    def open(self) -> dict[str, str]:
        """Return whose incidents are open: incident -> source."""
        ended = {flip.incident for flip in self.first.values() if not flip.opens}
        return {flip.incident: flip.source for flip in self.first.values() if flip.opens and flip.incident not in ended}


@dataclass(slots=True)
class Topic:
    """What the topic of flips has, and whether Kafka answers."""

    records: list[Record] = field(default_factory=list)
    away: bool = False
    unheard: bool = False

    def flips(self) -> list[Flip]:
        return [msgspec.json.decode(record.value or b"", type=Flip) for record in self.records]

    def keys(self) -> set[str]:
        return {flip.key for flip in self.flips()}

    def read(self, *_: object) -> Iterator[Record]:
        yield from list(self.records)


class Writer(FlipsTopic):
    """The topic of flips, as a monitor has it."""

    def __init__(self, topic: Topic) -> None:
        super().__init__(KafkaSettings("unused"), None)  # type: ignore[arg-type]  # no cluster is asked
        self._topic = topic

    def ensure(self) -> bool:
        if self._topic.away:
            raise RetriableError("Kafka is away")
        return False

    def _send(self, records: Sequence[Record]) -> None:
        if self._topic.away:
            raise RetriableError("Kafka is away")
        self._topic.records += records
        if self._topic.unheard and records:
            self._topic.unheard = False
            raise RetriableError("Kafka has it, and did not say so")


@dataclass(slots=True)
class Memory(Kafka):
    """The topic as it is remembered: read beside, so the first answer is that it is being read."""

    topic: Topic = field(default_factory=Topic)
    writer: Writer | None = None
    being_read: bool = False

    def remember(self, connector: str, after: str) -> Sequence[Flip] | None:
        if self.topic.away or self.writer is None:
            raise RetriableError("Kafka is away")
        self.being_read = not self.being_read
        if self.being_read:
            raise RetriableError("it is being read")
        found = self.writer.remember(1.0, Clock()() - LATELY_MS, {connector: after}).get(connector, {})
        return [recorded.flip for recorded in sorted(found.values(), key=lambda one: order(one.id))]


class Channel:
    """A monitor's way to the receiver. What it has taken, and its monitor knows of, is ``noted``."""

    def __init__(self, world: World, number: int) -> None:
        self.noted: set[str] = set()
        self._world = world
        self._number = number

    def send(self, message: Message) -> None:
        fate = self._world.receiver.fate()
        if fate == "fails":
            raise TransportError("HTTP 500")
        self._world.receiver.take(message)
        if fate == "unheard":
            raise TransportError("no answer within 8 s")
        if fate == "dies":
            raise Died
        self.noted |= {flip.key for flip in message.flips}
        if fate == "slow":
            self._world.meanwhile(self._number)

    def close(self) -> None: ...


class Node:
    """A monitor: its detector, its deliverer, its recorder. Killed, it knows nothing of what it was; asleep, it does nothing."""

    def __init__(self, world: World, number: int) -> None:
        self.asleep = False
        self._world = world
        self._number = number
        self._births = 0
        self.losses = 0
        self.kill()

    def kill(self) -> None:
        """End it, and start it anew. Its leases stay for as long as they last."""
        world = self._world
        self._births += 1
        writer = Writer(world.topic)
        settled = Settled(SETTINGS)
        memory = Memory({}, topic=world.topic, writer=writer)
        self.channel = Channel(world, self._number)
        self.detector = Detector(world.connection, f"m{self._number}-{self._births}", settled, memory, Clock())
        pace = Pace(0.0, world.seconds, lambda: Clock()() / 1000, lambda: 0.0, RECORDER, 0.0)
        self.outboxes = {CHANNEL: Outbox(world.connection, CHANNEL), RECORDER: Outbox(world.connection, RECORDER, from_start=True)}
        self.deliverer = Deliverer(CHANNEL, self.channel, self.outboxes[CHANNEL], lambda: Rules(SETTINGS), pace)
        self.recorder = Recorder(self.outboxes[RECORDER], writer, world.seconds, lambda: 0.0)
        self.do("deliver")
        self.do("record")

    def owner(self, channel: str) -> str:
        return self.outboxes[channel]._lease.owner

    def do(self, what: str) -> None:
        """Take a turn: ``tick``, ``deliver`` or ``record``."""
        if what == "deliver":
            self.losses = self._world.losses
        try:
            {"tick": self.detector.tick, "deliver": self.deliverer.turn, "record": self.recorder.turn}[what]()
        except Died:
            self.kill()


class World:
    """Everything but what happens in it. ``fate`` says what becomes of an attempt to tell, ``meanwhile`` has the world go on while the
    monitor of that number waits for an answer."""

    def __init__(self, connection: Connection, topic: Topic, many: int, fate: Callable[[], str], meanwhile: Callable[[int], None]) -> None:
        self.connection = connection
        self.meanwhile = meanwhile
        self.index = Index(connection, CONNECTOR)
        self.topic = topic
        self.receiver = Receiver(fate, lambda: self.losses)
        self.sources = [Source(name) for name in ("ant", "bee", "cat")[:many]]
        self.waiting: list[Source] = []
        self.behind = False
        self.older: list[tuple[bytes, bytes]] = []
        self.now_s = 0.0
        self.losses = 0
        self.beat_ms = self.index.now() - BEHIND
        connection.call("FLUSHALL")
        self.claim()
        self.nodes = [Node(self, 0), Node(self, 1)]

    def seconds(self) -> float:
        return self.now_s

    # The worker

    def claim(self) -> None:
        self.index.claim()
        self.connection.call("HSETNX", self.index.keys.proof, "made_ms", self.index.now())

    def put(self, source: Source) -> None:
        """Write what Kafka has of a source, as the sink does."""
        at = self.index.keys
        commands: list[Sequence[str | bytes | int]] = []
        if source.beat_ms:
            commands.append(("ZADD", at.deadlines, source.beat_ms + source.ttl_ms, source.name))
            commands.append(("HSET", at.info, source.name, Info(1_000, source.ttl_ms).packed()))
        if source.signal_ms:
            said = {"at_ms": source.signal_ms, "partition": "t/0", "offset": 1, "status": source.status, "run": "", "message": ""}
            old = self.connection.call("HGET", at.status, source.name)
            new = msgspec.json.encode(said)
            commands.append(("HSET", at.status, source.name, new))
            if source.status == "fail" and old != new:  # what is no newer than what is known raises nothing
                commands.append(("ZADD", at.fails, source.signal_ms, source.name))
            elif source.status != "fail":
                commands.append(("ZREM", at.fails, source.name))
            if source.status == "bye":
                commands.append(("ZADD", at.gone, "GT", source.signal_ms, source.name))
                if source.signal_ms >= source.beat_ms:
                    commands.append(("ZREM", at.deadlines, source.name))
        if commands:
            self.connection.calls(*commands)

    def say(self, source: Source, word: str) -> None:
        source.say(word, self.beat_ms)
        self.put(source)

    def replay(self, many: int) -> None:
        """Go on with what is to be put again after a loss."""
        if self.behind:
            self.claim()
        for source in self.waiting[:many]:
            self.put(source)
        self.waiting = self.waiting[many:]
        self.behind = self.behind and bool(self.waiting)

    def prove(self, *, stale: bool = False) -> None:
        """Prove what has been said so far, or that nothing has been proven for a minute."""
        if not self.behind:
            self.index.prove(self.beat_ms - self.index.now() - 60_000 * stale)

    # What goes wrong

    def dump(self) -> None:
        names = self.connection.call("KEYS", "*")
        self.older = list(zip(names, self.connection.calls(*(("DUMP", name) for name in names)), strict=True))

    def lose(self, *, all_of_it: bool) -> None:
        """Lose everything, or go back to what was dumped."""
        last_ms = self.index.now()
        while self.index.now() <= last_ms + 1:  # ids of a new stream are times: they would be those of the old one
            pass
        self.connection.call("FLUSHALL")
        if not all_of_it:
            self.connection.calls(*(("RESTORE", name, 0, dumped) for name, dumped in self.older))
        self.losses += 1
        self.behind, self.waiting = True, list(self.sources)

    def may_lose(self) -> bool:
        """Tell whether what was told is known beside Redis: by the topic, or by a monitor that told it and lives.

        What else is lost is lost for good, as docs/monitor.md says ("had not reached the topic of flips yet").
        """
        known = set().union(*(node.channel.noted for node in self.nodes))
        return self.receiver.first.keys() <= known | self.topic.keys() and not self._replaced() - known

    def may_kill(self, node: Node) -> bool:
        """Tell whether what only this monitor knows to be told stands in Redis: the same excuse, for a loss that it has not mended yet."""
        if any(other.losses != self.losses for other in self.nodes if other is not node):
            return False  # who begins a channel that everybody has forgotten begins at the end of what there is
        others = [other.channel.noted for other in self.nodes if other is not node]
        known = {flip.key for flip in self.index.flips()}.union(*others)
        return node.channel.noted <= known | self.topic.keys() and not self._replaced() - known

    def _replaced(self) -> set[str]:
        """Return what is open at the receiver, and of whose source the topic has something newer: only who told it knows that it is."""
        newest = {flip.source: flip.incident for flip in self.topic.flips()}
        return {f"{incident}:DOWN" for incident, source in self.receiver.open.items() if newest.get(source, incident) != incident}

    def expire(self, channel: str) -> None:
        """Have the lease of a monitor that is dead or asleep run out."""
        owner = self.connection.call("HGET", keys.channel(channel), "owner")
        if owner is not None and owner.decode() not in {node.owner(channel) for node in self.nodes if not node.asleep}:
            self.connection.call("HSET", keys.channel(channel), "until_ms", 1)
