"""What is said of brokers, topics and groups, fact by fact."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from heartbeat.connect.api import TopicPartition
from heartbeat.connect.cluster import Brokers, GroupState, TopicState
from heartbeat.doctor import judge_kafka
from heartbeat.doctor.findings import Finding, Level
from heartbeat.doctor.target import Target

AT = "127.0.0.1:9092"
HORIZON_MS = 600_000
SETTINGS = {"cleanup.policy": "delete", "retention.ms": "604800000", "message.timestamp.type": "CreateTime"}
TARGET = Target("c", "connect-c", (("bootstrap.servers", AT),), None)
P0 = TopicPartition("t", 0)


def topic(
    settings: Mapping[str, str] | None = None, partitions: Mapping[int, tuple[int, int]] | None = None, *leaderless: int
) -> TopicState:
    return TopicState(partitions or {0: (1, 1)}, leaderless, settings)


@pytest.mark.parametrize(
    ("found", "level", "words", "fix"),
    [
        (topic(SETTINGS), Level.OK, "1 partition(s), cleanup.policy delete, retention.ms 604800000", ""),
        (topic(SETTINGS | {"retention.ms": "-1"}), Level.OK, "retention.ms -1", ""),
        (topic(SETTINGS | {"retention.ms": "600000"}), Level.OK, "retention.ms 600000", ""),
        (topic(None), Level.OK, "1 partition(s)", ""),
        (topic(SETTINGS | {"message.timestamp.type": "LogAppendTime"}), Level.OK, "LogAppendTime: a beat counts as of its arrival", ""),
        (None, Level.FAIL, "does not exist", f"kafka-topics --bootstrap-server {AT} --create --topic t"),
        (topic(SETTINGS | {"retention.ms": "599999"}),
         Level.WARN, "shorter than the rebuild horizon of 600000 ms", "--add-config retention.ms=600000"),
        (topic(SETTINGS | {"cleanup.policy": "compact", "retention.ms": "1"}),
         Level.WARN, "records without a key are refused", "cleanup.policy=delete"),
        (topic(SETTINGS, {0: (1, 0)}, 0), Level.FAIL, "nobody leads partition(s) 0", "--describe --topic t"),
        (topic(SETTINGS, {0: (3, 3), 1: (3, 2)}), Level.WARN, "copies of partition(s) 1 are out of sync", "--describe --topic t"),
    ],
)  # fmt: skip
def test_a_topic_is_judged_by_what_beats_need(found: TopicState | None, level: Level, words: str, fix: str) -> None:
    (told,) = judge_kafka.topic("t", found, HORIZON_MS, AT)
    assert (told.level, told.check) == (level, "topic t")
    assert words in told.text
    assert fix in (told.fix or "")


def test_faults_of_a_topic_do_not_hide_each_other() -> None:
    found = topic({"cleanup.policy": "compact,delete", "retention.ms": "1"}, {0: (1, 0), 1: (2, 1)}, 0)
    assert [finding.level for finding in judge_kafka.topic("t", found, HORIZON_MS, AT)] == [Level.FAIL, Level.WARN, Level.WARN, Level.WARN]


def test_retention_is_not_judged_where_the_horizon_is_not_known() -> None:
    (told,) = judge_kafka.topic("t", topic(SETTINGS | {"retention.ms": "1"}), None, AT)
    assert told.level is Level.OK


def group(found: GroupState, tasks: int | None) -> Finding:
    return judge_kafka.group(TARGET, found, {P0: 10, TopicPartition("t", 1): 5}, tasks)


@pytest.mark.parametrize(
    ("found", "tasks", "level", "words"),
    [
        (GroupState("STABLE", 1, {P0: 8}), 1, Level.OK, "STABLE with 1 member(s); 7 record(s) are not committed yet"),
        (GroupState("STABLE", 1, None), None, Level.OK, "its committed offsets are not told"),
        (GroupState(None, None, {P0: 10}), 1, Level.OK, "the broker does not tell its members; 5 record(s)"),
        (GroupState("EMPTY", 0, {}), 1, Level.FAIL, "has no members, though 1 task(s) run"),
        (GroupState("DEAD", 0, {}), 0, Level.WARN, "nobody reads; 15 record(s)"),
        (GroupState("EMPTY", 0, {}), None, Level.WARN, "nobody reads"),
        (GroupState("STABLE", 2, {}), 1, Level.WARN, "somebody else reads along"),
        (GroupState("PREPARING_REBALANCING", 1, {}), 1, Level.WARN, "is rebalancing"),
    ],
)
def test_a_group_is_judged_by_its_members(found: GroupState, tasks: int | None, level: Level, words: str) -> None:
    told = group(found, tasks)
    assert (told.level, told.check) == (level, "group connect-c")
    assert words in told.text
    assert (told.fix is None) == (level is Level.OK)


def test_a_broker_says_of_its_version_what_it_says() -> None:
    brokers = Brokers("abc", (AT,), 3.4, "inter.broker.protocol.version 3.4-IV0")
    told = list(judge_kafka.brokers(AT, brokers))
    assert [finding.level for finding in told] == [Level.OK, Level.OK]
    assert told[0].text == f"{AT} answered in 3 ms: 1 broker(s), cluster abc, inter.broker.protocol.version 3.4-IV0"
    assert next(judge_kafka.brokers(AT, Brokers("abc", (AT,), 1500.0))).level is Level.WARN
    assert judge_kafka.no_brokers(AT, "refused").level is Level.FAIL


def test_a_pattern_that_matches_nothing_is_a_failure() -> None:
    assert judge_kafka.no_match("c", "beats-.*").level is Level.FAIL
