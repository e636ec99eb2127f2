"""Properties of Kafka's Java clients, translated for librdkafka, because worker files and connector configs are written in Java's names.

Translate one client's *merged* properties (worker ``consumer.*``, then ``consumer.override.*``): several keys decide together. What Java
validates is validated here in its words; what Java ignores is left out and reported; what cannot be honoured is refused, and its substitute
named. librdkafka's own names pass, and win over the Java name of the same thing. Sources: Kafka 4.1 ``ConsumerConfig``, ``ProducerConfig``,
``DefaultSslEngineFactory`` and ``JaasConfig``; librdkafka 2.16 ``CONFIGURATION.md``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from heartbeat.config import HIDDEN, Key, Type, at_least
from heartbeat.errors import ConfigError, InvalidConfig

Kind = Literal["consumer", "producer", "admin"]
_SCOPES: Final[dict[Kind, str]] = {"consumer": "*C", "producer": "*P", "admin": "*"}
_INT, _LONG, _MAX_INT = Type.INT, Type.LONG, 2**31 - 1


class _Number(NamedTuple):
    """A Java number: its least value (None: any), then librdkafka's name, range and unit. A value beyond the range takes the nearest."""

    scope: str
    type: Type
    least: int | None
    target: str
    low: int
    high: int
    unit: int = 1


_NUMBERS: Final = {
    "auto.commit.interval.ms": _Number("C", _INT, 0, "auto.commit.interval.ms", 0, 86_400_000),
    "batch.size": _Number("P", _INT, 0, "batch.size", 1, _MAX_INT),
    "buffer.memory": _Number("P", _LONG, 0, "queue.buffering.max.kbytes", 1, _MAX_INT, unit=1024),
    "connections.max.idle.ms": _Number("*", _LONG, None, "connections.max.idle.ms", 0, _MAX_INT),
    "delivery.timeout.ms": _Number("P", _INT, 0, "delivery.timeout.ms", 1, _MAX_INT),
    "fetch.max.bytes": _Number("C", _INT, 0, "fetch.max.bytes", 1_000_000, 2_147_483_135),  # not below message.max.bytes
    "fetch.max.wait.ms": _Number("C", _INT, 0, "fetch.wait.max.ms", 0, 300_000),
    "fetch.min.bytes": _Number("C", _INT, 0, "fetch.min.bytes", 1, 100_000_000),
    "heartbeat.interval.ms": _Number("C", _INT, None, "heartbeat.interval.ms", 1, 3_600_000),
    "linger.ms": _Number("P", _LONG, 0, "linger.ms", 0, 900_000),
    "max.in.flight.requests.per.connection": _Number("P", _INT, 1, "max.in.flight.requests.per.connection", 1, 1_000_000),
    "max.partition.fetch.bytes": _Number("C", _INT, 0, "max.partition.fetch.bytes", 1, 1_000_000_000),
    "max.poll.interval.ms": _Number("C", _INT, 1, "max.poll.interval.ms", 1, 86_400_000),
    "max.poll.records": _Number("C", _INT, 1, "", 0, 0),  # the worker's, who takes it from the given properties
    "max.request.size": _Number("P", _INT, 0, "message.max.bytes", 1000, 1_000_000_000),
    # Java's age is the refresh period; librdkafka's key of the same name is when a cached answer dies (three periods by default).
    "metadata.max.age.ms": _Number("*", _LONG, 0, "topic.metadata.refresh.interval.ms", 100, 3_600_000),
    "metadata.recovery.rebootstrap.trigger.ms": _Number("*", _LONG, 0, "metadata.recovery.rebootstrap.trigger.ms", 0, _MAX_INT),
    "receive.buffer.bytes": _Number("*", _INT, -1, "socket.receive.buffer.bytes", 0, 100_000_000),
    "reconnect.backoff.max.ms": _Number("*", _LONG, 0, "reconnect.backoff.max.ms", 0, 3_600_000),
    "reconnect.backoff.ms": _Number("*", _LONG, 0, "reconnect.backoff.ms", 0, 3_600_000),
    "request.timeout.ms": _Number("*", _INT, 0, "socket.timeout.ms", 10, 300_000),
    "retries": _Number("P", _INT, 0, "retries", 0, _MAX_INT),
    "retry.backoff.max.ms": _Number("*", _LONG, 0, "retry.backoff.max.ms", 1, 300_000),
    "retry.backoff.ms": _Number("*", _LONG, 0, "retry.backoff.ms", 1, 300_000),
    "send.buffer.bytes": _Number("*", _INT, -1, "socket.send.buffer.bytes", 0, 100_000_000),
    "session.timeout.ms": _Number("C", _INT, None, "session.timeout.ms", 1, 3_600_000),
    "socket.connection.setup.timeout.ms": _Number("*", _LONG, None, "socket.connection.setup.timeout.ms", 1000, _MAX_INT),
    "transaction.timeout.ms": _Number("P", _INT, None, "transaction.timeout.ms", 1000, _MAX_INT),
}
_BOOLEANS: Final = {
    **dict.fromkeys(("allow.auto.create.topics", "check.crcs", "enable.auto.commit"), "C"),
    "enable.idempotence": "P",
    "enable.metrics.push": "*",
}


