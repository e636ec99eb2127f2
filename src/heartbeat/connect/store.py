"""Desired state: what connectors there are, how they are configured, and whether an operator wants them to run.

One record per connector. Readers take ``records`` (replaced, never changed); the herder's one writer calls the rest.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import msgspec

from heartbeat.errors import StartError


class TargetState(Enum):
    """What an operator wants of a connector."""

    STARTED = "STARTED"
    PAUSED = "PAUSED"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True)
class ConnectorRecord:
    """A connector as it was asked for; ``config`` is what was posted, word for word.

    ``task_configs`` is the published task set: made when the connector starts, kept while it is paused, emptied by a stop.
    """

    name: str
    config: Mapping[str, str]
    target: TargetState = TargetState.STARTED
    task_configs: tuple[Mapping[str, str], ...] = ()


class Store:
    """Keeps records in memory: they last as long as the process, as in Connect's standalone mode."""

    def __init__(self) -> None:
        self.records: Mapping[str, ConnectorRecord] = {}

    def put(self, record: ConnectorRecord) -> None:
        """Add or replace a record."""
        self._replace({**self.records, record.name: record})

    def delete(self, name: str) -> None:
        """Remove a record."""
        self._replace({known: record for known, record in self.records.items() if known != name})

    def _replace(self, records: Mapping[str, ConnectorRecord]) -> None:
        self.records = records


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    config: dict[str, str]
    target_state: TargetState = TargetState.STARTED
    task_configs: tuple[dict[str, str], ...] = ()


class _File(msgspec.Struct, forbid_unknown_fields=True):
    connectors: dict[str, _Stored] = {}


class FileStore(Store):
    """Keeps records in one JSON file as well, replaced as a whole: a crash leaves the old file or the new one."""

    def __init__(self, path: Path) -> None:
        """Read the file; a missing one is an empty one.

        Raises:
            StartError: the file is there and cannot be used; it is left as it is.
        """
        super().__init__()
        self._path = path
        try:
            stored = msgspec.json.decode(path.read_bytes(), type=_File)
        except FileNotFoundError:
            stored = _File()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StartError(
                f"config.storage.file={path} cannot be used: {error}. Mend it, or move it away to begin without it."
            ) from error
        self._check_writable()
        self.records = {
            name: ConnectorRecord(name, kept.config, kept.target_state, kept.task_configs) for name, kept in stored.connectors.items()
        }

    def _check_writable(self) -> None:
        if not os.access(self._path.parent, os.W_OK):
            raise StartError(f"config.storage.file={self._path} cannot be written: {self._path.parent} is missing or not writable")

    def _replace(self, records: Mapping[str, ConnectorRecord]) -> None:
        stored = _File(
            {name: _Stored(dict(record.config), record.target, tuple(map(dict, record.task_configs))) for name, record in records.items()}
        )
        fresh = self._path.with_name(self._path.name + ".new")
        # Configurations hold passwords: nobody but the owner may read them.
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # a file that a crash or a person left here keeps its mode when it is opened
            file.write(msgspec.json.format(msgspec.json.encode(stored), indent=2))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        super()._replace(records)
