"""Pages of sources from a real Redis, compared with what a few lines say that has everything in memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from heartbeat.beats import listing
from heartbeat.beats.connection import Connection
from heartbeat.beats.keys import CONNECTORS, Keys
from heartbeat.beats.listing import MOST_LOOKED_AT, Cursor, Entry, Found, Page, Query, Room, Span
from heartbeat.beats.template import LONGEST_NAME
from heartbeat.beats.verdicts import FAILED, NEVER_MS
from heartbeat.errors import BadRequest

TTL = 60_000
NOW = 1_795_366_700_000
EVERYTHING = (Span(Room.DOWN), Span(Room.DEADLINES), Span(Room.EXPECTED))
ODD_NAMES = ("", "a", "B", "b", "ä", "z z", "a/b", "line\nbreak", "\u202eliam", "<b>", "raw\udcff", "\U0001f600")


@dataclass
class Index:
    """What one connector's index holds, in memory."""

    down: Mapping[str, float] = field(default_factory=dict)
    deadlines: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    ttls: dict[str, int] = field(default_factory=dict)

    def store(self, connection: Connection, connector: str) -> None:
        keys = Keys(connector)
        connection.call("SADD", CONNECTORS, connector)
        connection.call("HSET", keys.proof, "ttl", TTL)
        for name in ("down", "deadlines", "expected", "gone"):
            scores: Mapping[str, float] = getattr(self, name)
            if scores:
                connection.call("ZADD", getattr(keys, name), *(word for source, at in scores.items() for word in (at, source)))
        if self.ttls:
            connection.call("HSET", keys.info, *(word for source, ttl in self.ttls.items() for word in (source, f"{NOW} {ttl}")))

    def rows(self, spans: Sequence[Span]) -> list[tuple[str, str, int]]:
        """Room, source and score of everything in these spans, in the order of the listing."""
        seen = {
            Room.DOWN: {source: int(at) for source, at in self.down.items()},
            Room.DEADLINES: {source: at for source, at in self.deadlines.items() if source not in self.down},
            Room.EXPECTED: {s: at for s, at in self.expected.items() if s not in {*self.down, *self.deadlines}},
        }
        found = []
        for room in Room:
            for span in (span for span in spans if span.room is room):
                low, high = span.low_ms or 0, span.high_ms or 10 * NOW
                rows = [(at, source.encode("utf-8", "surrogateescape"), source) for source, at in seen[room].items() if low <= at <= high]
                left = self.gone if room is Room.EXPECTED else {}
                found += [(room.value, source, NEVER_MS if source in left else at) for at, _, source in sorted(rows)]
        return found


def any_name(_name: str) -> bool:
    return True


def with_a_one(name: str) -> bool:
    return "1" in name


def row(found: Found) -> tuple[str, str, str, int]:
    return found.connector, found.room.value, found.source, found.at_ms


def query(
    spans: Mapping[str, Sequence[Span]], limit: int = 100, named: Callable[[str], bool] = any_name
) -> Query[tuple[str, str, str, int]]:
    return Query(spans, limit, named, row)


def next_of(query: Query[tuple[str, str, str, int]], page: Page[tuple[str, str, str, int]]) -> Query[tuple[str, str, str, int]]:
    """The query for the page behind this one, with a cursor that has gone through a URL."""
    assert page.next is not None
    return Query(query.spans, query.limit, query.named, query.keep, Cursor.parse(page.next.text()))


def all_of(connection: Connection, query: Query[tuple[str, str, str, int]]) -> list[tuple[str, str, str, int]]:
    rows = []
    while True:
        page = listing.page(connection, query)
        assert len(page.rows) <= query.limit
        rows += page.rows
        if page.next is None:
            return rows
        query = next_of(query, page)


def random_index(chance: random.Random) -> Index:
    """Rooms that overlap, and scores of which many are the same."""
    names = [*ODD_NAMES, *(f"pump-{number}" for number in range(chance.randrange(400)))]

    def some(part: float) -> dict[str, int]:
        return {name: NOW + 1000 * chance.randrange(-5, 5) for name in names if chance.random() < part}

    return Index(some(0.2), some(0.7), some(0.3), some(0.1), {name: 1000 for name in names if chance.random() < 0.5})


def spans_of(chance: random.Random) -> list[Span]:
    def bound() -> int | None:
        return chance.choice([None, NOW + 1000 * chance.randrange(-5, 5)])

    return [Span(room, bound(), bound()) for room in chance.sample(list(Room), chance.randrange(1, 4))]


@pytest.mark.parametrize("seed", range(30))
def test_pages_hold_what_the_index_holds_in_order_and_once(connection: Connection, seed: int) -> None:
    chance = random.Random(seed)
    indexes = {name: random_index(chance) for name in ("b", "a", "ünï")}
    for name, index in indexes.items():
        index.store(connection, name)
    spans = {name: spans_of(chance) for name in indexes}
    named = chance.choice([any_name, with_a_one])
    expected = [(name, *one) for name in ("a", "b", "ünï") for one in indexes[name].rows(spans[name]) if named(one[1])]
    assert all_of(connection, query(spans, chance.choice([1, 7, 100, 1000]), named)) == expected


@pytest.mark.parametrize("seed", range(10))
def test_sources_that_beat_meanwhile_are_not_missed(connection: Connection, seed: int) -> None:
    """Also those whose deadline is the very same, behind a source that has moved away since the page before ended at it."""
    chance = random.Random(seed)
    sources = [f"s{number}" for number in range(300)]
    Index(deadlines={source: NOW + chance.randrange(3) for source in sources}).store(connection, "c")
    found: set[str] = set()
    asked = query({"c": EVERYTHING}, 10)
    for turn in range(200):
        page = listing.page(connection, asked)
        found |= {name for _, _, name, _ in page.rows}
        if page.next is None:
            break
        beating = {*chance.sample(sources, 3), page.rows[-1][2]} if turn < 60 else set()  # a reader who is never faster never ends
        for source in beating:
            connection.call("ZADD", Keys("c").deadlines, NOW + 1000 + turn, source)
        asked = next_of(asked, page)
    else:
        pytest.fail("the pass does not end")
    assert found == set(sources)