class _Words(NamedTuple):
    """A Java enumeration: what may be written, and what librdkafka calls it."""

    scope: str
    any_case: bool
    words: Mapping[str, str]


def _same(*words: str) -> dict[str, str]:
    return {word: word.lower() for word in words}


_WORDS: Final = {
    "acks": _Words("P", False, _same("all", "-1", "0", "1")),
    "auto.offset.reset": _Words(
        "C", False, {**_same("earliest", "latest"), "none": "error", **_same("error", "smallest", "largest", "beginning", "end")}
    ),
    "client.dns.lookup": _Words("*", False, _same("use_all_dns_ips", "resolve_canonical_bootstrap_servers_only")),
    "compression.type": _Words("P", False, _same("none", "gzip", "snappy", "lz4", "zstd")),
    "group.protocol": _Words("C", True, _same("CONSUMER", "CLASSIC")),
    "isolation.level": _Words("C", False, _same("read_committed", "read_uncommitted")),
    "metadata.recovery.strategy": _Words("*", True, _same("REBOOTSTRAP", "NONE")),
    "security.protocol": _Words("*", True, _same("SASL_SSL", "PLAINTEXT", "SSL", "SASL_PLAINTEXT")),
    "ssl.endpoint.identification.algorithm": _Words("*", True, _same("https", "none")),
}

