"""Request bodies are read as Connect reads them: scalars keep their source text, faults of form say where they are."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat.connect import requests
from heartbeat.connect.store import TargetState
from heartbeat.errors import ConnectError


def refusal(body: str | bytes) -> str:
    with pytest.raises(ConnectError) as caught:
        requests.create(body.encode() if isinstance(body, str) else body)
    assert type(caught.value).status == 500
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("1.50", "1.50"),
        ("1e3", "1e3"),
        ("-0", "-0"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("true", "true"),
        ("false", "false"),
        ("null", None),
        ('"true"', "true"),
        ('""', ""),
        ('"caf\\u00e9 \\n \\/"', "café \n /"),
        ('"\\ud83d\\ude00"', "😀"),
        ('" 1 "', " 1 "),
    ],
)
def test_a_scalar_keeps_its_source_text(written: str, text: str | None) -> None:
    assert requests.config(f'{{"k": {written} }}'.encode()) == {"k": text}


def test_of_two_values_for_a_key_the_last_one_wins() -> None:
    assert requests.config(b'{"k": 1, "k": "2"}') == {"k": "2"}


@given(st.dictionaries(st.text(), st.text() | st.none()))
def test_any_map_of_text_comes_back(config: dict[str, str | None]) -> None:
    assert requests.config(json.dumps(config).encode()) == config
    assert requests.config(json.dumps(config, ensure_ascii=False).encode()) == config


@given(st.binary() | st.text().map(str.encode) | st.from_regex(rb'\A[\[\]{}",:0-9a-z\\ ]{0,20}\Z'))
def test_no_body_raises_anything_but_connects_error(body: bytes) -> None:
    for read in (requests.create, requests.config, requests.offsets):
        with suppress(ConnectError):
            read(body)


def test_a_request_has_a_name_a_config_and_a_state() -> None:
    request = requests.create(b'{"name": " a ", "config": {"topics": "t"}}')
    assert (request.name, request.config, request.target) == ("a", {"topics": "t"}, TargetState.STARTED)


@pytest.mark.parametrize(
    ("state", "target"),
    [
        ('"RUNNING"', TargetState.STARTED),
        ('"stopped"', TargetState.STOPPED),
        ('"Paused"', TargetState.PAUSED),
        ("null", TargetState.STARTED),
    ],
)
def test_the_initial_state_is_taken_in_any_case(state: str, target: TargetState) -> None:
    assert requests.create(f'{{"name": "a", "config": {{}}, "initial_state": {state}}}'.encode()).target is target


@pytest.mark.parametrize("name", ["", '"name": null, ', '"name": "", ', '"name": "  ", '])
def test_a_missing_name_is_an_empty_one(name: str) -> None:
    assert requests.create(f'{{{name}"config": {{}}}}'.encode()).name == ""


def test_a_bad_initial_state_is_refused_with_the_states_there_are() -> None:
    told = refusal('{"name": "a", "config": {}, "initial_state": "BAD"}')
    assert "No enum constant" in told
    assert "InitialState.BAD" in told
    assert "RUNNING, PAUSED, STOPPED" in told


@pytest.mark.parametrize("body", ["", "  \n", "null", " null "])
def test_a_request_without_a_body_gets_a_plain_sentence(body: str) -> None:
    assert refusal(body) == "The request has no body; it must hold the name and config of a connector as JSON"


@pytest.mark.parametrize("body", ['{"name": "a"}', '{"name": "a", "config": null}', "{}"])
def test_a_request_without_a_config_gets_a_plain_sentence(body: str) -> None:
    assert refusal(body) == 'The request has no "config"'


def test_an_unknown_field_is_refused_in_jacksons_words() -> None:
    told = refusal('{"name": "a", "config": {}, "bogus": 1}')
    assert told.startswith('Unrecognized field "bogus" (class ')
    assert told.endswith("not marked as ignorable")


@pytest.mark.parametrize(
    "body",
    [
        '["a"]',
        '"a"',
        "1",
        '{"name": "a", "config": []}',
        '{"name": "a", "config": "x"}',
        '{"name": "a", "config": {"k": {}}}',
        '{"name": "a", "config": {"k": [1]}}',
        '{"name": {"a": 1}, "config": {}}',
        '{"name": ["a"], "config": {}}',
    ],
)
def test_a_wrong_type_is_refused_in_jacksons_words(body: str) -> None:
    assert refusal(body).startswith("Cannot deserialize value of type ")


CROOKED: list[str | bytes] = ["{", '{"name": "a", "config": {}} x', "{'name': 'a'}", '{"name": "a",}', "nul", "[" * 100_000]
NO_TEXT = [b'{"name": "\xff\xfe", "config": {}}', b'{"name": "a", "config": {"k": "\xff"}}', b'{"name": "a", "config": {"k": "\\ud83d"}}']


@pytest.mark.parametrize("body", [*CROOKED, *NO_TEXT])
def test_malformed_json_says_what_the_parser_said(body: str | bytes) -> None:
    assert len(refusal(body)) > 5


def test_offsets_are_a_list_or_nothing() -> None:
    assert requests.offsets(b'{"offsets": [{"partition": {"kafka_topic": "t"}, "offset": null}]}') == [
        {"partition": {"kafka_topic": "t"}, "offset": None}
    ]
    for nothing in (b"{}", b'{"offsets": null}', b'{"offsets": []}'):
        assert requests.offsets(nothing) is None


def test_an_unknown_field_beside_offsets_is_refused() -> None:
    with pytest.raises(ConnectError, match='Unrecognized field "offset" '):
        requests.offsets(b'{"offset": []}')
