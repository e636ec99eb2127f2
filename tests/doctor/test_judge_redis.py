"""What is said of a Redis, its clock and the public keys in it, fact by fact."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from heartbeat.beats.connection import Server
from heartbeat.beats.inspection import Index, PublicKey, RedisState
from heartbeat.doctor import judge_redis
from heartbeat.doctor.findings import Finding, Level

SERVER = Server("127.0.0.1", 6379)
NOW = 1_800_000_000_000
TYPED = "heartbeat redis -h 127.0.0.1 -p 6379"
INFO = {
    "redis_version": "7.0.15",
    "maxmemory": "0",
    "maxmemory_policy": "noeviction",
    "evicted_keys": "0",
    "used_memory": "1048576",
    "aof_enabled": "0",
    "rdb_last_bgsave_status": "ok",
    "role": "master",
    "connected_slaves": "0",
}


def judged(
    info: Mapping[str, str], ahead_ms: float | None = 0.0, save: str | None = "", answer_ms: float = 0.5
) -> dict[str, list[Finding]]:
    state = RedisState(info, {} if save is None else {"save": save}, answer_ms, ahead_ms, (), {})
    found: dict[str, list[Finding]] = {}
    for finding in judge_redis.server(SERVER, state):
        found.setdefault(finding.check, []).append(finding)
    return found


def test_a_redis_in_order_has_nothing_to_mend() -> None:
    found = judged(INFO)
    assert list(found) == ["redis", "redis eviction", "redis memory", "redis persistence", "redis replication", "clock redis"]
    assert {finding.level for findings in found.values() for finding in findings} == {Level.OK}


@pytest.mark.parametrize(
    ("check", "changed", "level", "words", "fix"),
    [
        ("redis", {"redis_version": "6.0.16"}, Level.FAIL, "too old", "6.2 or newer"),
        ("redis", {"loading": "1"}, Level.WARN, "still loading", "look again"),
        ("redis", {"cluster_enabled": "1"}, Level.WARN, "cluster mode", "without cluster mode"),
        ("redis eviction", {"maxmemory_policy": "allkeys-lru", "maxmemory": "9"},
         Level.FAIL, "may drop our keys", f"{TYPED} CONFIG SET maxmemory-policy noeviction"),
        ("redis eviction", {"maxmemory_policy": "volatile-ttl"}, Level.WARN, "as long as maxmemory is not set", "noeviction"),
        ("redis eviction", {"evicted_keys": "3"}, Level.WARN, "3 keys were dropped", "noeviction"),
        ("redis memory", {"maxmemory": "1048576"}, Level.FAIL, "writes are refused (OOM)", "CONFIG SET maxmemory 2mb"),
        ("redis memory", {"maxmemory": "1100000"}, Level.WARN, "when it is full", "CONFIG SET maxmemory"),
        ("redis persistence", {"aof_enabled": "1"}, Level.OK, "the last second; the sink notices, and rebuilds", ""),
        ("redis persistence", {"aof_enabled": "1", "aof_last_write_status": "err"}, Level.FAIL, "cannot be written", "free the disk"),
        ("redis persistence", {"rdb_last_bgsave_status": "err"}, Level.FAIL, "MISCONF", "BGSAVE"),
        ("redis replication", {"role": "slave", "master_host": "10.0.0.1", "master_port": "6379"},
         Level.FAIL, "replica of 10.0.0.1:6379", "set redis.host"),
        ("redis replication", {"slave0": "ip=1,port=2,state=wait_bgsave,offset=0,lag=0"},
         Level.WARN, "1 of 1 replicas are not online", "INFO replication"),
        ("redis replication", {"slave0": "ip=1,port=2,state=online,offset=0,lag=0"}, Level.OK, "1 replica(s)", ""),
    ],
)  # fmt: skip
def test_one_fault_is_told_with_its_fix(check: str, changed: dict[str, str], level: Level, words: str, fix: str) -> None:
    told = next(finding for finding in judged(INFO | changed)[check] if words in finding.text)
    assert told.level is level
    assert fix in (told.fix or "")


@pytest.mark.parametrize(
    ("save", "words"),
    [("", "loses everything"), ("3600 1", "snapshots (3600 1)"), (None, "snapshots are not told")],
)
def test_what_a_restart_loses_is_told_and_that_it_heals(save: str | None, words: str) -> None:
    (told,) = judged(INFO, save=save)["redis persistence"]
    assert words in told.text
    assert "rebuilds who is alive from Kafka" in told.text


def test_an_account_that_may_not_ask_hides_no_clock() -> None:
    found = judged({})
    assert found["redis"][0].level is Level.WARN
    assert "+info" in (found["redis"][0].fix or "")
    assert found["clock redis"][0].level is Level.OK


@pytest.mark.parametrize(
    ("ahead_ms", "answer_ms", "level", "words"),
    [
        (0.2, 0.5, Level.OK, "give or take 0.2 ms"),
        (-600.0, 0.5, Level.WARN, "600 ms behind"),
        (2001.0, 0.5, Level.FAIL, "2,001 ms ahead of"),
        (-2001.0, 0.5, Level.FAIL, "2,001 ms behind"),
        (600.0, 900.0, Level.OK, "600 ms ahead of"),
    ],
)
def test_clocks_apart_are_told_by_how_far(ahead_ms: float, answer_ms: float, level: Level, words: str) -> None:
    (told,) = judged(INFO, ahead_ms, answer_ms=answer_ms)["clock redis"]
    assert told.level is level
    assert words in told.text
    assert ("timedatectl" in (told.fix or "")) == (level is not Level.OK)


def index(*sample: PublicKey) -> Index:
    return Index(NOW - 60_000, {}, {}, NOW, len(sample), 0, 0, sample, NOW)


ALIVE = PublicKey("alive", NOW + 30_000, 30_000, True)


@pytest.mark.parametrize(
    ("key", "level", "words"),
    [
        (ALIVE, Level.OK, "2 of them alive"),
        (PublicKey("dead", NOW - 30_000, -2, False), Level.OK, "1 of them alive"),
        (PublicKey("just", NOW + 100, -2, False), Level.OK, "1 of them alive"),
        (PublicKey("gone", NOW + 30_000, -2, False), Level.WARN, "(gone) are alive in the index but have no public key"),
        (PublicKey("taken", NOW + 30_000, -1, False), Level.WARN, "(taken) have a public key that holds something else"),
        (PublicKey("text", NOW + 30_000, 30_000, False), Level.WARN, "(text) have a public key that holds something else"),
        (PublicKey("long", NOW + 30_000, 90_000, True), Level.WARN, "(long) have a public key that lives shorter or longer"),
        (PublicKey("ever", NOW + 30_000, -1, True), Level.WARN, "(ever) have a public key that lives shorter or longer"),
    ],
)
def test_a_public_key_that_says_another_thing_than_the_index_is_named(key: PublicKey, level: Level, words: str) -> None:
    (told,) = judge_redis.keys("c", index(ALIVE, key))
    assert told.level is level
    assert words in told.text


def test_no_more_than_three_are_named() -> None:
    (told,) = judge_redis.keys("c", index(*(PublicKey(f"s{n}", NOW + 30_000, -2, False) for n in range(5))))
    assert "5 of 5 source(s) looked at (s0, s1, s2, ...)" in told.text
