"""Plugins hear what operators want of connectors: the last word last, again while it cannot be noted, and no verb waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import pytest
from tests.connect.test_plugin_offsets import CONFIG, World
from tests.fakes import PATIENCE_S, CollectingSink, eventually

from heartbeat.connect import telling
from heartbeat.connect.api import TaskContext
from heartbeat.connect.plugins import Plugin, Plugins
from heartbeat.connect.requests import CreateRequest
from heartbeat.connect.store import ConnectorRecord, TargetState
from heartbeat.errors import ConnectError, RetriableError

STARTED, PAUSED, STOPPED = TargetState.STARTED, TargetState.PAUSED, TargetState.STOPPED


class ListeningSink(CollectingSink):
    """A plugin that writes down what it is told; ``gate`` is closed while its store hangs, ``errors`` come one after another."""

    heard: ClassVar[list[tuple[str, str]]] = []
    errors: ClassVar[list[Exception]] = []
    gate: ClassVar[threading.Event] = threading.Event()
    begun: ClassVar[threading.Event] = threading.Event()

    @classmethod
    def on_target(cls, config: Mapping[str, Any], context: TaskContext, state: str) -> None:
        assert config["sink.mode"] == "ok"
        cls.begun.set()
        assert cls.gate.wait(PATIENCE_S)
        if cls.errors:
            raise cls.errors.pop(0)
        cls.heard.append((context.connector, state))

    @classmethod
    def on_delete(cls, config: Mapping[str, Any], context: TaskContext) -> None:
        assert config["sink.mode"] == "ok"
        cls.heard.append((context.connector, "deleted"))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(telling, "_BACKOFF_S", 0.01)
    CollectingSink.reset()
    ListeningSink.heard, ListeningSink.errors = [], []
    ListeningSink.gate, ListeningSink.begun = threading.Event(), threading.Event()
    ListeningSink.gate.set()
    made = made_of(ListeningSink)
    yield made
    ListeningSink.gate.set()
    assert made.herder.shut_down(PATIENCE_S)
    if (thread := made.herder._telling._thread) is not None:
        thread.join(PATIENCE_S)  # or what hung in this test would be heard in the next one
        assert not thread.is_alive()


def made_of(plugin: type[CollectingSink]) -> World:
    """A world whose plugin is one of this module."""
    world = World()
    plugins = Plugins([Plugin(f"tests.connect.test_telling.{plugin.__name__}", plugin)])
    world.herder.plugins = world.herder._assembly._plugins = plugins
    return world


def create(world: World, target: TargetState = STOPPED, name: str = "c") -> None:
    world.herder.create(CreateRequest(name, {**CONFIG, "connector.class": "ListeningSink"}, target))


def heard(*words: tuple[str, str]) -> Callable[[], bool]:
    return lambda: ListeningSink.heard == list(words)


@pytest.mark.parametrize("target", [PAUSED, STOPPED])
def test_a_plugin_hears_in_which_state_a_connector_is_created_and_what_becomes_of_it(world: World, target: TargetState) -> None:
    create(world, target)
    eventually(heard(("c", target.value)), "the state of the creation")
    world.herder.set_target("c", PAUSED)
    world.herder.put_config("c", {**CONFIG, "connector.class": "ListeningSink", "topics": "u"})
    eventually(lambda: ListeningSink.heard[-1] == ("c", "PAUSED"), "the pause, or the config that keeps it")
    world.herder.set_target("c", STARTED)
    eventually(lambda: ListeningSink.heard[-1] == ("c", "STARTED"), "the resumption")


def test_a_changed_config_is_told_in_the_state_it_keeps(world: World) -> None:
    create(world, PAUSED)
    eventually(heard(("c", "PAUSED")), "the creation")
    world.herder.patch_config("c", {"topics": "u"})
    eventually(heard(("c", "PAUSED"), ("c", "PAUSED")), "the pause, for the changed config")


def test_what_a_worker_finds_in_its_store_is_told_when_it_starts(world: World) -> None:
    config = {**CONFIG, "name": "old", "connector.class": "ListeningSink"}
    world.store.put(ConnectorRecord("old", config, PAUSED))
    world.store.put(ConnectorRecord("gone", {**config, "connector.class": "gone.Sink"}, STOPPED))
    world.herder.reconcile()
    eventually(heard(("old", "PAUSED")), "the stored connector")


def test_while_a_plugins_store_hangs_no_verb_waits_and_the_last_word_comes_last(world: World) -> None:
    ListeningSink.gate.clear()
    create(world, STOPPED)
    assert ListeningSink.begun.wait(PATIENCE_S)
    for target in (PAUSED, STOPPED, PAUSED):
        world.herder.set_target("c", target)
    assert world.herder.busy_s() == 0.0
    assert ListeningSink.heard == [], "all verbs were answered before the plugin had noted anything"
    ListeningSink.gate.set()
    eventually(heard(("c", "STOPPED"), ("c", "PAUSED")), "the first word and the last")


def test_what_cannot_be_noted_yet_is_told_again_and_said_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    ListeningSink.errors = [RetriableError("redis is away") for _ in range(3)]
    create(world)
    eventually(heard(("c", "STOPPED")), "the state, at last")
    assert caplog.text.count("redis is away") == 1


@pytest.mark.parametrize("error", [ConnectError("redis refuses us"), ValueError("a bug")])
def test_what_a_plugin_cannot_note_at_all_is_said_and_hinders_no_other(
    world: World, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    ListeningSink.errors = [error]
    create(world)
    eventually(lambda: str(error) in caplog.text, "a word in the log")
    create(world, PAUSED, "d")
    eventually(heard(("d", "PAUSED")), "the other connector")


def test_a_deleted_connector_is_told_nothing_more(world: World) -> None:
    ListeningSink.errors = [RetriableError("redis is away") for _ in range(1000)]
    create(world)
    assert ListeningSink.begun.wait(PATIENCE_S)
    world.herder.delete("c")
    ListeningSink.errors = []
    create(world, PAUSED, "d")
    eventually(lambda: ("d", "PAUSED") in ListeningSink.heard, "the next connector")
    assert ListeningSink.heard == [("c", "deleted"), ("d", "PAUSED")]


def test_a_plugin_forgets_a_connector_only_after_it_has_noted_what_it_is_being_told(world: World) -> None:
    ListeningSink.gate.clear()
    create(world)
    assert ListeningSink.begun.wait(PATIENCE_S)
    deleting = threading.Thread(target=world.herder.delete, args=("c",))
    deleting.start()
    eventually(lambda: not world.herder.connectors(), "the deletion to be under way")
    ListeningSink.gate.set()
    deleting.join(PATIENCE_S)
    assert ListeningSink.heard == [("c", "STOPPED"), ("c", "deleted")]


def test_a_plugin_that_hangs_holds_up_a_deletion_for_a_bounded_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "_LONGEST_SILENCE_S", 0.01)
    ListeningSink.gate.clear()
    create(world)
    assert ListeningSink.begun.wait(PATIENCE_S)
    world.herder.delete("c")
    assert ListeningSink.heard == [("c", "deleted")]


def test_nothing_is_told_after_the_worker_was_shut_down(world: World) -> None:
    ListeningSink.errors = [RetriableError("redis is away") for _ in range(1000)]
    create(world)
    assert ListeningSink.begun.wait(PATIENCE_S)
    assert world.herder.shut_down(PATIENCE_S)
    thread = world.herder._telling._thread
    assert thread is not None
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_without_a_thread_left_verbs_are_done_and_the_next_one_tries_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        create(world)
    assert "can't start new thread" in caplog.text
    create(world, PAUSED, "d")
    eventually(lambda: sorted(ListeningSink.heard) == [("c", "STOPPED"), ("d", "PAUSED")], "both connectors")


def test_a_plugin_that_does_not_care_need_not_listen() -> None:
    CollectingSink.on_target({}, TaskContext("c"), "PAUSED")
