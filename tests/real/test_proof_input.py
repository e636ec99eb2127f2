"""Records, keys, clocks, servers and changes of configuration as nobody wants them: what they do to the index, and what they do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import parts
from .broker import HERE, Java, Kafka
from .index import LIFT_MS, TTL_S, Beats, Index, indexed_config, watching
from .parts import HeartbeatWorker, Redis
from .programs import eventually
from .scenario import Connector, now_ms, unique

SOURCES = [f"source-{n}" for n in range(50)]
BYTES = {"key.converter": "org.apache.kafka.connect.converters.ByteArrayConverter", "errors.tolerance": "all"}
TEN_YEARS_MS = 10 * 365 * 86_400_000


@pytest.fixture
def connector(worker: HeartbeatWorker, kafka: Kafka) -> Iterator[Connector]:
    """A connector and its topic of one partition, both of that name; the connector is deleted afterwards."""
    connector = Connector(worker, kafka, unique("input"))
    kafka.create_topic(connector.name, 1, **{"message.timestamp.after.max.ms": str(2 * TEN_YEARS_MS)})  # an hour by default
    yield connector
    worker.rest("DELETE", connector.path)


@pytest.fixture
def index(connector: Connector, redis: Redis) -> Iterator[Index]:
    """The connector's index."""
    with watching(redis, connector.name) as index:
        yield index


def _stopped(connector: Connector) -> None:
    assert connector.worker.rest("PUT", f"{connector.path}/stop").status_code == 204
    connector.wait_for_members(0)


def _resumed(connector: Connector) -> None:
    assert connector.worker.rest("PUT", f"{connector.path}/resume").status_code == 202


# Records


def test_keys_that_cannot_be_names_are_left_out_and_all_others_are_sources(
    connector: Connector, index: Index, kafka: Kafka, redis: Redis
) -> None:
    beats = Beats(kafka, connector.name)
    good = [b"\xff\xfe\x00\r\n binary", b"with {braces} and spaces", "höher ✓".encode(), b"hb:no-brace", b"*", b"a" * 4096]
    bad = [None, b"", b"k" * 65_536, b"hb:{x}:deadlines", index.key("proof").encode(), b"hb:{"]
    connector.put(indexed_config(redis, connector.name, BYTES))
    stamp = now_ms()
    for key in (*good, *bad, *good):
        beats.producer.produce(connector.name, "beat", key, timestamp=stamp)
    beats.newest = {key.decode("utf-8", "surrogateescape"): stamp for key in good}
    beats.flush()
    index.wait_until_healed(beats)
    assert connector.states() == ["RUNNING", "RUNNING"]
    assert index.client.exists("hb:{x}:deadlines", "hb:{") == 0
    assert index.client.type(index.key("proof")) == "hash"


def test_a_name_of_the_index_fails_the_task_where_nothing_is_tolerated(
    connector: Connector, index: Index, kafka: Kafka, redis: Redis
) -> None:
    connector.put(indexed_config(redis, connector.name))
    Beats(kafka, connector.name).send([index.key("deadlines")])
    assert "hb:{" in connector.wait_for_failure()
    assert index.client.type(index.key("deadlines")) in {"none", "zset"}


