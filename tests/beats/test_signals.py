"""What headers say: by a table of good and bad ones, and by properties that hold for any bytes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat.beats.signals import STATUSES, Marks, Order, Signal, read

MOST = 60_000


@pytest.mark.parametrize("headers", [[], [("trace", b"1")], [("HB-TTL", b"5")], [("hb_ttl", b"5"), ("x-hb-ttl", b"5")]])
def test_headers_that_are_not_ours_say_nothing(headers: list[tuple[str, bytes | None]]) -> None:
    assert read(headers, MOST) is None


@pytest.mark.parametrize(
    ("value", "ttl_ms"),
    [
        (b"5", 5_000),
        (b" 5 ", 5_000),
        (b"0.5", 500),
        (b"0.001", 1),
        (b"60", MOST),
        (b"61", MOST),
        (b"999999999", MOST),
        (b"0", None),
        (b"0.000", None),
        (b"-5", None),
        (b"+5", None),
        (b"1e3", None),
        (b"5s", None),
        (b"9999999999", None),
        (b"0.0001", None),
        (b"nan", None),
        (b"inf", None),
        (b"", None),
        (None, None),
        (b"\xff\x00", None),
        ("\u0665".encode(), None),
    ],
)
def test_a_ttl_is_positive_seconds_up_to_the_bound_and_anything_else_is_counted_as_garbled(value: bytes | None, ttl_ms: int | None) -> None:
    assert read([("hb-ttl", value)], MOST) == Marks(ttl_ms=ttl_ms, garbled=int(ttl_ms is None))


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"ok", "ok"),
        (b"start", "start"),
        (b"fail", "fail"),
        (b"bye", "bye"),
        (b" FAIL\n", "fail"),
        (b"failed", None),
        (b"", None),
        (None, None),
    ],
)
def test_a_status_is_one_of_four_words_and_anything_else_is_counted_as_garbled(value: bytes | None, status: str | None) -> None:
    assert read([("hb-status", value)], MOST) == Marks(status=status, garbled=int(status is None))


def test_the_last_of_a_name_counts() -> None:
    assert read([("hb-status", b"fail"), ("hb-ttl", b"x"), ("hb-status", b"ok"), ("hb-ttl", b"5")], MOST) == Marks(5_000, "ok")


def test_run_and_message_are_text_of_bounded_length_without_the_separator() -> None:
    marks = read([("hb-run", b"r\x00\xff" + b"r" * 1_000), ("hb-message", "ü".encode() * 5_000)], MOST)
    assert marks is not None
    assert marks.run == ("r\ufffd\ufffd" + "r" * 1_000)[:200]
    assert marks.message == "ü" * 1_000
    assert marks.garbled == 0


headers = st.lists(st.tuples(st.sampled_from(["hb-ttl", "hb-status", "hb-run", "hb-message", "hb-x", "y"]), st.none() | st.binary()))


@given(headers)
def test_no_header_can_say_more_than_the_bounds_or_break_anything(found: list[tuple[str, bytes | None]]) -> None:
    marks = read(found, MOST)
    if marks is None:
        assert not any(name.startswith("hb-") for name, _ in found)
        return
    assert marks.ttl_ms is None or 0 < marks.ttl_ms <= MOST
    assert marks.status is None or marks.status in STATUSES
    assert "\0" not in marks.run + marks.message
    assert marks.garbled <= 2
    signal = Signal("s", Order(1, "t/0", 2), marks.status or "ok", marks.run, marks.message)
    stored = msgspec.json.decode(signal.packed())
    assert stored == {
        "at_ms": 1,
        "partition": "t/0",
        "offset": 2,
        "status": marks.status or "ok",
        "run": marks.run,
        "message": marks.message,
    }
