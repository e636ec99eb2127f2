"""The names of every Redis key but the public ones: all of the schema at a glance. See docs/keyspace.md for what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

RESERVED: Final = "hb:{"
"""What no source's name begins with: a producer must not be able to write the index."""
CONNECTORS: Final = "hb:connectors"
"""The names of the connectors that have an index here: how a monitor finds them."""
_SHARED: Final = "hb:{}:"
"""Before what belongs to no connector: no connector's name is empty, and no source's begins so."""
MONITORS: Final = _SHARED + "monitors"
"""Which monitors there are, and when each of them last looked."""


class Keys:
    """The keys of one connector's index."""

    __slots__ = ("blind", "deadlines", "down", "expected", "fails", "flips", "gone", "info", "proof", "remembered", "runs", "status")

    def __init__(self, connector: str) -> None:
        prefix = f"hb:{{{connector}}}:"
        self.deadlines = prefix + "deadlines"
        self.down = prefix + "down"
        self.gone = prefix + "gone"
        self.status = prefix + "status"
        self.fails = prefix + "fails"
        self.runs = prefix + "runs"
        self.proof = prefix + "proof"
        self.info = prefix + "info"
        self.expected = prefix + "expected"
        self.blind = prefix + "blind"
        self.flips = prefix + "flips"
        self.remembered = prefix + "remembered"

    @property
    def index(self) -> Sequence[str]:
        """What is rebuilt from Kafka when it is lost, ``proof`` first: it falls when topics or template change, ``down`` by a monitor."""
        return (self.proof, self.deadlines, self.down, self.gone, self.status, self.fails, self.runs, self.info)

    @property
    def all(self) -> Sequence[str]:
        """What goes with the connector."""
        return (*self.index, self.expected, self.blind, self.flips, self.remembered)


def channel(name: str) -> str:
    """Return the key under which a channel keeps who delivers to it, and how far it has got."""
    return f"{_SHARED}channel:{name}"


def deliveries(name: str) -> str:
    """Return the key of a channel's delivery log."""
    return f"{_SHARED}deliveries:{name}"
