"""The sink's settings: the keys a connector config may hold, and what they come to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec import json

from heartbeat.beats import template
from heartbeat.beats.records import Reading
from heartbeat.config import ConfigDef, Key, Type, at_least, between, non_empty, one_of, optional
from heartbeat.connect.api import TaskContext

_SHORTEST_HORIZON_MS: Final = 600_000


def _template(text: str | None) -> str | None:
    try:
        template.parse(text or "")
    except ValueError as error:
        return str(error)
    return non_empty(text)


KEYS: Final = ConfigDef(
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
            doc="When a beat was: the record's own timestamp, or the moment it is processed; then nothing is ever replayed.",
        ),
        Key(
            name="heartbeat.ttl.max",
            type=Type.INT,
            default=None,
            validator=optional(at_least(1)),
            importance="LOW",
            doc="The most seconds a record's own hb-ttl header may ask for; redis.ttl if not set.",
        ),
        Key(
            name="heartbeat.sources.max",
            type=Type.INT,
            default=1_000_000,
            validator=at_least(1),
            importance="LOW",
            doc="How many sources there may be. At the bound the longest dead make room; then new ones are refused.",
        ),
        Key(
            name="heartbeat.horizon",
            type=Type.INT,
            default=None,
            validator=optional(at_least(1)),
            importance="LOW",
            doc="Seconds to go back in Kafka when Redis has lost the index; else 600, or twice the longest ttl if more.",
        ),
        Key(
            name="heartbeat.tombstone",
            type=Type.STRING,
            default="beat",
            validator=one_of("beat", "bye"),
            importance="LOW",
            doc="What a record without a value says: alive like any other, or a planned goodbye.",
        ),
        Key(
            name="heartbeat.mirrored",
            type=Type.BOOLEAN,
            default=False,
            importance="LOW",
            doc="Whether the topics are a mirror's copies: then the time a record was appended says nothing of its producer's clock.",
        ),
    ]
)


@dataclass(frozen=True, slots=True)
class Limits:
    """``ttl_ms`` of a source that does not say, how many sources there may be, how long a goodbye is kept."""

    ttl_ms: int
    most: int
    horizon_ms: int


@dataclass(frozen=True, slots=True)
class Rules:
    """Where a partition starts of which nothing is stored. ``config`` names what the index is of."""

    config: str
    ttl_ms: int
    horizon_ms: int
    offset_reset: str | None = None
    replays: bool = True
    pattern: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """What a configuration comes to."""

    reading: Reading
    limits: Limits

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Settings:
        """Read the parsed configuration; times in it are seconds."""
        ttl_ms = config["redis.ttl"] * 1000
        most_ttl_ms = (config["heartbeat.ttl.max"] or config["redis.ttl"]) * 1000
        given_ms = (config["heartbeat.horizon"] or 0) * 1000 or max(_SHORTEST_HORIZON_MS, 2 * ttl_ms, 2 * most_ttl_ms)
        horizon_ms = max(given_ms, ttl_ms, most_ttl_ms)  # shorter than a ttl, a rebuild would forget who is alive
        reading = Reading(
            most_ttl_ms=most_ttl_ms,
            processing_time=config["heartbeat.time"] == "processing",
            mirrored=config["heartbeat.mirrored"],
            tombstones=config["heartbeat.tombstone"] == "bye",
        )
        return cls(reading, Limits(ttl_ms, config["heartbeat.sources.max"], horizon_ms))

    def rules(self, context: TaskContext, template_text: str) -> Rules:
        """Return where partitions start of which nothing is stored."""
        subscription = context.subscription
        of = json.encode([sorted(subscription.topics), subscription.pattern, template_text])
        return Rules(
            config=hashlib.sha256(of).hexdigest()[:16],
            ttl_ms=self.limits.ttl_ms,
            horizon_ms=self.limits.horizon_ms,
            offset_reset=context.offset_reset,
            replays=not self.reading.processing_time,
            pattern=subscription.pattern is not None,
        )
