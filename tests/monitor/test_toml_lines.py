"""Every table, key and element of a TOML file has a line, whatever else looks like one."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat.monitor.toml_lines import Document, Place, lines

TRICKY = '''
title = "a # no comment"            # [no.table]
text = """
fake = 1
[fake]
""\\"""" # text ends with a quote
raw = \'\'\'
"fake" = \'\'fake\'\'\'\'\'
escaped = "\\"] fake = 1 # \\\\"
when = 1979-05-27 07:32:00
list = [ # fake = 1
  "]", \'[\', # ]
  [1, 2,],
  1979-05-27 07:32:00, { in = "line", "dotted".here = [{ deep = 1 }] },
]
"quoted key" . plain.\'x.y\' = { }
"\\u0061\\"=" = 1
empty = []

[a . "b.c"] # ]
d.e = 1
d.f = 2

[[rule]]
match = "x"
  [rule.more]
  inner = 1
  [[rule.sub]]
  n = 1
  [[rule.sub]]
  n = 2
[[rule]]
match = """y"""
  [[rule.sub]]
  n = 3
'''


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, member in steps:
        yield (*place, step)
        yield from places(member, (*place, step))


def assert_every_place_has_its_line(text: str) -> None:
    found, rows = lines(text), text.split("\n")
    named = list(places(tomllib.loads(text)))
    assert set(found) == set(named)
    for place in named:
        if isinstance(place[-1], str):
            row = rows[found[place] - 1].replace("\\u0061", "a")
            assert place[-1] in row or json.dumps(place[-1], ensure_ascii=False)[1:-1] in row


def test_every_place_of_a_tricky_file_has_its_line() -> None:
    assert_every_place_has_its_line(TRICKY)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (("title",), "title ="),
        (("raw",), "raw ="),
        (("escaped",), "escaped ="),
        (("list", 0), '"]"'),
        (("list", 2), "[1, 2,]"),
        (("list", 4, "dotted", "here", 0, "deep"), "{ in ="),
        (("quoted key", "plain", "x.y"), '"quoted key"'),
        (("a", "b.c"), "[a ."),
        (("a", "b.c", "d", "f"), "d.f = 2"),
        (("rule", 0), "[[rule]]"),
        (("rule", 0, "more", "inner"), "inner = 1"),
        (("rule", 0, "sub", 1, "n"), "n = 2"),
        (("rule", 1, "match"), '"""y"""'),
        (("rule", 1, "sub", 0, "n"), "n = 3"),
    ],
)
def test_a_place_stands_where_a_person_would_look(place: Place, words: str) -> None:
    assert words in TRICKY.split("\n")[lines(TRICKY)[place] - 1]


KEYS = st.one_of(
    st.sampled_from(["a", "b-c", "_1", "7"]), st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=4)
)
SPACE = st.sampled_from(["", " ", "\t "])
GAP = st.sampled_from(["", " ", "\n", "\n # a = 1, [x] \"'\n"])
TEXTS = st.sampled_from(
    ['""', '"a = 1 # ]}"', '"\\"\\\\"', "'\\'", '"""\na = 1\n[a]\n"""', '"""\\"""\\\\"""', '""""q"""""', "''''q'\n#'''''", '"""a\\\n  b"""']
)
SCALARS = st.sampled_from(["1", "-1.5e3", "true", "inf", "0xff", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00.5", "07:32:00"])


@st.composite
def written_keys(draw: st.DrawFn) -> str:
    """A key in one of the three ways to write it."""
    key = draw(KEYS)
    bare = key.isascii() and bool(key) and all(letter.isalnum() or letter in "-_" for letter in key)
    ways = [json.dumps(key, ensure_ascii=False), *([f"'{key}'"] if "'" not in key else []), *([key] if bare else [])]
    return draw(st.sampled_from(ways))


@st.composite
def dotted(draw: st.DrawFn) -> str:
    return f"{draw(SPACE)}.{draw(SPACE)}".join(draw(st.lists(written_keys(), min_size=1, max_size=3)))


def arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda inner, gap, comma: "[" + gap + f"{gap},{gap}".join(inner) + (comma + gap if inner else gap) + "]",
        st.lists(values, max_size=3),
        GAP,
        st.sampled_from(["", ","]),
    )


def inline_tables(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.builds(lambda key, space, value: f"{key}{space}={space}{value}", dotted(), SPACE, values)
    return st.builds(lambda pairs, space: "{" + space + f"{space},{space}".join(pairs) + space + "}", st.lists(pair, max_size=3), SPACE)


VALUES = st.recursive(TEXTS | SCALARS, lambda inner: arrays(inner) | inline_tables(inner), max_leaves=6)


@st.composite
def statements(draw: st.DrawFn) -> str:
    key, space, kind = draw(dotted()), draw(SPACE), draw(st.sampled_from("pppth#"))
    comment = draw(st.sampled_from(["", " # [a] a = 1"]))
    match kind:
        case "p":
            return f"{space}{key}{space}={space}{draw(VALUES)}{comment}"
        case "t":
            return f"{space}[{space}{key}{space}]{comment}"
        case "h":
            return f"{space}[[{space}{key}{space}]]{comment}"
    return comment


@given(st.lists(statements(), max_size=12))
def test_every_place_that_tomllib_finds_has_its_line(given_statements: list[str]) -> None:
    """Statements that clash with earlier ones are left out, so that what remains is TOML."""
    text = ""
    for statement in given_statements:
        try:
            tomllib.loads(longer := f"{text}{statement}\n")
        except tomllib.TOMLDecodeError:
            continue
        text = longer
    assert_every_place_has_its_line(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"a = 1\nb = \n", ", line 2, column 5: "),
        (b"a = 1\r\nb = [1,\r\n", ", line 3, column 1: "),
        (b"a = 1\na = 2", ", line 2, column 6: "),
        (b"a = 1\nb = '\xff'", ", line 2: not UTF-8"),
        (b"a = " + b"[" * 100_000, ": nested too deeply"),
        (b"a = " + b"9" * 5000, ": "),
    ],
)
def test_what_is_no_toml_is_told_with_its_position(tmp_path: Path, text: bytes, expected: str) -> None:
    path = tmp_path / "f.toml"
    path.write_bytes(text)
    (error,) = Document(path, {}).errors
    assert error.startswith(f"{path}{expected}")
