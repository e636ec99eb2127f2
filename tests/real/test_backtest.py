"""The backtest on a real broker: it reads what is there, to the true end, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from heartbeat import backtest
from heartbeat.beats import template
from heartbeat.beats.histories import Histories, View
from heartbeat.beats.history import Rule
from heartbeat.beats.history_report import utc
from heartbeat.beats.records import Reading
from heartbeat.connect.converters import StringConverter
from heartbeat.connect.log_reader import LogReader

from .broker import Kafka
from .parts import clean_environment, heartbeat_argv
from .scenario import now_ms, unique

MINUTE = 60_000
Beat = tuple[str | None, int]
INTERNAL = {"__consumer_offsets"}
"""Brokers make it when a client first asks for a coordinator, and ours asks although it joins no group."""


def send(kafka: Kafka, topic: str, beats: Sequence[Beat], partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 5, "queue.buffering.max.messages": 1_000_000})
    for key, stamp in beats:
        producer.produce(topic, b"beat", key, partition, timestamp=stamp)
    assert producer.flush(60) == 0


def run(kafka: Kafka, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = heartbeat_argv("backtest", "--bootstrap-server", kafka.bootstrap, *arguments)
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, env=clean_environment(), check=False)


def report(kafka: Kafka, *arguments: str) -> dict[str, Any]:
    done = run(kafka, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def groups(kafka: Kafka) -> set[str]:
    return {group.group_id for group in kafka.admin().list_consumer_groups(request_timeout=30).result(35).valid}


def ends(kafka: Kafka, topics: Sequence[str]) -> dict[tuple[str, int], tuple[int, int]]:
    """First and next offset of every partition."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "looks-at-watermarks"})
    try:
        listed = consumer.list_topics(timeout=30).topics
        partitions = [(topic, number) for topic in topics for number in listed[topic].partitions]
        return {partition: consumer.get_watermark_offsets(TopicPartition(*partition), 30) for partition in partitions}
    finally:
        consumer.close()


def test_it_finds_the_downs_and_writes_nothing_anywhere(kafka: Kafka) -> None:
    topic = kafka.create_topic(unique("backtest"), 3)
    start = now_ms() - 60 * MINUTE
    for partition in range(3):
        send(kafka, topic, [(f"pump-{partition}", start + minute * MINUTE) for minute in (0, 1, 2, 7, 8)], partition)
    admin = kafka.admin()
    before = groups(kafka), set(admin.list_topics(timeout=30).topics) | INTERNAL, ends(kafka, [topic])
    found = report(kafka, "--topic", topic, "--ttl", "70", "--grace", "20")
    assert (groups(kafka), set(admin.list_topics(timeout=30).topics) | INTERNAL, ends(kafka, [topic])) == before
    assert [source["source"] for source in found["sources"]] == ["pump-0", "pump-1", "pump-2"]
    for source in found["sources"]:
        first, last = source["downs"]
        assert (first["down_at"], first["ended_at"]) == (utc(start + 210_000), utc(start + 7 * MINUTE))
        assert (last["down_at"], last["open"]) == (utc(start + 570_000), True)
        assert (source["smallest_ttl_s"], source["beats"]) == (280, 5)


def test_a_topic_that_is_unknown_is_said_and_not_made(kafka: Kafka) -> None:
    topic = unique("nobody-made-this")
    done = run(kafka, "--topic", topic)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"There is no topic {topic} at {kafka.bootstrap}" in done.stderr
    assert topic not in kafka.admin().list_topics(timeout=30).topics


def test_it_ends_where_the_log_ends_behind_the_marks_of_transactions(kafka: Kafka) -> None:
    """Aborted records count, as they do for the sink: they were sent by somebody alive."""
    topic = kafka.create_topic(unique("transactions"))
    start = now_ms() - MINUTE
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic})
    producer.init_transactions(30)
    for number, end in enumerate((producer.commit_transaction, producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(topic, b"beat", "a", timestamp=start + number * 1000)
        producer.flush(30)
        end(30)
    assert ends(kafka, [topic])[topic, 0] == (0, 4)
    assert report(kafka, "--topic", topic)["total"]["beats"] == 2


def test_it_begins_where_the_log_begins_or_at_the_time_asked_for(kafka: Kafka) -> None:
    topic = kafka.create_topic(unique("retained"))
    now = now_ms()
    send(kafka, topic, [("a", now - minute * MINUTE) for minute in range(100, 0, -1)])
    for future in kafka.admin().delete_records([TopicPartition(topic, 0, 30)]).values():
        future.result(30)
    assert report(kafka, "--topic", topic)["records"] == 70
    found = report(kafka, "--topic", topic, "--since", "30m30s")
    assert 29 <= found["records"] <= 30, "the broker was asked where to begin"
    assert found["left_out"]["before_since"] == 0
    done = run(kafka, "--topic", topic, "--since", "1s")
    assert (done.returncode, done.stdout) == (3, "")
    assert "there is none of the last 1s" in done.stderr


def test_partitions_far_apart_in_time_are_brought_together(kafka: Kafka) -> None:
    """One source beats in three partitions of very different size; only a fraction of its beats may wait to be sorted."""
    topic = kafka.create_topic(unique("far-apart"), 3)
    start = now_ms() - 60 * MINUTE
    sizes = (300_000, 30_000, 3_000)
    for partition, size in enumerate(sizes):
        send(kafka, topic, [("a", start + number * 1_500_000 // size) for number in range(size)], partition)
    text = StringConverter().convert
    view = View(template.parse("one"), text, Reading(MINUTE), since_ms=0, now_ms=start + 60 * MINUTE)
    many = Histories(view, Rule(MINUTE, 0), most_waiting=20_000)
    reader = LogReader({"bootstrap.servers": kafka.bootstrap}, text, text)
    try:
        assert backtest.look_back(reader, [topic], None, many) == sum(sizes)
    finally:
        reader.close()
    (summary,) = many.finish(start + 1_500_000)
    assert (summary.beats, summary.late, summary.down_count) == (sum(sizes), 0, 0)
