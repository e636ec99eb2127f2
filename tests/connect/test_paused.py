"""The Kafka client remembers a pause beyond an assignment: a partition given up while paused must not come back paused."""

from __future__ import annotations

import confluent_kafka as ck
from tests.fakes import eventually

from heartbeat.connect.api import TopicPartition
from heartbeat.connect.kafka import Membership, SinkConsumer
from heartbeat.embedded.broker import EmbeddedBroker

PARTITION = TopicPartition("beats", 0)


def test_a_partition_given_back_while_paused_is_read_when_it_is_started_again() -> None:
    with EmbeddedBroker({"beats": 1}) as broker:
        producer = ck.Producer({"bootstrap.servers": broker.bootstrap})
        producer.produce("beats", "one")
        assert producer.flush(10) == 0
        properties = {"bootstrap.servers": broker.bootstrap, "group.id": "paused", "fetch.wait.max.ms": "10"}
        consumer = SinkConsumer(properties, Membership(dict, opens=True))
        try:
            consumer.subscribe(["beats"])
            eventually(lambda: [consumer.poll(0.05, 1), consumer.unopened][1], "the partition is assigned")
            consumer.start_at({PARTITION: 0})
            eventually(lambda: consumer.poll(0.05, 10).messages, "it is read")
            consumer.pause()
            consumer.reopen([PARTITION])
            consumer.resume()  # with nothing assigned that could be resumed
            consumer.start_at({PARTITION: 0})
            assert eventually(lambda: consumer.poll(0.05, 10).messages, "it is read again")
        finally:
            consumer.close()
