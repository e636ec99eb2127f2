"""Connector files of the command line: a flat JSON map, the body of a POST, or Java properties, tried in this order as Connect does."""

from __future__ import annotations

from pathlib import Path

import javaproperties
import msgspec

from heartbeat.connect import requests
from heartbeat.connect.requests import CreateRequest
from heartbeat.connect.store import TargetState
from heartbeat.errors import ConnectError, StartError


def read(path: Path) -> CreateRequest:
    """Return the connector a file asks for.

    Raises:
        StartError: the file cannot be read, is none of the three forms, or names no connector.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise StartError(f"cannot read connector file {path}: {error.strerror}") from error
    request = _read_json(path, text) if text.lstrip()[:1] == b"{" else _read_properties(path, text)
    if not request.name:
        raise StartError(f'{path}: a connector file must have a "name"')
    return request


def _read_json(path: Path, text: bytes) -> CreateRequest:
    try:
        fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StartError(f"{path} is not valid JSON: {error}{_position(text, error)}") from error
    try:
        if bytes(fields.get("config", b"")).strip()[:1] == b"{":
            known = {name: raw for name, raw in fields.items() if name in requests.CREATE_FIELDS}
            return requests.create(msgspec.json.encode(known))
        config = requests.config(text)
    except ConnectError as error:
        raise StartError(f"{path}: {error}") from error
    return CreateRequest(config.get("name") or "", config, TargetState.STARTED)


def _position(text: bytes, error: Exception) -> str:
    """Return where the parser stopped as line and column: people edit lines, parsers count bytes."""
    digits = str(error).rpartition("(byte ")[2].rstrip(")")
    if not digits.isdigit():
        return ""
    before = text[: int(digits)]
    return f", line {before.count(10) + 1}, column {len(before) - (before.rfind(10) + 1) + 1}"


def _read_properties(path: Path, text: bytes) -> CreateRequest:
    try:
        config = dict(javaproperties.loads(text.decode("latin-1")))
    except ValueError as error:
        raise StartError(f"{path} is neither JSON nor Java properties: {error}") from error
    return CreateRequest(config.get("name", ""), config, TargetState.STARTED)
