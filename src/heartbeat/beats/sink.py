"""The one plugin: each record is a beat, and keeps the Redis key of its source alive."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from heartbeat import __version__, logs
from heartbeat.beats import canaries, measures, records, template
from heartbeat.beats.canaries import Canaries
from heartbeat.beats.catch_up import CatchUp
from heartbeat.beats.clock import Clock
from heartbeat.beats.settings import KEYS, Settings
from heartbeat.config import ConfigDef
from heartbeat.connect.api import Batch, Committed, Measure, SinkTask, TaskContext, TopicPartition
from heartbeat.errors import ConnectError, Reclaim, RetriableError

if TYPE_CHECKING:
    from heartbeat.beats.connection import Connection
    from heartbeat.beats.partitions import Partitions

log = logging.getLogger("com.example.RedisHeartbeatSinkTask")
"""The original's logger: people search for this line."""

_SUCCESS_EVERY_S: Final = 1.0
_LARGE: Final = 1_000
"""Records in a batch that is worth leaving under way."""
_FEW: Final = 10
"""New sources that are introduced while others have work: so that it happens at all, and nobody notices."""


class _Sent(NamedTuple):
    """What is told of a batch when it has come to its end."""

    records: int
    coalesced: int
    garbled: int
    wrote: bool
    canaries: Canaries


_NOTHING: Final = _Sent(0, 0, 0, wrote=False, canaries=canaries.NONE)


