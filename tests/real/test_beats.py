"""What a record becomes in Redis: from every producer, at its own time, newest wins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from . import parts
from .broker import Kafka
from .parts import HeartbeatWorker, Redis
from .programs import eventually
from .scenario import Connector, is_beat, kcat_send, newest_stamp, newest_stamps, now_ms, sink_config, unique, wait_for_value

TTL_MS = 60_000


@pytest.fixture(params=["kafka", "kafka_zk"])
def broker(request: pytest.FixtureRequest) -> Kafka:
    """Each Kafka in turn."""
    kafka: Kafka = request.getfixturevalue(request.param)
    return kafka


@pytest.fixture
def connector(worker: HeartbeatWorker, kafka: Kafka) -> Iterator[Connector]:
    """A connector's name, free to create; deleted afterwards."""
    connector = Connector(worker, kafka, unique("beats"))
    yield connector
    worker.rest("DELETE", connector.path)


def test_beats_of_the_console_producer_and_of_kcat_arrive(broker: Kafka, redis: Redis, tmp_path: Path) -> None:
    topic = broker.create_topic(unique("producers"))
    key = f"{topic}-key"
    with parts.heartbeat_worker(tmp_path, broker) as worker:
        connector = Connector(worker, broker, topic)
        connector.put(sink_config(redis, topic))
        broker.console_producer(topic, ["from the console producer"])
        wait_for_value(redis, key, newest_stamp(broker, topic))
        first = redis.cli("GET", key)
        kcat_send(broker, topic, "from kcat")
        wait_for_value(redis, key, newest_stamp(broker, topic))
        assert redis.cli("GET", key) > first
        connector.wait_until_caught_up(topic)


def test_a_key_expires_one_ttl_after_the_time_of_its_beat(connector: Connector, kafka: Kafka, redis: Redis) -> None:
    topic = kafka.create_topic(unique("time"))
    connector.put(sink_config(redis, topic))
    kcat_send(kafka, topic, "beat")
    stamp = newest_stamp(kafka, topic)
    wait_for_value(redis, f"{topic}-key", stamp)
    # The beat's time is the record's, or when it was appended at the earliest: kcat stamps it before it has found the broker.
    beat_ms = int(redis.cli("GET", f"{topic}-key"))
    assert redis.cli("PEXPIRETIME", f"{topic}-key") == str(beat_ms + TTL_MS)


def test_beats_that_wait_in_kafka_are_applied_at_their_own_time_and_the_newest_wins(
    connector: Connector, kafka: Kafka, redis: Redis
) -> None:
    topic = kafka.create_topic(unique("backlog"))
    newest = now_ms()
    _send_stamped(kafka, topic, [newest - 3000, newest, newest - 1000])
    connector.put(sink_config(redis, topic))
    connector.wait_until_caught_up(topic)
    assert is_beat(redis.cli("GET", f"{topic}-key"), newest)
    assert redis.cli("PEXPIRETIME", f"{topic}-key") == str(newest + TTL_MS)


def test_an_older_beat_in_a_later_batch_does_not_take_the_key_back(connector: Connector, kafka: Kafka, redis: Redis) -> None:
    topic = kafka.create_topic(unique("older"))
    connector.put(sink_config(redis, topic))
    newest = now_ms()
    _send_stamped(kafka, topic, [newest])
    wait_for_value(redis, f"{topic}-key", newest)
    _send_stamped(kafka, topic, [newest - 2000])
    connector.wait_until_caught_up(topic)
    assert is_beat(redis.cli("GET", f"{topic}-key"), newest)


def test_a_beat_past_its_deadline_writes_nothing_and_removes_nothing(connector: Connector, kafka: Kafka, redis: Redis) -> None:
    topic = kafka.create_topic(unique("past"))
    _send_stamped(kafka, topic, [now_ms() - 2 * TTL_MS])
    connector.put(sink_config(redis, topic))
    connector.wait_until_caught_up(topic)
    assert redis.cli("EXISTS", f"{topic}-key") == "0"
    redis.cli("SET", f"{topic}-key", "someone else's")
    _send_stamped(kafka, topic, [now_ms() - 2 * TTL_MS])
    connector.wait_until_caught_up(topic)
    assert redis.cli("GET", f"{topic}-key") == "someone else's"


def test_beats_of_a_clock_far_behind_are_told_in_the_log_with_the_remedy(connector: Connector, kafka: Kafka, redis: Redis) -> None:
    topic = kafka.create_topic(unique("behind"))
    connector.put(sink_config(redis, topic))

    def warned() -> bool:
        _send_stamped(kafka, topic, [now_ms() - 2 * TTL_MS])
        return any("WARN" in line and "processing" in line for line in connector.worker.log().splitlines())

    eventually(warned, "a warning names heartbeat.time=processing", every_s=0.5)


