"""Flips as they are stored: the JSON of the contract, keys that never change, and how long it lasted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from heartbeat.monitor import flips, incidents
from heartbeat.monitor.flips import Flip
from heartbeat.monitor.incidents import Judged
from heartbeat.monitor.rules import Policy
from heartbeat.monitor.vision import Blindness

BEAT = 1_795_366_600_000
TTL = 60_000
GRACE = 5_000
CONTRACT = [
    "key",
    "incident",
    "source",
    "connector",
    "from",
    "to",
    "reason",
    "at_ms",
    "last_beat_ms",
    "deadline_ms",
    "proven_until_ms",
    "detected_ms",
    "severity",
    "tags",
]


POLICY = Policy(GRACE, 0, "warning", ("plant-1", "pumps"), ())
WATCHED = Judged("pumps", "pump:7", BEAT + TTL, TTL, POLICY)
FAILED = replace(WATCHED, deadline_ms=BEAT, failed=True)
INCIDENT = flips.incident_of("pumps", "pump:7", BEAT + TTL)
BLINDNESS = Blindness("broker", "Kafka does not answer the worker", BEAT, "t", 3)


def said(flip: Flip) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(flip))
    return found


def test_a_silence_is_told_as_the_contract_says() -> None:
    found = said(incidents.silent(WATCHED))
    assert list(found)[: len(CONTRACT)] == CONTRACT
    assert {name: found[name] for name in CONTRACT} == {
        "key": f"{INCIDENT}:DOWN",
        "incident": INCIDENT,
        "source": "pump:7",
        "connector": "pumps",
        "from": "LATE",
        "to": "DOWN",
        "reason": "silence",
        "at_ms": BEAT + TTL + GRACE,
        "last_beat_ms": BEAT,
        "deadline_ms": BEAT + TTL,
        "proven_until_ms": None,
        "detected_ms": None,
        "severity": "warning",
        "tags": ["plant-1", "pumps"],
    }


def test_a_fail_is_told_with_its_reason_and_message_at_its_own_time() -> None:
    found = incidents.failed(FAILED, "no oil")
    assert (found.from_, found.to, found.reason, found.message) == ("UP", "DOWN", "fail", "no oil")
    incident = flips.incident_of("pumps", "pump:7", BEAT)
    assert (found.at_ms, found.last_beat_ms, found.deadline_ms, found.key) == (BEAT, BEAT, BEAT, f"{incident}:DOWN")


def test_one_that_was_never_seen_has_no_last_beat() -> None:
    found = incidents.never_seen(WATCHED)
    assert (found.from_, found.to, found.reason, found.last_beat_ms) == ("NEW", "DOWN", "never_seen", None)
    assert (found.at_ms, found.deadline_ms, found.key) == (BEAT + TTL + GRACE, BEAT + TTL, f"{INCIDENT}:DOWN")


@pytest.mark.parametrize(
    ("back_ms", "down_ms", "missed"),
    [
        (BEAT + TTL + GRACE + 1, 1, 1),
        (BEAT + TTL + GRACE + 90_000, 90_000, 2),
        (BEAT + 10 * TTL - 1, 9 * TTL - GRACE - 1, 9),
        (BEAT + 10 * TTL, 9 * TTL - GRACE, 10),
        (BEAT - 1, 0, 0),
    ],
)
def test_a_recovery_says_how_long_it_lasted_and_how_many_beats_were_missed(back_ms: int, down_ms: int, missed: int) -> None:
    found = incidents.recovered(WATCHED, back_ms)
    assert (found.from_, found.to, found.reason) == ("DOWN", "UP", "recovered")
    assert (found.at_ms, found.last_beat_ms, found.deadline_ms) == (back_ms, back_ms, BEAT + TTL)
    assert (found.down_ms, found.missed) == (down_ms, missed)
    assert (found.incident, found.key) == (INCIDENT, f"{INCIDENT}:UP")


def test_a_goodbye_while_down_ends_the_incident_and_keeps_the_last_beat() -> None:
    found = incidents.said_goodbye(WATCHED, BEAT + TTL + GRACE + 7)
    assert (found.from_, found.to, found.reason, found.key) == ("DOWN", "PAUSED", "bye", f"{INCIDENT}:PAUSED")
    assert (found.at_ms, found.last_beat_ms, found.down_ms) == (BEAT + TTL + GRACE + 7, BEAT, 7)


def test_without_a_ttl_nobody_counts_missed_beats() -> None:
    assert incidents.recovered(Judged("pumps", "pump:7", BEAT, 0, POLICY), BEAT + 10_000).missed is None


def test_blindness_and_its_end_are_one_incident_of_the_pipeline() -> None:
    blind = incidents.went_blind("pumps", BLINDNESS)
    kept = msgspec.structs.replace(BLINDNESS, incident=blind.incident)
    sighted = incidents.sighted_again("pumps", kept, BEAT + 30_000)
    assert (blind.source, blind.from_, blind.to, blind.reason) == ("pipeline:pumps", "SIGHTED", "BLIND", "blind")
    assert (blind.at_ms, blind.proven_until_ms, blind.last_beat_ms, blind.deadline_ms) == (BEAT, BEAT, None, None)
    assert blind.message == "broker: Kafka does not answer the worker"
    assert (sighted.source, sighted.from_, sighted.to, sighted.reason) == ("pipeline:pumps", "BLIND", "SIGHTED", "sighted")
    assert (sighted.at_ms, sighted.down_ms) == (BEAT + 30_000, 30_000)
    assert sighted.incident == blind.incident == flips.incident_of("pumps", "pipeline:pumps", BEAT)
    assert (blind.key, sighted.key) == (f"{blind.incident}:BLIND", f"{blind.incident}:SIGHTED")
    assert blind.opens
    assert not sighted.opens


def test_what_was_forgotten_is_said_with_its_number() -> None:
    found = incidents.forgotten("pumps", 17, BEAT)
    assert "17 source(s)" in found.message
    assert (found.source, found.at_ms, found.opens) == ("pipeline:pumps", BEAT, False)


def test_ids_and_keys_are_what_they_have_always_been() -> None:
    """They are compared with those that receivers, other monitors and the topic have kept."""
    assert flips.incident_of("pumps", "pump:7", 1_795_366_660_000) == "6e6b8c0209f7689a"
    assert flips.incident_of("pumps", "\udcff", 1_795_366_660_000) == "00e0084817d036bb"
    assert flips.key_of("5a", "DOWN") == "5a:DOWN"


def test_incidents_differ_by_connector_source_and_deadline() -> None:
    made = {flips.incident_of(*of) for of in (("a", "b", 1), ("a", "b", 2), ("a", "c", 1), ("b", "b", 1), ("a\0b", "", 1))}
    assert len(made) == 5


@pytest.mark.parametrize("name", ["\udcff", "a\nb", "<b>", "\u202e", "\0", "\\x"])
def test_any_name_can_be_told(name: str) -> None:
    watched = Judged("pumps", name, BEAT + TTL, TTL, POLICY)
    for flip in (incidents.silent(watched), incidents.failed(watched, ""), incidents.recovered(watched, BEAT)):
        assert msgspec.json.decode(msgspec.json.encode(flip), type=Flip) == flip
        assert flip.incident == flips.incident_of("pumps", name, BEAT + TTL)


def test_an_incident_that_a_fail_opened_lasts_from_the_fail_on_however_long() -> None:
    opened = incidents.failed(FAILED, "no oil")
    for after_ms in (1, GRACE - 1, TTL + GRACE, 10 * TTL):
        ended = incidents.recovered(FAILED, BEAT + after_ms)
        assert (ended.incident, ended.down_ms, ended.missed) == (opened.incident, after_ms, after_ms // TTL)


def test_the_goodbye_of_one_that_was_never_seen_has_no_last_beat() -> None:
    assert incidents.said_goodbye(replace(WATCHED, beaten=False), BEAT + 10 * TTL).last_beat_ms is None
