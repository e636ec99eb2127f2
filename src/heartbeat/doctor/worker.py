"""What a worker says over its REST API: its version, its connectors, their configs and states. The one place that speaks HTTP here."""

from __future__ import annotations

import base64
import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from heartbeat import logs
from heartbeat.errors import ConnectError, UsageError
from heartbeat.replies import body_of

_TIMEOUT_S: Final = 4.0
"""A worker that has lost its brokers takes three seconds for ``GET /``."""
_MOST_BYTES: Final = 16 << 20
_PORTS: Final = {"http": 80, "https": 443}


class TaskState(msgspec.Struct, frozen=True):
    """A task, in Connect's words."""

    id: int
    state: str
    trace: str = ""


class ConnectorState(msgspec.Struct, frozen=True):
    """A connector, in Connect's words."""

    state: str
    trace: str = ""


class _Status(msgspec.Struct, frozen=True):
    connector: ConnectorState
    tasks: list[TaskState] = []


class _Info(msgspec.Struct, frozen=True):
    config: dict[str, str | None]


class _Expanded(msgspec.Struct, frozen=True):
    status: _Status
    info: _Info


class _ServerInfo(msgspec.Struct, frozen=True):
    version: str = "?"
    commit: str = "?"
    kafka_cluster_id: str | None = None


@dataclass(frozen=True, slots=True)
class Connector:
    """One connector as the worker has it."""

    name: str
    state: str
    trace: str
    tasks: tuple[TaskState, ...]
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that answered. ``version`` is Connect's, ``commit`` in our own worker ours; both None if it did not say in time."""

    version: str | None
    commit: str | None
    cluster_id: str | None
    connectors: Mapping[str, Connector]


def address(url: str) -> SplitResult:
    """Return the parts of a worker's URL; a password in it becomes a secret.

    Raises:
        UsageError: it is none.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname or (parts.port is not None and not parts.port):
            raise ValueError("no address")
    except ValueError as error:
        raise UsageError("--rest: a URL such as http://127.0.0.1:8083 is needed") from error
    logs.secrets.add(form for secret in (parts.password,) if secret for form in (secret, unquote(secret)))
    return parts


def look(url: str) -> Worker:
    """Ask a worker.

    Raises:
        ConnectError: it does not answer, or not as Kafka Connect does.
    """
    parts = address(url)
    expanded = _get(parts, "/connectors?expand=status&expand=info", dict[str, _Expanded])
    try:
        info = _get(parts, "/", _ServerInfo)
    except ConnectError:
        info = None
    return Worker(
        info and info.version,
        info and info.commit,
        info and info.kafka_cluster_id,
        {name: _connector(name, one) for name, one in sorted(expanded.items())},
    )


def _connector(name: str, one: _Expanded) -> Connector:
    config = {key: text for key, text in one.info.config.items() if text is not None}
    return Connector(name, one.status.connector.state, one.status.connector.trace, tuple(one.status.tasks), {**config, "name": name})


def _get(parts: SplitResult, path: str, kind: Any) -> Any:
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    connection = kinds[parts.scheme](parts.hostname or "", parts.port or _PORTS[parts.scheme], timeout=_TIMEOUT_S)
    headers = {"Accept": "application/json"}
    if parts.username:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
    try:
        connection.request("GET", parts.path.rstrip("/") + path, headers=headers)
        reply = connection.getresponse()
        body = body_of(reply, _TIMEOUT_S, _MOST_BYTES)
        if reply.status != 200:
            raise ConnectError(f"it answers {reply.status} {reply.reason}")
        return msgspec.json.decode(body, type=kind)
    except TimeoutError as error:
        raise ConnectError(f"no answer in {_TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise ConnectError(error.strerror or str(error)) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, http.client.HTTPException) as error:
        raise ConnectError(f"it does not answer as Kafka Connect does: {error}") from error
    finally:
        connection.close()
