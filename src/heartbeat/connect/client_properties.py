"""Properties of Kafka's Java clients, translated for librdkafka, because worker files and connector configs are written in Java's names.

Translate one client's *merged* properties (worker ``consumer.*``, then ``consumer.override.*``): several keys decide together. What Java
validates is validated here in its words; what Java ignores is left out and reported; what cannot be honoured is refused, and its substitute
named. librdkafka's own names pass, and win over the Java name of the same thing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from heartbeat.config import Key, Type, at_least
from heartbeat.connect import client_tls, jaas
from heartbeat.connect.client_draft import Draft
from heartbeat.connect.client_names import (
    BOOLEANS,
    COOPERATIVE,
    DEFAULTS,
    EAGER,
    HONOURED,
    NEEDS_JAVA,
    NUMBERS,
    SCOPE_OF,
    SCOPES,
    SECRET_NAME,
    WORDS,
    Kind,
)
from heartbeat.errors import ConfigError, InvalidConfig

_NO_JAVA: Final = "Java classes cannot be loaded here"
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


def translate(given: Mapping[str, str], kind: Kind = "consumer") -> Translated:
    """Translate the properties of one client.

    Raises:
        InvalidConfig: with everything that is wrong, never quoting a secret.
    """
    draft = Draft({name: value.strip() for name, value in given.items()})
    protocol = draft.given.get("security.protocol", "PLAINTEXT").upper()
    unused = tuple(prefix for prefix, mark in (("ssl.", "SSL"), ("sasl.", "SASL")) if mark not in protocol)
    for name, value in draft.given.items():
        if name.startswith(unused) or SCOPE_OF.get(name, "*") not in SCOPES[kind]:
            draft.dropped.append(name)
        else:
            _take(draft, name, value)
    if "SSL" in protocol:
        client_tls.key_store(draft)
        client_tls.trust_store(draft)
        client_tls.versions_and_ciphers(draft)
    if "SASL" in protocol:
        _sasl(draft)
    if kind == "consumer":
        _assignors(draft)
        _group_protocol(draft)
    if draft.errors:
        raise InvalidConfig(draft.errors)
    _limits(draft.properties, draft.adjusted, kind)
    return Translated({**DEFAULTS[kind], **draft.properties}, tuple(draft.dropped), tuple(draft.adjusted))


def secrets(given: Mapping[str, str]) -> frozenset[str]:
    """Return the values that must not appear in a log: passwords, those inside JAAS lines, private keys."""
    found: set[str] = set()
    for name, value in given.items():
        if SECRET_NAME.search(name):
            found |= {value.strip(), client_tls.pem(value.strip())}
        if name.endswith("sasl.jaas.config"):
            try:
                found |= {text for option, text in jaas.parse(value)[1].items() if SECRET_NAME.search(option)}
            except ValueError:
                found |= set(re.findall(r'"([^"]+)"', value))
    return frozenset(found - {""})


def _take(draft: Draft, name: str, value: str) -> None:
    if name in NUMBERS:
        _take_number(draft, name, value)
    elif name in BOOLEANS:
        try:
            draft.properties[name] = "true" if Key(name=name, type=Type.BOOLEAN, doc="").parse(value) else "false"
        except ConfigError as error:
            draft.errors.append(str(error))
    elif name in WORDS:
        _take_word(draft, name, value)
    elif name in NEEDS_JAVA and value:
        draft.fail(name, f"{_NO_JAVA}; leave the property out")
    elif name in SCOPE_OF and name != "partition.assignment.strategy":
        if value:  # an empty text is how Java says "not set"
            draft.properties[name] = client_tls.pem(value) if name.endswith(".pem") else value
    elif name not in HONOURED | {"partition.assignment.strategy"}:
        draft.dropped.append(name)


def _take_number(draft: Draft, name: str, text: str) -> None:
    rule = NUMBERS[name]
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


def _take_word(draft: Draft, name: str, value: str) -> None:
    _, any_case, words = WORDS[name]
    known = {word.lower(): to for word, to in words.items()} if any_case else words
    if name == "ssl.endpoint.identification.algorithm":
        value = value or "none"
    word = known.get(value.lower() if any_case else value)
    if word is None:
        draft.fail(name, f"String must be one of{' (case insensitive)' if any_case else ''}: {', '.join(words)}")
    else:
        draft.properties[name] = word


def _assignors(draft: Draft) -> None:
    name = "partition.assignment.strategy"
    chosen: list[str] = []
    for item in draft.given.get(name, "").split(","):
        short = item.strip().rpartition(".")[2]
        known = (EAGER | COOPERATIVE).get(short)
        if known is not None:
            chosen.append(known)
        elif short == "StickyAssignor":
            draft.fail(name, "There is no eager sticky assignor here; use org.apache.kafka.clients.consumer.CooperativeStickyAssignor")
        elif short:
            draft.fail(name, "Only RangeAssignor, RoundRobinAssignor and CooperativeStickyAssignor are available here")
    if len({short in COOPERATIVE for short in chosen}) > 1:
        draft.fail(name, "Eager and cooperative assignors cannot be offered together here; use CooperativeStickyAssignor alone")
    elif chosen:
        draft.properties[name] = ",".join(dict.fromkeys(chosen))


def _group_protocol(draft: Draft) -> None:
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


def _sasl(draft: Draft) -> None:
    mechanism = draft.given.get("sasl.mechanisms") or draft.given.get("sasl.mechanism") or "GSSAPI"
    module, options = "", dict[str, str]()
    if draft.has("sasl.jaas.config"):
        try:
            module, options = jaas.parse(draft.given["sasl.jaas.config"])
        except ValueError as error:
            draft.fail("sasl.jaas.config", str(error))
            return
    if mechanism in _PASSWORD_MECHANISMS:
        _user_and_password(draft, module, options)
    elif mechanism == "OAUTHBEARER":
        _oauth(draft, module, options)
    else:
        draft.fail("sasl.mechanism", _OTHER_MECHANISM, mechanism)


def _user_and_password(draft: Draft, module: str, options: Mapping[str, str]) -> None:
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


def _oauth(draft: Draft, module: str, options: Mapping[str, str]) -> None:
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
