"""What is to be looked at for one connector: its topics, group, Redis and rules, as far as its config is known. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from heartbeat.beats.connection import Server, Tls
from heartbeat.beats.settings import KEYS, Settings
from heartbeat.connect import client_properties
from heartbeat.connect.connector_config import consumer_properties
from heartbeat.errors import InvalidConfig

Client = tuple[tuple[str, str], ...]
"""A Kafka client's properties, so that connectors of one cluster and user are looked at by one client."""

_CONNECTION: Final = ("bootstrap.servers", "security.", "sasl.", "ssl.", "client.dns.lookup")
_PREFIX: Final = re.compile(r"^(?:consumer\.override|consumer|producer|admin)\.")
_INTERNAL: Final = "__"
_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Target:
    """One connector. ``ttl_ms`` and ``horizon_ms`` are None where its config is not known; ``server`` where Redis is not."""

    name: str
    group: str
    client: Client
    server: Server | None
    topics: tuple[str, ...] = ()
    pattern: str | None = None
    ttl_ms: int | None = None
    horizon_ms: int | None = None

    def resolved(self, names: Collection[str]) -> tuple[str, ...]:
        """Return its topics, those that match where it subscribes to a pattern."""
        if self.pattern is None:
            return self.topics
        return tuple(name for name in names if re.fullmatch(self.pattern, name) and not name.startswith(_INTERNAL))


@dataclass(frozen=True, slots=True)
class Override:
    """What the command line says in place of a config. ``server`` is where Redis is, ``password`` what it asks for."""

    bootstrap: str | None = None
    address: tuple[str, int] | None = None
    password: str | None = None

    def server(self, known: Server | None) -> Server | None:
        """Return which Redis to ask."""
        if self.address is not None:
            host, port = self.address
            known = Server(host, port) if known is None else replace(known, host=host, port=port)
        if known is None:
            return None
        return replace(known, password=self.password or known.password, timeout_s=min(known.timeout_s, _TIMEOUT_S))


def of(config: Mapping[str, str], worker: Mapping[str, str], override: Override) -> Target:
    """Return what a connector's config asks to be looked at.

    Raises:
        InvalidConfig: the config cannot be used.
    """
    values = KEYS.load({key: text for key, text in config.items() if key in KEYS})
    limits = Settings.of(values).limits
    java = consumer_properties(config, worker)
    tls = ("redis.tls.ca", "redis.tls.certificate", "redis.tls.key", "redis.tls.verify")
    server = Server(
        values["redis.host"],
        values["redis.port"],
        values["redis.database"],
        values["redis.username"],
        values["redis.password"] or None,
        Tls(*(values[name] for name in tls)) if values["redis.tls"] else None,
        values["redis.timeout.ms"] / 1000,
    )
    topics = tuple(dict.fromkeys(filter(None, (topic.strip() for topic in config.get("topics", "").split(",")))))
    return Target(
        config["name"],
        java["group.id"],
        client(java, override),
        override.server(server),
        topics,
        None if topics else _pattern(config.get("topics.regex")),
        limits.ttl_ms,
        limits.horizon_ms,
    )


def unknown(name: str, worker: Mapping[str, str], override: Override) -> Target:
    """Return what can be looked at of a connector whose config is not known."""
    return Target(name, f"connect-{name}", client(consumer_properties({"name": name}, worker), override), override.server(None))


def client(java: Mapping[str, str], override: Override) -> Client:
    """Return the properties of a client that connects as the connector's consumers do.

    Raises:
        InvalidConfig: they cannot be honoured.
    """
    kept = {name: text for name, text in java.items() if name.startswith(_CONNECTION)}
    if override.bootstrap is not None:
        kept["bootstrap.servers"] = override.bootstrap
    return tuple(sorted(client_properties.translate({"client.id": "heartbeat-doctor", **kept}, "admin").properties.items()))


def secrets(given: Mapping[str, str]) -> frozenset[str]:
    """Return what must not be shown of a connector's config or a worker's properties.

    Only what a client connects by is looked at: by its name alone, ``redis.key`` would be taken for one.
    """
    bare = {_PREFIX.sub("", name): text for name, text in given.items()}
    connecting = {name: text for name, text in bare.items() if name.startswith(("sasl.", "ssl."))}
    return client_properties.secrets(connecting) | frozenset(filter(None, (given.get("redis.password"),)))


def _pattern(text: str | None) -> str | None:
    try:
        re.compile(text or "")
    except re.error as error:
        raise InvalidConfig([f"topics.regex: {error}"]) from error
    return text
