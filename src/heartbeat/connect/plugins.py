"""Sink plugins, found by entry point and named as a connector config names them: by class, by alias, by a Java class name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points

from heartbeat.connect.api import SinkTask
from heartbeat.errors import BadRequest

ENTRY_POINTS = "heartbeat.connect.sinks"


@dataclass(frozen=True, slots=True)
class Plugin:
    """A sink class under the name that is reported for it."""

    name: str
    task: type[SinkTask]

    @property
    def names(self) -> frozenset[str]:
        """Every name ``connector.class`` may use."""
        simple = self.name.rpartition(".")[2]
        return frozenset({self.name, simple, *self.task.ALIASES})


class Plugins:
    """The sinks this worker can run."""

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self._plugins = sorted(plugins, key=lambda plugin: plugin.name)

    @classmethod
    def discover(cls) -> Plugins:
        """Load what installed distributions offer."""
        return cls(Plugin(entry.name, entry.load()) for entry in entry_points(group=ENTRY_POINTS))

    def __iter__(self) -> Iterator[Plugin]:
        return iter(self._plugins)

    def find(self, name: str) -> Plugin | None:
        """Return the plugin of this name, or None."""
        return next((plugin for plugin in self._plugins if name in plugin.names), None)

    def get(self, name: str) -> Plugin:
        """Return the plugin of this name.

        Raises:
            BadRequest: there is none; the message lists what there is, in Connect's words.
        """
        found = self.find(name)
        if found is None:
            available = ", ".join(
                f"PluginDesc{{klass=class {plugin.name}, name='{plugin.name}', version='{plugin.task.VERSION}', "
                f"encodedVersion={plugin.task.VERSION}, type=sink, typeName='sink', location='entry point'}}"
                for plugin in self
            )
            raise BadRequest(
                f"Failed to find any class that implements Connector and which name matches {name}, available connectors are: {available}"
            )
        return found
