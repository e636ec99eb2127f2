"""Connector files of the command line: three forms, tried as Connect tries them, and faults by line and column."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heartbeat.connect import connector_files
from heartbeat.connect.store import TargetState
from heartbeat.errors import StartError


def written(tmp_path: Path, text: str | bytes, name: str = "connector.json") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(tmp_path: Path, text: str | bytes) -> str:
    with pytest.raises(StartError) as caught:
        connector_files.read(written(tmp_path, text))
    assert str(tmp_path / "connector.json") in str(caught.value)
    return str(caught.value)


def test_a_flat_map_is_a_config(tmp_path: Path) -> None:
    request = connector_files.read(written(tmp_path, '{"name": "a", "tasks.max": 1.50, "x": true, "topics": "t"}'))
    assert (request.name, request.target) == ("a", TargetState.STARTED)
    assert request.config == {"name": "a", "tasks.max": "1.50", "x": "true", "topics": "t"}


def test_the_body_of_a_post_is_taken_with_its_state_and_strange_fields_are_ignored(tmp_path: Path) -> None:
    body = {"name": "a", "config": {"topics": "t"}, "initial_state": "paused", "comment": "mine"}
    request = connector_files.read(written(tmp_path, json.dumps(body, indent=2)))
    assert (request.name, request.config, request.target) == ("a", {"topics": "t"}, TargetState.PAUSED)


def test_the_originals_file_is_the_body_of_a_post() -> None:
    request = connector_files.read(Path(__file__).parents[2] / "config" / "redis-heartbeat-sink.json")
    assert request.name == "redis-heartbeat-sink"
    assert request.config["connector.class"] == "com.example.RedisHeartbeatSinkConnector"


def test_properties_are_a_config_in_javas_syntax(tmp_path: Path) -> None:
    text = b"# mine\nname: a\ntopics=t1,\\\n  t2\nredis.key caf\xe9\n"
    request = connector_files.read(written(tmp_path, text, "connector.properties"))
    assert request.name == "a"
    assert request.config == {"name": "a", "topics": "t1,t2", "redis.key": "café"}


def test_the_form_is_told_by_the_content_not_by_the_files_name(tmp_path: Path) -> None:
    assert connector_files.read(written(tmp_path, "name=a\n", "x.json")).name == "a"
    assert connector_files.read(written(tmp_path, ' \n{"name": "a"}', "x.properties")).name == "a"


def test_a_key_called_config_in_a_flat_map_is_an_ordinary_key(tmp_path: Path) -> None:
    assert connector_files.read(written(tmp_path, '{"name": "a", "config": "x"}')).config == {"name": "a", "config": "x"}


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('{"name": "a",\n "topics": "t",\n "x": }\n', 3, 7),
        ('{"name": "a" "b"}', 1, 14),
        ('{\n  "name": "a",\n  "redis.port": 06379\n}', 3, 18),
        ('{"café": "ü" x}', 1, None),
    ],
)
def test_broken_json_is_told_by_line_and_column(tmp_path: Path, text: str, line: int, column: int | None) -> None:
    told = refusal(tmp_path, text)
    assert "is not valid JSON" in told
    assert f", line {line}, column " in told
    assert column is None or told.endswith(f", column {column}")


@pytest.mark.parametrize("text", ['{"name": "a"', '{"name": "a', "{", b'{"name": "\xff"}', "[" * 5 + "{", '{"a":' * 100_000])
def test_what_is_cut_off_or_no_text_is_refused_without_a_crash(tmp_path: Path, text: str | bytes) -> None:
    refusal(tmp_path, text)


@pytest.mark.parametrize(
    "text", ["", "\n", "topics=t\n", "{}", '{"topics": "t"}', '{"config": {}}', '{"name": "", "config": {}}', "name=\n"]
)
def test_a_file_that_names_no_connector_is_refused(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text).endswith(': a connector file must have a "name"')


@pytest.mark.parametrize(
    "text", ['{"name": "a", "config": {"topics": ["t"]}}', '{"name": "a", "topics": ["t"]}', '{"name": {"a": 1}, "config": {}}']
)
def test_values_that_are_no_scalars_are_refused_in_connects_words(tmp_path: Path, text: str) -> None:
    assert "Cannot deserialize value of type `java.lang.String` from " in refusal(tmp_path, text)


def test_a_missing_file_is_refused_with_its_name_and_the_reason(tmp_path: Path) -> None:
    with pytest.raises(StartError) as caught:
        connector_files.read(tmp_path / "none.json")
    assert str(caught.value) == f"cannot read connector file {tmp_path / 'none.json'}: No such file or directory"


def test_broken_properties_are_refused(tmp_path: Path) -> None:
    assert "is neither JSON nor Java properties" in refusal(tmp_path, "name=\\u00")
