"""One Redis command, printed as redis-cli prints it, for machines that have no redis-cli."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from heartbeat.beats.keyspace import Keyspace, Server


def run(server: Server, command: Sequence[str], *, raw: bool) -> tuple[str, bool]:
    """Return the printed reply, and whether it is an error.

    Raises:
        ConnectError: Redis did not answer, or refuses us.
    """
    keyspace = Keyspace(server)
    try:
        reply = keyspace.execute(*command)
    finally:
        keyspace.close()
    return (plain(reply) if raw else pretty(reply)), isinstance(reply, Exception)


def plain(reply: Any) -> str:
    """Return a reply as redis-cli prints it into a pipe."""
    if isinstance(reply, list):
        return "\n".join(plain(item) for item in reply)
    if isinstance(reply, Exception):
        return str(reply)
    return "" if reply is None else _text(reply)


def pretty(reply: Any, indent: str = "") -> str:
    """Return a reply as redis-cli prints it on a terminal."""
    if reply is None:
        return "(nil)"
    if isinstance(reply, Exception):
        return f"(error) {reply}"
    if isinstance(reply, int):
        return f"(integer) {reply}"
    if isinstance(reply, list):
        return _pretty_list(reply, indent)
    text = _text(reply)
    return text if "\n" in text or text in {"OK", "PONG"} else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _pretty_list(items: list[Any], indent: str) -> str:
    if not items:
        return "(empty array)"
    width = len(str(len(items)))
    lines = []
    for number, item in enumerate(items, 1):
        head = f"{number:>{width}}) "
        lines.append((indent if number > 1 else "") + head + pretty(item, indent + " " * len(head)))
    return "\n".join(lines)


def _text(reply: Any) -> str:
    return reply.decode("utf-8", "backslashreplace") if isinstance(reply, bytes) else str(reply)
