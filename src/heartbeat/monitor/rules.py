"""Which rule holds for a source: grace, warning threshold, severity, tags, channels. Pure, but for the file that ``check`` reads."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from pathlib import Path
from typing import Final

from heartbeat.display import visible
from heartbeat.errors import InvalidConfig
from heartbeat.logs import secrets
from heartbeat.monitor.kafka import refusal
from heartbeat.monitor.settings import Defaults, Reading, Rule, Settings, is_glob
from heartbeat.monitor.toml_lines import Place

_KEPT: Final = 20_000
"""For so many sources the policy is remembered: those that are looked at are those that are due."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for a source. It is LATE from ``warn_ms`` before its deadline, and DOWN ``grace_ms`` after it."""

    grace_ms: int
    warn_ms: int
    severity: str
    tags: tuple[str, ...]
    channels: tuple[str, ...]


class Rules:
    """The rules of one settings file, compiled. Patterns are shell globs over the whole name, and case matters."""

    def __init__(self, settings: Settings) -> None:
        defaults = settings.defaults
        self._rules = [(_compiled(rule.connector), _compiled(rule.match), _policy(rule, defaults)) for rule in settings.rules]
        self._default = _policy(Rule(match="*"), defaults)
        self._expected = [(_compiled(rule.connector), rule.match) for rule in settings.rules if rule.expected]
        self._pipeline_channels = defaults.channels or tuple(channel.name for channel in settings.channels)
        policies = [policy for _, _, policy in self._rules] + [self._default]
        self.longest_grace_ms = max(policy.grace_ms for policy in policies)
        self.shortest_grace_ms = min(policy.grace_ms for policy in policies)
        self.longest_warn_ms = max(policy.warn_ms for policy in policies)
        self._remembered = lru_cache(_KEPT)(self._find)

    def of(self, connector: str, source: str) -> Policy:
        """Return what holds for a source: the first rule that matches, and the defaults where it does not say."""
        return self._remembered(connector, source)

    def expected(self, connector: str, all_connectors: Collection[str]) -> tuple[str, ...]:
        """Return the sources that this connector must have seen.

        A rule whose ``connector`` matches several of all is left out: in all but one of them its source would be missed wrongly.
        """
        others = [other for other in all_connectors if other != connector]
        found = (source for of, source in self._expected if of.match(connector) and not any(map(of.match, others)))
        return tuple(dict.fromkeys(found))

    def pipeline_channels(self) -> tuple[str, ...]:
        """Return who is told of blindness: the defaults' channels, or every channel where there are none."""
        return self._pipeline_channels

    def _find(self, connector: str, source: str) -> Policy:
        for of_connector, of_source, policy in self._rules:
            if of_source.match(source) and of_connector.match(connector):
                return policy
        return self._default


def check(path: Path, environment: Mapping[str, str]) -> tuple[tuple[str, ...], Settings]:
    """Return a line for each thing in a file that is probably not meant, and its settings.

    Raises:
        InvalidConfig: with every error.
    """
    reading = Reading(path, environment)
    settings = reading.checked()
    why = refusal(settings.kafka) if settings.kafka is not None else ""
    if why:
        raise InvalidConfig([secrets.clean(reading.document.at(("kafka", "properties"), why))])
    return doubts(reading), settings


def doubts(reading: Reading) -> tuple[str, ...]:
    """Return a line for each thing in a valid file that is probably not meant."""
    settings = reading.checked()
    found: list[tuple[Place, str]] = []
    if not settings.defaults.channels and not any(_takes_all(rule, Rule(match="*")) for rule in settings.rules):
        found.append((("defaults",), "nobody is told of sources that no rule matches: [defaults] names no channel"))
    for index, rule in enumerate(settings.rules):
        found += [(("rule", index), text) for text in _doubts(rule, settings)]
        taken_by = next((at for at, earlier in enumerate(settings.rules[:index]) if _takes_all(earlier, rule)), None)
        if taken_by is not None:
            line = reading.document.line("rule", taken_by)
            found.append((("rule", index), f"this rule never holds: the one in line {line} matches all that it does"))
    named = {*settings.defaults.channels, *(name for rule in settings.rules for name in rule.channels or ())}
    for index, channel in enumerate(settings.channels):
        if named and channel.name not in named:
            found.append((("channel", index), f"no rule and no [defaults] names `{visible(channel.name)}`: it is told of no source"))
    found.sort(key=lambda warning: reading.document.line(*warning[0]))
    return tuple(secrets.clean(reading.document.at(place, f"warning: {text}")) for place, text in found)


def understood(settings: Settings) -> tuple[str, ...]:
    """Return what settings come to, a line for each thing, for people; without secrets."""
    server, kafka = settings.redis.server(), settings.kafka
    told = ["listens on " + settings.monitor.listen, f"Redis at {server.host}:{server.port}, database {server.database}"]
    if kafka is not None:
        told.append(
            f"Kafka at {kafka.bootstrap_servers}: canary {'on' if kafka.canary else 'off'}, flips to {kafka.flips_topic or 'no topic'}"
        )
    told += [f"channel {channel.name}: {channel.type}" for channel in settings.channels]
    told += [
        f"rule {rule.match} of {rule.connector}: {_told(_policy(rule, settings.defaults))}{', expected' if rule.expected else ''}"
        for rule in settings.rules
    ]
    told.append(f"all else: {_told(_policy(Rule(match='*'), settings.defaults))}")
    return tuple(secrets.clean(visible(line)) for line in told)


def _told(policy: Policy) -> str:
    late = f"LATE {policy.warn_ms / 1000:g} s before, " if policy.warn_ms else ""
    tags = f", tags {' '.join(policy.tags)}" if policy.tags else ""
    told = ", ".join(policy.channels) or "nobody"
    return f"{late}DOWN {policy.grace_ms / 1000:g} s after the deadline, {policy.severity}{tags}, tells {told}"


def _doubts(rule: Rule, settings: Settings) -> Iterator[str]:
    if rule.channels is None and not settings.defaults.channels:
        yield "nobody is told of what this rule matches: neither it nor [defaults] names a channel"
    if rule.expected and is_glob(rule.connector):
        yield f"`expected` holds only while a single connector matches `{visible(rule.connector)}`: name it in `connector`"


def _takes_all(earlier: Rule, later: Rule) -> bool:
    return _covers(earlier.connector, later.connector) and _covers(earlier.match, later.match)


def _covers(glob: str, other: str) -> bool:
    """Tell whether all that ``other`` matches is surely matched by ``glob`` too. May miss some, is never wrong."""
    if not glob.strip("*") or glob == other:
        return True
    return is_glob(glob) and not is_glob(other) and _compiled(glob).match(other) is not None


def _compiled(glob: str) -> re.Pattern[str]:
    return re.compile(translate(glob))  # in it, * matches newlines too


def _policy(rule: Rule, defaults: Defaults) -> Policy:
    return Policy(
        grace_ms=round(1000 * (defaults.grace_s if rule.grace_s is None else rule.grace_s)),
        warn_ms=round(1000 * (defaults.warn_s if rule.warn_s is None else rule.warn_s)),
        severity=defaults.severity if rule.severity is None else rule.severity,
        tags=defaults.tags if rule.tags is None else rule.tags,
        channels=defaults.channels if rule.channels is None else rule.channels,
    )
