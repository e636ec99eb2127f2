"""Names and lengths of time as people are shown them. Names come from whoever may write to a topic; a leaf."""

from __future__ import annotations

from typing import Final

# What isprintable() lets pass although nobody sees it: fillers, variation selectors, and marks of scripts without a shape.
_UNSEEN: Final = frozenset(
    map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x2800, 0x3164, 0xFFA0, *range(0xFE00, 0xFE10)))
) | frozenset(map(chr, range(0xE0100, 0xE01F0)))
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def utf8(name: str) -> str:
    r"""Return a name as JSON can hold it: bytes that are no UTF-8 become ``\xNN``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def visible(text: str, most: int | None = None) -> str:
    r"""Return a text in which nothing hides, moves or ends a line: controls, line ends, marks of direction and of no width are spelt out.

    Of more than ``most`` characters an ellipsis is the last.

    >>> visible("pump\n7\u202e")
    'pump\\n7\\u202e'
    """
    if most is not None and len(text) > most:
        text = text[: most - 1] + "…"
    if text.isprintable() and _UNSEEN.isdisjoint(text):
        return text
    return "".join(char if char.isprintable() and char not in _UNSEEN else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    is_byte = "\udc80" <= char <= "\udcff"  # that was no UTF-8
    return f"\\x{ord(char) - 0xDC00:02x}" if is_byte else char.encode("unicode_escape").decode()


def duration(length_ms: int) -> str:
    """Return a length as a table has it, in its two largest units.

    >>> [duration(ms) for ms in (250, 5_000, 61_000, 7_260_000, 93_600_000)]
    ['250ms', '5.0s', '1m1s', '2h1m', '1d2h']
    """
    if length_ms < 1000:
        return f"{length_ms}ms"
    if length_ms < 60_000:
        return f"{length_ms / 1000:.1f}s" if length_ms < 59_950 else "1m0s"
    seconds = length_ms // 1000
    large = next(index for index, (unit, _) in enumerate(_UNITS) if seconds >= unit)
    (first, name), (second, small) = _UNITS[large], _UNITS[large + 1]
    return f"{seconds // first}{name}{seconds % first // second}{small}"
