"""The one plugin: each record is a beat, and keeps the Redis key of its source alive."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from heartbeat import __version__, logs
from heartbeat.beats import beat, template
from heartbeat.config import ConfigDef, Key, Type, at_least, between, non_empty, one_of
from heartbeat.connect.api import Batch, SinkTask, TaskContext
from heartbeat.errors import RetriableError

log = logging.getLogger("com.example.RedisHeartbeatSinkTask")
"""The original's logger: people search for this line."""

_SUCCESS_EVERY_S: Final = 1.0
_PRUNE_EVERY_S: Final = 60.0
_EXPIRED_WARNING_EVERY_S: Final = 60.0


def _template(text: str | None) -> str | None:
    try:
        template.parse(text or "")
    except ValueError as error:
        return str(error)
    return non_empty(text)


_KEYS: Final = ConfigDef(
    [
        Key(name="redis.host", type=Type.STRING, default="redis", validator=non_empty, doc="The host of the Redis server."),
        Key(name="redis.port", type=Type.INT, default=6379, validator=between(1, 65535), doc="The port of the Redis server."),
        Key(
            name="redis.key",
            type=Type.STRING,
            default="heartbeat",
            validator=_template,
            doc=f"The Redis key that a beat keeps alive. It may be made from the record: {', '.join(template.KNOWN)}.",
        ),
        Key(
            name="redis.ttl",
            type=Type.INT,
            default=60,
            validator=at_least(1),
            doc="Seconds after the last beat at which the key expires.",
        ),
        Key(name="redis.database", type=Type.INT, default=0, validator=at_least(0), importance="MEDIUM", doc="The number of the database."),
        Key(name="redis.password", type=Type.PASSWORD, default=None, importance="MEDIUM", doc="The password, if the server asks for one."),
        Key(name="redis.username", type=Type.STRING, default=None, importance="MEDIUM", doc="The ACL user, if it is not the default one."),
        Key(name="redis.tls", type=Type.BOOLEAN, default=False, importance="MEDIUM", doc="Whether to connect by TLS."),
        Key(
            name="redis.tls.ca",
            type=Type.STRING,
            default=None,
            importance="LOW",
            doc="A PEM file of authorities to trust; else the system's.",
        ),
        Key(name="redis.tls.certificate", type=Type.STRING, default=None, importance="LOW", doc="A PEM file with our certificate."),
        Key(name="redis.tls.key", type=Type.STRING, default=None, importance="LOW", doc="A PEM file with our private key."),
        Key(
            name="redis.tls.verify",
            type=Type.BOOLEAN,
            default=True,
            importance="LOW",
            doc="Whether to check the server's certificate and its host name.",
        ),
        Key(
            name="redis.timeout.ms",
            type=Type.INT,
            default=2000,
            validator=between(1, 60_000),
            importance="LOW",
            doc="How long one connection attempt or one reply may take.",
        ),
        Key(
            name="heartbeat.time",
            type=Type.STRING,
            default="record",
            validator=one_of("record", "processing"),
            importance="MEDIUM",
            doc="When a beat was: the record's own timestamp, or the moment it is processed.",
        ),
    ]
)


