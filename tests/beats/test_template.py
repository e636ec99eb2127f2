from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat.beats.template import KNOWN, LONGEST_NAME, Unfillable, fault, faults, parse


@dataclass
class Batch:
    """One record, as columns."""

    key: Any = None
    value: Any = None
    header: list[tuple[str, bytes | None]] = field(default_factory=list)

    def __len__(self) -> int:
        return 1

    def keys(self) -> list[Any]:
        return [self.key]

    def values(self) -> list[Any]:
        return [self.value]

    def topics(self) -> list[str]:
        return ["beats"]

    def partitions(self) -> list[int]:
        return [3]

    def headers(self) -> list[list[tuple[str, bytes | None]] | None]:
        return [self.header]


def test_no_source_is_called_as_the_set_of_connectors() -> None:
    assert isinstance(fault("hb:connectors"), Unfillable)
    assert faults(["a", "hb:connectors"]).keys() == {"hb:connectors"}
    assert faults(["hb:connectors:7"]) == {}
    with pytest.raises(ValueError, match="index's own"):
        parse("hb:connectors")


@pytest.mark.parametrize(
    ("text", "batch", "name"),
    [
        ("heartbeat", Batch(), "heartbeat"),
        ("${key}", Batch("pump"), "pump"),
        ("pump:${key}", Batch("7"), "pump:7"),
        ("${topic}/${partition}/${key}!", Batch("7"), "beats/3/7!"),
        ("s:${header.host}", Batch(header=[("host", b"a"), ("host", b"b")]), "s:b"),
        ("s:${value.a.b[0]}", Batch(value={"a": {"b": ["x"]}}), "s:x"),
        ("s:${value.a.b[0]}", Batch(value='{"a": {"b": [12]}}'), "s:12"),
        ("s:${value[1]}", Batch(value=b"[1, true]"), "s:true"),
        ("s:${key}", Batch(b"\xff\x00"), "s:\udcff\x00"),
        ("{a b}:${key}", Batch("{x y}"), "{a b}:{x y}"),
    ],
)
def test_a_template_names_the_source_of_a_record(text: str, batch: Batch, name: str) -> None:
    assert parse(text).names(batch) == [name]
    assert fault(name) is None


@pytest.mark.parametrize(
    ("text", "batch", "reason"),
    [
        ("s:${key}", Batch(None), "no key"),
        ("s:${header.host}", Batch(), "no header host"),
        ("s:${header.host}", Batch(header=[("host", None)]), "null"),
        ("s:${value.a}", Batch(value="{"), "not JSON"),
        ("s:${value.a}", Batch(value=None), "nothing at 'a'"),
        ("s:${value.a}", Batch(value={"a": None}), "null cannot"),
        ("s:${value.a}", Batch(value={"a": [1]}), "list cannot"),
        ("s:${value[2]}", Batch(value=[1]), "nothing at 2"),
        ("${key}", Batch(""), "empty"),
        ("${key}", Batch("hb:{x}:deadlines"), "index's own"),
        ("${key}", Batch("k" * (LONGEST_NAME + 1)), "longer than"),
        ("${key}", Batch("\u20ac" * (LONGEST_NAME // 3 + 1)), "longer than"),
    ],
)
def test_a_record_that_cannot_fill_its_template_says_why(text: str, batch: Batch, reason: str) -> None:
    (name,) = parse(text).names(batch)
    why = fault(name)
    assert isinstance(why, Unfillable)
    assert reason in str(why)


@pytest.mark.parametrize("text", ["${kye}", "a${header.}", "${value}", "${value.}", "${value.a[x]}", "${}", "a${key", "${topic.x}"])
def test_an_unknown_placeholder_is_refused_with_the_list_of_known_ones(text: str) -> None:
    with pytest.raises(ValueError, match="known") as refusal:
        parse(text)
    assert all(known in str(refusal.value) for known in KNOWN)


@pytest.mark.parametrize("text", ["hb:{x}:down", "hb:{${key}"])
def test_a_template_cannot_name_the_index(text: str) -> None:
    with pytest.raises(ValueError, match="index's own"):
        parse(text)


def test_a_template_that_begins_with_a_placeholder_lets_producers_choose_keys() -> None:
    assert parse("${key}").unprefixed
    assert not parse("s:${key}").unprefixed
    assert parse("s").constant == "s"
    assert parse("${key}").constant is None


@given(st.binary(min_size=1, max_size=50), st.binary(min_size=1, max_size=50))
def test_two_binary_keys_stay_two_sources(one: bytes, other: bytes) -> None:
    names = [parse("s:${key}").names(Batch(key))[0] for key in (one, other)]
    assert (names[0] == names[1]) == (one == other)
    assert str(names[0]).encode("utf-8", "surrogateescape") == b"s:" + one
