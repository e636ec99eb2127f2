"""Ids of a stream's entries (``1795366686485-0``), so that they can be compared."""

from __future__ import annotations


def order(stream_id: str) -> tuple[int, int]:
    """Return an id's place: milliseconds and number. None at all comes before every other.

    >>> order("") < order("9-1") < order("10-0")
    True
    """
    milliseconds, _, number = stream_id.partition("-")
    return (int(milliseconds), int(number or 0)) if milliseconds.isdigit() else (0, 0)