def test_a_pass_goes_on_when_the_connector_at_which_it_stood_is_deleted(connection: Connection) -> None:
    for name in ("a", "b", "c"):
        Index(deadlines={f"{name}1": NOW, f"{name}2": NOW}).store(connection, name)
    first = listing.page(connection, asked := query(dict.fromkeys(("a", "b", "c"), EVERYTHING), 3))
    rest = next_of(query(dict.fromkeys(("a", "c"), EVERYTHING), 3), first)
    assert [name for _, _, name, _ in first.rows] == ["a1", "a2", "b1"]
    assert [name for _, _, name, _ in listing.page(connection, rest).rows] == ["c1", "c2"]
    assert asked.begin is None


def test_a_cursor_that_time_has_passed_by_brings_nothing_back(connection: Connection) -> None:
    """Who was alive at the page before may be due at this one: its span begins later then."""
    Index(deadlines={f"s{number}": NOW + number for number in range(5)}).store(connection, "c")
    begin = Cursor(b"c", Room.DEADLINES, Entry(float(NOW), b"s0"))
    page = listing.page(connection, Query({"c": [Span(Room.DEADLINES, NOW + 3)]}, 10, any_name, row, begin))
    assert [name for _, _, name, _ in page.rows] == ["s3", "s4"]


def test_a_page_ends_when_it_has_looked_at_enough(connection: Connection) -> None:
    many = MOST_LOOKED_AT + 5_000
    Index(deadlines={f"s{number}": NOW + number // 7 for number in range(many)}).store(connection, "c")
    looked: list[str] = []

    def last_only(name: str) -> bool:
        looked.append(name)
        return name == f"s{many - 1}"

    first = listing.page(connection, asked := query({"c": [Span(Room.DEADLINES)]}, 1, last_only))
    assert first.rows == []
    assert len(looked) == MOST_LOOKED_AT
    second = listing.page(connection, next_of(asked, first))
    assert [name for _, _, name, _ in second.rows] == [f"s{many - 1}"]
    assert len(looked) == many


def test_a_page_over_many_empty_indexes_ends_too(connection: Connection) -> None:
    spans = {f"c{number:03}": EVERYTHING for number in range(500)}
    first = listing.page(connection, asked := query(spans))
    assert first.rows == []
    assert first.next is not None
    assert all_of(connection, asked) == []


def one(connection: Connection, source: str) -> Found:
    (found,) = listing.page(connection, Query({"c": EVERYTHING}, 10, lambda name: name == source, lambda found: found)).rows
    return found


def test_the_last_beat_is_reckoned_with_the_sources_own_ttl_and_else_with_everybodys(connection: Connection) -> None:
    Index(deadlines={"own": NOW, "common": NOW}, down={"dead": NOW}, ttls={"own": 5_000, "dead": 7_000}).store(connection, "c")
    assert (one(connection, "own").ttl_ms, one(connection, "own").last_beat_ms) == (5_000, NOW - 5_000)
    assert (one(connection, "common").ttl_ms, one(connection, "common").last_beat_ms) == (TTL, NOW - TTL)
    assert (one(connection, "dead").ttl_ms, one(connection, "dead").last_beat_ms) == (7_000, NOW - 7_000)


def test_a_source_that_never_beat_has_no_last_beat(connection: Connection) -> None:
    Index(expected={"new": NOW, "dead": NOW - TTL, "was": NOW - TTL}, down={"dead": NOW, "was": NOW}, ttls={"was": TTL}).store(
        connection, "c"
    )
    assert one(connection, "new").last_beat_ms is None
    assert one(connection, "dead").last_beat_ms is None
    assert one(connection, "was").last_beat_ms == NOW - TTL


def test_a_source_that_said_that_it_failed_is_down_since_then(connection: Connection) -> None:
    Index(down={"failed": NOW + FAILED, "silent": NOW}, expected={"failed": NOW - TTL}).store(connection, "c")
    found = one(connection, "failed")
    assert (found.at_ms, found.failed, found.last_beat_ms) == (NOW, True, NOW)
    assert not one(connection, "silent").failed


def test_the_overview_tells_redis_time_and_who_has_an_index(connection: Connection) -> None:
    assert listing.overview(connection)[1] == ()
    for name in ("b", "a"):
        Index().store(connection, name)
    before_s = int(connection.call("TIME")[0])
    now_ms, connectors = listing.overview(connection)
    assert connectors == ("a", "b")
    assert now_ms >= before_s * 1000


@pytest.mark.parametrize("name", [b"", b"raw\xff", "ünï".encode(), b"x" * LONGEST_NAME])
def test_a_cursor_survives_a_url(name: bytes) -> None:
    cursor = Cursor(b"c", Room.DOWN, Entry(float(NOW), name))
    assert Cursor.parse(cursor.text()) == cursor
    assert Cursor.parse(Cursor(b"\xff", Room.EXPECTED, None).text()) == Cursor(b"\xff", Room.EXPECTED, None)
    assert cursor.text().isascii()
    assert len(cursor.text()) < 8_000  # what proxies take
    assert set("+/=& ").isdisjoint(cursor.text())


@pytest.mark.parametrize("text", ["", "x", "####", "ä", "kwEC", "a" * 10_000, Cursor(b"c", Room.DOWN, Entry(float("nan"), b"")).text()])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="cursor"):
        Cursor.parse(text)
