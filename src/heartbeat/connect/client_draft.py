"""The state of one translation of client properties, which its steps share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from heartbeat.config import HIDDEN
from heartbeat.connect.client_names import SECRET_NAME
from heartbeat.errors import ConfigError


@dataclass(slots=True)
class Draft:
    """One client's properties on their way: what was given, what became of it, and everything wrong with it."""

    given: Mapping[str, str]
    properties: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    adjusted: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def fail(self, name: str, reason: str, value: str | None = None) -> None:
        """Add an error that never quotes a secret; ``value`` is shown where none was given."""
        value = self.given.get(name, value)
        shown = HIDDEN if value is not None and SECRET_NAME.search(name) else value
        self.errors.append(str(ConfigError(name, shown, reason)))

    def has(self, *options: str) -> bool:
        """Return whether any of these was given with a value."""
        return any(self.given.get(name) for name in options)
