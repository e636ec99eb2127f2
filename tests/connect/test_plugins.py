"""Plugins by every name that a connector's config may use."""

from __future__ import annotations

import pytest
from tests.fakes import CollectingSink

from heartbeat.connect.plugins import Plugin, Plugins
from heartbeat.errors import BadRequest

PLUGINS = Plugins([Plugin("tests.fakes.CollectingSink", CollectingSink)])


@pytest.mark.parametrize("name", ["tests.fakes.CollectingSink", "CollectingSink", "org.example.CollectingSinkConnector"])
def test_class_simple_name_and_aliases_find_the_plugin(name: str) -> None:
    assert PLUGINS.get(name).task is CollectingSink


@pytest.mark.parametrize("name", ["", "collectingsink", "fakes.CollectingSink", "tests.fakes.CollectingSink ", "Sink"])
def test_anything_else_finds_nothing_and_the_refusal_says_what_there_is(name: str) -> None:
    assert PLUGINS.find(name) is None
    with pytest.raises(BadRequest) as caught:
        PLUGINS.get(name)
    text = str(caught.value)
    assert text.startswith(f"Failed to find any class that implements Connector and which name matches {name}, available connectors are: ")
    assert "PluginDesc{klass=class tests.fakes.CollectingSink, name='tests.fakes.CollectingSink', version='9.9'" in text


@pytest.mark.parametrize(
    "name",
    [
        "heartbeat.beats.sink.HeartbeatSink",
        "HeartbeatSink",
        "com.example.RedisHeartbeatSinkConnector",
        "RedisHeartbeatSinkConnector",
        "RedisHeartbeatSink",
    ],
)
def test_the_installed_sink_is_discovered_under_all_its_names(name: str) -> None:
    assert Plugins.discover().get(name).name == "heartbeat.beats.sink.HeartbeatSink"


def test_a_worker_without_plugins_refuses_in_the_same_words() -> None:
    with pytest.raises(BadRequest, match="Failed to find any class that implements Connector"):
        Plugins([]).get("x")


def test_plugins_are_listed_by_name() -> None:
    several = Plugins([Plugin(name, CollectingSink) for name in ("b.B", "a.A", "c.C")])
    assert [plugin.name for plugin in several] == ["a.A", "b.B", "c.C"]
