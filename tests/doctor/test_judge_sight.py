"""What is said of sight, partition by partition."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from heartbeat.beats.inspection import Index
from heartbeat.beats.partitions import Said, Stored
from heartbeat.beats.partitions import Target as State
from heartbeat.connect.api import TopicPartition
from heartbeat.doctor import judge_sight
from heartbeat.doctor.findings import Finding, Level, fail, warn
from heartbeat.doctor.target import Target

NOW = 1_800_000_000_000
TARGET = Target("c", "connect-c", (), None, ttl_ms=60_000)
P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)
GOOD = Stored(10, NOW - 3_600_000, NOW - 400, 0)


def judged(
    proof: Mapping[TopicPartition, Stored], ends: Mapping[TopicPartition, int] | None = None, held: Finding | None = None, **more: object
) -> list[Finding]:
    known = {"topics": {"t": 2}, "topics_at_ms": NOW - 400} | more
    index = Index(NOW, proof, sources=1, down=0, gone=0, sample=(), sampled_ms=NOW, **known)  # type: ignore[arg-type]
    return list(judge_sight.judge(TARGET, index, {P0: 10, P1: 12} if ends is None else ends, held, "type this"))


def test_all_in_sight_is_one_line_with_ages_and_the_offset_against_the_end() -> None:
    (told,) = judged({P0: GOOD, P1: GOOD})
    assert told.level is Level.OK
    assert told.text == "2 partition(s) seen to their ends at most 400ms ago, without a gap for 1h0m, 2 record(s) behind"


def test_a_sight_younger_than_the_ttl_says_when_silence_is_judged() -> None:
    (told,) = judged({P0: GOOD, P1: Stored(12, NOW - 20_000, NOW, 0)})
    assert told.level is Level.OK
    assert "without a gap for 20.0s" in told.text
    assert told.text.endswith("who fell silent before that is judged in 40.0s")


@pytest.mark.parametrize(
    ("stored", "level", "words"),
    [
        (None, Level.FAIL, "t-1 exists, but nobody proves it"),
        (Stored(2), Level.FAIL, "t-1 is not proven yet, 10 record(s) behind"),
        (Stored(12, NOW - 90_000, NOW - 10_001, 0), Level.FAIL, "t-1 was last seen to its end 10.0s ago, 0 record(s) behind: blind"),
        (Stored(12, NOW - 90_000, NOW - 10_000, 0), Level.WARN, "verdicts wait"),
        (Stored(12, NOW - 90_000, NOW - 3_001, 0), Level.WARN, "t-1 was last seen to its end 3.0s ago"),
        (Stored(13, NOW - 90_000, NOW - 400, 0), Level.FAIL, "13 records are applied, but the log ends at 12: it was made anew"),
    ],
)
def test_one_partition_out_of_sight_is_named_with_the_fix(stored: Stored | None, level: Level, words: str) -> None:
    (told,) = judged({P0: GOOD} if stored is None else {P0: GOOD, P1: stored})
    assert told.level is level
    assert words in told.text
    assert "type this" in (told.fix or "")


def test_a_brokers_silence_leaves_the_ages() -> None:
    (told,) = judged({P0: GOOD, P1: Stored(12, NOW - 90_000, NOW - 20_000, 0)}, ends={})
    assert "20.0s ago: blind" in told.text


def test_a_set_of_partitions_that_is_old_is_told_only_where_sight_is_not() -> None:
    told = judged({P0: GOOD, P1: GOOD}, topics_at_ms=NOW - 10_001)
    assert [finding.level for finding in told] == [Level.WARN, Level.OK]
    assert "a new one would go unseen" in told[0].text
    (alone,) = judged({P0: GOOD}, topics_at_ms=NOW - 10_001)
    assert "nobody proves it" in alone.text


def test_partitions_are_known_from_the_proof_until_the_set_is() -> None:
    assert judged({P0: GOOD}, topics={})[0].level is Level.OK
    assert judged({}, topics={})[0].level is Level.FAIL


@pytest.mark.parametrize("finding", [warn("connector c", "is PAUSED", "resume"), fail("connector c", "is STOPPED", "resume")])
def test_a_connector_that_is_held_is_no_outage(finding: Finding) -> None:
    (told,) = judged({P0: Stored(10, NOW - 90_000, NOW - 60_000, 0)}, held=finding)
    assert (told.level, told.fix) == (finding.level, "resume")
    assert "2 of 2 partition(s) are not in sight, as the connector is held" in told.text
    (just,) = judged({P0: GOOD, P1: GOOD}, held=finding)
    assert just.level is Level.OK


def test_many_partitions_out_of_sight_are_counted_after_ten() -> None:
    told = judged({}, topics={"t": 64})
    assert len(told) == 11
    assert told[-1].text == "... and 54 more partition(s)"
    assert told[-1].level is Level.FAIL


def test_another_redis_is_suspected_where_there_is_no_index() -> None:
    told = judge_sight.no_index(TARGET, ["other"])
    assert told.level is Level.FAIL
    assert "there is one of other" in told.text
    assert "--redis HOST:PORT" in (told.fix or "")


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("broker", "task 3 says why: Kafka does not answer it"),
        ("lag", "task 3 says why: 1,234 record(s) are known to it and not applied"),
        ("clocks", "task 3 says why: the clocks of Redis and of the worker"),
        ("paused", "task 3 says why: 1,234 record(s) wait, as the connector is paused"),
    ],
)
def test_what_a_task_says_of_itself_is_passed_on_while_it_is_fresh_and_sight_is_not(why: str, words: str) -> None:
    old = Stored(12, NOW - 90_000, NOW - 20_000, 0)
    assert words in judged({P0: GOOD, P1: old}, said={3: Said(NOW - 6_000, why, 1_234)})[1].text
    assert len(judged({P0: GOOD, P1: old}, said={3: Said(NOW - 6_001, why, 1_234)})) == 1
    assert len(judged({P0: GOOD, P1: old}, said={3: Said(NOW, "something new")})) == 1
    assert [finding.level for finding in judged({P0: GOOD, P1: GOOD}, said={3: Said(NOW, why)})] == [Level.OK]


@pytest.mark.parametrize(("state", "word"), [("PAUSED", "paused"), ("STOPPED", "stopped")])
def test_a_hold_that_only_redis_tells_of_is_no_outage_either(state: str, word: str) -> None:
    old = Stored(12, NOW - 90_000, NOW - 20_000, 0)
    (told,) = judged({P0: GOOD, P1: old}, target=State(state, NOW - 60_000))
    assert told.level is Level.WARN
    assert f"1 of 2 partition(s) are not in sight, as the connector was {word} 1m0s ago" in told.text
    assert judged({P0: GOOD, P1: GOOD}, target=State(state, NOW - 60_000))[0].level is Level.OK
    assert judged({P0: GOOD, P1: old}, target=State("STARTED", NOW - 60_000))[0].level is Level.FAIL
