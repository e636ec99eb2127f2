"""The worker's own properties: a Java ``.properties`` file, and the environment as Confluent's Connect image reads it.

Keys nobody declared are kept: they reach the clients (``consumer.*``) or are somebody else's, and never stop the worker.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import javaproperties

from heartbeat.config import ConfigDef, Key, Type, Validator, at_least, one_of
from heartbeat.connect.connector_keys import HEADER_CONVERTERS, SIMPLE_HEADERS
from heartbeat.connect.converters import find_converter
from heartbeat.errors import InvalidConfig, WorkerFileError

_ENVIRONMENT_PREFIX: Final = "CONNECT_"
_NOT_WORKER_KEYS: Final = ("CONNECT_LOG4J_", "CONNECT_CUB_")
_DEFAULT_PORT: Final = 8083
_ANYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # the three ways to say "all interfaces"

_POLICY: Final = "connector.client.config.override.policy"
_POLICY_CLASS: Final = re.compile(r"(?:org\.apache\.kafka\.connect\.connector\.policy\.)?(\w+?)ConnectorClientConfigOverridePolicy")

_MEANINGLESS: Final = re.compile(
    # distributed mode
    r"group\.id|(config|offset|status)\.storage\.(topic|replication\.factor|partitions)|session\.timeout\.ms|heartbeat\.interval\.ms"
    r"|rebalance\.timeout\.ms|scheduled\.rebalance\.max\.delay\.ms|connect\.protocol|worker\.(un)?sync\..*|inter\.worker\..*"
    r"|exactly\.once\.source\.support"
    # and what this worker does not do yet
    r"|access\.control\.allow\..*|response\.http\.headers\.config|admin\.listeners|listeners\.https\..*|producer\..*"
)
"""Worker keys that are taken and change nothing here: said once, so that nobody relies on them."""


def _is_converter(value: str | None) -> str | None:
    return None if value is None or find_converter(value) else f"Class {value} could not be found."


def _is_header_converter(value: str | None) -> str | None:
    return None if value in HEADER_CONVERTERS else f"Class {value} could not be found."


def _http_only(value: str | None) -> str | None:
    return None if value is None or value.lower() == "http" else "https listeners are not supported yet; set http"


def _no_tls(listeners: list[str] | None) -> str | None:
    for listener in listeners or []:
        try:
            url = urlsplit(listener)
            _ = url.port
        except ValueError as error:
            return f"{listener} is not a URL: {error}"
        if url.scheme.lower() == "https":
            return "https listeners are not supported yet; listen on http on 127.0.0.1 and put a TLS proxy in front"
        if url.scheme.lower() != "http" or not listener.lower().startswith("http://"):
            return f"{listener} is not a URL of the form http://host:port"
    return None if listeners else "at least one listener is needed, for example http://127.0.0.1:8083"


def _unsafe_to_ignore(why: str) -> Validator:
    return lambda value: f"not supported by this worker yet, and {why} without it; remove the key" if value else None


def _key(name: str, type: Type, default: Any, doc: str, **rest: Any) -> Key:
    return Key(name=name, type=type, default=default, doc=doc, **rest)


WORKER_KEYS: Final = ConfigDef(
    [
        _key("bootstrap.servers", Type.LIST, ["localhost:9092"], "The brokers to begin with."),
        _key("listeners", Type.LIST, [f"http://:{_DEFAULT_PORT}"], "Where the REST API listens.", validator=_no_tls),
        Key(name="key.converter", type=Type.CLASS, doc="How keys are decoded where a connector does not say.", validator=_is_converter),
        Key(name="value.converter", type=Type.CLASS, doc="How values are decoded where a connector does not say.", validator=_is_converter),
        _key(
            "header.converter",
            Type.CLASS,
            SIMPLE_HEADERS,
            "How headers are decoded where a connector does not say.",
            validator=_is_header_converter,
        ),
        _key("rest.advertised.host.name", Type.STRING, None, "The host name this worker is known by."),
        _key("rest.advertised.port", Type.INT, None, "The port this worker is known by."),
        _key("rest.advertised.listener", Type.STRING, None, "Which listener's address is advertised.", validator=_http_only),
        _key(
            _POLICY,
            Type.STRING,
            "All",
            "Which client properties a connector may override.",
            validator=one_of("All", "None", "Principal"),
        ),
        _key("offset.flush.interval.ms", Type.LONG, 60000, "How often offsets are committed.", validator=at_least(0)),
        _key("offset.flush.timeout.ms", Type.LONG, 5000, "How long a commit may take.", validator=at_least(1)),
        _key("task.shutdown.graceful.timeout.ms", Type.LONG, 5000, "How long tasks may take to stop, all together.", validator=at_least(1)),
        _key("topic.tracking.enable", Type.BOOLEAN, True, "Whether the topics a connector reads are tracked."),
        _key("topic.tracking.allow.reset", Type.BOOLEAN, True, "Whether that record may be reset."),
        _key(
            "rest.extension.classes",
            Type.LIST,
            [],
            "Extensions of the REST API.",
            validator=_unsafe_to_ignore("the REST API would be open"),
        ),
        _key(
            "config.providers", Type.LIST, [], "Where ${...} values come from.", validator=_unsafe_to_ignore("values would stay unresolved")
        ),
        _key("config.storage.file", Type.STRING, None, "Where connectors are kept across restarts. Ours; not in Kafka Connect."),
    ]
)


@dataclass(frozen=True, slots=True)
class Listener:
    """Where to listen. An empty host means all interfaces; port 0 lets the system choose."""

    host: str
    port: int

    @property
    def everywhere(self) -> bool:
        """Whether machines other than this one can connect."""
        return self.host in _ANYWHERE

    @property
    def origin(self) -> str:
        """The listener as a URL for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host or "0.0.0.0"
        return f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """All properties as given (``given``), and the declared ones parsed (``values``)."""

    given: Mapping[str, str]
    values: Mapping[str, Any]

    @property
    def listeners(self) -> list[Listener]:
        """The parsed listeners."""
        urls = [urlsplit(url) for url in self.values["listeners"]]
        return [Listener(url.hostname or "", _DEFAULT_PORT if url.port is None else url.port) for url in urls]

    def meaningless(self) -> list[str]:
        """Return the keys that were given and change nothing here."""
        return sorted(name for name in self.given if _MEANINGLESS.fullmatch(name))

    def seconds(self, name: str) -> float:
        """Return a declared ``*.ms`` value in seconds."""
        return float(self.values[name]) / 1000

    def advertised(self, bound: Listener) -> str:
        """Return this worker's id, ``host:port``, given the listener as it was bound."""
        host = self.values["rest.advertised.host.name"] or (local_address() if bound.everywhere else bound.host)
        return f"{host}:{self.values['rest.advertised.port'] or bound.port}"


