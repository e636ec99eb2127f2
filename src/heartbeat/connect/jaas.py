"""Reads the JAAS lines in which Java clients hold their credentials (Kafka 4.1 ``JaasConfig``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

# The grammar of java.io.StreamTokenizer as Kafka's JaasConfig sets it up: a quoted text ends at the end of the line at the latest.
_TOKEN: Final = re.compile(
    r"[\x00-\x20]+|/\*.*?(?:\*/|\Z)|/[^\n\r]*"
    r'|"(?P<double>(?:\\.|[^"\\\n\r])*)"?'
    r"|'(?P<single>(?:\\.|[^'\\\n\r])*)'?"
    r"|(?P<word>[A-Za-z_$\u00a0-\U0010ffff][A-Za-z0-9_$.\u00a0-\U0010ffff-]*)"
    r"|(?P<symbol>.)",
    re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\([0-3][0-7]{0,2}|[4-7][0-7]?|.)", re.DOTALL)
_ESCAPED: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 8)) if "0" <= match[1] < "8" else _ESCAPED.get(match[1], match[1])


def _tokens(text: str) -> Iterator[tuple[bool, str]]:
    """Yield each token and whether it is a symbol rather than a word or a quoted text."""
    for match in _TOKEN.finditer(text):
        if match.lastgroup in {"double", "single"}:
            yield False, _ESCAPE.sub(_unescaped, match[match.lastgroup])
        elif match.lastgroup:
            yield match.lastgroup == "symbol", match[0]


def parse(text: str) -> tuple[str, dict[str, str]]:
    """Return the login module's class, without its package, and its options.

    Raises:
        ValueError: in Kafka's words where they cannot quote a secret.
    """
    tokens = list(_tokens(text))
    if len(tokens) < 2 or tokens[0][0] or tokens[1][0]:
        raise ValueError("Login module or its control flag not specified in JAAS config")
    if tokens[1][1].upper() not in {"REQUIRED", "REQUISITE", "SUFFICIENT", "OPTIONAL"}:
        raise ValueError("Invalid login module control flag in JAAS config")
    options, place = dict[str, str](), 2
    while place < len(tokens) and tokens[place] != (True, ";"):
        option, *value = tokens[place : place + 3]
        if option[0] or len(value) < 2 or value[0] != (True, "=") or value[1][0]:
            raise ValueError("Value not specified for an option in JAAS config (a value that is no plain word needs double quotes)")
        options[option[1]] = value[1][1]
        place += 3
    if place == len(tokens):
        raise ValueError("JAAS config entry not terminated by semi-colon")
    if place + 1 < len(tokens):
        raise ValueError("JAAS config property contains more than one login module, should be 1 module")
    return tokens[0][1].rpartition(".")[2], options
