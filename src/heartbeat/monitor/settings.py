"""What a monitor is told in its TOML file: values, the file that holds them, and every error in it with its line."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from msgspec import Meta

from heartbeat.beats.connection import Server, Tls
from heartbeat.display import visible
from heartbeat.errors import InvalidConfig
from heartbeat.logs import secrets
from heartbeat.monitor.toml_lines import Document, Place, nearest, stamp, unreadable

log = logging.getLogger(__name__)

Seconds = Annotated[float, Meta(ge=0, le=366 * 86400)]
Text = Annotated[str, Meta(min_length=1)]
Texts = tuple[Text, ...]
Kind = TypeVar("Kind", bound=msgspec.Struct)

CHANNEL_TYPES: Final = ("webhook", "slack", "log")
_BY_URL: Final = ("webhook", "slack")
_LISTEN: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")
_DATABASE: Final = re.compile(r"/?([0-9]*)")
_GLOB: Final = re.compile(r"[*?\[]")
_SECRET_NAME: Final = re.compile(r"(password|passphrase|secret|key\.pem|oauthbearer\.config)$", re.IGNORECASE)


class Monitor(msgspec.Struct, frozen=True):
    """``[monitor]``: where it listens, and the patience that is not a source's own.

    ``slack_s`` is allowed to producers that linger and retry, ``settle_s`` to those that come back after an outage. Sight that is
    older than ``blind_after_s`` is told as blindness. ``group_wait_s`` is how long a message waits for more to tell.
    """

    listen: Text = "127.0.0.1:8080"
    slack_s: Seconds = 1.0
    settle_s: Seconds = 120.0
    blind_after_s: Annotated[float, Meta(ge=3, le=86400)] = 10.0
    group_wait_s: Annotated[float, Meta(ge=0, le=3600)] = 2.0

    @property
    def address(self) -> tuple[str, int]:
        """``listen`` as host and port; port 0 is any free one."""
        return _address(self.listen)


class RedisPlace(msgspec.Struct, frozen=True):
    """``[redis]``: ``redis://`` or, by TLS, ``rediss://``; then ``[user:password@]host[:port][/database]``.

    By TLS also ``?ca=FILE&certificate=FILE&key=FILE&verify=false``, as the sink's ``redis.tls.*``.
    """

    url: Text = "redis://127.0.0.1:6379/0"

    def server(self) -> Server:
        """Return which Redis that is, and as whom."""
        return _server(self.url)


class Kafka(msgspec.Struct, frozen=True):
    """``[kafka]``: where the monitor may write canaries and flips. ``properties`` are librdkafka's, by its names."""

    bootstrap_servers: Text
    canary: bool = True
    canary_every_s: Annotated[float, Meta(ge=0.5, le=3600)] = 1.0
    flips_topic: str = "heartbeat-flips"
    """Empty: none."""
    properties: dict[str, str] = {}


class Defaults(msgspec.Struct, frozen=True):
    """``[defaults]``: what holds where a rule does not say, and for sources that no rule matches.

    A source is LATE from ``warn_s`` before its deadline, and DOWN ``grace_s`` after it.
    """

    grace_s: Seconds = 5.0
    warn_s: Seconds = 0.0
    severity: Text = "critical"
    tags: Texts = ()
    channels: Texts = ()


class Rule(msgspec.Struct, frozen=True):
    """``[[rule]]``: what holds for sources whose names match; None is the defaults'. Of several that match, the first."""

    match: Text
    connector: Text = "*"
    grace_s: Seconds | None = None
    warn_s: Seconds | None = None
    severity: Text | None = None
    tags: Texts | None = None
    channels: Texts | None = None
    expected: bool = False
    """Whether the source that ``match`` names is DOWN also if it never beats."""


class Channel(msgspec.Struct, frozen=True):
    """``[[channel]]``: where alerts go. A ``secret`` signs what a webhook is sent."""

    name: Text
    type: Text
    url: Text = ""
    secret: Text = ""
    timeout_s: Annotated[float, Meta(gt=0, le=8)] = 8.0
    """Less than a deliverer's lease lasts, or two monitors could send the same."""


class Self(msgspec.Struct, frozen=True):
    """``[self]``: the dead man's switch that watches the monitor, and how often it is told that all is well."""

    url: Text
    every_s: Annotated[float, Meta(ge=1, le=86400)] = 60.0


class Settings(msgspec.Struct, frozen=True):
    """All of a file."""

    monitor: Monitor = Monitor()
    redis: RedisPlace = RedisPlace()
    kafka: Kafka | None = None
    defaults: Defaults = Defaults()
    rules: tuple[Rule, ...] = ()
    channels: tuple[Channel, ...] = ()
    self_: Self | None = None


_TABLES: Final = ("monitor", "redis", "kafka", "defaults", "rule", "channel", "self")


def is_glob(match: str) -> bool:
    """Tell whether a pattern may match more than the one name that it is."""
    return _GLOB.search(match) is not None


