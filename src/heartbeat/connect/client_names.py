"""The tables that lead from Java's names of client properties to librdkafka's: which are renamed, which pass, for which kind of client.

Sources: Kafka 4.1 ``ConsumerConfig`` and ``ProducerConfig``; librdkafka 2.16 ``CONFIGURATION.md``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from heartbeat.config import Type

Kind = Literal["consumer", "producer", "admin"]
SCOPES: Final[dict[Kind, str]] = {"consumer": "*C", "producer": "*P", "admin": "*"}
_INT, _LONG, _MAX_INT = Type.INT, Type.LONG, 2**31 - 1


class Number(NamedTuple):
    """A Java number: its least value (None: any), then librdkafka's name, range and unit. A value beyond the range takes the nearest."""

    scope: str
    type: Type
    least: int | None
    target: str
    low: int
    high: int
    unit: int = 1


NUMBERS: Final = {
    "auto.commit.interval.ms": Number("C", _INT, 0, "auto.commit.interval.ms", 0, 86_400_000),
    "batch.size": Number("P", _INT, 0, "batch.size", 1, _MAX_INT),
    "buffer.memory": Number("P", _LONG, 0, "queue.buffering.max.kbytes", 1, _MAX_INT, unit=1024),
    "connections.max.idle.ms": Number("*", _LONG, None, "connections.max.idle.ms", 0, _MAX_INT),
    "delivery.timeout.ms": Number("P", _INT, 0, "delivery.timeout.ms", 1, _MAX_INT),
    "fetch.max.bytes": Number("C", _INT, 0, "fetch.max.bytes", 1_000_000, 2_147_483_135),  # not below message.max.bytes
    "fetch.max.wait.ms": Number("C", _INT, 0, "fetch.wait.max.ms", 0, 300_000),
    "fetch.min.bytes": Number("C", _INT, 0, "fetch.min.bytes", 1, 100_000_000),
    "heartbeat.interval.ms": Number("C", _INT, None, "heartbeat.interval.ms", 1, 3_600_000),
    "linger.ms": Number("P", _LONG, 0, "linger.ms", 0, 900_000),
    "max.in.flight.requests.per.connection": Number("P", _INT, 1, "max.in.flight.requests.per.connection", 1, 1_000_000),
    "max.partition.fetch.bytes": Number("C", _INT, 0, "max.partition.fetch.bytes", 1, 1_000_000_000),
    "max.poll.interval.ms": Number("C", _INT, 1, "max.poll.interval.ms", 1, 86_400_000),
    "max.poll.records": Number("C", _INT, 1, "", 0, 0),  # the worker's, who takes it from the given properties
    "max.request.size": Number("P", _INT, 0, "message.max.bytes", 1000, 1_000_000_000),
    # Java's age is the refresh period; librdkafka's key of the same name is when a cached answer dies (three periods by default).
    "metadata.max.age.ms": Number("*", _LONG, 0, "topic.metadata.refresh.interval.ms", 100, 3_600_000),
    "metadata.recovery.rebootstrap.trigger.ms": Number("*", _LONG, 0, "metadata.recovery.rebootstrap.trigger.ms", 0, _MAX_INT),
    "receive.buffer.bytes": Number("*", _INT, -1, "socket.receive.buffer.bytes", 0, 100_000_000),
    "reconnect.backoff.max.ms": Number("*", _LONG, 0, "reconnect.backoff.max.ms", 0, 3_600_000),
    "reconnect.backoff.ms": Number("*", _LONG, 0, "reconnect.backoff.ms", 0, 3_600_000),
    "request.timeout.ms": Number("*", _INT, 0, "socket.timeout.ms", 10, 300_000),
    "retries": Number("P", _INT, 0, "retries", 0, _MAX_INT),
    "retry.backoff.max.ms": Number("*", _LONG, 0, "retry.backoff.max.ms", 1, 300_000),
    "retry.backoff.ms": Number("*", _LONG, 0, "retry.backoff.ms", 1, 300_000),
    "send.buffer.bytes": Number("*", _INT, -1, "socket.send.buffer.bytes", 0, 100_000_000),
    "session.timeout.ms": Number("C", _INT, None, "session.timeout.ms", 1, 3_600_000),
    "socket.connection.setup.timeout.ms": Number("*", _LONG, None, "socket.connection.setup.timeout.ms", 1000, _MAX_INT),
    "transaction.timeout.ms": Number("P", _INT, None, "transaction.timeout.ms", 1000, _MAX_INT),
}
BOOLEANS: Final = {
    **dict.fromkeys(("allow.auto.create.topics", "check.crcs", "enable.auto.commit"), "C"),
    "enable.idempotence": "P",
    "enable.metrics.push": "*",
}


class Words(NamedTuple):
    """A Java enumeration: what may be written, and what librdkafka calls it."""

    scope: str
    any_case: bool
    words: Mapping[str, str]


def _same(*words: str) -> dict[str, str]:
    return {word: word.lower() for word in words}