class HeartbeatSink(SinkTask):
    """Writes the newest beat of each source, and returns from ``put`` when Redis has acknowledged it and knows how far we are."""

    CONFIG: ClassVar[ConfigDef] = KEYS
    VERSION: ClassVar[str] = __version__
    ALIASES: ClassVar[tuple[str, ...]] = (
        "com.example.RedisHeartbeatSinkConnector",
        "RedisHeartbeatSinkConnector",
        "RedisHeartbeatSink",
    )
    OWNS_OFFSETS: ClassVar[bool] = True

    def start(self, config: Mapping[str, Any], context: TaskContext) -> None:
        """Connect. A server that is away is no failure: the batch will wait for it.

        Raises:
            ConnectError: the server refuses us for good (password, database, version, eviction policy).
        """
        # Imported here: the redis package takes longer to import than the rest of the worker, and REST must not wait for it.
        from heartbeat.beats.doubts import Doubts
        from heartbeat.beats.holdings import Holdings
        from heartbeat.beats.keyspace import Keyspace
        from heartbeat.beats.partitions import Partitions
        from heartbeat.beats.sources import Sources

        if context.logs is None:
            raise ConnectError("the worker gives this task no view of the logs")
        self._template = template.parse(config["redis.key"])
        self._settings = Settings.of(config)
        self._clock = Clock()
        self._connection = _redis(config, context)
        self._sources = Sources(Keyspace(self._connection, context.connector), self._settings.limits)
        rules = self._settings.rules(context, self._template.text)
        partitions = Partitions(self._connection, context.connector)
        self._holdings = Holdings(partitions, context.logs, self._clock, rules)
        self._doubts = Doubts(partitions, context.task, self._clock)
        self._catch_up = CatchUp()
        self._offsets: Mapping[TopicPartition, int] = {}
        self._sent = _NOTHING
        self._records = 0
        self._wrote = False
        self._success = logs.Every(_SUCCESS_EVERY_S)
        if self._template.unprefixed:
            log.warning("redis.key=%s has no literal prefix: whoever produces chooses which Redis keys are written", self._template.text)
        try:
            self._connection.check()
        except RetriableError as error:
            log.warning("Redis does not answer yet, beats will wait for it: %s", error)

    def open(self, committed: Mapping[TopicPartition, Committed | None]) -> Mapping[TopicPartition, int]:
        """Claim the partitions: start where this very Redis has them, or at the horizon where it has nothing."""
        starts = self._holdings.open(committed)
        self._sources.forget(self._holdings.previous_ttl_ms)
        return starts

    def close(self, partitions: Collection[TopicPartition]) -> None:
        """Let go of partitions."""
        self._holdings.close(partitions)

    def put(self, batch: Batch) -> bool:
        """Send the newest beat of each source; when all is acknowledged, and only then, store how far we have come and what that proves.

        A large batch is left under way: Redis works on it while the next one is consumed.

        Raises:
            RetriableError: Redis has not acknowledged all of it.
            Reclaim: Redis, or Kafka, no longer holds what this task left or found there.
        """
        try:
            under_way = self._put(batch)
        except (RetriableError, Reclaim):
            # What was acknowledged may be lost with the connection: the next one may lead to another Redis.
            self._forget()
            raise
        self._catch_up.note(self._holdings.held, time.monotonic())
        self._say_success()
        return under_way

    def _put(self, batch: Batch) -> bool:
        now_ms = self._clock.now_ms()
        self._holdings.look(batch.next_offsets)
        batch, birds = canaries.parted(batch, self._clock.earlier_ms())
        if not len(batch):
            self._end(now_ms)
            self._sources.introduce(_LARGE)
            self._sent = _Sent(0, 0, birds.garbled, wrote=False, canaries=birds)
            self._offsets = batch.next_offsets
            self._end(now_ms)
            return False
        found = records.read(batch, self._template, self._settings.reading, self._holdings.held, now_ms)
        ready = self._sources.prepare(found.newest, now_ms)
        self._end(now_ms)
        self._sources.introduce(_FEW)
        counts = self._sources.counts
        before = counts.applied - counts.expired
        self._sources.send(ready, now_ms)
        wrote = counts.applied - counts.expired > before
        self._sent = _Sent(len(batch), len(batch) - len(found.newest.beats), found.garbled + birds.garbled, wrote, birds)
        self._offsets = batch.next_offsets
        if len(batch) >= _LARGE and not (found.signals or found.unfillable):
            return True
        self._sources.settle(now_ms)
        self._sources.signal(found.signals, now_ms)
        self._end(now_ms)
        for index, error in found.unfillable:  # last: a batch that is put again must not count them twice
            batch.reject(index, error)
        return False

    def _end(self, now_ms: int) -> None:
        """Bring what was sent to its end, and store what it proves."""
        self._sources.settle(now_ms)
        reply = self._holdings.advance(self._offsets, self._sent.canaries)
        self._offsets = {}
        if reply is not None:
            self._sources.advanced(reply)
        self._count()
        self._doubts.turn(self._holdings.held, self._holdings.answered_ms, time.monotonic())

    def _count(self) -> None:
        """Count what has come to its end, and only then: a batch that is put again is not to be counted twice."""
        sent, self._sent = self._sent, _NOTHING
        self._records += sent.records
        self._wrote = self._wrote or sent.wrote
        self._sources.counts.coalesced += sent.coalesced
        self._sources.counts.garbled += sent.garbled

    def _forget(self) -> None:
        self._sources.forget(self._holdings.previous_ttl_ms)
        self._offsets = {}
        self._sent = _NOTHING
        self._connection.close()  # replies may be under way that nobody would tell apart

    def commit_metadata(self, partition: TopicPartition) -> str:
        """Return until when the partition is proven: a rebuild goes back from there, however long we were away."""
        return str(self._holdings.until_ms(partition) or "")

    def on_pause(self, *, paused: bool) -> None:
        """Note whether it is an operator's wish that nothing is applied."""
        self._doubts.paused = paused

    def measures(self) -> Sequence[Measure]:
        """Return what became of beats, and how far each partition is proven."""
        if not hasattr(self, "_catch_up"):
            return ()
        return measures.of(self._sources, self._holdings, self._clock)

    def stop(self) -> None:
        """Close the connection."""
        if hasattr(self, "_connection"):
            self._say_success(now_or_never=True)
            self._forget()

    @classmethod
    def alter_offsets(cls, config: Mapping[str, Any], context: TaskContext, offsets: Mapping[TopicPartition, int | None] | None) -> bool:
        """Change the stored offsets, which is where tasks start."""
        with _partitions(config, context) as partitions:
            partitions.alter(offsets)
        return True

    @classmethod
    def on_target(cls, config: Mapping[str, Any], context: TaskContext, state: str) -> None:
        """Keep with the proof what an operator wants: a pause is no outage."""
        with _partitions(config, context) as partitions:
            partitions.aim(state)

    @classmethod
    def on_delete(cls, config: Mapping[str, Any], context: TaskContext) -> None:
        """Drop the connector's index."""
        with _partitions(config, context) as partitions:
            partitions.forget()

    def _say_success(self, *, now_or_never: bool = False) -> None:
        if self._wrote and (self._success.due(time.monotonic()) or now_or_never):
            log.info("Successfully processed %d records and updated Redis heartbeat", self._records)
            self._records = 0
            self._wrote = False


@contextmanager
def _partitions(config: Mapping[str, Any], context: TaskContext) -> Iterator[Partitions]:
    """Give a connector's partitions to a verb, over a connection of its own."""
    from heartbeat.beats.partitions import Partitions

    connection = _redis(config, context)
    try:
        yield Partitions(connection, context.connector)
    finally:
        connection.close()


def _redis(config: Mapping[str, Any], context: TaskContext) -> Connection:
    from heartbeat.beats.connection import Connection, Server, Tls

    host, port = context.resolve(config["redis.host"], config["redis.port"])
    tls = ("redis.tls.ca", "redis.tls.certificate", "redis.tls.key", "redis.tls.verify")
    return Connection(
        Server(
            host=host,
            port=port,
            database=config["redis.database"],
            username=config["redis.username"],
            password=config["redis.password"] or None,
            tls=Tls(*(config[name] for name in tls)) if config["redis.tls"] else None,
            timeout_s=config["redis.timeout.ms"] / 1000,
        )
    )
