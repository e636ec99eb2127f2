"""The sink against a real Redis: which keys it writes, what it logs, and what it does when Redis is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import msgspec
import pytest
from tests.beats.parts import P0, P1, FakeLogs, Message, batch_of, now_ms, public
from tests.patience import PATIENT_SINK
from tests.real.programs import free_port

from heartbeat.beats import clock as clocks
from heartbeat.beats import sink, sources
from heartbeat.beats.connection import Connection
from heartbeat.beats.keyspace import Keyspace
from heartbeat.beats.partitions import Partitions
from heartbeat.beats.sink import HeartbeatSink
from heartbeat.connect.api import NO_TIMESTAMP, Batch, Committed, Subscription, TaskContext, TopicPartition
from heartbeat.connect.conversion import Conversion, Tolerance
from heartbeat.connect.converters import ByteArrayConverter, StringConverter
from heartbeat.embedded.redis import EmbeddedRedis
from heartbeat.errors import ConnectError, Reclaim, RetriableError

TASK_LOG = "com.example.RedisHeartbeatSinkTask"
COMPOSE = ("redis", 6379)


def batch(*stamps: int, keys: Sequence[str] = ()) -> Batch:
    return batch_of([Message(stamp, name) for stamp, name in zip_longest(stamps, keys)])


@dataclass(slots=True)
class Clock:
    """The clocks of the sink's module: one that a test moves, and the real time of day unless it is set."""

    seconds: float = 1000.0
    wall_ms: int | None = None

    def monotonic(self) -> float:
        return self.seconds

    def perf_counter(self) -> float:
        return self.seconds

    def time_ns(self) -> int:
        return time.time_ns() if self.wall_ms is None else self.wall_ms * 1_000_000


@dataclass(slots=True)
class Bench:
    """A started sink, its clock, and a look at its Redis."""

    task: HeartbeatSink
    clock: Clock
    redis: Connection
    logs: FakeLogs
    lines: list[tuple[str, str]] = field(default_factory=list)

    def put(self, *stamps: int, at: float | None = None, keys: Sequence[str] = ()) -> None:
        if at is not None:
            self.clock.seconds = at
        self.task.put(batch(*stamps, keys=keys))

    def get(self, key: str = "heartbeat") -> int | None:
        value = self.redis.execute("GET", key)
        return None if value is None else int(value)

    @property
    def index(self) -> Keyspace:
        return Keyspace(self.redis, "c")

    @property
    def partitions(self) -> Partitions:
        return Partitions(self.redis, "c")

    def said(self, level: str) -> list[str]:
        return [message for kind, message in self.lines if kind == level]


class Lines(logging.Handler):
    """Keeps what the task logs."""

    def __init__(self, into: list[tuple[str, str]]) -> None:
        super().__init__()
        self._into = into

    def emit(self, record: logging.LogRecord) -> None:
        self._into.append((record.levelname, record.getMessage()))


@pytest.fixture
def bench(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    clock = Clock()
    for module in (sink, sources, clocks):
        monkeypatch.setattr(module, "time", clock)
    bench = Bench(HeartbeatSink(), clock, connection, FakeLogs(ends={P0: 1_000}))
    handler = Lines(bench.lines)
    for name in (TASK_LOG, "heartbeat.beats"):
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.INFO)
    yield bench
    bench.task.stop()
    for name in (TASK_LOG, "heartbeat.beats"):
        logging.getLogger(name).removeHandler(handler)


def start(bench: Bench, server: EmbeddedRedis, **config: str) -> Bench:
    given: dict[str, str | None] = PATIENT_SINK | {name.replace("_", "."): text for name, text in config.items()}

    def resolve(host: str, port: int) -> tuple[str, int]:
        return (server.host, server.port) if (host, port) == COMPOSE else (host, port)

    bench.task.start(HeartbeatSink.CONFIG.load(given), TaskContext("c", 0, resolve, Subscription(("t",)), logs=bench.logs))
    if "redis_host" not in config:
        bench.task.open({P0: None})
    return bench


