"""What a plugin is told of its surroundings, and as whom it may ask about the logs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fakes import CollectingSink

from heartbeat.connect.api import Subscription, TopicPartition, same_address
from heartbeat.connect.assembly import Assembly
from heartbeat.connect.kafka_admin import PartitionLogs
from heartbeat.connect.plugins import Plugin, Plugins
from heartbeat.connect.task import TaskId
from heartbeat.connect.worker_config import WORKER_KEYS, WorkerConfig
from heartbeat.errors import BadRequest, ConnectError

BYTES = "org.apache.kafka.connect.converters.ByteArrayConverter"
WORKER = {"bootstrap.servers": "127.0.0.1:1", "key.converter": BYTES, "value.converter": BYTES}
CONNECTOR = {"name": "c", "connector.class": "WatchedSink", "topics": "a, b", "redis.password": "geheim"}
RESET = "consumer.override.auto.offset.reset"


class WatchedSink(CollectingSink):
    """Remembers how its class was called; ``error`` is raised then."""

    calls: list[tuple[Any, ...]]
    error: Exception | None

    @classmethod
    def alter_offsets(cls, config: Any, context: Any, offsets: Any) -> bool:
        cls.calls.append((config, context, offsets))
        if cls.error:
            raise cls.error
        return True

    @classmethod
    def on_delete(cls, config: Any, context: Any) -> None:
        cls.alter_offsets(config, context, "deleted")


@pytest.fixture(autouse=True)
def forgotten() -> None:
    WatchedSink.calls, WatchedSink.error = [], None


def assembly(worker: dict[str, str] | None = None) -> Assembly:
    given = {**WORKER, **(worker or {})}
    plugins = Plugins([Plugin("tests.connect.test_context.WatchedSink", WatchedSink)])
    return Assembly(plugins, WorkerConfig(given, WORKER_KEYS.load(given)), same_address)


def test_the_context_names_connector_task_and_subscription() -> None:
    spec = assembly().build(TaskId("c", 3), CONNECTOR)
    assert (spec.context.connector, spec.context.task, spec.context.resolve) == ("c", 3, same_address)
    assert spec.context.subscription == spec.feed.subscription == Subscription(("a", "b"))


def test_a_pattern_is_in_the_context_too() -> None:
    config = {"name": "c", "connector.class": "WatchedSink", "topics.regex": "t.*", "consumer.override.metadata.max.age.ms": "1500"}
    assert assembly().build(TaskId("c", 0), config).context.subscription == Subscription((), "t.*", 1.5)


@pytest.mark.parametrize(
    ("worker", "connector", "told"),
    [
        ({}, {}, None),
        ({"consumer.auto.offset.reset": "latest"}, {}, "latest"),
        ({}, {RESET: "earliest"}, "earliest"),
        ({"consumer.auto.offset.reset": "latest"}, {RESET: "none"}, "none"),
    ],
    ids=["nobody", "the worker", "the connector", "the connector before the worker"],
)
def test_a_reset_is_told_only_where_somebody_has_set_it(worker: dict[str, str], connector: dict[str, str], told: str | None) -> None:
    made, config = assembly(worker), {**CONNECTOR, **connector}
    assert made.build(TaskId("c", 0), config).context.offset_reset == told
    made.alter_offsets("c", config, None)
    assert WatchedSink.calls[0][1].offset_reset == told


# As whom the logs are asked about


def properties_of(worker: dict[str, str], connector: dict[str, str]) -> dict[str, str]:
    logs = assembly(worker).build(TaskId("c", 1), {**CONNECTOR, **connector}).context.logs
    assert isinstance(logs, PartitionLogs)
    return logs._properties


JAAS = 'a.b.plain.PlainLoginModule required username="u" password="logs-geheim";'


def test_the_logs_are_asked_about_where_and_as_whom_the_consumer_reads_them() -> None:
    made = properties_of(
        {"consumer.security.protocol": "SASL_PLAINTEXT", "consumer.sasl.mechanism": "PLAIN", "consumer.sasl.jaas.config": JAAS},
        {"consumer.override.bootstrap.servers": "127.0.0.1:2"},
    )
    assert made["bootstrap.servers"] == "127.0.0.1:2"
    assert made["security.protocol"].lower() == "sasl_plaintext"
    assert (made["sasl.username"], made["sasl.password"]) == ("u", "logs-geheim")


def test_a_connectors_own_user_is_not_mixed_with_the_workers() -> None:
    made = properties_of(
        {"consumer.security.protocol": "SASL_PLAINTEXT", "consumer.sasl.mechanism": "PLAIN", "consumer.sasl.jaas.config": JAAS},
        {"consumer.override.sasl.jaas.config": JAAS.replace('"u"', '"own"').replace("logs-geheim", "own-geheim")},
    )
    assert (made["sasl.username"], made["sasl.password"]) == ("own", "own-geheim")


def test_nothing_of_the_consumer_that_is_no_connection_goes_along() -> None:
    made = properties_of({}, {RESET: "earliest", "consumer.override.group.id": "g", "consumer.override.max.poll.records": "5"})
    assert made.keys() & {"auto.offset.reset", "group.id", "isolation.level", "enable.partition.eof"} == set()
    assert made["client.id"].startswith("heartbeat-logs-")


# A stopped or deleted connector


def test_an_offsets_change_reaches_the_plugin_with_its_parsed_keys_and_no_view_of_the_logs() -> None:
    wanted: dict[TopicPartition, int | None] = {TopicPartition("a", 0): 5, TopicPartition("b", 1): None}
    assembly().alter_offsets("c", CONNECTOR, wanted)
    ((config, context, offsets),) = WatchedSink.calls
    assert (config["redis.password"], config["sink.mode"]) == ("geheim", "ok")
    assert (context.connector, context.subscription.topics, context.logs) == ("c", ("a", "b"), None)
    assert offsets == wanted


def test_a_deleted_connector_is_told_to_its_plugin_by_name() -> None:
    assembly().forget("c", CONNECTOR)
    ((config, context, _),) = WatchedSink.calls
    assert (config["redis.password"], context.connector) == ("geheim", "c")


def test_what_the_plugin_raises_is_what_the_caller_gets() -> None:
    WatchedSink.error = ConnectError("the server is away")
    with pytest.raises(ConnectError, match="the server is away"):
        assembly().alter_offsets("c", CONNECTOR, None)
    with pytest.raises(ConnectError, match="the server is away"):
        assembly().forget("c", CONNECTOR)


def test_a_plugin_that_is_not_here_can_neither_follow_nor_forget() -> None:
    gone = {**CONNECTOR, "connector.class": "gone.Sink"}
    with pytest.raises(BadRequest, match="Failed to find any class"):
        assembly().alter_offsets("c", gone, None)
    with pytest.raises(BadRequest, match="Failed to find any class"):
        assembly().forget("c", gone)
