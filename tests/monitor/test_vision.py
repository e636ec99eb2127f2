"""What the proof is read as: until when all is proven, and at which stage sight was lost. By tables."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.beats.verdict_worlds import BEHIND, MOST_TAKEN, WORLDS, Bench

from heartbeat.beats.connection import Connection
from heartbeat.beats.keyspace import time_ms
from heartbeat.beats.partitions import Said
from heartbeat.beats.verdicts import Terms
from heartbeat.monitor.vision import BROKER, CONSUMER, REDIS, Blindness, Moment, Part, blindness, read

NOW = 1_795_366_700_000


def proof(until: tuple[int | None, ...] = (0, 0), **more: str) -> dict[str, str]:
    """Return a proof of the topic t, with ``until`` in ms from now, looked at for ten minutes."""
    fields = {"partitions": json.dumps({"t": len(until)}), "partitions_at": str(NOW), "ttl": "60000"}
    for n, end in enumerate(until):
        fields[f"t/{n}/since"] = str(NOW - 600_000)
        if end is not None:
            fields[f"t/{n}/until"] = str(NOW + end)
    return fields | {name.replace("__", "/"): text for name, text in more.items()}


def moment(**more: Any) -> Moment:
    return Moment(**{"redis_ms": NOW, "own_ms": NOW, "blind_after_ms": 10_000, "unproven_since_ms": NOW - 60_000, **more})


def said(why: str, age_ms: int = 0, behind: int | None = None) -> str:
    return json.dumps({"at_ms": NOW - age_ms, "why": why} | ({} if behind is None else {"behind": behind}))


def test_a_proof_is_read_partition_by_partition() -> None:
    found = read(
        {
            "partitions": '{"u":1,"t":2}',
            "partitions_at": "7",
            "t/0/since": "1",
            "t/0/until": "2",
            "t/0/canary": "3",
            "t/1/until": "5",
            "t/1/offset": "6",
            "canaries": "1",
            "tasks/0": '{"at_ms": 8, "why": "lag", "behind": 9}',
            "tasks/1": '{"at_ms": 8, "why": "broker"}',
            "target": '{"state": "PAUSED", "at_ms": 10}',
        }
    )
    assert found.parts == (Part("t", 0, 1, 2, 3), Part("t", 1, None, 5, None), Part("u", 0, None, None, None))
    assert (found.asked_ms, found.takes_canaries) == (7, True)
    assert found.tasks == (Said(8, "lag", 9), Said(8, "broker", 0))
    assert found.paused == "PAUSED"


def test_nothing_is_read_of_an_empty_proof() -> None:
    found = read({})
    assert (found.parts, found.asked_ms, found.takes_canaries, found.tasks, found.paused) == ((), None, False, (), "")


@pytest.mark.parametrize("state", ["STARTED", "", "whatever"])
def test_only_paused_and_stopped_are_what_an_operator_did(state: str) -> None:
    assert read({"target": json.dumps({"state": state, "at_ms": 1})}).paused == ""


@pytest.mark.parametrize("text", ["", "x", "-", "--1", "1.5", "nan", "\udcff"])
def test_a_number_that_cannot_be_read_proves_nothing(text: str) -> None:
    found = read(proof() | {"t/0/until": text})
    assert found.parts[0].until_ms is None
    assert found.proven_ms(NOW, NOW, canaries=False) is None


@pytest.mark.parametrize("name", ["partitions", "tasks/0"])
@pytest.mark.parametrize("text", ["", "x", "[]", "7", '"x"', "null", '{"t":"x"}', '{"t":null}', '{"at_ms":"x"}', "\udcff"])
def test_fields_that_cannot_be_read_say_nothing(name: str, text: str) -> None:
    found = read(proof() | {name: text})
    assert found.tasks == ()
    assert (len(found.parts) == 2) == (name != "partitions")


@pytest.mark.parametrize("text", ['{"state":"PAUSED","at_ms":"x"}', '{"state":"PAUSED","at_ms":null}', '{"state":"PAUSED","at_ms":[]}'])
def test_a_target_whose_time_cannot_be_read_is_no_reason_to_fail(text: str) -> None:
    assert read(proof() | {"target": text}).paused in ("PAUSED", "")


def test_digits_of_another_kind_are_no_reason_to_fail() -> None:
    assert read(proof() | {"t/0/until": "\u00b2"}).parts[0].until_ms is None


def test_deep_nesting_is_no_reason_to_fail() -> None:
    assert read(proof() | {"target": '{"state":' + "[" * 100_000}).paused == ""


@given(
    st.dictionaries(
        st.sampled_from(["partitions", "partitions_at", "t/0/since", "t/0/until", "canaries", "tasks/0"]), st.text('0-x{}[]":,t')
    )
)
def test_no_proof_is_a_reason_to_fail(fields: dict[str, str]) -> None:
    found = read(fields)
    found.proven_ms(NOW, NOW, canaries=True)
    blindness(found, moment())


@pytest.mark.parametrize(
    ("until", "canary", "canaries", "proven"),
    [
        ((0, 0), (None, None), False, 0),
        ((-7, -5), (None, None), False, -7),
        ((-5, -7), (None, None), False, -7),
        ((None, 0), (None, None), False, None),
        ((0, 1), (None, None), False, None),
        ((0, 0), (-9, -3), True, -9),
        ((-10, 0), (-9, -3), True, -10),
        ((0, 0), (None, -3), True, None),
        ((0, 0), (-9, -3), False, 0),
    ],
)
def test_what_is_proven_is_what_every_partition_proves(
    until: tuple[int | None, ...], canary: tuple[int | None, ...], canaries: bool, proven: int | None
) -> None:
    fields = proof(until) | {f"t/{n}/canary": str(NOW + at) for n, at in enumerate(canary) if at is not None}
    assert read(fields).proven_ms(NOW, NOW, canaries=canaries) == (None if proven is None else NOW + proven)


@pytest.mark.parametrize(
    ("changes", "ahead_ms"),
    [
        ({"partitions": "{}"}, 0),
        ({"partitions": '{"t":3}'}, 0),
        ({"partitions_at": ""}, 0),
        ({"partitions_at": str(NOW + 1)}, 0),
        ({"t/0/since": ""}, 0),
        ({}, 2_001),
        ({}, -2_001),
    ],
)
def test_nothing_is_proven_without_a_set_a_look_or_clocks_that_agree(changes: dict[str, str], ahead_ms: int) -> None:
    assert read(proof()).proven_ms(NOW, NOW + 2_000, canaries=False) == NOW
    assert read(proof() | changes).proven_ms(NOW, NOW - ahead_ms, canaries=False) is None


def test_nobody_is_blind_while_everything_is_proven_freshly() -> None:
    assert blindness(read(proof((0, -10_000))), moment()) is None
    assert blindness(read(proof((0, -10_000), tasks__0=said("broker"), target='{"state":"PAUSED","at_ms":1}')), moment()) is None


def test_blindness_begins_where_proof_ends_and_names_the_partition_that_is_furthest_behind() -> None:
    found = blindness(read(proof((-11_000, -10_001, -12_000, -11_999))), moment())
    assert found is not None
    assert (found.topic, found.partition, found.since_ms) == ("t", 2, NOW - 12_000)


def test_a_partition_of_which_nothing_is_proven_is_the_furthest_behind() -> None:
    found = blindness(read(proof((-500_000, None))), moment())
    assert found is not None
    assert (found.partition, found.since_ms) == (1, NOW - 60_000)


def test_nothing_is_told_before_nothing_has_been_proven_for_so_long() -> None:
    assert blindness(read(proof((0, None))), moment(unproven_since_ms=NOW - 10_000)) is None
    assert blindness(read(proof((0, None))), moment(unproven_since_ms=NOW - 10_001)) is not None
    assert blindness(read({}), moment(unproven_since_ms=NOW - 10_000)) is None


def test_the_earlier_clock_says_how_old_a_proof_is() -> None:
    assert blindness(read(proof((-10_500, 0))), moment(own_ms=NOW - 1_000)) is None
    assert blindness(read(proof((-10_500, 0))), moment(own_ms=NOW + 1_000)) is not None


def test_a_partition_set_that_nobody_asks_for_any_more_is_blindness() -> None:
    assert blindness(read(proof() | {"partitions_at": str(NOW - 600_000)}), moment()) is not None


@pytest.mark.parametrize("name", WORLDS)
def test_what_is_read_of_a_proof_is_what_the_scripts_prove(name: str, connection: Connection) -> None:
    world, bench = WORLDS[name].world, Bench(connection)
    taken_ms = MOST_TAKEN
    while taken_ms >= MOST_TAKEN:  # clocks may not be as the world has them by then
        zero = time_ms(connection.call("TIME")) - BEHIND
        bench.make(replace(world, blind=None), zero)
        terms = Terms(zero + world.own, world.slack, world.settle, world.canaries)
        bench.verdicts.blind(terms, 0, b"kept", b"flip", believed=True)
        ((_, words),) = connection.call("XRANGE", bench.verdicts.keys.flips, "-", "+")
        seen = bench.verdicts.look(zero, 0)
        taken_ms = seen.redis_ms - zero - BEHIND
    proven_ms = read(seen.proof).proven_ms(seen.redis_ms, zero + world.own, canaries=world.canaries)
    assert words[3] == (b"" if proven_ms is None else b"%d" % proven_ms)


OLD = (-20_000, 0)
PAUSED, STOPPED, STARTED = (json.dumps({"state": state, "at_ms": 1}) for state in ("PAUSED", "STOPPED", "STARTED"))
STAGES = [
    ("an operator paused it", proof(OLD, target=PAUSED), {}, CONSUMER, "paused"),
    ("an operator stopped it", proof(OLD, target=STOPPED), {}, CONSUMER, "stopped"),
    ("a pause goes before what tasks say", proof(OLD, target=PAUSED, tasks__0=said("broker")), {}, CONSUMER, "paused"),
    ("a resumed one says what its tasks say", proof(OLD, target=STARTED, tasks__0=said("broker")), {}, BROKER, "Kafka"),
    ("a task cannot reach Kafka", proof(OLD, tasks__1=said("broker")), {}, BROKER, "Kafka does not answer the worker"),
    ("one of the tasks cannot reach Kafka", proof(OLD, tasks__0=said("lag", 0, 9), tasks__1=said("broker")), {}, BROKER, "Kafka"),
    ("a task's clock disagrees", proof(OLD, tasks__0=said("clocks")), {}, REDIS, "clocks of Redis and of the worker"),
    ("a task is behind", proof(OLD, tasks__0=said("lag", 0, 917)), {}, CONSUMER, "917 records behind"),
    ("a task said so just lately enough", proof(OLD, tasks__0=said("broker", 6_000)), {}, BROKER, "Kafka"),
    ("what a task said is old", proof(OLD, tasks__0=said("broker", 6_001)), {}, CONSUMER, "no worker reports"),
    ("nobody says anything", proof(OLD), {}, CONSUMER, "no worker reports on t-0"),
    ("Kafka does not answer us either", proof(OLD), {"broker_ms": NOW - 10_001}, BROKER, "no worker reports"),
    ("Kafka answers us", proof(OLD), {"broker_ms": NOW - 10_000}, CONSUMER, "no worker reports"),
    ("no canary arrives", proof((0,), t__0__canary=str(NOW - 20_000)), {"canaries": True}, BROKER, "canaries sent to t-0"),
    ("canaries have never arrived", proof((0, 0)), {"canaries": True}, BROKER, "canaries sent to t-0"),
    ("no canary arrives and nobody reads", proof(OLD), {"canaries": True}, CONSUMER, "no worker reports"),
    ("nothing is there", {}, {}, CONSUMER, "lost its data, or no worker runs"),
    ("our clock is behind", proof(), {"own_ms": NOW - 2_001}, REDIS, "+2.0 s apart"),
    ("our clock is ahead", proof(), {"own_ms": NOW + 3_000}, REDIS, "-3.0 s apart"),
    ("clocks go before everything", {}, {"own_ms": NOW - 3_000}, REDIS, "apart"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "more", "stage", "words"), [row[1:] for row in STAGES], ids=[row[0] for row in STAGES])
def test_blindness_is_told_at_its_stage(fields: dict[str, str], more: dict[str, Any], stage: str, words: str) -> None:
    found = blindness(read(fields), moment(**more))
    assert isinstance(found, Blindness)
    assert found.stage == stage
    assert words in found.message
    assert found.incident == ""
    assert (found.topic, found.partition) == (("t", 0) if fields and "apart" not in words else ("", -1))


@pytest.mark.parametrize("number", ["0", "17"])
def test_a_lag_is_told_of_the_task_that_has_it_whatever_its_number(number: str) -> None:
    found = blindness(read(proof((-20_000,)) | {f"tasks/{number}": said("lag", 0, 5)}), moment())
    assert found is not None
    assert "5 records behind" in found.message


def test_of_several_tasks_that_lag_the_worst_is_told() -> None:
    found = blindness(read(proof((-20_000, 0), tasks__0=said("lag", 0, 5_000_000), tasks__1=said("lag", 0, 3))), moment())
    assert found is not None
    assert "5000000 records behind" in found.message