def test_a_beat_sets_the_key_to_its_time_with_its_deadline(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    beat = now_ms() - 5_000
    bench.put(beat - 3, beat, beat - 1)
    assert bench.get() == beat
    ttl_ms: Any = bench.redis.execute("PTTL", "heartbeat")
    assert 0 < ttl_ms <= 55_000


def test_key_ttl_and_database_are_those_of_the_config(bench: Bench, server: EmbeddedRedis, opened: Callable[..., Connection]) -> None:
    start(bench, server, redis_key="pump:7", redis_ttl="3600", redis_database="3")
    beat = now_ms()
    bench.put(beat)
    assert bench.get("pump:7") is None
    third = opened(server.host, server.port, database=3)
    assert third.execute("GET", "pump:7") == str(beat).encode()
    assert 3590 <= third.execute("TTL", "pump:7") <= 3600


def test_an_older_beat_does_not_take_back_a_newer_one(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    beat = now_ms()
    bench.put(beat)
    bench.put(beat - 10_000)
    assert bench.get() == beat


def test_a_record_without_a_time_is_a_beat_of_now(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    before = now_ms()
    bench.put(NO_TIMESTAMP)
    assert before <= (bench.get() or 0) <= now_ms()


def test_a_clock_in_the_future_does_not_make_a_source_immortal(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    bench.put(now_ms() + 3_600_000)
    ttl_ms: Any = bench.redis.execute("PTTL", "heartbeat")
    assert 55_000 < ttl_ms <= 62_000


def test_a_beat_past_its_deadline_enters_the_index_but_revives_and_kills_nobody(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    old = now_ms() - 60_001
    bench.put(old)
    assert bench.get() is None
    assert bench.index.read_deadlines(["heartbeat"]) == {"heartbeat": old + 60_000}
    beat = now_ms()
    bench.redis.execute("SET", "heartbeat", str(beat))
    bench.put(now_ms() - 50_001 - 10_000)
    assert bench.get() == beat


def test_an_empty_batch_writes_nothing(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    bench.put()
    assert bench.get() is None
    assert bench.lines == []


def test_processing_time_is_the_moment_of_processing(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server, heartbeat_time="processing")
    before = now_ms()
    bench.put(now_ms() - 3_600_000, now_ms() + 3_600_000)
    assert before <= (bench.get() or 0) <= now_ms()
    assert bench.said("WARNING") == []


def test_success_is_said_once_a_second_with_all_records_since_the_last_line(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    beat = now_ms()
    for at, count in ((1000.0, 1), (1000.2, 2), (1000.9, 3), (1001.0, 4), (1001.5, 5), (1001.9, 6)):
        bench.put(*[beat + count] * count, at=at)
    line = "Successfully processed {} records and updated Redis heartbeat"
    assert bench.said("INFO") == [line.format(1), line.format(9)]
    bench.put(at=1002.0)
    assert bench.said("INFO")[2:] == [line.format(11)]
    bench.put(at=1010.0)
    assert len(bench.said("INFO")) == 3


def test_records_not_yet_told_are_told_when_the_task_stops(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    beat = now_ms()
    bench.put(beat, at=1000.0)
    bench.put(beat, beat + 1, at=1000.1)
    bench.task.stop()
    assert bench.said("INFO")[-1] == "Successfully processed 2 records and updated Redis heartbeat"


def test_beats_that_arrive_expired_warn_once_a_minute_and_name_the_way_out(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    bench.clock.wall_ms = now_ms()
    for newer, at in enumerate((1000.0, 1001.0, 1059.9, 1060.0, 1119.0)):
        bench.put(bench.clock.wall_ms - 60_000 - 12_300 + newer, at=at)
    warnings = bench.said("WARNING")
    assert len(warnings) == 2
    assert "12.3 s" in warnings[0]
    assert "heartbeat.time=processing" in warnings[0]
    assert bench.said("INFO") == []


def test_a_template_makes_a_key_for_each_source(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server, redis_key="${key}")
    beat = now_ms()
    bench.put(beat - 2, beat - 1, beat, keys=["a", "ü", "a"])
    assert (bench.get("a"), bench.get("ü")) == (beat, beat - 1)


def test_redis_that_is_away_is_no_reason_to_fail_at_the_start_but_keeps_the_batch(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server, redis_host="127.0.0.1", redis_port=str(free_port()))
    assert "Redis does not answer yet" in bench.said("WARNING")[0]
    with pytest.raises(RetriableError):
        bench.put(now_ms())
    bench.task.stop()
    assert bench.said("INFO") == []


def test_a_batch_put_again_after_a_fault_is_counted_once(bench: Bench, server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    start(bench, server)
    beat = now_ms()
    bench.redis.execute("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(RetriableError, match="maxmemory"):
            bench.put(beat, beat)
    finally:
        bench.redis.execute("CONFIG", "SET", "maxmemory", "0")
    assert bench.said("INFO") == []
    bench.put(beat, beat)
    assert bench.get() == beat
    assert bench.said("INFO") == ["Successfully processed 2 records and updated Redis heartbeat"]


def test_redis_that_refuses_us_is_a_reason_to_fail_at_the_start(bench: Bench, server: EmbeddedRedis) -> None:
    with pytest.raises(ConnectError, match="invalid username-password pair") as caught:
        start(bench, server, redis_username="nobody", redis_password="hunter2")
    assert not isinstance(caught.value, RetriableError)
    assert "hunter2" not in str(caught.value)


def test_a_task_that_never_started_can_be_stopped() -> None:
    HeartbeatSink().stop()


LINE = "Successfully processed {} records and updated Redis heartbeat"


def test_the_line_counts_also_records_that_changed_nothing(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    beat = now_ms()
    bench.put(beat, at=1000.0)
    bench.put(beat - 1, beat - 2, at=1000.2)
    bench.put(beat - 3_600_000, at=1000.4)
    bench.put(beat + 1, at=1001.0)
    assert bench.said("INFO") == [LINE.format(1), LINE.format(4)]


def test_nothing_written_is_no_success(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    beat = now_ms()
    bench.put(beat, at=1000.0)
    for at in (1002.0, 1004.0, 1006.0):
        bench.put(beat - 1, at=at)
    bench.task.stop()
    assert bench.said("INFO") == [LINE.format(1)]


@pytest.mark.parametrize("mode", ["processing", "record"])
@pytest.mark.parametrize("back_ms", [1_000, 3_600_000])
def test_a_clock_that_is_set_back_silences_nobody(bench: Bench, server: EmbeddedRedis, mode: str, back_ms: int) -> None:
    """What was promised by the later clock stands: deadlines never go back. The key lives at least as long as it should."""
    start(bench, server, heartbeat_time=mode)
    now = now_ms()
    for wall_ms in (now + back_ms, now, now + 1):
        bench.clock.wall_ms = wall_ms
        try:
            bench.put(wall_ms)
        except Reclaim:  # what the later clock has proven is given up; the worker opens the partition again, and puts again
            bench.task.open({P0: None})
            bench.put(wall_ms)
        assert bench.get() == now + back_ms
        assert bench.redis.execute("PEXPIRETIME", "heartbeat") == now + back_ms + 60_000


def test_a_goodbye_from_the_future_does_not_keep_its_source_away(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server, redis_key="s:${key}")
    now = bench.clock.wall_ms = now_ms() - 10_000
    ahead = now + 86_400_000
    bench.task.put(batch_of([Message(ahead, "a", marks=(("hb-status", b"bye"),))], {P0: 1}))
    assert bench.index.read_gone(["s:a"]).keys() == {"s:a"}
    bench.clock.wall_ms = now + 5_000
    bench.task.put(batch_of([Message(ahead + 5_000, "a")], {P0: 2}))
    assert bench.get("s:a") is not None
    assert bench.index.read_gone(["s:a"]) == {}


def test_sources_that_are_gone_are_not_remembered(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server, redis_key="s:${key}", redis_ttl="60")
    now = bench.clock.wall_ms = now_ms()
    bench.put(*[now] * 100, keys=[str(number) for number in range(100)], at=1000.0)
    bench.clock.wall_ms = now + 30_000
    bench.put(now + 30_000, keys=["lasts"], at=1030.0)
    bench.clock.wall_ms = now + 61_000
    bench.put(now + 61_000, keys=["lasts"], at=1061.0)
    assert bench.task._sources.known == 1


def mixed(*names: str | bytes | None, skip: bool, binary: bool = False) -> tuple[Batch, Conversion]:
    """Return records of now with these keys, as the worker would hand them over, and what counts the given up."""
    conversion = Conversion("c-0", ByteArrayConverter() if binary else StringConverter(), StringConverter(), Tolerance(skip=skip))
    stamp = now_ms()
    return conversion.batch(conversion.convert([Message(stamp, name) for name in names], {TopicPartition("t", 0): 1})), conversion


def test_records_that_name_no_source_are_skipped_and_counted_and_the_others_written(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server, redis_key="${key}")
    batch, conversion = mixed("a", None, "hb:{x}:down", "", "b", skip=True)
    bench.task.put(batch)
    assert conversion.skipped == 3
    assert bench.get("a") is not None
    assert bench.get("b") is not None
    assert public(bench.redis) == {"a", "b"}
    assert bench.said("INFO") == [LINE.format(5)]


@pytest.mark.parametrize("name", [None, "hb:{x}:down", ""])
def test_without_tolerance_a_record_that_names_no_source_fails_the_task_after_the_others_are_written(
    bench: Bench, server: EmbeddedRedis, name: str | None
) -> None:
    start(bench, server, redis_key="${key}")
    batch, conversion = mixed("a", name, "b", skip=False)
    with pytest.raises(ConnectError, match="Tolerance exceeded in error handler") as caught:
        bench.task.put(batch)
    assert not isinstance(caught.value, RetriableError)
    assert conversion.skipped == 0
    assert public(bench.redis) == {"a", "b"}


def test_a_batch_put_again_counts_what_it_skips_once(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server, redis_key="${key}")
    batch, conversion = mixed("a", None, "b", None, skip=True)
    bench.redis.execute("CONFIG", "SET", "maxmemory", "1")
    try:
        for _ in range(3):
            with pytest.raises(RetriableError):
                bench.task.put(batch)
        assert conversion.skipped == 0
    finally:
        bench.redis.execute("CONFIG", "SET", "maxmemory", "0")
    bench.task.put(batch)
    assert conversion.skipped == 2
    assert bench.said("INFO") == [LINE.format(4)]


def test_a_batch_of_nameless_records_only_writes_nothing_and_says_no_success(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server, redis_key="s:${key}")
    batch, conversion = mixed(None, None, skip=True)
    bench.task.put(batch)
    assert (conversion.skipped, public(bench.redis), bench.said("INFO")) == (2, set(), [])


def test_binary_keys_are_sources_too(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server, redis_key="s:${key}")
    batch, conversion = mixed(b"\xff", b"\xfe", b"plain", skip=False, binary=True)
    bench.task.put(batch)
    assert (conversion.skipped, len(public(bench.redis))) == (0, 3)
    assert bench.get("s:plain") is not None


def test_producers_that_choose_whole_keys_are_warned_of(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server, redis_key="${key}")
    assert "whoever produces chooses which Redis keys are written" in bench.said("WARNING")[0]


def test_a_task_without_a_view_of_the_logs_cannot_start(bench: Bench) -> None:
    with pytest.raises(ConnectError, match="no view of the logs"):
        bench.task.start(HeartbeatSink.CONFIG.load({}), TaskContext("c", 0))


def applied(*stamps: int, upto: int) -> Batch:
    return batch_of([Message(stamp, at=at) for at, stamp in enumerate(stamps)], {P0: upto})


def test_how_far_we_have_come_is_stored_with_the_beats_it_speaks_of(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    beat = now_ms()
    bench.task.put(applied(beat, upto=1_001))
    assert bench.get() == beat
    assert bench.partitions.read_proof()[P0].offset == 1_001


def test_an_error_before_the_end_of_a_batch_moves_no_offset(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    bench.redis.execute("SET", bench.index.keys.deadlines, "of another type")
    with pytest.raises(ConnectError):
        bench.task.put(applied(now_ms(), upto=1_001))
    assert bench.partitions.read_proof()[P0].offset == 1_000


def test_a_flush_gives_the_partition_back_and_the_next_claim_goes_back_to_the_horizon(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    bench.task.put(applied(now_ms(), upto=1_001))
    bench.redis.execute("FLUSHALL")
    with pytest.raises(Reclaim) as caught:
        bench.task.put(applied(now_ms(), upto=1_002))
    assert set(caught.value.partitions) == {P0}
    bench.logs.times[P0] = [now_ms() - 3_600_000, now_ms()]
    assert bench.task.open({P0: Committed(1_001)}) == {P0: 1}
    bench.task.put(applied(now_ms(), upto=2))
    assert bench.partitions.read_proof()[P0].offset == 2


def test_the_commit_carries_until_when_the_partition_is_proven(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    before = bench.clock.wall_ms = now_ms()
    assert (bench.task.commit_metadata(P0), bench.task.commit_metadata(P1)) == ("", "")
    for _ in range(2):
        bench.task.put(batch_of([]))
    assert before - 2_000 <= int(bench.task.commit_metadata(P0)) <= before, (
        "by the clock that is behind, and no further than they may differ"
    )
    bench.task.close([P0])
    assert bench.task.commit_metadata(P0) == ""


def test_an_operators_offsets_are_where_the_next_task_starts(bench: Bench, server: EmbeddedRedis) -> None:
    config = HeartbeatSink.CONFIG.load({"redis.host": server.host, "redis.port": str(server.port)})
    start(bench, server)
    HeartbeatSink.alter_offsets(config, TaskContext("c"), {P0: 17})
    assert bench.task.open({P0: Committed(17)}) == {P0: 17}
    HeartbeatSink.alter_offsets(config, TaskContext("c"), None)
    assert bench.partitions.read_proof() == {}


def test_a_deleted_connector_leaves_no_index_behind(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    beat = now_ms()
    bench.put(beat)
    config = HeartbeatSink.CONFIG.load({"redis.host": server.host, "redis.port": str(server.port)})
    HeartbeatSink.on_delete(config, TaskContext("c"))
    assert bench.redis.execute("KEYS", "*") == [b"heartbeat"]
    assert bench.get() == beat


def test_headers_say_how_long_a_beat_lasts_and_that_a_source_says_goodbye(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server, redis_key="${key}", heartbeat_ttl_max="7200")
    beat = now_ms()
    bench.task.put(batch_of([Message(beat, "a", at=0, marks=(("hb-ttl", b"7000"),)), Message(beat, "b", at=1)]))
    assert bench.redis.execute("PEXPIRETIME", "a") == beat + 7_000_000
    bench.task.put(batch_of([Message(beat + 1, "b", at=2, marks=(("hb-status", b"bye"),))]))
    assert public(bench.redis) == {"a"}
    assert bench.index.read_deadlines(["a", "b"]) == {"a": beat + 7_000_000}
    assert bench.index.read_gone(["a", "b"]) == {"b": beat + 1}


def test_a_partition_that_was_taken_over_is_refused_to_the_one_that_had_it(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    other = start(Bench(HeartbeatSink(), bench.clock, bench.redis, FakeLogs(ends={P0: 1_000})), server)
    with pytest.raises(Reclaim):
        bench.task.put(applied(now_ms(), upto=1_001))
    other.task.put(applied(now_ms(), upto=1_005))
    assert bench.partitions.read_proof()[P0].offset == 1_005
    other.task.stop()


def test_a_source_with_a_ttl_of_its_own_that_came_back_may_say_goodbye_again(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server, redis_key="s:${key}", heartbeat_ttl_max="600")
    bench.logs.ends[P0] = 1_004
    now, ttl = now_ms(), ("hb-ttl", b"300")
    for at, marks in enumerate([(ttl,), (ttl, ("hb-status", b"bye")), (ttl,), (ttl, ("hb-status", b"bye"))]):
        bench.task.put(batch_of([Message(now - 1_000 + at, "a", 0, 1_000 + at, marks)], {P0: 1_001 + at}))
    assert bench.index.read_gone(["s:a"]) == {"s:a": now - 997}
    assert bench.index.read_deadlines(["s:a"]) == {}
    assert public(bench.redis) == set()


# --- canaries, doubts, targets


def canary(at: int, sent_ms: int) -> Message:
    return Message(sent_ms, None, 0, at, (("hb-canary", str(sent_ms).encode()),), None)


def test_a_batch_of_canaries_alone_moves_offset_and_canary_and_says_nothing(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server, heartbeat_tombstone="bye")
    sent = now_ms() - 500
    assert not bench.task.put(batch_of([canary(1_000, sent), canary(1_001, sent + 7)], {P0: 1_002}))
    stored = bench.partitions.read_proof()[P0]
    assert (stored.offset, stored.canary_ms) == (1_002, sent + 7)
    bench.task.stop()
    assert bench.said("INFO") == []
    assert public(bench.redis) == set()
    assert bench.redis.execute("EXISTS", bench.index.keys.deadlines, bench.index.keys.gone, bench.index.keys.status) == 0
    figures = {name: value for name, _, _, _, value in bench.task.measures()}
    assert figures["heartbeat_canaries"] == 2
    assert not any(value for name, value in figures.items() if name.startswith("heartbeat_beats_"))


def test_canaries_among_beats_are_not_counted_as_records(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    now = now_ms()
    bench.task.put(batch_of([canary(1_000, now), Message(now, "s", 0, 1_001), canary(1_002, now)], {P0: 1_003}))
    assert bench.said("INFO") == ["Successfully processed 1 records and updated Redis heartbeat"]
    assert bench.task._sources.counts.coalesced == 0


def test_a_canary_is_told_only_when_the_batch_it_came_with_is_applied(
    bench: Bench, server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "_LARGE", 1)
    start(bench, server)
    bench.logs.ends[P0] = 1_004
    now = now_ms()
    for at, sent_ms, known in ((1_000, now - 900, None), (1_002, now - 800, now - 900)):
        assert bench.task.put(batch_of([canary(at, sent_ms), Message(now + at, "s", 0, at + 1)], {P0: at + 2})), "left under way"
        assert bench.partitions.read_proof()[P0].canary_ms == known
    bench.task.put(batch_of([], {}))
    assert bench.partitions.read_proof()[P0].canary_ms == now - 800


def test_a_canary_of_a_batch_that_is_put_again_is_told_and_counted_once(bench: Bench, server: EmbeddedRedis) -> None:
    start(bench, server)
    bench.logs.ends[P0] = 1_001
    sent = now_ms()
    bench.redis.execute("FLUSHALL")
    with pytest.raises(Reclaim):
        bench.task.put(batch_of([canary(1_000, sent)], {P0: 1_001}))
    bench.task.put(batch_of([], {}))
    bench.task.open({P0: Committed(1_000)})
    assert bench.partitions.read_proof()[P0].canary_ms is None
    bench.task.put(batch_of([canary(1_000, sent)], {P0: 1_001}))
    assert bench.partitions.read_proof()[P0].canary_ms == sent
    assert bench.task._holdings.canaries == 1


def test_a_task_that_is_paused_says_so_once_something_waits_and_takes_it_back(
    bench: Bench, server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(bench, server)
    begun = now_ms()
    monkeypatch.setattr(bench.task._clock, "told", lambda _: None)  # Redis seems to go along with our clock

    def turn(after_ms: int, *messages: Message, upto: int | None = None) -> None:
        bench.clock.seconds += after_ms / 1000
        bench.clock.wall_ms = (bench.clock.wall_ms or begun) + after_ms
        bench.task.put(batch_of(messages, {} if upto is None else {P0: upto}))

    def said() -> dict[str, Any] | None:
        text = bench.redis.execute("HGET", bench.index.keys.proof, "tasks/0")
        return None if text is None else msgspec.json.decode(text)

    bench.task.on_pause(paused=True)
    for _ in range(8):
        turn(700)
    assert said() is None, "a silent topic is proven also while the connector is paused"
    proven = bench.partitions.read_proof()[P0].until_ms
    assert proven is not None
    assert bench.clock.wall_ms is not None
    assert proven > bench.clock.wall_ms - 2_000
    bench.logs.ends[P0] = 1_003
    for _ in range(8):
        turn(700)
    stood = bench.partitions.read_proof()[P0].until_ms
    assert stood is not None
    assert stood <= proven + 1_400, "what waits is not vouched for"
    told = said()
    assert told is not None
    assert (told["why"], told["behind"]) == ("paused", 3)
    bench.task.on_pause(paused=False)
    turn(700, Message(begun, "s", 0, 1_002), upto=1_003)
    for _ in range(4):
        turn(700)
    assert said() is None


def test_what_an_operator_wants_stands_beside_the_proof(bench: Bench, server: EmbeddedRedis) -> None:
    config = HeartbeatSink.CONFIG.load({})
    context = TaskContext("c", 0, lambda *_: (server.host, server.port))
    HeartbeatSink.on_target(config, context, "PAUSED")
    assert msgspec.json.decode(bench.redis.execute("HGET", bench.index.keys.proof, "target"))["state"] == "PAUSED"
    HeartbeatSink.on_delete(config, context)
    assert bench.redis.execute("EXISTS", bench.index.keys.proof) == 0


def test_what_an_operator_wants_cannot_be_kept_while_redis_is_away(bench: Bench) -> None:
    with pytest.raises(RetriableError):
        HeartbeatSink.on_target(HeartbeatSink.CONFIG.load({}), TaskContext("c", 0, lambda *_: ("127.0.0.1", free_port())), "PAUSED")