def load(path: Path | None, environment: Mapping[str, str]) -> WorkerConfig:
    """Read the worker's properties; the environment wins over the file.

    Raises:
        WorkerFileError: there is neither, the file cannot be read, or values are wrong: every one is named.
    """
    from_environment = environment_properties(environment)
    if path is None and not from_environment:
        raise WorkerFileError("no worker properties: name a file, or set CONNECT_BOOTSTRAP_SERVERS and the other CONNECT_* variables")
    given = {**(_read(path) if path else {}), **from_environment}
    try:
        return parse(given)
    except InvalidConfig as error:
        where = str(path) if path else "the environment (CONNECT_*)"
        raise WorkerFileError(f"{where} is not usable:\n" + "\n".join(f"  {reason}" for reason in error.errors)) from error


def parse(given: Mapping[str, str]) -> WorkerConfig:
    """Return the configuration that these properties are; connectors take their own defaults from it.

    Raises:
        InvalidConfig: with everything that is wrong.
    """
    given = {"bootstrap.servers": "localhost:9092", "header.converter": SIMPLE_HEADERS, **given}
    policy = _POLICY_CLASS.fullmatch(given.get(_POLICY, ""))
    if policy:
        given[_POLICY] = policy[1]
    return WorkerConfig(given, WORKER_KEYS.load(given))


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:  # as bytes: Java reads these files as Latin-1
            return dict(javaproperties.load(file))
    except OSError as error:
        raise WorkerFileError(f"cannot read worker properties {path}: {error.strerror}") from error
    except ValueError as error:
        raise WorkerFileError(f"{path} is not a Java properties file: {error}") from error


def environment_properties(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the properties that ``CONNECT_*`` variables stand for.

    As in Confluent's image: the prefix goes, ``___`` is a dash, ``__`` an underscore, ``_`` a dot, all in lower case.

    >>> environment_properties({"CONNECT_BOOTSTRAP_SERVERS": "b:1", "CONNECT_A__B___C": "x"})
    {'bootstrap.servers': 'b:1', 'a_b-c': 'x'}
    """
    return {
        _property_name(name.removeprefix(_ENVIRONMENT_PREFIX)): value
        for name, value in environment.items()
        if name.startswith(_ENVIRONMENT_PREFIX) and not name.startswith(_NOT_WORKER_KEYS)
    }


def _property_name(variable: str) -> str:
    return variable.lower().replace("___", "-").replace("__", "\0").replace("_", ".").replace("\0", "_")


def local_address() -> str:
    """Return the address other machines would see; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737: only the route is looked up
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
