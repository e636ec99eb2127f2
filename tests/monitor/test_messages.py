from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat.monitor.flips import Flip, incident_of, key_of
from heartbeat.monitor.messages import MOST_FLIPS, Message, collapse, compose, duration, text_of, text_of_loss

T = 1_755_093_792_000  # 2025-08-13 14:03:12 UTC
NOTHING: dict[str, str] = {}


def flip(source: str, to: str = "DOWN", reason: str = "", *, judged: int = T + 60_000, connector: str = "pumps", **more: Any) -> Flip:
    incident = incident_of(connector, source, judged)
    reasons = {"DOWN": "silence", "UP": "recovered", "PAUSED": "bye", "BLIND": "blind", "SIGHTED": "sighted"}
    more = {"last_beat_ms": T, "deadline_ms": judged, "at_ms": judged + 5_000, **more}
    from_ = "DOWN" if to != "DOWN" else "UP"
    return Flip(key_of(incident, to), incident, source, connector, from_, to, reason or reasons.get(to, ""), **more)


def down(source: str, **more: Any) -> Flip:
    return flip(source, "DOWN", **more)


def up(source: str, **more: Any) -> Flip:
    return flip(source, "UP", **{"down_ms": 192_000, "missed": 3, **more})


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (
            down("pump-7", proven_until_ms=T + 67_000),
            "DOWN pump-7: silent since 14:03:12 UTC (last beat), due by 14:04:12 UTC; proven by Kafka until 14:04:19 UTC. Connector pumps.",
        ),
        (
            flip("pump-7", "DOWN", "fail", at_ms=T, message="out of oil."),
            "DOWN pump-7: failed at 14:03:12 UTC: out of oil. Connector pumps.",
        ),
        (
            flip("pump-7", "DOWN", "never_seen", last_beat_ms=None),
            "DOWN pump-7: never seen, due by 14:04:12 UTC. Connector pumps.",
        ),
        (
            up("pump-7", at_ms=T + 257_000),
            "UP pump-7: beats again since 14:07:29 UTC; was down 3 min 12 s, at least 3 beats missed. Connector pumps.",
        ),
        (up("p", at_ms=T, missed=1), "UP p: beats again since 14:03:12 UTC; was down 3 min 12 s, at least 1 beat missed. Connector pumps."),
        (flip("p", "PAUSED", at_ms=T), "PAUSED p: said goodbye at 14:03:12 UTC. Connector pumps."),
        (
            flip("pipeline:pumps", "BLIND", message="Kafka does not answer"),
            "BLIND pumps: Kafka does not answer. Nothing can be concluded from silence until sight returns; "
            "sources that are due are UNKNOWN, not DOWN.",
        ),
        (flip("pipeline:pumps", "SIGHTED", down_ms=12_000), "SIGHTED pumps: sees again; was blind for 12 s."),
        (
            flip("pipeline:pumps", "SIGHTED", down_ms=0, message="Redis has lost its data. 3 source(s) are forgotten"),
            "SIGHTED pumps: Redis has lost its data. 3 source(s) are forgotten.",
        ),
        (
            flip("p", "PAUSED", "bye", at_ms=T, down_ms=13_000, message="is watched no more"),
            "PAUSED p: is watched no more since 14:03:12 UTC; was down 13 s. Connector pumps.",
        ),
        (flip("p", "NEW\n", "x", at_ms=T), "NEW\\n p: beats again since 14:03:12 UTC. Connector pumps."),
        (
            down("p", last_beat_ms=T - 86_400_000),
            "DOWN p: silent since 2025-08-12 14:03:12 UTC (last beat), due by 14:04:12 UTC. Connector pumps.",
        ),
        (down("p", last_beat_ms=10**17), f"DOWN p: silent since {10**17} ms (last beat), due by 14:04:12 UTC. Connector pumps."),
    ],
)
def test_one_flip_is_one_sentence(told: Flip, text: str) -> None:
    assert text_of([told]) == text


@pytest.mark.parametrize(
    ("first", "last", "text"),
    [
        (down("p"), up("p", down_ms=12_000, missed=None), "p was down for 12 s and is up again. Connector pumps."),
        (down("p"), flip("p", "PAUSED", down_ms=12_000), "p was down for 12 s and said goodbye. Connector pumps."),
        (
            flip("pipeline:pumps", "BLIND"),
            flip("pipeline:pumps", "SIGHTED", down_ms=12_000),
            "pumps was blind for 12 s and sees again.",
        ),
    ],
)
def test_an_incident_that_is_over_before_it_was_told_is_one_message(first: Flip, last: Flip, text: str) -> None:
    [message] = compose("ops", [first, last], NOTHING)
    assert (message.text, message.flips, message.key) == (text, (last,), last.key)


def test_an_incident_whose_opening_was_told_is_said_to_be_over() -> None:
    [message] = compose("ops", [down("p"), up("p")], {down("p").incident: down("p").key})
    assert message.text.startswith("UP p: beats again")


def test_what_was_told_is_not_told_again() -> None:
    assert compose("ops", [down("p")], {down("p").incident: down("p").key}) == []
    assert compose("ops", [down("p"), up("p")], {up("p").incident: up("p").key}) == []
    assert compose("ops", [down("p")], {up("p").incident: up("p").key}) == []


def test_what_has_ended_does_not_open_again() -> None:
    assert collapse([down("p"), up("p"), down("p")], NOTHING)[0] == [up("p")]


def test_the_next_incident_of_a_source_comes_after_the_end_of_the_last() -> None:
    again = down("p", judged=T + 900_000)
    assert collapse([down("p"), down("q"), up("p"), again], NOTHING)[0] == [down("q"), up("p"), again]


