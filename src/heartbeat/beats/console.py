"""One Redis command, printed as redis-cli prints it, for machines that have no redis-cli."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from heartbeat.beats.connection import Connection, Server

_ESCAPES: Final = {ord("\\"): "\\\\", ord('"'): '\\"', 7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 13: "\\r"}

# Redis tells "simple" strings, which redis-cli prints without quotes, from others; the client library does not pass that on.
_SIMPLE: Final = {
    "auth", "bgrewriteaof", "bgsave", "discard", "failover", "flushall", "flushdb", "hmset", "lset", "ltrim", "migrate", "mset", "multi",
    "pfmerge", "psetex", "quit", "rename", "replicaof", "reset", "restore", "save", "select", "setex", "shutdown", "slaveof", "swapdb",
    "type", "unwatch", "watch",
}  # fmt: skip
_SIMPLE_OF: Final = {
    "acl": {"load", "save", "setuser"},
    "client": {"no-evict", "no-touch", "pause", "reply", "setinfo", "setname", "unpause"},
    "config": {"resetstat", "rewrite", "set"},
    "function": {"delete", "flush", "kill", "restore"},
    "latency": {"reset"},
    "memory": {"purge"},
    "script": {"flush", "kill"},
    "slowlog": {"reset"},
    "xgroup": {"create", "setid"},
}
# Text for people, which redis-cli prints as it is, without another line's end.
_RAW: Final = {"info", "lolwut"}
_RAW_OF: Final = {
    "client": {"info", "list"},
    "cluster": {"info", "nodes"},
    "latency": {"doctor", "graph"},
    "memory": {"doctor", "malloc-stats"},
}


def run(server: Server, command: Sequence[str], *, raw: bool) -> tuple[bytes, bool]:
    """Return what to print, and whether the reply is an error. ``raw`` is how redis-cli prints into a pipe.

    Raises:
        ConnectError: Redis did not answer, or refuses us.
    """
    connection = Connection(server, suitable=False)  # one that the sink refuses, too: by such a command it is mended
    try:
        reply = connection.execute(*command)
    finally:
        connection.close()
    failed = isinstance(reply, Exception)
    name, *rest = (word.lower() for word in command)
    if _is_for_people(name, rest):
        return plain(reply), failed
    if raw:
        return plain(reply) + b"\n", failed
    if isinstance(reply, bytes) and _is_simple(name, rest):
        return reply + b"\n", failed
    return f"{pretty(reply)}\n".encode(), failed


def _is_for_people(name: str, rest: Sequence[str]) -> bool:
    return name in _RAW or (rest[:1] != [] and rest[0] in _RAW_OF.get(name, ()))


def _is_simple(name: str, rest: Sequence[str]) -> bool:
    if name == "set":
        return "get" not in rest[2:]
    if name == "ping":
        return not rest
    return name in _SIMPLE or (rest[:1] != [] and rest[0] in _SIMPLE_OF.get(name, ()))


def plain(reply: Any) -> bytes:
    """Return a reply as redis-cli prints it into a pipe, without the last line's end."""
    if isinstance(reply, list):
        return b"\n".join(plain(item) for item in reply)
    if isinstance(reply, Exception):
        return f"{_error(reply)}\n".encode()
    if reply is None:
        return b""
    return reply if isinstance(reply, bytes) else str(reply).encode()


def pretty(reply: Any, indent: str = "") -> str:
    """Return a reply as redis-cli prints it on a terminal, without the last line's end."""
    if reply is None:
        return "(nil)"
    if isinstance(reply, Exception):
        return f"(error) {_error(reply)}"
    if isinstance(reply, int):
        return f"(integer) {reply}"
    if isinstance(reply, list):
        return _pretty_list(reply, indent)
    return '"' + "".join(_escaped(byte) for byte in bytes(reply)) + '"'


def _pretty_list(items: list[Any], indent: str) -> str:
    if not items:
        return "(empty array)"
    width = len(str(len(items)))
    lines = []
    for number, item in enumerate(items, 1):
        head = f"{number:>{width}}) "
        lines.append((indent if number > 1 else "") + head + pretty(item, indent + " " * len(head)))
    return "\n".join(lines)


def _escaped(byte: int) -> str:
    return _ESCAPES.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}")


def _error(error: Exception) -> str:
    """Return the server's own words: the library has cut off the first one where it knows it."""
    code = getattr(error, "status_code", None)
    return f"{code} {error}" if code else str(error)
