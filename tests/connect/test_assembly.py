"""From a connector's config to what a task is made of."""

from __future__ import annotations

import pytest
from tests.fakes import CollectingSink

from heartbeat import logs
from heartbeat.connect.api import same_address
from heartbeat.connect.assembly import TASK_CLASS, Assembly, admin_properties
from heartbeat.connect.plugins import Plugin, Plugins
from heartbeat.connect.task import TaskId
from heartbeat.connect.worker_config import WORKER_KEYS, WorkerConfig
from heartbeat.errors import BadRequest, InvalidConfig

BYTES = "org.apache.kafka.connect.converters.ByteArrayConverter"
JSON = "org.apache.kafka.connect.json.JsonConverter"
WORKER = {"bootstrap.servers": "127.0.0.1:1", "key.converter": BYTES, "value.converter": BYTES}
CONNECTOR = {"name": "c", "connector.class": "CollectingSink", "topics": " a, b ,,a"}
TASK = TaskId("c", 0)


def assembly(**worker: str) -> Assembly:
    given = {**WORKER, **{name.replace("_", "."): text for name, text in worker.items()}}
    plugins = Plugins([Plugin("tests.fakes.CollectingSink", CollectingSink)])
    return Assembly(plugins, WorkerConfig(given, WORKER_KEYS.load(given)), same_address)


def test_every_task_gets_the_whole_config_and_the_name_of_its_class() -> None:
    configs = assembly().task_configs({**CONNECTOR, "tasks.max": "3"})
    assert configs == ({**CONNECTOR, "tasks.max": "3", TASK_CLASS: "tests.fakes.CollectingSink"},) * 3


def test_one_task_is_the_default_and_its_config_is_not_the_connectors_own_object() -> None:
    (config,) = assembly().task_configs(CONNECTOR)
    assert config is not CONNECTOR
    assert TASK_CLASS not in CONNECTOR


def test_topics_are_trimmed_and_blanks_and_duplicates_dropped() -> None:
    assert assembly().build(TASK, CONNECTOR).feed.subscription.topics == ("a", "b")


def test_a_pattern_is_looked_up_at_the_consumers_metadata_age() -> None:
    config = {"name": "c", "connector.class": "CollectingSink", "topics.regex": "t.*", "consumer.override.metadata.max.age.ms": "1500"}
    subscription = assembly().build(TASK, config).feed.subscription
    assert (subscription.topics, subscription.pattern, subscription.refresh_s) == ((), "t.*", 1.5)


def test_the_pace_comes_from_the_worker_and_the_consumer() -> None:
    pace = (
        assembly(offset_flush_interval_ms="2000", offset_flush_timeout_ms="700", consumer_max_poll_records="7")
        .build(TASK, CONNECTOR)
        .feed.pace
    )
    assert (pace.commit_every_s, pace.commit_timeout_s, pace.max_records) == (2.0, 0.7, 7)


def test_the_plugin_gets_its_own_keys_parsed_and_nothing_else() -> None:
    spec = assembly().build(TASK, {**CONNECTOR, "redis.password": "geheim"})
    assert spec.config == {"sink.mode": "ok", "redis.password": "geheim"}
    assert spec.made_from == {**CONNECTOR, "redis.password": "geheim"}


def test_a_converter_that_the_connector_names_does_not_inherit_the_workers_settings() -> None:
    made = assembly(value_converter=JSON, value_converter_schemas_enable="false").build(TASK, {**CONNECTOR, "value.converter": JSON})
    # The worker's schemas.enable=false is for the worker's converter; a connector's own starts from the default, true.
    assert made.feed.conversion._value.can_fail
    with pytest.raises(Exception, match="schema"):
        made.feed.conversion._value.convert(b'{"a": 1}')


def test_a_connector_without_converter_uses_the_workers_with_its_settings() -> None:
    settings = {**WORKER, "value.converter": JSON, "value.converter.schemas.enable": "false"}
    plugins = Plugins([Plugin("tests.fakes.CollectingSink", CollectingSink)])
    made = Assembly(plugins, WorkerConfig(settings, WORKER_KEYS.load(settings)), same_address).build(TASK, CONNECTOR)
    assert made.feed.conversion._value.convert(b'{"a": 1}') == {"a": 1}


def test_a_stored_config_that_is_not_valid_here_is_refused_with_everything_wrong() -> None:
    with pytest.raises(BadRequest, match=r"contains the following 3 error\(s\)"):
        assembly().build(TASK, {"name": "c", "connector.class": "CollectingSink", "tasks.max": "0"})


@pytest.mark.parametrize("name", ["gone.Sink", ""])
def test_a_class_that_is_not_here_any_more_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="Failed to find any class"):
        assembly().build(TASK, {**CONNECTOR, "connector.class": name})


def test_a_stored_config_without_a_class_is_refused() -> None:
    with pytest.raises(BadRequest):
        assembly().build(TASK, {"name": "c", "topics": "a"})


def test_passwords_of_a_built_task_are_hidden_from_then_on() -> None:
    jaas = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="u" password="kafka-geheim-1";'
    assembly().build(
        TASK,
        {
            **CONNECTOR,
            "redis.password": "redis-geheim-1",
            "consumer.override.security.protocol": "SASL_PLAINTEXT",
            "consumer.override.sasl.mechanism": "PLAIN",
            "consumer.override.sasl.jaas.config": jaas,
        },
    )
    shown = logs.format_trace(ValueError(f"{jaas} redis-geheim-1"))
    assert "geheim" not in shown
    assert "[hidden]" in shown


def test_the_workers_own_client_takes_unprefixed_connection_settings_and_then_those_of_admin() -> None:
    made = admin_properties(
        {
            **WORKER,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.jaas.config": 'a.b.plain.PlainLoginModule required username="u" password="admin-geheim";',
            "admin.request.timeout.ms": "1234",
            "admin.bootstrap.servers": "127.0.0.1:2",
            "consumer.client.id": "not-this",
            "group.id": "not-this-either",
        }
    )
    assert made["bootstrap.servers"] == "127.0.0.1:2"
    assert made["socket.timeout.ms"] == "1234"
    assert made["sasl.password"] == "admin-geheim"
    assert "group.id" not in made
    assert "admin-geheim" not in logs.secrets.clean("admin-geheim")


def test_settings_of_the_workers_own_client_that_cannot_be_honoured_are_refused() -> None:
    with pytest.raises(InvalidConfig):
        admin_properties({**WORKER, "security.protocol": "MAGIC"})