def test_what_opens_comes_after_the_end_of_what_else_was_open() -> None:
    """Another monitor had named it otherwise, and ends what it has told."""
    begun, ended = flip("pipeline:pumps", "BLIND", judged=2), flip("pipeline:pumps", "SIGHTED", judged=1)
    sent = {ended.incident: key_of(ended.incident, "BLIND")}
    assert collapse([down("p"), begun, down("q"), ended, down("r")], sent)[0] == [down("p"), down("q"), ended, begun, down("r")]


def test_several_are_counted_first_and_then_named() -> None:
    told = [
        up("b", down_ms=12_000),
        down("a"),
        flip("pipeline:pumps", "BLIND", message="Redis is away"),
        flip("c", "DOWN", "fail", message="hot"),
    ]
    assert text_of(told).splitlines() == [
        "1 BLIND, 2 DOWN, 1 UP. Connector pumps.",
        "BLIND: pumps (Redis is away)",
        "DOWN: a, c (hot)",
        "UP: b (after 12 s)",
        "Nothing can be concluded from silence until sight returns; sources that are due are UNKNOWN, not DOWN.",
    ]


def test_what_a_pipeline_says_is_not_lost_among_others() -> None:
    told = [flip("pipeline:pumps", "SIGHTED", down_ms=0, message="3 are forgotten"), down("a"), flip("b", "NEW", "x")]
    assert text_of(told).splitlines()[0] == "1 DOWN, 1 SIGHTED, 1 NEW. Connector pumps."
    assert text_of(told).splitlines()[2:] == ["SIGHTED: pumps (3 are forgotten)", "NEW: b"]


def test_of_many_twenty_are_named() -> None:
    text = text_of([down(f"pump-{number}") for number in range(5_000)])
    assert text.splitlines()[0] == "5000 DOWN. Connector pumps."
    assert text.endswith("pump-18, pump-19 and 4,980 more")
    assert len(text) < 500


def test_sources_of_several_connectors_are_named_with_them() -> None:
    assert text_of([down("a"), down("a", connector="valves")]).splitlines() == ["2 DOWN", "DOWN: pumps/a, valves/a"]


def test_a_message_holds_ten_thousand_flips_and_the_rest_goes_into_the_next() -> None:
    messages = compose("ops", [down(str(number)) for number in range(22_000)], NOTHING)
    assert [len(message.flips) for message in messages] == [MOST_FLIPS, MOST_FLIPS, 2_000]
    assert len({message.key for message in messages}) == 3


def test_the_same_flips_have_the_same_key() -> None:
    told = [down("a"), down("b")]
    assert [m.key for m in compose("ops", told, NOTHING)] == [m.key for m in compose("ops", list(told), NOTHING)]
    assert compose("ops", told[:1], NOTHING)[0].key == told[0].key


def test_a_loss_says_how_much_and_who_is_down_now() -> None:
    text = text_of_loss("pumps", 2_100, 3, ["a", "b\n", "c"])
    assert text == "LOST 2,100 changes of pumps: they were cut before this channel could be reached. At present DOWN (3): a, b\\n, c."
    assert text_of_loss("pumps", 1, 0, []).endswith("At present nothing of it is DOWN.")
    assert text_of_loss("pumps", 1, 500, [str(number) for number in range(100)]).endswith("18, 19 and 480 more.")


@given(
    st.text(st.characters(codec="utf-8"), max_size=300) | st.binary(max_size=300).map(lambda name: name.decode("utf-8", "surrogateescape"))
)
def test_whatever_a_name_holds_a_text_has_only_our_own_line_ends(name: str) -> None:
    one = text_of([down(name, connector=name, message=name)])
    assert one.isprintable()
    several = text_of([down(name, connector=name), up(name, connector=name), flip(name, "BLIND", connector=name, message=name)])
    assert len(several.splitlines()) == 5
    one.encode()


def test_the_json_is_what_the_contract_says() -> None:
    told = down("pump-7", proven_until_ms=T + 67_000, detected_ms=T + 68_000, tags=("plant-1",), message="m", missed=1, down_ms=2)
    message = compose("ops", [told], NOTHING)[0]
    assert json.loads(message.json()) == {
        "key": told.key,
        "channel": "ops",
        "text": message.text,
        "flips": [
            {
                "key": told.key,
                "incident": told.incident,
                "source": "pump-7",
                "connector": "pumps",
                "from": "UP",
                "to": "DOWN",
                "reason": "silence",
                "at_ms": T + 65_000,
                "last_beat_ms": T,
                "deadline_ms": T + 60_000,
                "proven_until_ms": T + 67_000,
                "detected_ms": T + 68_000,
                "severity": "critical",
                "tags": ["plant-1"],
            }
        ],
    }


def test_names_that_are_no_utf_8_are_json_all_the_same() -> None:
    name = b"pump-\xff".decode("utf-8", "surrogateescape")
    [message] = compose("ops", [down(name, tags=(name,))], NOTHING)
    found = msgspec.json.decode(replace(message, channel=name).json())
    assert (found["channel"], found["flips"][0]["source"], found["flips"][0]["tags"]) == ("pump-\\xff", "pump-\\xff", ["pump-\\xff"])


def test_a_message_without_flips_is_json_too() -> None:
    assert json.loads(Message("k", "ops", "TEST").json()) == {"key": "k", "channel": "ops", "text": "TEST", "flips": []}


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1 s"),
        (59_400, "59 s"),
        (60_000, "1 min"),
        (3_599_999, "1 h"),
        (3_660_000, "1 h 1 min"),
        (90_000_000, "1 d 1 h"),
        (864_000_000, "10 d"),
    ],
)
def test_a_duration_is_told_in_two_units(ms: int, text: str) -> None:
    assert duration(ms) == text
