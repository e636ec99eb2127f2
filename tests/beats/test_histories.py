"""Records of many sources, out of order, from several partitions: each history is told its beats as if they had come in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat.beats import template
from heartbeat.beats.beat import ALLOWED_SKEW_MS
from heartbeat.beats.histories import Histories, Skipped, View
from heartbeat.beats.history import Rule, Summary
from heartbeat.beats.records import Reading
from heartbeat.errors import DataError

RULE = Rule(ttl_ms=60_000, grace_ms=5_000)
NOW = 1_000_000_000
Row = tuple[Any, int, Sequence[tuple[str, bytes | None]], bytes | None]


@dataclass(frozen=True)
class Rows:
    """Records as (key, time, headers, value)."""

    rows: Sequence[Row]

    def __len__(self) -> int:
        return len(self.rows)

    def keys(self) -> list[Any]:
        return [text(row[0]) for row in self.rows]

    def raw_keys(self) -> list[bytes | None]:
        return [row[0] for row in self.rows]

    def values(self) -> list[Any]:
        return [row[3] for row in self.rows]

    def nulls(self) -> list[bool]:
        return [row[3] is None for row in self.rows]

    def topics(self) -> list[str]:
        return ["beats"] * len(self.rows)

    def partitions(self) -> list[int]:
        return [3] * len(self.rows)

    def timestamps_ms(self) -> list[int]:
        return [row[1] for row in self.rows]

    def headers(self) -> list[list[tuple[str, bytes | None]] | None]:
        return [list(row[2]) or None for row in self.rows]


def text(key: bytes | None) -> Any:
    if key == b"broken":
        raise DataError("no such key")
    return None if key is None else key.decode()


def rows(*records: tuple[str | None, float], headers: Sequence[tuple[str, bytes | None]] = (), value: bytes | None = b"v") -> Rows:
    """Records of (key, seconds) that share their headers and value."""
    return Rows([(None if key is None else key.encode(), round(at * 1000), headers, value) for key, at in records])


def histories(key: str = "${key}", *, null_is_bye: bool = False, since_ms: int = 0, **bounds: int) -> Histories:
    view = View(template.parse(key), text, Reading(90_000, tombstones=null_is_bye), since_ms=since_ms, now_ms=NOW)
    return Histories(view, RULE, **bounds)


def finished(many: Histories, until_ms: int = 0) -> dict[str, Summary]:
    return {summary.source: summary for summary in many.finish(until_ms)}


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("${key}", {"a", "b"}),
        ("pump:${key}", {"pump:a", "pump:b"}),
        ("one", {"one"}),
        ("${topic}/${partition}/${key}", {"beats/3/a", "beats/3/b"}),
        ("h:${header.host}", {"h:x"}),
        ("v:${value.id}", {"v:7"}),
    ],
)
def test_sources_are_named_as_the_sink_names_them(key: str, names: set[str]) -> None:
    many = histories(key)
    many.add(rows(("a", 0), ("b", 1), ("a", 2), headers=[("host", b"x")], value=b'{"id": 7}'))
    found = finished(many)
    assert found.keys() == names
    assert sum(summary.beats for summary in found.values()) == 3


def test_records_that_name_no_source_are_counted_by_reason() -> None:
    many = histories()
    many.add(rows((None, 0), ("a", 1), (None, 2), ("broken", 3), ("hb:{x}:deadlines", 4), ("", 5)))
    assert finished(many).keys() == {"a"}
    assert many.skipped.unnamed["the record has no key"] == 2
    assert many.skipped.unnamed["the key does not decode: no such key"] == 1
    assert many.skipped.unnamed.total() == 5


def test_sources_beyond_the_bound_are_counted_and_the_known_go_on() -> None:
    many = histories(most_sources=2)
    many.add(rows(("a", 0), ("b", 0), ("c", 0)))
    many.add(rows(("c", 1), ("d", 1), ("a", 1)))
    found = finished(many)
    assert {name: summary.beats for name, summary in found.items()} == {"a": 2, "b": 1}
    assert many.skipped.beyond == 3


def test_beats_in_any_order_are_sorted_before_they_are_judged() -> None:
    many = histories()
    many.add(rows(("a", 120), ("a", 0), ("a", 60)))
    assert finished(many, until_ms=120_000)["a"].downs == ()


def test_records_without_a_time_from_before_and_from_the_future_are_told_apart() -> None:
    many = histories(since_ms=10_000)
    many.add(Rows([(b"a", -1, (), b"v"), (b"a", 9_999, (), b"v"), (b"a", 10_000, (), b"v"), (b"a", NOW * 5, (), b"v")]))
    (summary,) = finished(many).values()
    assert (many.skipped.timeless, many.skipped.before, many.skipped.future) == (1, 1, 1)
    assert (summary.beats, summary.first_ms, summary.last_ms) == (2, 10_000, NOW + ALLOWED_SKEW_MS)


def down_at(headers: Mapping[str, bytes | None], *, null_is_bye: bool = False, value: bytes | None = b"v") -> tuple[list[int], int]:
    """When a source is down whose only record, at 0, has these headers, and how many headers were not understood."""
    many = histories(null_is_bye=null_is_bye)
    many.add(rows(("a", 0), headers=list(headers.items()), value=value))
    (summary,) = finished(many, until_ms=NOW).values()
    return [down.down_at_ms for down in summary.downs], many.skipped.headers


@pytest.mark.parametrize(
    ("headers", "down", "unclear"),
    [
        ({}, [65_000], 0),
        ({"hb-ttl": b"30"}, [35_000], 0),
        ({"hb-ttl": b"9999"}, [95_000], 0),
        ({"hb-ttl": b"0"}, [65_000], 1),
        ({"hb-ttl": b"-5"}, [65_000], 1),
        ({"hb-ttl": b"\xff"}, [65_000], 1),
        ({"hb-ttl": None}, [65_000], 1),
        ({"hb-ttl": b"9" * 5000}, [65_000], 1),
        ({"hb-status": b"ok"}, [65_000], 0),
        ({"hb-status": b"fail", "hb-ttl": b"20"}, [25_000], 0),
        ({"hb-status": b"bye"}, [], 0),
        ({"hb-status": b"bye", "hb-ttl": b"20"}, [], 0),
        ({"hb-status": b"asleep"}, [65_000], 1),
        ({"hb-status": None}, [65_000], 1),
        ({"hb-run": b"\xff", "other": None}, [65_000], 0),
    ],
)
def test_headers_mean_what_they_mean_to_the_sink_and_garbage_has_no_effect(
    headers: dict[str, bytes | None], down: list[int], unclear: int
) -> None:
    assert down_at(headers) == (down, unclear)


def test_a_null_value_is_a_goodbye_where_that_is_configured() -> None:
    assert down_at({}, value=None) == ([65_000], 0)
    assert down_at({}, value=None, null_is_bye=True) == ([], 0)
    assert down_at({"hb-ttl": b"20"}, value=None, null_is_bye=True) == ([], 0)
    assert down_at({"hb-ttl": b"20"}, value=b"", null_is_bye=True) == ([25_000], 0)


def test_marks_of_records_that_are_left_out_have_no_effect() -> None:
    many = histories(since_ms=10_000)
    many.add(rows(("a", 9), ("a", 10), headers=[("hb-ttl", b"20")]))
    many.add(rows(("b", 9), headers=[("hb-status", b"bye")]))
    found = finished(many, until_ms=NOW)
    assert [down.down_at_ms for down in found["a"].downs] == [35_000]
    assert "b" not in found


def test_waiting_beats_are_bounded_also_where_a_partition_never_gets_on() -> None:
    many = histories(most_waiting=100)
    for number in range(100):
        many.add(rows(*[("a", number * 20 + step) for step in range(20)]))
        if many.full:
            many.settle(0)
        assert many.waiting <= 520
    assert finished(many)["a"].beats == 2000


LOGS = st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2_000)), max_size=60), min_size=1, max_size=4)


@given(LOGS, st.data())
def test_partitions_may_come_interleaved_in_any_way(logs: list[list[tuple[str, int]]], data: st.DataObject) -> None:
    """A source beats in all of them; each is in order; what waits is settled as soon as possible."""
    partitions = [sorted(log, key=lambda record: record[1]) for log in logs]
    many, straight = histories(most_waiting=8), histories()
    straight.add(rows(*sorted((record for log in partitions for record in log), key=lambda record: record[1])))
    reached = [0] * len(partitions)
    while any(partitions):
        number = data.draw(st.sampled_from([number for number, log in enumerate(partitions) if log]))
        size = data.draw(st.integers(1, 10))
        portion, partitions[number] = partitions[number][:size], partitions[number][size:]
        many.add(rows(*portion))
        reached[number] = portion[-1][1] * 1000
        unfinished = [at for at, log in zip(reached, partitions, strict=True) if log]
        # Above the bound all is settled, in order or not: that is another test.
        if unfinished and many.waiting <= 32:
            many.settle(min(unfinished))
    assert finished(many, 3_000_000) == finished(straight, 3_000_000)


@pytest.mark.parametrize("key", ["${key}", "all", "${header.name}"])
@pytest.mark.parametrize("null_is_bye", [False, True])
def test_canaries_are_nobodys_beats(key: str, null_is_bye: bool) -> None:
    many = histories(key, null_is_bye=null_is_bye, since_ms=500)
    beat = (b"a", 1_000, (("name", b"a"),), b"v")
    strays = [(None, 2_000, (("hb-canary", b"2000"),), None), (None, 5, (("hb-canary", b"x"), ("hb-ttl", b"x")), None)]
    many.add(Rows([*strays, beat, (b"a", NOW + 10**9, (("hb-canary", b"1"), ("hb-status", b"bye")), b"v")]))
    many.add(Rows(strays))
    (one,) = finished(many, 3_000).values()
    assert (one.beats, one.byes) == (1, 0)
    assert many.skipped == Skipped(canaries=5)
