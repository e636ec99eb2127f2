"""``redis.key`` templates: from a record to the name of its source, which is its Redis key. Pure.

``${topic}``, ``${key}``, ``${partition}``, ``${header.NAME}``, ``${value.a.b[0]}`` (JSON), any number of them, literal text between.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from heartbeat.beats.keys import CONNECTORS, RESERVED

KNOWN: Final = ("${topic}", "${key}", "${partition}", "${header.NAME}", "${value.a.b[0]}")
LONGEST_NAME: Final = 4096
"""Bytes. Redis allows half a gigabyte, but a name is shown to people and kept in memory for every source."""

_PLACEHOLDER: Final = re.compile(r"\$\{([^}]*)\}")
_VALUE_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


class Unfillable(ValueError):
    """A record has not what its template needs, or the name that comes out may not be used."""


class Columns(Protocol):
    """The columns of a batch that a template may ask for."""

    def __len__(self) -> int: ...
    def keys(self) -> list[Any]: ...
    def values(self) -> list[Any]: ...
    def topics(self) -> list[str]: ...
    def partitions(self) -> list[int]: ...
    def headers(self) -> list[list[tuple[str, bytes | None]] | None]: ...


Name = str | Unfillable
_Fill = Callable[[Columns], Sequence[Any]]
"""Gives one value per record: text, or an Unfillable."""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template; ``constant`` is set if it names one source only."""

    text: str
    parts: tuple[str | _Fill, ...]

    @property
    def constant(self) -> str | None:
        """The one source's name, if no record can change it."""
        return self.text if all(isinstance(part, str) for part in self.parts) else None

    @property
    def unprefixed(self) -> bool:
        """Whether producers choose whole Redis keys: no literal text stands first."""
        return not isinstance(self.parts[0], str)

    def names(self, batch: Columns) -> list[Name]:
        """Return the source of each record, or why it has none. A name that is new is to be checked (``fault``) before it is used."""
        columns = [[part] * len(batch) if isinstance(part, str) else part(batch) for part in self.parts]
        if len(columns) == 1:
            return list(columns[0])
        if len(columns) == 2 and isinstance(prefix := self.parts[0], str):
            return [prefix + text if text.__class__ is str else text for text in columns[1]]
        return [_joined(values) for values in zip(*columns, strict=True)]


def parse(text: str) -> Template:
    """Parse a template.

    Raises:
        ValueError: it names an unknown placeholder, or could write where the index lives; the reason lists what is known.
    """
    parts: list[str | _Fill] = []
    end = 0
    for found in _PLACEHOLDER.finditer(text):
        if found.start() > end:
            parts.append(text[end : found.start()])
        parts.append(_placeholder(found[0], found[1]))
        end = found.end()
    if end < len(text):
        parts.append(text[end:])
    if any(isinstance(part, str) and "${" in part for part in parts):
        raise ValueError(f"a ${{ is not closed; known placeholders are {', '.join(KNOWN)}")
    if text.startswith(RESERVED):
        raise ValueError(f"names starting with {RESERVED} are the index's own")
    if text == CONNECTORS:
        raise ValueError(f"{CONNECTORS} is the index's own")
    return Template(text, tuple(parts))


def _placeholder(whole: str, inner: str) -> _Fill:
    kind, _, rest = inner.partition(".")
    if inner in _SIMPLE:
        return _SIMPLE[inner]
    if kind == "header" and rest:
        return lambda batch: [_header(rest, headers or ()) for headers in batch.headers()]
    if re.match(r"value[.\[]", inner):
        path = _path(inner.removeprefix("value"))
        if path:
            return lambda batch: [_value(path, value) for value in batch.values()]
    raise ValueError(f"unknown placeholder {whole}; known are {', '.join(KNOWN)}")


def _path(text: str) -> tuple[str | int, ...]:
    steps = list(_VALUE_STEP.finditer(text))
    if "".join(step[0] for step in steps) != text:
        return ()
    return tuple(int(step[2]) if step[1] is None else step[1] for step in steps)


def _keys(batch: Columns) -> Sequence[Any]:
    keys = batch.keys()
    if set(map(type, keys)) == {str}:
        return keys
    return [key if isinstance(key, str) else Unfillable("the record has no key") if key is None else _text(key) for key in keys]


_SIMPLE: Final[dict[str, _Fill]] = {
    "topic": lambda batch: batch.topics(),
    "key": _keys,
    "partition": lambda batch: list(map(str, batch.partitions())),
}


def _header(name: str, headers: Iterable[tuple[str, bytes | None]]) -> Name:
    for known, value in reversed(list(headers)):  # the last one of a name counts, as in Kafka's Headers.lastHeader
        if known == name:
            return Unfillable(f"header {name} is null") if value is None else _text(value)
    return Unfillable(f"the record has no header {name}")


def _value(path: tuple[str | int, ...], value: Any) -> Name:
    if isinstance(value, (str, bytes)):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Unfillable("the value is not JSON")
    for step in path:
        try:
            value = value[step]
        except (LookupError, TypeError):
            return Unfillable(f"the value has nothing at {step!r}")
    return _text(value)


def _text(value: Any) -> Name:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")  # reversible: two binary keys stay two sources
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    return Unfillable("null cannot be part of a name" if value is None else f"{type(value).__name__} cannot be part of a name")


def _joined(values: Sequence[Any]) -> Name:
    try:
        return "".join(values)
    except TypeError:
        return next(value for value in values if isinstance(value, Unfillable))


def faults(names: Iterable[Any]) -> dict[Any, Unfillable]:
    """Return why some of these names may not be used."""
    # What cannot be wrong is let through at once: names are many, and wrong ones few.
    suspects = list(names)
    texts = set(map(type, suspects)) == {str} and "" not in suspects and max(map(len, suspects)) <= LONGEST_NAME // 4
    if texts and RESERVED not in (joined := "\n".join(suspects)) and CONNECTORS not in joined:
        return {}
    return {name: why for name in suspects if (why := fault(name)) is not None}


def fault(name: Name) -> Unfillable | None:
    """Return why a name may not be used, if so. Apart from ``names``, because a name needs to be checked but once."""
    if isinstance(name, Unfillable):
        return name
    if not name:
        return Unfillable("the name is empty")
    if name.startswith(RESERVED):
        return Unfillable(f"names starting with {RESERVED} are the index's own")
    if name == CONNECTORS:
        return Unfillable(f"{CONNECTORS} is the index's own")
    if len(name) > LONGEST_NAME // 4 and len(name.encode("utf-8", "surrogateescape")) > LONGEST_NAME:
        return Unfillable(f"the name is longer than {LONGEST_NAME} bytes")
    return None