def load(path: Path, environment: Mapping[str, str]) -> Settings:
    """Return the settings in a file, ``${env:NAME}`` and ``${file:PATH}`` put in.

    Raises:
        InvalidConfig: with every error, each with its line, in reading order; none quotes a secret.
    """
    return Reading(path, environment).checked()


class Reading:
    """One reading of a file: its settings, and everything that is wrong with them. Its secrets are hidden in logs from now on."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self.document = document = Document(path, environment)
        for name in document.tables:
            if name not in _TABLES:
                document.wrong((name,), f"unknown table or key `{visible(name)}`. {nearest(name, _TABLES)}")
        _flatten(document)
        self._settings = Settings(
            monitor=document.struct(Monitor, "monitor"),
            redis=document.struct(RedisPlace, "redis"),
            kafka=document.struct(Kafka, "kafka") if "kafka" in document.tables else None,
            defaults=document.struct(Defaults, "defaults"),
            rules=_each(document, Rule, "rule"),
            channels=_each(document, Channel, "channel"),
            self_=document.struct(Self, "self") if "self" in document.tables else None,
        )
        secrets.add(_secrets(self._settings))
        _check_references(document, self._settings)
        _check_channels(document, self._settings)
        _check_places(document, self._settings)

    def checked(self) -> Settings:
        """Return the settings.

        Raises:
            InvalidConfig: something is wrong; see ``load``.
        """
        if self.document.errors:
            raise InvalidConfig([secrets.clean(error) for error in self.document.errors])
        return self._settings

    def is_stale(self) -> bool:
        """Tell whether the file, or one that is put into it, has changed since."""
        return any(stamp(path) != was for path, was in self.document.stamps.items())


class SettingsFile:
    """The settings of a file that people edit while the monitor runs: always the last valid ones. It has no thread of its own.

    Raises:
        InvalidConfig: as ``load``, at the start.
    """

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self._path = path
        self._environment = environment
        self.errors: tuple[str, ...] = ()
        """What is wrong with the file as it is now; empty when its settings are in force."""
        self._asked = False
        self._reading = Reading(path, environment)
        self._settings = self._reading.checked()

    @property
    def settings(self) -> Settings:
        """The last valid settings."""
        return self._settings

    @property
    def reading(self) -> Reading:
        """The last reading. Right after a turn that changed something it is valid."""
        return self._reading

    def ask(self) -> None:
        """Have the next turn read the file, changed or not. Fit for a signal."""
        self._asked = True

    def turn(self) -> bool:
        """Read what has changed; tell whether there are other settings now. What is invalid is logged and changes nothing."""
        if not self._asked and not self._reading.is_stale():
            return False
        self._asked = False
        self._reading = Reading(self._path, self._environment)
        before = self._settings
        try:
            self._settings = self._reading.checked()
        except InvalidConfig as invalid:
            self.errors = tuple(invalid.errors)
            for error in invalid.errors:
                log.error("%s", error)
            log.error("%s is not applied: the settings stay as they were", self._path)
            return False
        self.errors = ()
        if self._settings == before:
            log.info("%s was read: nothing has changed", self._path)
            return False
        log.info("%s is applied", self._path)
        return True


def _each(document: Document, kind: type[Kind], name: str) -> tuple[Kind, ...]:
    given = document.tables.get(name, [])
    if not isinstance(given, list):
        document.wrong((name,), f"write [[{name}]]: there may be several")
        return ()
    return tuple(document.struct(kind, name, index) for index in range(len(given)))


def _flatten(document: Document) -> None:
    """Take ``security.protocol = "SSL"`` in ``[kafka.properties]`` for the name it looks like; to TOML it is a table in a table."""
    kafka = document.tables.get("kafka")
    if not isinstance(kafka, dict) or not isinstance(kafka.get("properties"), dict):
        return
    found: dict[str, str] = {}
    for place, value in _leaves(kafka["properties"], ("kafka", "properties")):
        name = ".".join(map(str, place[2:]))
        if not isinstance(value, str | int):
            document.wrong(place, f"`{visible(name)}` in [kafka.properties]: expected `str`")
        elif name in found:
            document.wrong(place, f"`{visible(name)}` is twice in [kafka.properties]")
        found[name] = str(value).lower() if isinstance(value, bool) else str(value)
    kafka["properties"] = found


def _leaves(table: dict[str, Any], place: Place) -> Iterator[tuple[Place, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*place, name))
        else:
            yield (*place, name), value


def _check_references(document: Document, settings: Settings) -> None:
    names = [channel.name for channel in settings.channels]
    if "" in names or not isinstance(document.tables.get("channel", []), list):
        return  # it cannot be told what is there
    asking: list[tuple[Place, tuple[str, ...] | None]] = [(("defaults", "channels"), settings.defaults.channels)]
    asking += [(("rule", index, "channels"), rule.channels) for index, rule in enumerate(settings.rules)]
    for place, asked in asking:
        for index, name in enumerate(asked or ()):
            if name not in names:
                hint = nearest(name, names) if names else "There is no [[channel]]"
                document.wrong((*place, index), f"no channel is named `{visible(name)}`. {hint}")
    for index, rule in enumerate(settings.rules):
        if rule.expected and is_glob(rule.match):
            document.wrong(("rule", index, "expected"), "`expected` needs a `match` that names one source, without any of *?[")


def _check_channels(document: Document, settings: Settings) -> None:
    first: dict[str, int] = {}
    for index, channel in enumerate(settings.channels):
        name, kind, url = (("channel", index, key) for key in ("name", "type", "url"))
        if channel.name and first.setdefault(channel.name, index) != index:
            line = document.line("channel", first[channel.name], "name")
            document.wrong(name, f"a second channel is named `{visible(channel.name)}`, as the one in line {line}")
        if ":" in channel.name or not channel.name.isprintable():  # kafka:TOPIC is the topic's
            document.wrong(name, f"`{visible(channel.name)}` cannot be a channel's name: one without `:` and control characters")
        if channel.type and channel.type not in CHANNEL_TYPES:
            document.wrong(kind, f"unknown type `{visible(channel.type)}`. {nearest(channel.type, CHANNEL_TYPES)}")
        if channel.type in _BY_URL and document.sound(*url):
            if not channel.url:
                document.wrong(("channel", index), f"a {channel.type} channel needs a `url`")
            elif not _is_http(channel.url):
                document.wrong(url, "`url` in [[channel]]: expected http://... or https://...")


def _check_places(document: Document, settings: Settings) -> None:
    """Check what says where things are. What Python says of such a text is not repeated: it quotes it."""
    try:
        settings.monitor.address  # noqa: B018  it is read to see whether it can be
    except ValueError:
        document.wrong(("monitor", "listen"), "`listen` in [monitor]: expected host:port, such as 127.0.0.1:8080 or [::1]:8080")
    try:
        settings.redis.server()
    except ValueError:
        document.wrong(
            ("redis", "url"),
            "`url` in [redis]: expected redis://[user:password@]host[:port][/database], or rediss:// and perhaps ?ca=FILE; "
            "in a password, characters that mean something in a URL are written as %2F and so on",
        )
    else:
        tls = settings.redis.server().tls
        for option, file in (("ca", tls.ca), ("certificate", tls.certificate), ("key", tls.key)) if tls is not None else ():
            if file and (why := unreadable(file)):
                document.wrong(("redis", "url"), f"`{option}={visible(file)}` in the `url` of [redis] cannot be read: {why}")
    if settings.self_ is not None and settings.self_.url and not _is_http(settings.self_.url):
        document.wrong(("self", "url"), "`url` in [self]: expected http://... or https://...")
    kafka, blind_after_s = settings.kafka, settings.monitor.blind_after_s
    if kafka is not None and kafka.canary and 2 * kafka.canary_every_s > blind_after_s:  # or each one that is late is a blindness
        text = f"`canary_every_s` in [kafka]: expected at most half of `blind_after_s`, {blind_after_s:g}"
        document.wrong(("kafka", "canary_every_s"), text)


def _address(listen: str) -> tuple[str, int]:
    """Return host and port.

    Raises:
        ValueError: it is something else.
    """
    found = _LISTEN.fullmatch(listen)
    if found is None or int(found["port"]) > 65535:
        raise ValueError(listen)
    return found["v6"] or found["host"], int(found["port"])


def _server(url: str) -> Server:
    """Return which Redis a URL names.

    Raises:
        ValueError: none.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)) if parts.query else {}
    verify = options.pop("verify", "true")
    tls, database = parts.scheme == "rediss", _DATABASE.fullmatch(parts.path)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or parts.fragment or verify not in ("true", "false"):
        raise ValueError(url)
    if database is None or options.keys() - {"ca", "certificate", "key"} or (parts.query and not tls):
        raise ValueError(url)
    return Server(
        parts.hostname,
        parts.port or 6379,
        int(database[1] or 0),
        unquote(parts.username or "") or None,
        unquote(parts.password or "") or None,
        Tls(**options, verify=verify == "true") if tls else None,
    )


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isprintable() and " " not in url
    except ValueError:
        return False


def _secrets(settings: Settings) -> set[str]:
    """Return what no log may show: also of what is wrong, for it will be complained of."""
    found = {channel.secret for channel in settings.channels}
    urls = [settings.redis.url, *(channel.url for channel in settings.channels)]
    found |= {channel.url for channel in settings.channels if channel.type != "webhook"}
    if settings.self_ is not None:
        found.add(settings.self_.url)
    if settings.kafka is not None:
        found |= {value for name, value in settings.kafka.properties.items() if _SECRET_NAME.search(name)}
    for url in urls:
        user, _, _ = url.partition("://")[2].partition("/")[0].rpartition("@")
        password = user.partition(":")[2]
        found |= {password, unquote(password)}
    return found - {""}
