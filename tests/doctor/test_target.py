"""What is looked at follows from a connector's config, a worker's properties, and the command line over both."""

from __future__ import annotations

import pytest

from heartbeat.beats.connection import Server
from heartbeat.doctor import target
from heartbeat.doctor.target import Override
from heartbeat.errors import InvalidConfig

WORKER = {"bootstrap.servers": "broker:9092"}
CONFIG = {"name": "c", "topics": "a, b,a", "redis.host": "r", "redis.port": "7000", "redis.ttl": "900", "redis.password": "p"}
NOTHING = Override()


def test_a_config_says_topics_group_redis_and_how_far_a_rebuild_goes_back() -> None:
    found = target.of(CONFIG, WORKER, NOTHING)
    assert (found.topics, found.group, found.ttl_ms, found.horizon_ms) == (("a", "b"), "connect-c", 900_000, 1_800_000)
    assert found.server == Server("r", 7000, password="p", timeout_s=2.0)
    assert dict(found.client)["bootstrap.servers"] == "broker:9092"


def test_overrides_of_the_consumer_say_the_broker_and_the_group() -> None:
    more = {"consumer.override.group.id": "g", "consumer.override.bootstrap.servers": "other:1", "consumer.override.fetch.min.bytes": "9"}
    found = target.of(CONFIG | more, WORKER, NOTHING)
    assert (found.group, dict(found.client)["bootstrap.servers"]) == ("g", "other:1")
    assert "fetch.min.bytes" not in dict(found.client)


def test_connectors_of_one_cluster_are_looked_at_by_one_client() -> None:
    first, second = (target.of(CONFIG | {"name": name}, WORKER, NOTHING) for name in ("one", "two"))
    assert first.client == second.client
    assert first.server == second.server


def test_the_command_line_wins() -> None:
    found = target.of(CONFIG | {"redis.timeout.ms": "60000"}, WORKER, Override("here:1", ("there", 2), "own"))
    assert found.server == Server("there", 2, password="own", timeout_s=2.0)
    assert dict(found.client)["bootstrap.servers"] == "here:1"


def test_without_a_config_the_name_and_the_command_line_are_all_there_is() -> None:
    found = target.unknown("c", WORKER, NOTHING)
    assert (found.group, found.server, found.topics, found.horizon_ms) == ("connect-c", None, (), None)
    assert target.unknown("c", WORKER, Override(address=("there", 2))).server == Server("there", 2)


def test_a_pattern_is_matched_as_the_consumer_does() -> None:
    config = {"name": "c", "topics.regex": r"beats-\d"}
    found = target.of(config, WORKER, NOTHING)
    assert found.resolved(["beats-1", "beats-12", "x-beats-1", "__consumer_offsets"]) == ("beats-1",)
    with pytest.raises(InvalidConfig, match=r"topics\.regex"):
        target.of({"name": "c", "topics.regex": "("}, WORKER, NOTHING)


def test_only_what_a_client_connects_by_is_a_secret() -> None:
    jaas = 'x.PlainLoginModule required username="u" password="jaas-pw";'
    given = {
        "redis.key": "heartbeat",
        "redis.password": "redis-pw",
        "key.converter": "x",
        "consumer.override.sasl.jaas.config": jaas,
        "consumer.ssl.key.password": "key-pw",
    }
    found = target.secrets(given)
    assert {"redis-pw", "jaas-pw", "key-pw"} <= found
    assert found.isdisjoint({"heartbeat", "x", "u"})
