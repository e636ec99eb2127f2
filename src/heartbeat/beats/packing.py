"""Commands for thousands of sources, packed by hand as text and encoded once: redis-py's pipeline costs twenty times as much per key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

Pairs = Sequence[tuple[str, int]]
"""Sources, each with the ms of its beat."""

_SHORTEST_13: Final = 10**12
_LONGEST_13: Final = 10**13 - 1


def encoded(text: str) -> bytes:
    """Return the bytes of a name, as templates made names of binary keys."""
    return text.encode("utf-8", "surrogateescape")


def words(texts: Sequence[str]) -> list[str]:
    """Return each text as the protocol has it."""
    if "".join(texts).isascii():
        return [f"${len(text)}\r\n{text}\r\n" for text in texts]
    return [f"${len(encoded(text))}\r\n{text}\r\n" for text in texts]


def beats(index: str, pairs: Pairs, ttl_ms: int, ttls_ms: Mapping[str, int], *, refusing: bool | None) -> bytes:
    """Return one ZADD GT CH of all deadlines to ``index``, then a SET for each source.

    ``refusing``: SET refuses to overwrite another type of value (GET makes it so); None: no SETs.
    """
    names = words([source for source, _ in pairs])
    deadlines = [beat + ttl_ms for _, beat in pairs] if not ttls_ms else [at + ttls_ms.get(source, ttl_ms) for source, at in pairs]
    until = _numbers(deadlines)
    members = "".join([score + name for score, name in zip(until, names, strict=True)])
    add = f"*{4 + 2 * len(pairs)}\r\n$4\r\nZADD\r\n{words([index])[0]}$2\r\nGT\r\n$2\r\nCH\r\n{members}"
    if refusing is None:
        return encoded(add)
    at = _numbers([beat for _, beat in pairs])
    rows = zip(names, at, until, strict=True)
    if refusing:
        sets = [f"*6\r\n$3\r\nSET\r\n{name}{beat}$4\r\nPXAT\r\n{end}$3\r\nGET\r\n" for name, beat, end in rows]
    else:
        sets = [f"*5\r\n$3\r\nSET\r\n{name}{beat}$4\r\nPXAT\r\n{end}" for name, beat, end in rows]
    return encoded(add + "".join(sets))


def command(name: str, key: str, arguments: Iterable[Sequence[str]]) -> bytes:
    """Return a command with as many arguments as there are in rows."""
    packed = words([name, key, *(word for row in arguments for word in row)])
    return encoded(f"*{len(packed)}\r\n{''.join(packed)}")


def _numbers(numbers: Sequence[int]) -> list[str]:
    if numbers and min(numbers) >= _SHORTEST_13 and max(numbers) <= _LONGEST_13:  # ms of our time
        return [f"$13\r\n{number}\r\n" for number in numbers]
    return [f"${len(str(number))}\r\n{number}\r\n" for number in numbers]
