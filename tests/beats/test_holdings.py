"""Claim, sight and advance of a task's partitions: a real Redis, and logs that say what the test wants."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.beats.parts import P0, P1, P2, TTL, FakeLogs, now_ms

from heartbeat.beats.canaries import Canaries
from heartbeat.beats.clock import Clock
from heartbeat.beats.connection import Connection
from heartbeat.beats.holdings import Holdings
from heartbeat.beats.partitions import Partitions, Stored
from heartbeat.beats.settings import Rules
from heartbeat.connect.api import Committed, TopicPartition
from heartbeat.errors import ConnectError, Reclaim, RetriableError

HORIZON = 600_000
RULES = Rules("x", TTL, HORIZON)


@dataclass
class Task:
    """Holdings whose clock the test moves; Redis seems to go along with it."""

    partitions: Partitions
    rules: Rules = RULES
    logs: FakeLogs = field(default_factory=lambda: FakeLogs(ends={P0: 100, P1: 100, P2: 100}))
    offset_ms: int = 0
    skew_ms: int = 0

    def __post_init__(self) -> None:
        self.clock = Clock(lambda: now_ms() + self.offset_ms)
        self.holdings = Holdings(self.partitions, self.logs, self.clock, self.rules)

    def open(self, *partitions: TopicPartition, **committed: Committed | None) -> Mapping[TopicPartition, int]:
        return self.holdings.open({p: committed.get(f"p{p.partition}") for p in partitions})

    def look(self) -> None:
        """One look at which the clocks are as far apart as the test says, whatever time it pretends."""
        self.clock.redis_ahead_ms = self.skew_ms
        self.holdings.look({})

    def see(self) -> None:
        """Ask, and take the answer."""
        self.offset_ms += 1_000
        self.look()
        self.look()

    def stored(self, partition: TopicPartition = P0) -> Stored:
        return self.partitions.read_proof()[partition]


@pytest.fixture
def task(partitions: Partitions) -> Task:
    return Task(partitions)


def left(partitions: Partitions, offset: int, sight: tuple[Any, ...] = (), partition: TopicPartition = P0) -> None:
    """Make Redis hold what an earlier task left there."""
    name = f"{partition.topic}/{partition.partition}"
    fields = dict(zip(("offset", "since", "until", "epoch"), (offset, *sight), strict=False))
    partitions._connection.call("HSET", partitions.keys.proof, "config", "x", *(w for f, v in fields.items() for w in (f"{name}/{f}", v)))


# --- where a partition starts


@pytest.mark.parametrize(
    ("stored", "committed", "start"),
    [(50, 50, 50), (50, 40, 40), (40, 50, 40), (50, None, 50), (0, 0, 0), (100, 100, 100)],
)
def test_a_partition_starts_at_the_lesser_of_what_is_stored_and_committed(
    task: Task, partitions: Partitions, stored: int, committed: int | None, start: int
) -> None:
    left(partitions, stored, (1, 2, 7))
    assert task.open(P0, p0=None if committed is None else Committed(committed)) == {P0: start}
    assert task.stored() == Stored(start, 1, 2, 7)
    assert task.holdings.claims == {"resumed": 1}


def test_with_nothing_stored_a_partition_starts_at_the_horizon_before_now(task: Task) -> None:
    before = now_ms()
    task.logs.first[P0] = 90
    task.logs.times[P0] = [before - HORIZON - 60_000, before - HORIZON - 5_000, before - HORIZON + 60_000, before]
    assert task.open(P0, p0=Committed(95)) == {P0: 92}
    (asked,) = task.logs.looked_up
    assert before - HORIZON <= asked[P0] <= now_ms() - HORIZON
    assert task.stored() == Stored(92)
    assert task.holdings.claims == {"rebuild": 1}


def test_the_horizon_is_reckoned_from_the_end_of_what_was_proven_however_long_ago(task: Task) -> None:
    until = now_ms() - 3 * HORIZON
    task.open(P0, P1, p0=Committed(95, str(until)), p1=Committed(95, str(now_ms() + HORIZON)))
    (asked,) = task.logs.looked_up
    assert asked[P0] == until - HORIZON
    assert asked[P1] <= now_ms() - HORIZON, "a commit of the future does not shorten the horizon"


def test_a_rebuild_that_is_lost_too_goes_back_as_far_as_the_first(task: Task, connection: Connection) -> None:
    until = now_ms() - 3 * HORIZON
    task.open(P0, p0=Committed(95, str(until)))
    carried = task.holdings.until_ms(P0)
    assert carried == until
    connection.execute("FLUSHALL")
    task.open(P0, p0=Committed(20, str(carried)))
    assert [asked[P0] for asked in task.logs.looked_up] == [until - HORIZON] * 2


@pytest.mark.parametrize("metadata", ["", "x", "-5", "1e3", "²"])
def test_a_commit_whose_text_is_not_ours_means_from_now(task: Task, metadata: str) -> None:
    task.open(P0, p0=Committed(95, metadata))
    assert task.logs.looked_up[0][P0] >= now_ms() - HORIZON - 60_000


def test_where_no_record_is_within_the_horizon_a_partition_starts_at_its_end(task: Task) -> None:
    assert task.open(P0, P1) == {P0: 100, P1: 100}


def test_what_is_not_committed_is_read_however_old_it_is(task: Task) -> None:
    assert task.open(P0, P1, p0=Committed(95)) == {P0: 95, P1: 100}


def test_a_log_that_was_kept_shorter_than_the_horizon_is_told(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    task.logs.first[P0] = 90
    task.logs.times[P0] = [now_ms() - 1_000]
    assert task.open(P0) == {P0: 90}
    assert "incomplete since before offset 90" in caplog.text


def test_only_the_partition_of_which_nothing_is_stored_goes_back(task: Task, partitions: Partitions) -> None:
    left(partitions, 50, (1, 2, 7), P1)
    task.logs.times[P0] = [now_ms()]
    assert task.open(P0, P1, p0=Committed(60), p1=Committed(60)) == {P0: 0, P1: 50}
    assert [set(asked) for asked in task.logs.looked_up] == [{P0}]


@pytest.mark.parametrize(("reset", "start"), [("earliest", 10), ("latest", 100)])
def test_an_explicit_reset_is_honoured_on_the_first_start_only(task: Task, partitions: Partitions, reset: str, start: int) -> None:
    task = Task(partitions, replace(RULES, offset_reset=reset))
    task.logs.first[P0] = 10
    task.logs.times[P0] = [now_ms()] * 90
    assert task.open(P0) == {P0: start}
    partitions._connection.call("FLUSHALL")
    task.logs.first[P0], task.logs.times[P0] = 20, [0, now_ms()]
    assert task.open(P0, p0=Committed(95)) == {P0: 21}, "a commit exists: Redis lost the index, this is no first start"


def test_no_reset_at_all_is_an_error_where_nothing_says_where_to_start(partitions: Partitions) -> None:
    task = Task(partitions, replace(RULES, offset_reset="none"))
    with pytest.raises(ConnectError, match=r"t-0 has no offset to start from, and auto\.offset\.reset is none") as caught:
        task.open(P0)
    assert not isinstance(caught.value, RetriableError)


def test_records_that_kafka_no_longer_has_are_told_and_end_what_was_proven(
    task: Task, partitions: Partitions, caplog: pytest.LogCaptureFixture
) -> None:
    left(partitions, 50, (1, 2, 7))
    task.logs.first[P0] = 60
    assert task.open(P0, p0=Committed(55)) == {P0: 60}
    assert "no longer has the records from offset 50 to 60" in caplog.text
    assert task.stored() == Stored(60)


def test_an_offset_beyond_the_end_is_of_another_log_and_goes_back_to_the_horizon(task: Task, partitions: Partitions) -> None:
    left(partitions, 101, (1, 2, 7))
    task.logs.times[P0] = [now_ms() - HORIZON - 60_000, now_ms()]
    assert task.open(P0, p0=Committed(101)) == {P0: 1}
    assert task.stored() == Stored(1)


@pytest.mark.parametrize(
    ("stored", "committed", "reset", "start"),
    [
        (50, 70, None, 70),
        (None, 70, "earliest", 70),
        (50, None, None, 100),
        (None, None, None, 100),
        (None, None, "earliest", 0),
        (50, 101, None, 100),
    ],
)
def test_processing_time_goes_on_where_the_group_has_committed_and_never_back(
    partitions: Partitions, stored: int | None, committed: int | None, reset: str | None, start: int
) -> None:
    task = Task(partitions, replace(RULES, replays=False, offset_reset=reset))
    if stored is not None:
        left(partitions, stored, (1, 2, 7))
    task.logs.times[P0] = [now_ms()]
    assert task.open(P0, p0=None if committed is None else Committed(committed)) == {P0: start}
    assert task.stored() == Stored(start), "what was proven of records' own times is not proven of the time of processing"
    assert task.logs.looked_up == []


def test_another_configuration_drops_the_index_and_starts_at_the_horizon(
    task: Task, partitions: Partitions, caplog: pytest.LogCaptureFixture
) -> None:
    left(partitions, 50)
    other = Task(partitions, replace(RULES, config="y"))
    other.logs.times[P0] = [now_ms()]
    assert other.open(P0, p0=Committed(50)) == {P0: 0}
    assert "the index is built anew" in caplog.text


def test_a_claim_that_somebody_overtakes_is_tried_again(connection: Connection, partitions: Partitions) -> None:
    other = Task(partitions)

    @dataclass
    class Slow(FakeLogs):
        def bounds(self, partitions: Any) -> dict[TopicPartition, tuple[int, int]]:
            other.open(P0)
            return super().bounds(partitions)

    task = Task(partitions, logs=Slow(ends={P0: 100}))
    with pytest.raises(RetriableError, match="another task has claimed"):
        task.open(P0)
    assert task.holdings.held == {}
    assert other.holdings.advance({P0: 101}) is not None


# --- advance


def test_an_advance_stores_what_is_new_and_is_silent_where_nothing_is(task: Task) -> None:
    task.open(P0, P1)
    assert task.holdings.advance({}) is None
    reply = task.holdings.advance({P0: 105})
    assert reply is not None
    assert (task.stored(P0), task.stored(P1)) == (Stored(105), Stored(100))
    assert task.holdings.advance({P0: 105}) is None


def test_offsets_of_partitions_that_are_not_held_are_not_stored(task: Task) -> None:
    task.open(P0, P1)
    task.holdings.close([P1])
    assert task.holdings.advance({P1: 105, P2: 7}) is None
    assert task.holdings.held.keys() == {P0}


@pytest.mark.parametrize("why", ["flush", "another claim", "an operator"])
def test_an_advance_that_redis_refuses_gives_the_partition_back_and_a_claim_heals_it(
    task: Task, connection: Connection, partitions: Partitions, why: str
) -> None:
    task.open(P0, P1)
    task.holdings.advance({P0: 105, P1: 105})
    if why == "flush":
        connection.execute("FLUSHALL")
    elif why == "another claim":
        Task(partitions).open(P0)
    else:
        partitions.alter({P0: 7})
    with pytest.raises(Reclaim) as caught:
        task.holdings.advance({P0: 106, P1: 106})
    assert P0 in caught.value.partitions
    assert (P1 in caught.value.partitions) == (why == "flush")
    task.logs.ends = {P0: 110, P1: 110}
    starts = task.open(*map(TopicPartition._make, caught.value.partitions))
    task.holdings.advance({p: offset + 1 for p, offset in starts.items()})
    assert task.stored(P0) == Stored(starts[P0] + 1)
    assert task.holdings.claims["refused"] == len(starts)


def test_an_advance_whose_reply_was_lost_is_sent_again(task: Task) -> None:
    task.open(P0)
    before = task.holdings.held
    task.holdings.advance({P0: 105})
    task.holdings.held = before
    assert task.holdings.advance({P0: 105}) is not None
    assert task.stored() == Stored(105)


# --- sight


def test_what_is_applied_up_to_a_sampled_end_is_proven_until_the_sample_was_taken(task: Task) -> None:
    task.open(P0)
    before = now_ms() + task.offset_ms
    task.look()
    task.logs.ends[P0] = 110
    task.look()
    task.holdings.advance({})
    first = task.stored()
    assert first.until_ms is not None
    assert first.since_ms == first.until_ms >= before
    task.see()
    task.holdings.advance({P0: 109})
    assert task.stored() == replace(first, offset=109), "short of the sampled end nothing new is proven"
    task.holdings.advance({P0: 110})
    after = task.stored()
    assert (after.since_ms, after.epoch) == (first.since_ms, 7)
    assert (after.until_ms or 0) > first.until_ms


def test_a_question_waits_for_the_answer_to_the_last_and_for_its_time(task: Task) -> None:
    task.open(P0)
    task.logs.silent = True
    task.look()
    task.offset_ms += 5_000
    task.look()
    assert len(task.logs.asked_for) == 1
    task.logs.silent = False
    task.look()
    assert len(task.logs.asked_for) == 2
    task.look()
    assert len(task.logs.asked_for) == 2, "only just asked"


def test_while_nothing_is_held_an_answer_says_only_that_kafka_answers(task: Task) -> None:
    task.look()
    assert len(task.logs.asked_for) == 1
    task.look()
    assert task.holdings.answered_ms is not None
    assert task.holdings.advance({}) is None, "a partition set is the word of who holds some of it"


def test_what_was_proven_goes_on_over_a_claim_in_time_and_begins_anew_after_a_gap(task: Task, partitions: Partitions) -> None:
    task.open(P0)
    task.look()
    task.look()
    task.holdings.advance({})
    proven = task.stored()
    for gap_ms, goes_on in ((1_000, True), (10_000, False)):
        after = Task(partitions, offset_ms=task.offset_ms + gap_ms)
        after.open(P0, p0=Committed(100))
        after.look()
        after.look()
        after.holdings.advance({})
        assert (after.stored().since_ms == proven.since_ms) is goes_on


@pytest.mark.parametrize("skew_ms", [2_001, -2_001])
def test_while_clocks_disagree_nothing_is_proven_and_then_it_begins_anew(
    task: Task, skew_ms: int, caplog: pytest.LogCaptureFixture
) -> None:
    task.open(P0)
    task.look()
    task.look()
    task.holdings.advance({})
    before = task.stored()
    task.skew_ms = skew_ms
    for _ in range(3):
        task.see()
    task.holdings.advance({})
    assert task.stored() == before
    assert caplog.text.count("nothing can be concluded from silence") == 1
    task.skew_ms = 0
    task.see()
    task.see()
    task.holdings.advance({})
    assert (task.stored().since_ms or 0) > (before.until_ms or 0)


def test_one_late_answer_of_redis_does_not_end_sight_for_good_where_no_records_come(task: Task) -> None:
    task.open(P0, p0=Committed(100))
    task.holdings.advance({P0: 100})
    task.clock.redis_ahead_ms = -9_000
    task.holdings.look({})
    task.holdings.advance({})
    assert task.clock.agree
    for _ in range(2):
        task.offset_ms += 1_000
        task.holdings.look({})
    task.holdings.advance({})
    assert task.stored().until_ms is not None


def test_what_clocks_proved_that_were_set_back_since_is_proven_anew(task: Task) -> None:
    task.open(P0, p0=Committed(100))
    task.offset_ms = 3_600_000
    task.look()
    task.look()
    task.holdings.advance({P0: 100})
    assert (task.stored().until_ms or 0) > now_ms() + 3_000_000
    task.offset_ms = 0
    with pytest.raises(Reclaim, match="set back"):
        task.look()
    task.open(P0, p0=Committed(100))
    assert task.stored() == Stored(100), "before anything new is proven: it would vouch for the next hour"
    task.see()
    task.holdings.advance({P0: 100})
    assert now_ms() - 60_000 < (task.stored().until_ms or 0) <= now_ms() + 2_000


def test_the_clock_that_is_behind_dates_a_sample(task: Task) -> None:
    task.open(P0)
    task.skew_ms = -1_500
    task.look()
    now = now_ms() + task.offset_ms
    task.look()
    task.holdings.advance({})
    assert (task.stored().until_ms or 0) <= now - 1_500


def test_a_log_that_ends_before_what_was_applied_is_given_back(task: Task) -> None:
    task.open(P0, P1)
    task.look()
    task.look()
    task.logs.ends[P0] = 3
    task.offset_ms += 1_000
    task.look()
    with pytest.raises(Reclaim, match="made anew, or cut") as caught:
        task.look()
    assert set(caught.value.partitions) == {P0}
    task.logs.times[P0] = [now_ms() - 1_000] * 3
    assert task.open(P0, p0=Committed(100)) == {P0: 0}


def test_the_log_of_a_partition_is_known_over_a_claim_also_where_nothing_is_proven_yet(task: Task, partitions: Partitions) -> None:
    left(partitions, 50)
    partitions._connection.call("HSET", partitions.keys.proof, "t/0/log", "id of t")
    task.open(P0, p0=Committed(50))
    task.logs.ids["t"] = "another"
    task.look()
    with pytest.raises(Reclaim, match="made anew"):
        task.look()


# --- the partition set


def topics_of(task: Task) -> Mapping[str, int]:
    return task.partitions.claim("x", TTL, "look", []).topics


def test_the_partition_set_is_stored_with_the_next_advance(task: Task) -> None:
    task.open(P0)
    task.look()
    task.look()
    task.holdings.advance({})
    assert topics_of(task) == {"t": 3}
    task.logs.counts["t"] = 5
    task.see()
    task.see()
    task.holdings.advance({})
    assert topics_of(task) == {"t": 5}


@pytest.mark.parametrize("counts", [{}, {"t": None}])
def test_a_topic_about_which_nobody_answers_or_that_is_gone_takes_nothing_away(task: Task, counts: dict[str, int | None]) -> None:
    task.open(P0)
    task.look()
    task.look()
    task.holdings.advance({})
    task.logs.counts = counts
    task.see()
    task.see()
    task.holdings.advance({P0: 101})
    assert topics_of(task) == {"t": 3}


def test_a_task_that_does_not_know_a_topic_yet_does_not_take_it_out_of_the_set(partitions: Partitions) -> None:
    rules = replace(RULES, pattern=True)
    early, late = Task(partitions, rules), Task(partitions, rules, offset_ms=100)
    for task in (early, late):
        task.logs.counts = {"t": 3, "u": 2}
        task.open(P0 if task is late else TopicPartition("u", 0))
    early.logs.topics = ("t", "u")
    for task in (early, late, early, late):
        task.see()
        task.holdings.advance({})
        assert topics_of(task) == {"t": 3, "u": 2}


def test_a_topic_of_which_something_is_held_is_not_gone_because_a_broker_says_so(task: Task) -> None:
    task.logs.topics = ("t", "u")
    task.logs.counts = {"t": 3, "u": 2}
    task.open(P0, TopicPartition("u", 0))
    for count in (2, None):
        task.logs.counts["u"] = count
        for _ in range(2):
            task.see()
        task.holdings.advance({})
        assert topics_of(task) == {"t": 3, "u": 2}


def test_a_partition_set_from_the_future_is_replaced(task: Task, partitions: Partitions) -> None:
    left(partitions, 0)
    partitions._connection.call("HSET", partitions.keys.proof, "partitions", '{"t":3}', "partitions_at", now_ms() + 3_600_000)
    task.logs.counts["t"] = 5
    task.open(P0)
    for _ in range(2):
        task.see()
    task.holdings.advance({})
    assert topics_of(task) == {"t": 5}


def test_a_refused_partition_set_is_stored_after_the_next_claim(task: Task, connection: Connection) -> None:
    task.open(P0)
    task.look()
    task.look()
    connection.execute("FLUSHALL")
    with pytest.raises(Reclaim):
        task.holdings.advance({})
    task.open(P0)
    task.holdings.advance({})
    assert topics_of(task) == {"t": 3}


def test_with_a_pattern_topics_that_others_hold_are_asked_about_too(partitions: Partitions) -> None:
    Task(partitions).open(P0)
    partitions._connection.call("HSET", partitions.keys.proof, "partitions", '{"t":3,"theirs":2}', "partitions_at", 1)
    left(partitions, 100)
    task = Task(partitions, replace(RULES, pattern=True))
    task.logs.counts["theirs"] = 4
    task.open(P0)
    task.look()
    assert task.logs.asked_for == [frozenset({"t", "theirs"})]
    task.look()
    task.holdings.advance({})
    assert topics_of(task) == {"t": 3, "theirs": 4}
    task.logs.counts["theirs"] = None
    task.see()
    task.see()
    task.holdings.advance({})
    assert topics_of(task) == {"t": 3}
    task.see()
    assert task.logs.asked_for[-1] == {"t"}


def test_the_level_of_what_is_said_of_a_claim_is_a_warning_only_where_something_was_lost(
    task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    task.open(P0)
    assert caplog.messages == []


# --- canaries


def test_a_canary_goes_with_the_advance_of_its_partition_and_with_no_other(task: Task) -> None:
    task.open(P0, P1)
    task.holdings.advance({P1: 101}, Canaries({P0: 7}, 1))
    assert task.stored(P0).canary_ms == 7
    task.holdings.advance({P0: 101}, Canaries({P0: 5, P2: 9}, 2))
    task.holdings.advance({P0: 102})
    assert (task.stored(P0).canary_ms, task.stored(P1).canary_ms) == (7, None)
    assert task.holdings.held[P0].stored == task.stored(P0)
    assert task.holdings.canaries == 3


def test_a_refused_advance_counts_no_canary(task: Task, connection: Connection) -> None:
    task.open(P0)
    connection.execute("FLUSHALL")
    with pytest.raises(Reclaim):
        task.holdings.advance({P0: 101}, Canaries({P0: 7}, 1))
    assert task.holdings.canaries == 0
    task.open(P0)
    assert task.stored().canary_ms is None


def test_a_canary_stays_proven_where_sight_does(task: Task) -> None:
    task.open(P0, P1)
    task.logs.ends = {P0: 101, P1: 101}
    task.holdings.advance({P0: 101, P1: 101}, Canaries({P0: 7, P1: 7}, 2))
    task.see()
    task.holdings.advance({})
    again = Task(task.partitions, logs=task.logs)
    again.open(P0)
    assert (again.stored(P0).canary_ms, again.holdings.held[P0].stored.canary_ms) == (7, 7)
    again.logs.ids["t"] = "another id"
    again.open(P1)
    assert (again.stored(P1).canary_ms, again.holdings.held[P1].stored.canary_ms) == (None, None)


def test_since_when_a_partition_is_held_is_told_by_the_earlier_clock(task: Task) -> None:
    task.skew_ms = task.clock.redis_ahead_ms = -1_500
    before = now_ms()
    task.open(P0)
    assert before - 50 <= task.holdings.held[P0].opened_ms <= now_ms()