def test_stamps_without_sense_make_nobody_immortal_and_hide_nobody(connector: Connector, index: Index, kafka: Kafka, redis: Redis) -> None:
    topic = connector.name
    beats = Beats(kafka, topic)
    connector.put(indexed_config(redis, topic, {"consumer.override.auto.offset.reset": "earliest"}))
    _send_at_zero(kafka, topic, "zero")
    before_ms = now_ms()
    beats.send(["nineteen-seventy"], at_ms=1)
    beats.send(["future"], at_ms=before_ms + TEN_YEARS_MS)
    beats.send(["none"], at_ms=-1)
    sent_ms = beats.send(["sane"])
    index.wait_until_proven(topic, sent_ms)
    deadlines = index.deadlines()
    assert deadlines["zero"] <= TTL_S * 1000 + LIFT_MS
    assert deadlines["nineteen-seventy"] <= 1 + TTL_S * 1000 + LIFT_MS
    for source in ("none", "future", "sane"):
        assert before_ms <= deadlines[source] - TTL_S * 1000 <= now_ms() + LIFT_MS
    alive = {source for source, (value, _) in index.public(deadlines).items() if value is not None}
    assert alive == {"none", "future", "sane"}
    _stopped(connector)
    _alter(connector, {"kafka_offset": 0})
    _resumed(connector)
    index.wait_until_proven(topic, now_ms())
    assert index.deadlines()["future"] == deadlines["future"], "a replay must not extend a life"


def _send_at_zero(kafka: Kafka, topic: str, key: str) -> None:
    """Send a record stamped 0, which librdkafka takes for "now"; Java does not."""
    java = Java("4.1")
    java.run(str(HERE / "kafka" / "AtZero.java"), kafka.bootstrap, topic, key)


def _alter(connector: Connector, offset: dict[str, int] | None) -> None:
    body = {"offsets": [{"partition": {"kafka_topic": connector.name, "kafka_partition": 0}, "offset": offset}]}
    reply = connector.worker.rest("PATCH", f"{connector.path}/offsets", body)
    assert reply.status_code == 200, reply.text


def test_headers_with_garbage_leave_a_record_the_beat_that_it_is(connector: Connector, index: Index, kafka: Kafka, redis: Redis) -> None:
    beats = Beats(kafka, connector.name)
    connector.put(indexed_config(redis, connector.name))
    garbage = ["", "\0", "-1", "0", "1e9", "9" * 400, "nan", "☃" * 5_000]
    for name in ("hb-ttl", "hb-status", "hb-run", "hb-message", "hb-", "hb-unknown"):
        for number, text in enumerate(garbage):
            beats.send([f"{name}-{number}"], headers={name: text})
    for number, raw in enumerate([b"\xff\xfe", None]):
        beats.newest[f"raw-{number}"] = stamp = now_ms()
        beats.producer.produce(connector.name, "beat", f"raw-{number}", timestamp=stamp, headers={"hb-ttl": raw, "hb-status": raw})
    beats.flush()
    index.wait_until_healed(beats)
    assert connector.states() == ["RUNNING", "RUNNING"]


# Servers


def test_an_applications_key_of_another_type_is_left_alone(connector: Connector, index: Index, kafka: Kafka, redis: Redis) -> None:
    beats = Beats(kafka, connector.name)
    redis.cli("HSET", SOURCES[0], "theirs", "1")
    connector.put(indexed_config(redis, connector.name))
    for _ in range(3):
        sent_ms = beats.send(SOURCES)
        index.wait_until_proven(connector.name, sent_ms)
        assert redis.cli("HGETALL", SOURCES[0]).split() == ["theirs", "1"]
    assert index.deadlines().keys() == set(SOURCES)
    assert SOURCES[0] in connector.worker.log()
    assert connector.states() == ["RUNNING", "RUNNING"]
    redis.cli("DEL", SOURCES[0])
    beats.send(SOURCES)
    index.wait_until_healed(beats)


def test_a_server_that_may_evict_fails_the_task_with_the_reason(connector: Connector, kafka: Kafka, tmp_path: Path) -> None:
    with parts.redis_server(tmp_path, "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru") as redis:
        connector.put(indexed_config(redis, connector.name))
        trace = connector.wait_for_failure()
        assert "allkeys-lru" in trace
        assert "maxmemory-policy noeviction" in trace
        redis.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
        assert connector.worker.rest("POST", f"{connector.path}/restart?includeTasks=true&onlyFailed=true").status_code == 202
        connector.wait_for("RUNNING", "RUNNING")
        connector.worker.rest("DELETE", connector.path)


# Changes


