"""Declared keys are validated in the words of Kafka's ConfigDef: clients show them to people and match on them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat.config import REQUIRED, ConfigDef, Key, Type, at_least, between, non_empty, one_of, to_text
from heartbeat.errors import ConfigError, InvalidConfig

BITS = {Type.SHORT: 16, Type.INT: 32, Type.LONG: 64}


def errors(key: Key, *text: str | None) -> list[str]:
    """What is wrong with a key that is given this text, or not given at all."""
    return ConfigDef([key]).validate(dict.fromkeys([key.name], text[0]) if text else {})[0].errors


def value(key: Key, *text: str | None) -> Any:
    return ConfigDef([key]).load({key.name: text[0]} if text else {})[key.name]


def test_a_missing_required_key_is_one_error_even_if_it_has_a_validator() -> None:
    key = Key(name="k", type=Type.STRING, doc="", validator=non_empty)
    assert errors(key) == ['Missing required configuration "k" which has no default value.']


def test_text_where_a_number_belongs_is_two_errors_if_the_number_has_a_range() -> None:
    key = Key(name="tasks.max", type=Type.INT, default=1, doc="", validator=at_least(1))
    assert errors(key, "abc") == [
        "Invalid value abc for configuration tasks.max: Not a number of type INT",
        "Invalid value null for configuration tasks.max: Value must be non-null",
    ]


def test_text_where_a_number_belongs_is_one_error_if_any_number_will_do() -> None:
    key = Key(name="errors.retry.timeout", type=Type.LONG, default=0, doc="")
    assert errors(key, "abc") == ["Invalid value abc for configuration errors.retry.timeout: Not a number of type LONG"]


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        (
            Key(name="tasks.max", type=Type.INT, doc="", validator=at_least(1)),
            "0",
            "Invalid value 0 for configuration tasks.max: Value must be at least 1",
        ),
        (
            Key(name="redis.port", type=Type.INT, doc="", validator=between(1, 65535)),
            "65536",
            "Invalid value 65536 for configuration redis.port: Value must be no more than 65535",
        ),
        (
            Key(name="k", type=Type.BOOLEAN, doc=""),
            "x",
            "Invalid value x for configuration k: Expected value to be either true or false",
        ),
        (
            Key(name="errors.tolerance", type=Type.STRING, doc="", validator=one_of("none", "all")),
            "some",
            "Invalid value some for configuration errors.tolerance: String must be one of: none, all",
        ),
        (
            Key(name="name", type=Type.STRING, doc="", validator=non_empty),
            "",
            "Invalid value  for configuration name: String may not be empty",
        ),
        (
            Key(name="name", type=Type.STRING, doc="", validator=non_empty),
            " \t",
            "Invalid value  for configuration name: String may not be empty",
        ),
        (Key(name="k", type=Type.SHORT, doc=""), "40000", "Invalid value 40000 for configuration k: Not a number of type SHORT"),
        (Key(name="k", type=Type.INT, doc=""), "1.0", "Invalid value 1.0 for configuration k: Not a number of type INT"),
        (Key(name="k", type=Type.INT, doc=""), "", "Invalid value  for configuration k: Not a number of type INT"),
        (Key(name="k", type=Type.INT, doc=""), "٣", "Invalid value ٣ for configuration k: Not a number of type INT"),
        (Key(name="k", type=Type.INT, doc=""), "1_000", "Invalid value 1_000 for configuration k: Not a number of type INT"),
    ],
)
def test_a_wrong_value_is_refused_in_kafkas_words(key: Key, text: str, expected: str) -> None:
    assert errors(key, text) == [expected]


def test_a_null_value_of_a_ranged_key_is_refused_as_null() -> None:
    key = Key(name="tasks.max", type=Type.INT, default=1, doc="", validator=at_least(1))
    assert errors(key, None) == ["Invalid value null for configuration tasks.max: Value must be non-null"]


def test_a_null_value_stays_null_where_nothing_forbids_it() -> None:
    assert value(Key(name="k", type=Type.PASSWORD, default="x", doc=""), None) is None


def test_a_validator_never_quotes_a_password() -> None:
    key = Key(name="k", type=Type.PASSWORD, doc="", validator=lambda _: "Too short")
    assert errors(key, "hunter2") == ["Invalid value [hidden] for configuration k: Too short"]


@pytest.mark.parametrize(
    ("type", "text", "expected"),
    [
        (Type.BOOLEAN, " TRUE ", True),
        (Type.BOOLEAN, "False", False),
        (Type.INT, " +7 ", 7),
        (Type.INT, "-0", 0),
        (Type.LONG, "0000000000000000000000000000000000000012", 12),
        (Type.STRING, "  two words ", "two words"),
        (Type.LIST, " a , b,, c ", ["a", "b", "", "c"]),
        (Type.LIST, "  ", []),
        (Type.CLASS, " a.B ", "a.B"),
    ],
)
def test_text_is_parsed_as_kafka_parses_it(type: Type, text: str, expected: Any) -> None:
    assert value(Key(name="k", type=type, doc=""), text) == expected


@given(st.sampled_from(sorted(BITS, key=BITS.__getitem__)), st.integers(-(2**70), 2**70))
def test_a_number_is_taken_exactly_if_its_java_type_can_hold_it(type: Type, number: int) -> None:
    key = Key(name="k", type=type, doc="")
    if -(2 ** (BITS[type] - 1)) <= number < 2 ** (BITS[type] - 1):
        assert value(key, str(number)) == number
    else:
        assert errors(key, str(number)) == [f"Invalid value {number} for configuration k: Not a number of type {type.value}"]


@given(st.sampled_from(Type), st.text())
def test_any_text_gives_a_value_or_an_error_that_names_the_key(type: Type, text: str) -> None:
    found = ConfigDef([Key(name="the.key", type=type, doc="")]).validate({"the.key": text})[0]
    assert all("for configuration the.key: " in error for error in found.errors)
    assert found.errors or found.value is not None


def test_digits_by_the_thousand_are_an_error_not_an_exception() -> None:
    assert errors(Key(name="k", type=Type.LONG, doc=""), "9" * 10_000)[0].endswith("Not a number of type LONG")


def test_everything_wrong_is_reported_at_once_and_in_the_order_of_declaration() -> None:
    keys = ConfigDef(
        [Key(name="b", type=Type.INT, doc=""), Key(name="a", type=Type.BOOLEAN, doc=""), Key(name="c", type=Type.STRING, doc="")]
    )
    with pytest.raises(InvalidConfig) as caught:
        keys.load({"a": "x", "b": "y"})
    assert caught.value.errors == [
        "Invalid value y for configuration b: Not a number of type INT",
        "Invalid value x for configuration a: Expected value to be either true or false",
        'Missing required configuration "c" which has no default value.',
    ]
    assert str(caught.value) == "\n".join(caught.value.errors)


def test_keys_nobody_declared_are_nobodys_error() -> None:
    assert ConfigDef([Key(name="a", type=Type.INT, default=3, doc="")]).load({"stranger": "x"}) == {"a": 3}


def test_a_key_describes_itself_as_connects_config_key_info() -> None:
    key = Key(name="redis.ttl", type=Type.INT, default=60, doc="Seconds.", importance="LOW")
    assert key.describe() == {
        "name": "redis.ttl",
        "type": "INT",
        "required": False,
        "default_value": "60",
        "importance": "LOW",
        "documentation": "Seconds.",
        "group": None,
        "width": "NONE",
        "display_name": "redis.ttl",
        "dependents": [],
        "order": -1,
    }
    assert list(key.describe())[:4] == ["name", "type", "required", "default_value"]


def test_a_required_key_has_no_default_to_show() -> None:
    shown = Key(name="k", type=Type.STRING, doc="").describe()
    assert (shown["required"], shown["default_value"]) == (True, None)
    assert repr(REQUIRED) == "REQUIRED"


def test_a_value_describes_itself_as_connects_config_value_info() -> None:
    key = Key(name="k", type=Type.INT, doc="", recommended=("1", "2"))
    assert ConfigDef([key]).validate({"k": "x"})[0].describe() == {
        "name": "k",
        "value": None,
        "recommended_values": ["1", "2"],
        "errors": ["Invalid value x for configuration k: Not a number of type INT"],
        "visible": True,
    }


@pytest.mark.parametrize(
    ("type", "parsed", "shown"),
    [
        (Type.LIST, ["a", "b"], "a,b"),
        (Type.LIST, [], ""),
        (Type.BOOLEAN, True, "true"),
        (Type.BOOLEAN, False, "false"),
        (Type.INT, 0, "0"),
        (Type.PASSWORD, "hunter2", "[hidden]"),
        (Type.PASSWORD, "", "[hidden]"),
        (Type.PASSWORD, None, None),
        (Type.STRING, None, None),
    ],
)
def test_values_are_written_as_connect_writes_them(type: Type, parsed: Any, shown: str | None) -> None:
    assert to_text(Key(name="k", type=type, doc=""), parsed) == shown


def test_a_password_shows_only_when_it_is_asked_for_by_name() -> None:
    assert to_text(Key(name="k", type=Type.PASSWORD, doc=""), "hunter2", hide=False) == "hunter2"


def test_a_null_in_an_error_is_spelled_as_java_spells_it() -> None:
    assert str(ConfigError("k", None, "No")) == "Invalid value null for configuration k: No"