class HeartbeatSink(SinkTask):
    """Writes the newest beat of each source, and returns from ``put`` when Redis has acknowledged it."""

    CONFIG: ClassVar[ConfigDef] = _KEYS
    VERSION: ClassVar[str] = __version__
    ALIASES: ClassVar[tuple[str, ...]] = (
        "com.example.RedisHeartbeatSinkConnector",
        "RedisHeartbeatSinkConnector",
        "RedisHeartbeatSink",
    )

    def start(self, config: Mapping[str, Any], context: TaskContext) -> None:
        """Connect. A server that is away is no failure: the batch will wait for it.

        Raises:
            ConnectError: the server refuses us for good (password, database, version).
        """
        # Imported here: the redis package takes longer to import than the rest of the worker, and REST must not wait for it.
        from heartbeat.beats import keyspace

        host, port = context.resolve(config["redis.host"], config["redis.port"])
        self._keyspace = keyspace.Keyspace(
            keyspace.Server(
                host=host,
                port=port,
                database=config["redis.database"],
                username=config["redis.username"],
                password=config["redis.password"] or None,
                tls=_tls(keyspace.Tls, config),
                timeout_s=config["redis.timeout.ms"] / 1000,
            )
        )
        self._sources = template.parse(config["redis.key"])
        self._ttl_ms: int = config["redis.ttl"] * 1000
        self._processing_time: bool = config["heartbeat.time"] == "processing"
        self._written: dict[str, int] = {}
        self._records = 0
        self._wrote = False
        self._prune = logs.Every(_PRUNE_EVERY_S)
        self._success = logs.Every(_SUCCESS_EVERY_S)
        self._expired_warning = logs.Every(_EXPIRED_WARNING_EVERY_S)
        if self._sources.unprefixed:
            log.warning("redis.key=%s has no literal prefix: whoever produces chooses which Redis keys are written", self._sources.text)
        try:
            self._keyspace.check()
        except RetriableError as error:
            log.warning("Redis does not answer yet, beats will wait for it: %s", error)

    def put(self, batch: Batch) -> None:
        """Write the newest beat of each source in the batch that is newer than what this task has written.

        Raises:
            RetriableError: Redis has not acknowledged all of it.
        """
        if len(batch):
            now_ms = time.time_ns() // 1_000_000
            newest, unfillable = self._newest(batch, now_ms)
            # Processing time is the order of arrival itself; a clock set back must not silence what arrives.
            known = {} if self._processing_time else self._written
            beats = beat.coalesce(newest, known, self._ttl_ms, now_ms)
            if beats.expired:
                self._warn_of_expired(beats)
            if beats.alive:
                self._keyspace.write(beats.alive, self._ttl_ms)
                self._written.update(beats.alive)
                self._wrote = True
            self._records += len(batch)
            for index, error in unfillable:  # last: a batch that is put again must not count them twice
                batch.reject(index, error)
        self._say_success()
        if self._prune.due(time.monotonic()):
            now_ms = time.time_ns() // 1_000_000
            self._written = {source: at for source, at in self._written.items() if at + self._ttl_ms > now_ms}

    def stop(self) -> None:
        """Close the connection."""
        if hasattr(self, "_keyspace"):
            self._say_success(now_or_never=True)
            self._keyspace.close()

    def _newest(self, batch: Batch, now_ms: int) -> tuple[dict[str, int], list[tuple[int, template.Unfillable]]]:
        """Return the newest beat per source, and the records that have no source, by index."""
        constant = self._sources.constant
        if constant is not None:
            return {constant: now_ms if self._processing_time else beat.newest_of(batch.timestamps_ms(), now_ms)}, []
        stamps = [now_ms] * len(batch) if self._processing_time else batch.timestamps_ms()
        names = self._sources.names(batch)
        unfillable = [(index, name) for index, name in enumerate(names) if isinstance(name, template.Unfillable)]
        named = ((name, stamp) for name, stamp in zip(names, stamps, strict=True) if isinstance(name, str))
        return beat.newest_by_source(named, now_ms), unfillable

    def _warn_of_expired(self, beats: beat.Coalesced) -> None:
        if self._expired_warning.due(time.monotonic()):
            log.warning(
                "%d source(s) sent beats that were past their deadline when they arrived, by %.1f s at least, and changed nothing. If this "
                "goes on, the producer's clock is behind ours: correct it, or set heartbeat.time=processing",
                beats.expired,
                beats.late_by_ms / 1000,
            )

    def _say_success(self, *, now_or_never: bool = False) -> None:
        if self._wrote and (self._success.due(time.monotonic()) or now_or_never):
            log.info("Successfully processed %d records and updated Redis heartbeat", self._records)
            self._records = 0
            self._wrote = False


def _tls(make: Any, config: Mapping[str, Any]) -> Any:
    if not config["redis.tls"]:
        return None
    return make(config["redis.tls.ca"], config["redis.tls.certificate"], config["redis.tls.key"], config["redis.tls.verify"])
