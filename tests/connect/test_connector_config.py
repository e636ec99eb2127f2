"""A connector's config is judged as a whole, in the words and the order of Kafka Connect 4.1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat.beats.sink import HeartbeatSink
from heartbeat.beats.template import KNOWN
from heartbeat.connect import worker_config
from heartbeat.connect.connector_config import Validation, consumer_properties, converter_settings, validate
from heartbeat.connect.plugins import Plugin
from heartbeat.errors import BadRequest

STRINGS = "org.apache.kafka.connect.storage.StringConverter"
JSON = "org.apache.kafka.connect.json.JsonConverter"
PLUGIN = Plugin("heartbeat.beats.sink.HeartbeatSink", HeartbeatSink)
WORKER = {"bootstrap.servers": "b:1", "key.converter": STRINGS, "value.converter": STRINGS}
VALID: dict[str, str | None] = {"name": "c", "connector.class": "RedisHeartbeatSink", "topics": "t"}
FRAMEWORK = [
    "name",
    "connector.class",
    "connector.plugin.version",
    "tasks.max",
    "tasks.max.enforce",
    "key.converter",
    "key.converter.plugin.version",
    "value.converter",
    "value.converter.plugin.version",
    "header.converter",
    "header.converter.plugin.version",
    "transforms",
    "predicates",
    "config.action.reload",
    "errors.retry.timeout",
    "errors.retry.delay.max.ms",
    "errors.tolerance",
    "errors.log.enable",
    "errors.log.include.messages",
    "topics",
    "topics.regex",
    "errors.deadletterqueue.topic.name",
    "errors.deadletterqueue.topic.replication.factor",
    "errors.deadletterqueue.context.headers.enable",
]
ORIGINALS = {"redis.host": "redis", "redis.port": "6379", "redis.key": "heartbeat", "redis.ttl": "60", "redis.database": "0"}


def check(given: Mapping[str, str | None], worker: Mapping[str, str] = WORKER) -> Validation:
    return validate({**VALID, **given}, PLUGIN, worker)


def errors(given: Mapping[str, str | None], worker: Mapping[str, str] = WORKER) -> list[str]:
    return check(given, worker).errors


def test_the_originals_config_is_valid_and_its_values_are_the_defaults() -> None:
    assert errors(ORIGINALS) == []
    assert {name: str(check({}).parsed()[name]) for name in ORIGINALS} == ORIGINALS
    assert check({}).parsed()["redis.password"] is None


def test_keys_come_in_connects_order_then_the_sinks() -> None:
    assert [value.key.name for value in check({}).values] == [*FRAMEWORK, *(key.name for key in HeartbeatSink.CONFIG)]


def test_keys_have_connects_places() -> None:
    order = {value.key.name: (value.key.group, value.key.order) for value in check({}).values}
    assert order["name"] == ("Common", 1)
    assert order["tasks.max"] == ("Common", 4)
    assert order["topics"] == order["topics.regex"] == ("Common", 4)
    assert order["transforms"][1] == 12
    assert order["config.action.reload"] == ("Common", 14)
    assert order["errors.retry.timeout"] == ("Error Handling", 1)
    assert order["errors.deadletterqueue.topic.name"] == ("Error Handling", 6)
    assert order["redis.host"] == (None, -1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"redis.port": "0"}, ["Invalid value 0 for configuration redis.port: Value must be at least 1"]),
        ({"redis.port": "65536"}, ["Invalid value 65536 for configuration redis.port: Value must be no more than 65535"]),
        ({"redis.ttl": "0"}, ["Invalid value 0 for configuration redis.ttl: Value must be at least 1"]),
        ({"redis.database": "-1"}, ["Invalid value -1 for configuration redis.database: Value must be at least 0"]),
        ({"redis.host": ""}, ["Invalid value  for configuration redis.host: String may not be empty"]),
        ({"redis.key": ""}, ["Invalid value  for configuration redis.key: String may not be empty"]),
        ({"redis.tls": "yes"}, ["Invalid value yes for configuration redis.tls: Expected value to be either true or false"]),
        (
            {"heartbeat.time": "event"},
            ["Invalid value event for configuration heartbeat.time: String must be one of: record, processing"],
        ),
        (
            {"errors.tolerance": "some"},
            ["Invalid value some for configuration errors.tolerance: String must be one of: none, all"],
        ),
        ({"topics": "t", "topics.regex": "t.*"}, ["topics and topics.regex are mutually exclusive options, but both are set."] * 2),
        ({"topics": ""}, ["Must configure one of topics or topics.regex"] * 2),
        ({"key.converter": "a.B"}, ["Invalid value a.B for configuration key.converter: Class a.B could not be found."]),
    ],
)
def test_one_fault_is_told_in_connects_words(given: dict[str, str], expected: list[str]) -> None:
    assert errors(given) == expected


def test_topics_are_trimmed_and_counted_once() -> None:
    assert check({"topics": " a ,b,, a "}).parsed()["topics"] == ["a", "b"]


def test_a_pattern_alone_will_do_and_a_broken_one_will_not() -> None:
    assert errors({"topics": "", "topics.regex": r"beats-\d+"}) == []
    assert "for configuration topics.regex: Invalid regex: " in errors({"topics": "", "topics.regex": "("})[0]


@pytest.mark.parametrize(("name", "count"), [("unknown", 1), ("tasks.max", 2), ("topics", 3)])
def test_a_null_value_is_refused_beside_what_else_is_wrong_with_it(name: str, count: int) -> None:
    told = errors({name: None})
    assert "Null value can not be supplied as the configuration value." in told
    assert len(told) == count


def test_faults_come_in_the_order_of_the_keys_with_the_undeclared_first() -> None:
    told = errors({"redis.port": "x", "stranger": None, "tasks.max": "0", "consumer.override.fetch.min.bytes": "x"})
    assert told == [
        "Null value can not be supplied as the configuration value.",
        "Invalid value 0 for configuration tasks.max: Value must be at least 1",
        "Invalid value x for configuration redis.port: Not a number of type INT",
        "Invalid value null for configuration redis.port: Value must be non-null",
        "Invalid value x for configuration fetch.min.bytes: Not a number of type INT",
    ]


def test_the_reply_to_a_bad_config_counts_and_lists_its_errors() -> None:
    with pytest.raises(BadRequest) as caught:
        check({"tasks.max": "0", "redis.ttl": "0"}).check()
    assert str(caught.value) == (
        "Connector configuration is invalid and contains the following 2 error(s):\n"
        "Invalid value 0 for configuration tasks.max: Value must be at least 1\n"
        "Invalid value 0 for configuration redis.ttl: Value must be at least 1\n"
        "You can also find the above list of errors at the endpoint `/connector-plugins/{connectorType}/config/validate`"
    )


@pytest.mark.parametrize("name", ["transforms", "predicates"])
def test_a_chain_that_is_not_built_is_refused_and_an_empty_one_is_fine(name: str) -> None:
    assert len(errors({name: "a"})) == 1
    assert f"for configuration {name}: " in errors({name: "a"})[0]
    assert errors({name: ""}) == []


def test_a_dead_letter_queue_is_refused_unless_it_is_switched_off() -> None:
    assert "for configuration errors.deadletterqueue.topic.name: " in errors({"errors.deadletterqueue.topic.name": "dlq"})[0]
    assert errors({"errors.deadletterqueue.topic.name": ""}) == []


def test_a_converters_own_faults_are_told_without_its_prefix() -> None:
    told = errors({"value.converter": JSON, "value.converter.schemas.enable": "x"})
    assert told == ["Invalid value x for configuration schemas.enable: Expected value to be either true or false"]


def test_the_keys_of_a_converter_are_shown_with_its_prefix_if_the_connector_chose_it() -> None:
    shown = [value.key.name for value in check({"value.converter": JSON}).values]
    assert "value.converter.schemas.enable" in shown
    assert not [value.key.name for value in check({}).values if value.key.name.startswith("value.converter.s")]


def test_a_converter_gets_its_own_settings_and_its_role() -> None:
    config = {"key.converter": JSON, "key.converter.schemas.enable": "false", "key.converter.plugin.version": "1", "value.converter.x": "y"}
    assert converter_settings("key", config) == {"converter.type": "key", "schemas.enable": "false"}


@pytest.mark.parametrize(
    ("policy", "key", "allowed"),
    [
        ("All", "fetch.min.bytes", True),
        ("None", "fetch.min.bytes", False),
        ("None", "security.protocol", False),
        ("Principal", "fetch.min.bytes", False),
        ("Principal", "security.protocol", True),
    ],
)
def test_a_policy_may_forbid_client_overrides(policy: str, key: str, allowed: bool) -> None:
    worker = {**WORKER, "connector.client.config.override.policy": policy}
    value = "PLAINTEXT" if key == "security.protocol" else "1"
    expected = [] if allowed else [f"The '{policy}' policy does not allow '{key}' to be overridden in the connector configuration."]
    assert errors({f"consumer.override.{key}": value}, worker) == expected


def test_an_override_that_cannot_be_honoured_names_its_substitute() -> None:
    told = errors({"consumer.override.security.protocol": "SSL", "consumer.override.ssl.truststore.location": "trust.jks"})
    assert len(told) == 1
    assert "ssl.truststore.location" in told[0]
    assert "PEM" in told[0]


def test_a_password_is_hidden_wherever_a_config_is_described() -> None:
    described = check({"redis.password": "hunter2"}).describe()
    assert "hunter2" not in str(described)
    value = next(one["value"] for one in described["configs"] if one["value"]["name"] == "redis.password")
    assert value["value"] == "[hidden]"


def test_a_description_has_an_entry_for_every_key_and_for_every_complaint_about_strangers() -> None:
    described = check({"stranger": None, "another": "x"}).describe()
    assert list(described) == ["name", "error_count", "groups", "configs"]
    assert described["error_count"] == 1
    assert described["groups"] == ["Common", "Transforms", "Predicates", "Error Handling"]
    undefined = [one for one in described["configs"] if one["definition"] is None]
    assert [one["value"]["name"] for one in undefined] == ["stranger"]
    assert len(described["configs"]) == len(FRAMEWORK) + len(list(HeartbeatSink.CONFIG)) + 1


@pytest.mark.parametrize(("wanted", "fits"), [("9.9", False), ("[9.9,9.9]", False), (HeartbeatSink.VERSION, True)])
def test_a_wanted_version_of_the_plugin_must_be_there(wanted: str, fits: bool) -> None:
    told = errors({"connector.plugin.version": wanted})
    assert (told == []) is fits
    assert all(f"available versions: [{HeartbeatSink.VERSION}]" in error for error in told)


def test_consumers_get_the_workers_properties_then_the_connectors() -> None:
    worker = {**WORKER, "consumer.fetch.min.bytes": "1", "consumer.max.poll.records": "2", "producer.acks": "all", "ssl.x": "y"}
    config = {"name": "c", "consumer.override.max.poll.records": "3", "redis.host": "x"}
    assert consumer_properties(config, worker) == {
        "bootstrap.servers": "b:1",
        "group.id": "connect-c",
        "auto.offset.reset": "earliest",
        "fetch.min.bytes": "1",
        "max.poll.records": "3",
    }


def test_the_group_can_be_chosen_by_worker_or_connector() -> None:
    worker = {**WORKER, "consumer.group.id": "w"}
    assert consumer_properties({"name": "c"}, worker)["group.id"] == "w"
    assert consumer_properties({"name": "c", "consumer.override.group.id": "o"}, worker)["group.id"] == "o"


KEYS = st.sampled_from([*FRAMEWORK, *(key.name for key in HeartbeatSink.CONFIG), "consumer.override.fetch.min.bytes", "stranger"])


@given(st.dictionaries(KEYS, st.none() | st.text() | st.sampled_from(["1", "true", "t", STRINGS])))
def test_any_config_is_judged_without_an_exception_and_described_with_as_many_errors(given: dict[str, Any]) -> None:
    validation = check({key: text for key, text in given.items() if not key.endswith("plugin.version")})
    described = validation.describe()
    assert described["error_count"] == len(validation.errors) == sum(len(one["value"]["errors"]) for one in described["configs"])


def test_a_policy_named_by_its_java_class_is_kept() -> None:
    java = "org.apache.kafka.connect.connector.policy.NoneConnectorClientConfigOverridePolicy"
    worker = worker_config.parse({**WORKER, "connector.client.config.override.policy": java}).given
    assert errors({"consumer.override.fetch.min.bytes": "1"}, worker) == [
        "The 'None' policy does not allow 'fetch.min.bytes' to be overridden in the connector configuration."
    ]


@pytest.mark.parametrize("policy", ["All", "None", "Principal"])
def test_overrides_of_the_admin_client_are_refused_and_not_ignored(policy: str) -> None:
    worker = {**WORKER, "connector.client.config.override.policy": policy}
    (told,) = errors({"admin.override.sasl.jaas.config": "x", "admin.override.client.id": "y"}, worker)
    assert told.startswith("admin.override.* is not supported by this worker yet")
    with pytest.raises(BadRequest, match=r"admin\.override"):
        check({"admin.override.client.id": "y"}, worker).check()


@pytest.mark.parametrize(
    ("count", "told"), [("1000", []), ("1001", ["Value must be no more than 1000"]), ("2147483647", ["Value must be"])]
)
def test_more_tasks_than_a_process_can_have_are_refused(count: str, told: list[str]) -> None:
    found = errors({"tasks.max": count})
    assert len(found) == len(told)
    assert all(words in error for words, error in zip(told, found, strict=True))


def test_an_unknown_placeholder_is_refused_with_those_that_are_known() -> None:
    (told,) = errors({"redis.key": "pump:${kye}"})
    assert told.startswith("Invalid value pump:${kye} for configuration redis.key: unknown placeholder ${kye}")
    assert all(known in told for known in KNOWN)


def test_a_key_where_the_index_lives_is_refused() -> None:
    assert "index's own" in errors({"redis.key": "hb:{x}:down"})[0]
