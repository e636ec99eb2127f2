"""Names from whoever may write to a topic, shown so that they harm nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat.display import utf8, visible

NAMES = st.text(st.characters(codec="utf-8"), max_size=300) | st.binary(max_size=300).map(
    lambda name: name.decode("utf-8", "surrogateescape")
)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("pump:7/a b", "pump:7/a b"),
        ("Pumpe-Süd 泵 🚰", "Pumpe-Süd 泵 🚰"),
        ("a\nb\r\t\0", "a\\nb\\r\\t\\x00"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("abc\u202egpj", "abc\\u202egpj"),
        ("a\u200b\u200d\ufeff\u2066b", "a\\u200b\\u200d\\ufeff\\u2066b"),
        ("\u2028\u2029\x85\xa0", "\\u2028\\u2029\\x85\\xa0"),
        ("a\ufe0f\u3164\u2800\U000e0101", "a\\ufe0f\\u3164\\u2800\\U000e0101"),
        (b"\xff\x80".decode("utf-8", "surrogateescape"), "\\xff\\x80"),
        ("<script>", "<script>"),
    ],
)
def test_what_would_hide_move_or_end_a_line_is_shown(name: str, shown: str) -> None:
    assert visible(name) == shown


def test_a_long_name_is_cut_where_that_is_wanted() -> None:
    assert visible("x" * 200, 120) == "x" * 119 + "…"
    assert visible("x" * 120, 120) == visible("x" * 120) == "x" * 120


@given(NAMES)
def test_whatever_a_name_holds_it_stays_in_its_line_and_can_be_encoded(name: str) -> None:
    assert visible(name).isprintable()
    utf8(name).encode()


def test_bytes_that_are_no_utf8_are_spelt_out_and_the_rest_stays() -> None:
    assert utf8(b"a\n\xff".decode("utf-8", "surrogateescape")) == "a\n\\xff"
