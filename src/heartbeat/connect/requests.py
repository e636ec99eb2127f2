"""Request bodies, read as Connect reads them.

Scalars of a config keep their source text; a fault of form is a 500 with the parser's reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from heartbeat.connect.store import TargetState
from heartbeat.errors import ConnectError

_INITIAL = {"RUNNING": TargetState.STARTED, "PAUSED": TargetState.PAUSED, "STOPPED": TargetState.STOPPED}
CREATE_FIELDS: Final = ("name", "config", "initial_state")

Config = Mapping[str, str | None]
"""A config as a client sends it: null values are possible, and wrong."""


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A connector to be created."""

    name: str
    config: Config
    target: TargetState


def create(body: bytes) -> CreateRequest:
    """Read ``{"name":..,"config":{..}[,"initial_state":..]}``.

    Raises:
        ConnectError: the body is not that.
    """
    fields = _decode(body, dict[str, msgspec.Raw], "the name and config of a connector")
    for field in fields:
        if field not in CREATE_FIELDS:
            raise ConnectError(f'Unrecognized field "{field}" (class CreateConnectorRequest), not marked as ignorable')
    if bytes(fields.get("config", b"null")).strip() == b"null":
        raise ConnectError('The request has no "config"')
    initial = _scalar(fields["initial_state"]) if "initial_state" in fields else None
    if initial is not None and initial.upper() not in _INITIAL:
        raise ConnectError(f"No enum constant InitialState.{initial.upper()}; initial_state is one of: {', '.join(_INITIAL)}")
    config_ = config(bytes(fields["config"]))
    name = _scalar(fields["name"]) if "name" in fields else None
    return CreateRequest((name or "").strip(), config_, _INITIAL[(initial or "RUNNING").upper()])


def config(body: bytes) -> dict[str, str | None]:
    """Read a config map.

    Raises:
        ConnectError: the body is not a map of scalars.
    """
    return {key: _scalar(value) for key, value in _decode(body, dict[str, msgspec.Raw], "a map of configuration keys").items()}


def offsets(body: bytes) -> list[dict[str, Any]] | None:
    """Read ``{"offsets": [...]}``; None if there are none.

    Raises:
        ConnectError: the body is not that.
    """
    fields = _decode(body, dict[str, msgspec.Raw], "offsets")
    for field in fields:
        if field != "offsets":
            raise ConnectError(f'Unrecognized field "{field}" (class ConnectorOffsets), not marked as ignorable')
    if bytes(fields.get("offsets", b"null")).strip() == b"null":
        return None
    entries = _decode(bytes(fields["offsets"]), list[dict[str, dict[str, Any] | None]], "a list of offsets")
    return entries or None


def _decode(body: bytes, shape: Any, what: str) -> Any:
    if not body.strip() or body.strip() == b"null":
        raise ConnectError(f"The request has no body; it must hold {what} as JSON")
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise ConnectError(f"Cannot deserialize value of type `{what}`: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConnectError(str(error)) from error


def _scalar(raw: msgspec.Raw) -> str | None:
    """Return a JSON scalar as text: strings decoded, numbers and booleans as they were written, null as None."""
    text = bytes(raw).strip()
    if text == b"null":
        return None
    if text[:1] in (b"{", b"["):
        raise ConnectError(f"Cannot deserialize value of type `java.lang.String` from {'Object' if text[:1] == b'{' else 'Array'} value")
    if text[:1] == b'"':
        decoded: str = _decode(text, str, "text")  # checked only now: Raw lets bad UTF-8 pass
        return decoded
    return text.decode()