_PASSED: Final = {
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

_SCOPE_OF: Final = {
    **{name: scope for scope, text in _PASSED.items() for name in text.split()},
    **{name: rule.scope for table in (_NUMBERS, _WORDS) for name, rule in table.items()},
    **_BOOLEANS,
    "partition.assignment.strategy": "C",
}
_DEFAULTS: Final[dict[Kind, dict[str, str]]] = {
    "consumer": {"isolation.level": "read_uncommitted", "allow.auto.create.topics": "true"},
    "producer": {"partitioner": "murmur2_random"},
    "admin": {},
}
"""Java's defaults where librdkafka's differ in what users see."""

_NO_JAVA: Final = "Java classes cannot be loaded here"
_NEEDS_JAVA: Final = {
    "sasl.client.callback.handler.class", "sasl.login.class", "sasl.oauthbearer.jwt.retriever.class", "security.providers",
    "ssl.engine.factory.class",
}  # fmt: skip
_HONOURED: Final = {
    "sasl.jaas.config", "sasl.login.callback.handler.class", "ssl.cipher.suites", "ssl.enabled.protocols", "ssl.keystore.certificate.chain",
    "ssl.keystore.key", "ssl.keystore.location", "ssl.keystore.password", "ssl.keystore.type", "ssl.truststore.certificates",
    "ssl.truststore.location", "ssl.truststore.type",
}  # fmt: skip
_SECRET_NAME: Final = re.compile(r"(password|passphrase|secret|token|\.key|key\.pem|jaas\.config|oauthbearer\.config)$", re.IGNORECASE)
_EAGER: Final = {"range": "range", "RangeAssignor": "range", "roundrobin": "roundrobin", "RoundRobinAssignor": "roundrobin"}
_COOPERATIVE: Final = {"cooperative-sticky": "cooperative-sticky", "CooperativeStickyAssignor": "cooperative-sticky"}
_PASSWORD_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_OTHER_MECHANISM: Final = (
    "Only PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER are available here, no Kerberos (GSSAPI) and no mechanism that needs Java "
    "code. The usual substitute is SCRAM-SHA-512, which Amazon MSK offers beside IAM too"
)


@dataclass(frozen=True, slots=True)
class Translated:
    """librdkafka's properties; the harmless keys left out; what was taken differently from how it was written, a phrase each."""

    properties: dict[str, str]
    dropped: tuple[str, ...]
    adjusted: tuple[str, ...] = ()


@dataclass(slots=True)
class _Draft:
    given: Mapping[str, str]
    properties: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    adjusted: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def fail(self, name: str, reason: str, value: str | None = None) -> None:
        value = self.given.get(name, value)
        shown = HIDDEN if value is not None and _SECRET_NAME.search(name) else value
        self.errors.append(str(ConfigError(name, shown, reason)))

    def has(self, *options: str) -> bool:
        return any(self.given.get(name) for name in options)


def translate(given: Mapping[str, str], kind: Kind = "consumer") -> Translated:
    """Translate the properties of one client.

    Raises:
        InvalidConfig: with everything that is wrong, never quoting a secret.
    """
    draft = _Draft({name: value.strip() for name, value in given.items()})
    protocol = draft.given.get("security.protocol", "PLAINTEXT").upper()
    unused = tuple(prefix for prefix, mark in (("ssl.", "SSL"), ("sasl.", "SASL")) if mark not in protocol)
    for name, value in draft.given.items():
        if name.startswith(unused) or _SCOPE_OF.get(name, "*") not in _SCOPES[kind]:
            draft.dropped.append(name)
        else:
            _take(draft, name, value)
    if "SSL" in protocol:
        _key_store(draft)
        _trust_store(draft)
        _versions_and_ciphers(draft)
    if "SASL" in protocol:
        _sasl(draft)
    if kind == "consumer":
        _assignors(draft)
        _group_protocol(draft)
    if draft.errors:
        raise InvalidConfig(draft.errors)
    _limits(draft.properties, draft.adjusted, kind)
    return Translated({**_DEFAULTS[kind], **draft.properties}, tuple(draft.dropped), tuple(draft.adjusted))


def secrets(given: Mapping[str, str]) -> frozenset[str]:
    """Return the values that must not appear in a log: passwords, those inside JAAS lines, private keys."""
    found: set[str] = set()
    for name, value in given.items():
        if _SECRET_NAME.search(name):
            found |= {value.strip(), _pem(value.strip())}
        if name.endswith("sasl.jaas.config"):
            try:
                found |= {text for option, text in _parse_jaas(value)[1].items() if _SECRET_NAME.search(option)}
            except ValueError:
                found |= set(re.findall(r'"([^"]+)"', value))
    return frozenset(found - {""})


def _take(draft: _Draft, name: str, value: str) -> None:
    if name in _NUMBERS:
        _take_number(draft, name, value)
    elif name in _BOOLEANS:
        try:
            draft.properties[name] = "true" if Key(name=name, type=Type.BOOLEAN, doc="").parse(value) else "false"
        except ConfigError as error:
            draft.errors.append(str(error))
    elif name in _WORDS:
        _take_word(draft, name, value)
    elif name in _NEEDS_JAVA and value:
        draft.fail(name, f"{_NO_JAVA}; leave the property out")
    elif name in _SCOPE_OF and name != "partition.assignment.strategy":
        if value:  # an empty text is how Java says "not set"
            draft.properties[name] = _pem(value) if name.endswith(".pem") else value
    elif name not in _HONOURED | {"partition.assignment.strategy"}:
        draft.dropped.append(name)


def _take_number(draft: _Draft, name: str, text: str) -> None:
    rule = _NUMBERS[name]
    try:
        value: int = Key(name=name, type=rule.type, doc="").parse(text)
    except ConfigError as error:
        draft.errors.append(str(error))
        return
    if rule.least is not None and (reason := at_least(rule.least)(value)):
        draft.fail(name, reason)
    elif rule.target != name and rule.target in draft.given:
        draft.dropped.append(name)
    elif rule.target:
        taken = min(max(value // rule.unit, rule.low), rule.high)
        draft.properties[rule.target] = str(taken)
        if value > 0 and taken != value // rule.unit:  # zero and below are Java's ways to say "none"
            draft.adjusted.append(f"{name}={value} is taken as {taken * rule.unit}")


def _take_word(draft: _Draft, name: str, value: str) -> None:
    _, any_case, words = _WORDS[name]
    known = {word.lower(): to for word, to in words.items()} if any_case else words
    if name == "ssl.endpoint.identification.algorithm":
        value = value or "none"
    word = known.get(value.lower() if any_case else value)
    if word is None:
        draft.fail(name, f"String must be one of{' (case insensitive)' if any_case else ''}: {', '.join(words)}")
    else:
        draft.properties[name] = word


def _assignors(draft: _Draft) -> None:
    name = "partition.assignment.strategy"
    chosen: list[str] = []
    for item in draft.given.get(name, "").split(","):
        short = item.strip().rpartition(".")[2]
        known = (_EAGER | _COOPERATIVE).get(short)
        if known is not None:
            chosen.append(known)
        elif short == "StickyAssignor":
            draft.fail(name, "There is no eager sticky assignor here; use org.apache.kafka.clients.consumer.CooperativeStickyAssignor")
        elif short:
            draft.fail(name, "Only RangeAssignor, RoundRobinAssignor and CooperativeStickyAssignor are available here")
    if len({short in _COOPERATIVE for short in chosen}) > 1:
        draft.fail(name, "Eager and cooperative assignors cannot be offered together here; use CooperativeStickyAssignor alone")
    elif chosen:
        draft.properties[name] = ",".join(dict.fromkeys(chosen))


def _group_protocol(draft: _Draft) -> None:
    new = draft.properties.get("group.protocol") == "consumer"
    unfit = ("partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms") if new else ("group.remote.assignor",)
    for name in unfit:
        if draft.has(name):
            draft.fail(name, f"{name} cannot be set when group.protocol={'CONSUMER' if new else 'CLASSIC'}")


def _limits(properties: dict[str, str], adjusted: list[str], kind: Kind) -> None:
    """Bring together what Java allows to differ and librdkafka refuses."""
    for name, initial, longest in (("reconnect.backoff", 100, 10_000), ("retry.backoff", 100, 1000)):
        low, high = int(properties.get(f"{name}.ms", initial)), int(properties.get(f"{name}.max.ms", longest))
        if low > high:  # the one that was written holds, and of two the maximum, as in Java
            other, value = ("ms", high) if f"{name}.max.ms" in properties else ("max.ms", low)
            properties[f"{name}.{other}"] = str(value)
    if kind == "consumer" and properties.get("group.protocol") != "consumer":
        interval, session = int(properties.get("max.poll.interval.ms", 300_000)), int(properties.get("session.timeout.ms", 45_000))
        if interval < session:
            shared = min(session, max(interval, 6000))  # brokers refuse shorter sessions (group.min.session.timeout.ms)
            properties["session.timeout.ms"], properties["max.poll.interval.ms"] = str(shared), str(max(interval, shared))
            adjusted.append(f"session.timeout.ms may not exceed max.poll.interval.ms here: both are taken as {max(interval, shared)}")


def _store_type(draft: _Draft, store: str) -> str:
    location = draft.given.get(f"{store}.location", "").lower()
    guess = "PKCS12" if location.endswith((".p12", ".pfx")) else "PEM" if location.endswith((".pem", ".crt", ".cer")) else "JKS"
    return draft.given.get(f"{store}.type", "").upper() or guess


def _no_store(kind: str) -> str:
    return f"A store of type {kind} cannot be read here (JKS is the default, as in Java, unless the name ends in .p12, .pfx or .pem)."


def _key_store(draft: _Draft) -> None:
    location, password = draft.given.get("ssl.keystore.location"), draft.given.get("ssl.keystore.password")
    key, chain = draft.given.get("ssl.keystore.key"), draft.given.get("ssl.keystore.certificate.chain")
    kind = _store_type(draft, "ssl.keystore")
    if key or chain:
        if not (key and chain):
            draft.fail("ssl.keystore.key", "The private key and the certificate chain must be given together")
        elif location or password:
            draft.fail("ssl.keystore.key", "Both SSL key store location or password and separate private key are specified.")
        else:
            draft.properties |= {"ssl.key.pem": _pem(key), "ssl.certificate.pem": _pem(chain)}
    elif not location:
        if password:
            draft.fail("ssl.keystore.password", "SSL key store is not specified, but key store password is specified.")
    elif kind == "PEM":
        if password:
            draft.fail("ssl.keystore.password", "SSL key store password cannot be specified with PEM format, only key password")
        draft.properties |= {"ssl.key.location": location, "ssl.certificate.location": location}
    elif kind == "PKCS12":
        if not password:
            draft.fail("ssl.keystore.location", "SSL key store is specified, but key store password is not specified.")
        draft.properties |= {"ssl.keystore.location": location, "ssl.keystore.password": password or ""}
    else:
        command = f"keytool -importkeystore -srckeystore {location} -destkeystore client.p12 -deststoretype PKCS12"
        draft.fail("ssl.keystore.location", f'{_no_store(kind)} Convert it with "{command}" and set ssl.keystore.type=PKCS12, or use PEM')


def _trust_store(draft: _Draft) -> None:
    location, certificates = draft.given.get("ssl.truststore.location"), draft.given.get("ssl.truststore.certificates")
    kind = _store_type(draft, "ssl.truststore")
    if draft.has("ssl.ca.location", "ssl.ca.pem"):
        draft.dropped += [name for name in ("ssl.truststore.location", "ssl.truststore.certificates") if draft.has(name)]
    elif certificates and location:
        draft.fail("ssl.truststore.location", "Both SSL trust store location and separate trust certificates are specified.")
    elif certificates:
        draft.properties["ssl.ca.pem"] = _pem(certificates)
    elif location and kind == "PEM":
        draft.properties["ssl.ca.location"] = location
    elif location:
        if kind == "PKCS12":
            command = f"openssl pkcs12 -in {location} -nokeys -out ca.pem"
        else:
            command = f"keytool -list -rfc -keystore {location} > ca.pem"
        substitute = "ssl.truststore.type=PEM, ssl.truststore.location=ca.pem"
        draft.fail("ssl.truststore.location", f'{_no_store(kind)} Write its certificates as PEM with "{command}" and set {substitute}')


def _versions_and_ciphers(draft: _Draft) -> None:
    versions = draft.given.get("ssl.enabled.protocols", "")
    if versions and "TLSv1.2" not in (version.strip() for version in versions.split(",")):
        draft.fail("ssl.enabled.protocols", "This client offers TLSv1.2 and TLSv1.3, always both; restrict the version on the broker")
    # OpenSSL keeps TLS 1.3 suites in a list of their own, all enabled, and refuses a list that names only those.
    suites = [suite.strip() for suite in re.split("[,:]", draft.given.get("ssl.cipher.suites", ""))]
    older = [suite for suite in suites if suite and not suite.startswith(("TLS_AES_", "TLS_CHACHA20_"))]
    if older:
        draft.properties["ssl.cipher.suites"] = ":".join(older)
    elif draft.has("ssl.cipher.suites"):
        draft.dropped.append("ssl.cipher.suites")


def _sasl(draft: _Draft) -> None:
    mechanism = draft.given.get("sasl.mechanisms") or draft.given.get("sasl.mechanism") or "GSSAPI"
    module, options = "", dict[str, str]()
    if draft.has("sasl.jaas.config"):
        try:
            module, options = _parse_jaas(draft.given["sasl.jaas.config"])
        except ValueError as error:
            draft.fail("sasl.jaas.config", str(error))
            return
    if mechanism in _PASSWORD_MECHANISMS:
        _user_and_password(draft, module, options)
    elif mechanism == "OAUTHBEARER":
        _oauth(draft, module, options)
    else:
        draft.fail("sasl.mechanism", _OTHER_MECHANISM, mechanism)


def _user_and_password(draft: _Draft, module: str, options: Mapping[str, str]) -> None:
    if module and module not in {"PlainLoginModule", "ScramLoginModule"}:
        draft.fail("sasl.jaas.config", "With PLAIN and SCRAM only PlainLoginModule and ScramLoginModule are understood here")
    elif options.get("tokenauth", "").lower() == "true":
        draft.fail("sasl.jaas.config", "Delegation tokens (tokenauth) are not available here; use the SCRAM credentials of a user")
    else:
        login = {f"sasl.{option}": options[option] for option in ("username", "password") if options.get(option)}
        draft.properties = {**login, **draft.properties}
        if not all(draft.properties.get(name) for name in ("sasl.username", "sasl.password")):
            draft.fail("sasl.jaas.config", 'A username and a password are needed: ...LoginModule required username="..." password="...";')
        if options.keys() - {"username", "password"}:
            draft.adjusted.append("of sasl.jaas.config only username and password are read")


def _oauth(draft: _Draft, module: str, options: Mapping[str, str]) -> None:
    handler = draft.given.get("sasl.login.callback.handler.class", "")
    if handler and handler.rpartition(".")[2] != "OAuthBearerLoginCallbackHandler":
        draft.fail("sasl.login.callback.handler.class", f"{_NO_JAVA}; tokens come from sasl.oauthbearer.token.endpoint.url")
    if module not in {"", "OAuthBearerLoginModule"}:
        draft.fail("sasl.jaas.config", "With OAUTHBEARER only OAuthBearerLoginModule is understood here")
    names = {"clientId": "client.id", "clientSecret": "client.secret", "scope": "scope"}
    login = {f"sasl.oauthbearer.{to}": options[option] for option, to in names.items() if options.get(option)}
    extensions = [f"{option.removeprefix('extension_')}={value}" for option, value in options.items() if option.startswith("extension_")]
    if extensions:
        login["sasl.oauthbearer.extensions"] = ",".join(extensions)
    if draft.has("sasl.oauthbearer.token.endpoint.url"):
        login["sasl.oauthbearer.method"] = "oidc"
    draft.properties = {**login, **draft.properties}
    unsigned = draft.properties.get("enable.sasl.oauthbearer.unsecure.jwt", "").lower() == "true"
    if draft.properties.get("sasl.oauthbearer.method") != "oidc" and not unsigned:
        draft.fail("sasl.oauthbearer.token.endpoint.url", "OAUTHBEARER needs the URL of the server that issues its tokens")


def _pem(text: str) -> str:
    """Break the lines of PEM blocks: Java reads them from one line, OpenSSL does not."""

    def block(match: re.Match[str]) -> str:
        body = "".join(match[2].split())
        lines = (body[start : start + 64] for start in range(0, len(body), 64))
        return "\n".join((f"-----BEGIN {match[1]}-----", *lines, f"-----END {match[1]}-----", ""))

    return re.sub(r"-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\s]*)-----END \1-----\n?", block, text)


# The grammar of java.io.StreamTokenizer as Kafka's JaasConfig sets it up: a quoted text ends at the end of the line at the latest.
_JAAS_TOKEN: Final = re.compile(
    r"[\x00-\x20]+|/\*.*?(?:\*/|\Z)|/[^\n\r]*"
    r'|"(?P<double>(?:\\.|[^"\\\n\r])*)"?'
    r"|'(?P<single>(?:\\.|[^'\\\n\r])*)'?"
    r"|(?P<word>[A-Za-z_$\u00a0-\U0010ffff][A-Za-z0-9_$.\u00a0-\U0010ffff-]*)"
    r"|(?P<symbol>.)",
    re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\([0-3][0-7]{0,2}|[4-7][0-7]?|.)", re.DOTALL)
_ESCAPED: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 8)) if "0" <= match[1] < "8" else _ESCAPED.get(match[1], match[1])


def _jaas_tokens(text: str) -> Iterator[tuple[bool, str]]:
    """Yield each token and whether it is a symbol rather than a word or a quoted text."""
    for match in _JAAS_TOKEN.finditer(text):
        if match.lastgroup in {"double", "single"}:
            yield False, _ESCAPE.sub(_unescaped, match[match.lastgroup])
        elif match.lastgroup:
            yield match.lastgroup == "symbol", match[0]


def _parse_jaas(text: str) -> tuple[str, dict[str, str]]:
    """Return the login module's class, without its package, and its options.

    Raises:
        ValueError: in Kafka's words where they cannot quote a secret.
    """
    tokens = list(_jaas_tokens(text))
    if len(tokens) < 2 or tokens[0][0] or tokens[1][0]:
        raise ValueError("Login module or its control flag not specified in JAAS config")
    if tokens[1][1].upper() not in {"REQUIRED", "REQUISITE", "SUFFICIENT", "OPTIONAL"}:
        raise ValueError("Invalid login module control flag in JAAS config")
    options, place = dict[str, str](), 2
    while place < len(tokens) and tokens[place] != (True, ";"):
        option, *value = tokens[place : place + 3]
        if option[0] or len(value) < 2 or value[0] != (True, "=") or value[1][0]:
            raise ValueError("Value not specified for an option in JAAS config (a value that is no plain word needs double quotes)")
        options[option[1]] = value[1][1]
        place += 3
    if place == len(tokens):
        raise ValueError("JAAS config entry not terminated by semi-colon")
    if place + 1 < len(tokens):
        raise ValueError("JAAS config property contains more than one login module, should be 1 module")
    return tokens[0][1].rpartition(".")[2], options
