"""From a connector's configuration to what the sink's parts go by."""

from __future__ import annotations

import pytest

from heartbeat.beats.records import Reading
from heartbeat.beats.settings import KEYS, Limits, Rules, Settings
from heartbeat.beats.template import KNOWN
from heartbeat.connect.api import Subscription, TaskContext
from heartbeat.errors import InvalidConfig


def settings(**config: str) -> Settings:
    return Settings.of(KEYS.load({name.replace("_", "."): text for name, text in config.items()}))


def rules(topics: tuple[str, ...] = ("a", "b"), pattern: str | None = None, template: str = "s", reset: str | None = None) -> Rules:
    return settings().rules(TaskContext("c", subscription=Subscription(topics, pattern), offset_reset=reset), template)


def test_the_defaults_are_one_key_for_a_minute() -> None:
    config = KEYS.load({})
    assert (config["redis.host"], config["redis.port"], config["redis.key"], config["redis.ttl"]) == ("redis", 6379, "heartbeat", 60)
    assert settings() == Settings(Reading(most_ttl_ms=60_000), Limits(60_000, 1_000_000, 600_000))


@pytest.mark.parametrize(
    ("config", "most_ttl_ms", "horizon_ms"),
    [
        ({"redis_ttl": "300"}, 300_000, 600_000),
        ({"redis_ttl": "301"}, 301_000, 602_000),
        ({"redis_ttl": "60", "heartbeat_ttl_max": "7200"}, 7_200_000, 14_400_000),
        ({"redis_ttl": "7200", "heartbeat_ttl_max": "10"}, 10_000, 14_400_000),
        ({"redis_ttl": "7200", "heartbeat_horizon": "5"}, 7_200_000, 7_200_000),  # shorter than a ttl it may not be
        ({"redis_ttl": "60", "heartbeat_horizon": "90"}, 60_000, 90_000),
    ],
)
def test_the_horizon_is_twice_the_longest_ttl_that_any_source_may_have(config: dict[str, str], most_ttl_ms: int, horizon_ms: int) -> None:
    found = settings(**config)
    assert (found.reading.most_ttl_ms, found.limits.horizon_ms) == (most_ttl_ms, horizon_ms)


def test_each_switch_reaches_who_reads_records() -> None:
    found = settings(heartbeat_time="processing", heartbeat_mirrored="true", heartbeat_tombstone="bye", heartbeat_sources_max="5")
    assert found.reading == Reading(60_000, processing_time=True, mirrored=True, tombstones=True)
    assert found.limits.most == 5
    assert not found.rules(TaskContext("c"), "s").replays


def test_the_fingerprint_names_topics_and_template_and_not_their_order() -> None:
    assert rules().config == rules(("b", "a")).config
    others = [rules(("a",)), rules(("a", "b", "c")), rules(template="t"), rules((), "a|b"), rules(("ab",)), rules((), "ab")]
    assert len({rules().config, *(other.config for other in others)}) == 1 + len(others)


def test_the_fingerprint_survives_a_change_of_anything_else() -> None:
    context = TaskContext("c", subscription=Subscription(("a",)))
    one, other = settings(redis_ttl="5"), settings(redis_ttl="50", heartbeat_time="processing", heartbeat_sources_max="9")
    assert one.rules(context, "s").config == other.rules(context, "s").config


def test_a_pattern_and_an_explicit_reset_are_passed_on() -> None:
    assert (rules().pattern, rules().offset_reset) == (False, None)
    assert rules((), "a.*").pattern
    assert rules(reset="latest").offset_reset == "latest"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("redis.key", "${kex}", "unknown placeholder ${kex}"),
        ("redis.key", "hb:{x}:down", "the index's own"),
        ("redis.key", "", "may not be empty"),
        ("redis.ttl", "0", "at least 1"),
        ("heartbeat.ttl.max", "0", "at least 1"),
        ("heartbeat.horizon", "-1", "at least 1"),
        ("heartbeat.sources.max", "0", "at least 1"),
        ("heartbeat.time", "event", "record, processing"),
        ("heartbeat.tombstone", "dead", "beat, bye"),
        ("heartbeat.mirrored", "perhaps", "true or false"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(name: str, value: str, words: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        KEYS.load({name: value})
    assert words in str(caught.value)
    assert f"configuration {name}" in str(caught.value)


def test_an_unknown_placeholder_lists_the_known_ones() -> None:
    with pytest.raises(InvalidConfig) as caught:
        KEYS.load({"redis.key": "${kex}"})
    assert all(known in str(caught.value) for known in KNOWN)