WORDS: Final = {
    "acks": Words("P", False, _same("all", "-1", "0", "1")),
    "auto.offset.reset": Words(
        "C", False, {**_same("earliest", "latest"), "none": "error", **_same("error", "smallest", "largest", "beginning", "end")}
    ),
    "client.dns.lookup": Words("*", False, _same("use_all_dns_ips", "resolve_canonical_bootstrap_servers_only")),
    "compression.type": Words("P", False, _same("none", "gzip", "snappy", "lz4", "zstd")),
    "group.protocol": Words("C", True, _same("CONSUMER", "CLASSIC")),
    "isolation.level": Words("C", False, _same("read_committed", "read_uncommitted")),
    "metadata.recovery.strategy": Words("*", True, _same("REBOOTSTRAP", "NONE")),
    "security.protocol": Words("*", True, _same("SASL_SSL", "PLAINTEXT", "SSL", "SASL_PLAINTEXT")),
    "ssl.endpoint.identification.algorithm": Words("*", True, _same("https", "none")),
}

PASSED: Final = {
    "*": """bootstrap.servers metadata.broker.list client.id client.rack debug log_level log.connection.close log.thread.name
        message.max.bytes message.copy.max.bytes receive.message.max.bytes max.in.flight topic.metadata.refresh.interval.ms
        topic.metadata.refresh.fast.interval.ms topic.metadata.refresh.sparse topic.metadata.propagation.max.ms topic.blacklist
        socket.timeout.ms socket.send.buffer.bytes socket.receive.buffer.bytes socket.keepalive.enable socket.nagle.disable socket.max.fails
        broker.address.ttl broker.address.family api.version.request.timeout.ms statistics.interval.ms
        ssl.curves.list ssl.sigalgs.list ssl.key.location ssl.key.pem ssl.key.password ssl.certificate.location ssl.certificate.pem
        ssl.ca.location ssl.ca.pem ssl.crl.location ssl.providers enable.ssl.certificate.verification https.ca.location https.ca.pem
        sasl.mechanism sasl.mechanisms sasl.username sasl.password enable.sasl.oauthbearer.unsecure.jwt sasl.oauthbearer.config
        sasl.oauthbearer.method sasl.oauthbearer.client.id sasl.oauthbearer.client.secret sasl.oauthbearer.client.credentials.client.id
        sasl.oauthbearer.client.credentials.client.secret sasl.oauthbearer.scope sasl.oauthbearer.extensions sasl.oauthbearer.sub.claim.name
        sasl.oauthbearer.token.endpoint.url sasl.oauthbearer.grant.type sasl.oauthbearer.metadata.authentication.type
        sasl.oauthbearer.assertion.algorithm sasl.oauthbearer.assertion.file sasl.oauthbearer.assertion.private.key.file
        sasl.oauthbearer.assertion.private.key.pem sasl.oauthbearer.assertion.private.key.passphrase sasl.oauthbearer.assertion.claim.aud
        sasl.oauthbearer.assertion.claim.exp.seconds sasl.oauthbearer.assertion.claim.iss sasl.oauthbearer.assertion.claim.jti.include
        sasl.oauthbearer.assertion.claim.nbf.seconds sasl.oauthbearer.assertion.claim.sub sasl.oauthbearer.assertion.jwt.template.file""",
    "C": """group.id group.instance.id group.remote.assignor coordinator.query.interval.ms enable.auto.offset.store enable.partition.eof
        queued.min.messages queued.max.messages.kbytes fetch.wait.max.ms fetch.queue.backoff.ms fetch.message.max.bytes
        fetch.error.backoff.ms""",
    "P": """transactional.id queue.buffering.max.messages queue.buffering.max.kbytes queue.buffering.max.ms message.send.max.retries
        queue.buffering.backpressure.threshold compression.codec compression.level batch.num.messages request.required.acks
        message.timeout.ms partitioner sticky.partitioning.linger.ms""",
}
"""librdkafka's names that pass as they are; missing on purpose: callbacks, and what loads native code or runs a command."""

SCOPE_OF: Final = {
    **{name: scope for scope, text in PASSED.items() for name in text.split()},
    **{name: rule.scope for table in (NUMBERS, WORDS) for name, rule in table.items()},
    **BOOLEANS,
    "partition.assignment.strategy": "C",
}
DEFAULTS: Final[dict[Kind, dict[str, str]]] = {
    "consumer": {"isolation.level": "read_uncommitted", "allow.auto.create.topics": "true"},
    "producer": {"partitioner": "murmur2_random"},
    "admin": {},
}
"""Java's defaults where librdkafka's differ in what users see."""

NEEDS_JAVA: Final = {
    "sasl.client.callback.handler.class", "sasl.login.class", "sasl.oauthbearer.jwt.retriever.class", "security.providers",
    "ssl.engine.factory.class",
}  # fmt: skip
HONOURED: Final = {
    "sasl.jaas.config", "sasl.login.callback.handler.class", "ssl.cipher.suites", "ssl.enabled.protocols", "ssl.keystore.certificate.chain",
    "ssl.keystore.key", "ssl.keystore.location", "ssl.keystore.password", "ssl.keystore.type", "ssl.truststore.certificates",
    "ssl.truststore.location", "ssl.truststore.type",
}  # fmt: skip
SECRET_NAME: Final = re.compile(r"(password|passphrase|secret|token|\.key|key\.pem|jaas\.config|oauthbearer\.config)$", re.IGNORECASE)
EAGER: Final = {"range": "range", "RangeAssignor": "range", "roundrobin": "roundrobin", "RoundRobinAssignor": "roundrobin"}
COOPERATIVE: Final = {"cooperative-sticky": "cooperative-sticky", "CooperativeStickyAssignor": "cooperative-sticky"}