def test_processing_time_takes_the_time_of_arrival(connector: Connector, kafka: Kafka, redis: Redis) -> None:
    topic = kafka.create_topic(unique("processing"))
    _send_stamped(kafka, topic, [now_ms()])  # before the connector is there: nothing of the past is read
    connector.put(sink_config(redis, topic, {"heartbeat.time": "processing"}))
    eventually(
        lambda: redis.cli("HGET", f"hb:{{{connector.name}}}:proof", f"{topic}/0/offset") == "1", "the partition is claimed at its end"
    )
    before_ms = now_ms()
    _send_stamped(kafka, topic, [before_ms - 2 * TTL_MS])
    eventually(lambda: redis.cli("EXISTS", f"{topic}-key") == "1", "the beat has arrived")
    assert before_ms <= int(redis.cli("GET", f"{topic}-key")) <= now_ms()


def test_a_topics_regex_reads_every_matching_topic_and_no_other(connector: Connector, kafka: Kafka, redis: Redis) -> None:
    stem = unique("regex")
    topics = [kafka.create_topic(f"{stem}-{suffix}") for suffix in ("1", "23", "x")]
    config = sink_config(redis, "", {"topics.regex": rf"{stem}-\d+", "redis.key": "${key}"})
    del config["topics"]
    connector.put(config)
    kafka_keys = dict(zip(topics, ("one", "two", "other"), strict=True))
    for topic, key in kafka_keys.items():
        kafka.produce(topic, [(key, "beat")])
    wait_for_value(redis, "one", newest_stamp(kafka, topics[0]))
    wait_for_value(redis, "two", newest_stamp(kafka, topics[1]))
    assert redis.cli("EXISTS", "other") == "0"


def test_a_topic_created_after_its_connector_is_read(connector: Connector, kafka: Kafka, redis: Redis) -> None:
    topic = unique("later")
    connector.put(sink_config(redis, topic))
    connector.wait_for("RUNNING", "RUNNING")
    kafka.console_producer(topic, ["creates the topic"])
    wait_for_value(redis, f"{topic}-key", newest_stamp(kafka, topic))


def test_an_aborted_transaction_counts_unless_only_committed_records_are_asked_for(
    worker: HeartbeatWorker, kafka: Kafka, redis: Redis
) -> None:
    topic = kafka.create_topic(unique("aborted"))
    newest = now_ms()
    _send_in_transactions(kafka, topic, committed_ms=newest - 1000, aborted_ms=newest)
    uncommitted, committed = (Connector(worker, kafka, f"{topic}-{level}") for level in ("read_uncommitted", "read_committed"))
    committed.put(sink_config(redis, topic, {"redis.key": "only-committed", "consumer.override.isolation.level": "read_committed"}))
    uncommitted.put(sink_config(redis, topic, {"redis.key": "default"}))
    for connector in (committed, uncommitted):  # up to the true end: behind the record that marks the abort
        connector.wait_until_caught_up(topic)
    assert is_beat(redis.cli("GET", "default"), newest)
    assert is_beat(redis.cli("GET", "only-committed"), newest - 1000)
    for connector in (committed, uncommitted):
        worker.rest("DELETE", connector.path)


def _send_in_transactions(kafka: Kafka, topic: str, *, committed_ms: int, aborted_ms: int) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic})
    producer.init_transactions(60)
    producer.begin_transaction()
    producer.produce(topic, "committed", timestamp=committed_ms)
    producer.commit_transaction(30)
    producer.begin_transaction()
    producer.produce(topic, "aborted", timestamp=aborted_ms)
    producer.flush(30)
    producer.abort_transaction(30)


def test_a_key_template_makes_one_redis_key_per_record_key(connector: Connector, kafka: Kafka, redis: Redis) -> None:
    topic = kafka.create_topic(unique("keyed"), 3)
    kafka.produce(topic, [(f"source-{n % 50}", str(n)) for n in range(500)])
    connector.put(sink_config(redis, topic, {"redis.key": "${key}"}))
    connector.wait_until_caught_up(topic)
    oracle = newest_stamps(kafka, topic)
    assert len(oracle) == 50
    assert [key for key, stamp in oracle.items() if not is_beat(redis.cli("GET", key), stamp)] == []


def _send_stamped(kafka: Kafka, topic: str, stamps_ms: list[int]) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for stamp in stamps_ms:
        producer.produce(topic, "beat", timestamp=stamp)
    assert producer.flush(30) == 0