def test_a_deleted_connector_takes_its_index_along(connector: Connector, index: Index, kafka: Kafka, redis: Redis) -> None:
    beats = Beats(kafka, connector.name)
    connector.put(indexed_config(redis, connector.name))
    beats.send(SOURCES, headers={"hb-status": "start", "hb-run": "1"})
    index.wait_until_healed(beats)
    assert index.client.sismember("hb:connectors", connector.name)
    assert connector.worker.rest("DELETE", connector.path).status_code == 204
    eventually(lambda: index.client.keys("hb:*") == [], f"nothing is left, left is {index.client.keys('hb:*')}")
    assert len(index.client.keys("*")) == len(SOURCES), "public keys expire by themselves"


@pytest.mark.parametrize("reset", [False, True], ids=["running", "after-a-reset-of-offsets"])
def test_another_template_builds_the_index_anew(reset: bool, connector: Connector, index: Index, kafka: Kafka, redis: Redis) -> None:
    beats = Beats(kafka, connector.name)
    connector.put(indexed_config(redis, connector.name, {"redis.key": "old:${key}"}))
    sent_ms = beats.send(SOURCES)
    index.wait_until_proven(connector.name, sent_ms)
    assert index.deadlines().keys() == {f"old:{source}" for source in SOURCES}
    if reset:
        _stopped(connector)
        assert connector.worker.rest("DELETE", f"{connector.path}/offsets").status_code == 200
    changed_ms = now_ms()
    connector.put(indexed_config(redis, connector.name, {"redis.key": "new:${key}"}))
    if reset:
        _resumed(connector)
    index.wait_until_proven(connector.name, changed_ms)
    index.check({f"new:{source}": stamp for source, stamp in beats.newest.items()})


@pytest.mark.parametrize("how", ["altered", "one-removed", "reset"])
def test_changed_offsets_are_where_a_connector_goes_on(how: str, connector: Connector, index: Index, kafka: Kafka, redis: Redis) -> None:
    beats = Beats(kafka, connector.name)
    connector.put(indexed_config(redis, connector.name))
    beats.send(SOURCES)
    index.wait_until_healed(beats)
    _stopped(connector)
    redis.cli("ZREM", index.key("deadlines"), SOURCES[0], SOURCES[-1])
    redis.cli("DEL", SOURCES[0], SOURCES[-1])
    if how == "reset":
        assert connector.worker.rest("DELETE", f"{connector.path}/offsets").status_code == 200
    else:
        _alter(connector, {"kafka_offset": len(SOURCES) - 1} if how == "altered" else None)
    _resumed(connector)
    index.wait_until_proven(connector.name, now_ms())
    if how == "altered":  # the last record is read again, the first is not
        assert SOURCES[0] not in index.deadlines()
        del beats.newest[SOURCES[0]]
    index.check(beats.newest)


def test_with_processing_time_a_flush_replays_nothing(connector: Connector, index: Index, kafka: Kafka, redis: Redis) -> None:
    beats = Beats(kafka, connector.name)
    connector.put(indexed_config(redis, connector.name, {"heartbeat.time": "processing"}))
    connector.wait_for_members(1)
    eventually(lambda: index.of_partitions(connector.name, "until"), "it looks")
    sent_ms = beats.send(SOURCES)
    index.wait_until_proven(connector.name, sent_ms)
    assert index.deadlines().keys() == set(SOURCES)
    connector.wait_until_caught_up(connector.name)  # by the group's memory: Redis is about to lose its own
    flushed_ms = now_ms()
    redis.cli("FLUSHALL")
    index.wait_until_proven(connector.name, flushed_ms)
    assert index.deadlines() == {}
    assert index.of_partitions(connector.name, "since")[0] >= flushed_ms, "unknown for one ttl"
    again_ms = beats.send(SOURCES[:3])
    index.wait_until_proven(connector.name, again_ms)
    assert index.deadlines().keys() == set(SOURCES[:3])
