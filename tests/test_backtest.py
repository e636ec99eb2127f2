"""The verb as a user types it, on the embedded broker: what it finds, what it says of bad input, and that it is quiet for programs."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from tests.real.programs import free_port

from heartbeat import backtest
from heartbeat.backtest import Request
from heartbeat.beats import history_report, template
from heartbeat.beats.histories import Histories, View
from heartbeat.beats.history import Rule
from heartbeat.beats.records import Reading
from heartbeat.connect import log_reader
from heartbeat.connect.converters import StringConverter
from heartbeat.connect.log_reader import LogReader, Span
from heartbeat.embedded.broker import EmbeddedBroker
from heartbeat.embedded.ports import LOOPBACK
from heartbeat.errors import ConnectError, UsageError

HEARTBEAT = str(Path(sys.executable).with_name("heartbeat"))
ENVIRONMENT = {name: text for name, text in os.environ.items() if not name.startswith("CONNECT_")} | {"TERM": "xterm"}
DEADLINE_S = 60.0
MINUTE = 60_000
START = time.time_ns() // 1_000_000 - 120 * MINUTE
"""Two hours ago, so that nothing here is from the future, whatever the machine does meanwhile."""


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"beats": 2, "empty": 1, "keyless": 1, "signals": 1, "long": 2}) as broker:
        beats = [("steady", minute) for minute in range(120)] + [("gap", minute) for minute in (0, 1, 2, 8, 9)]
        send(broker, "beats", [(key, START + minute * MINUTE, {}, "v") for key, minute in beats])
        send(broker, "keyless", [(None, START, {}, "v"), (None, START, {}, "v")])
        send(
            broker,
            "signals",
            [
                ("own", START, {"hb-ttl": "10"}, "v"),
                ("own", START + MINUTE, {"hb-ttl": "ten"}, "v"),
                ("gone", START, {}, "v"),
                ("gone", START + 1000, {"hb-status": "bye"}, "v"),
                ("null", START, {}, "v"),
                ("null", START + 1000, {}, None),
            ],
        )
        yield broker


def send(broker: EmbeddedBroker, topic: str, records: Sequence[tuple[str | None, int, Mapping[str, str], str | None]]) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for key, stamp, headers, value in records:
        producer.produce(topic, value, key, timestamp=stamp, headers=list(headers.items()))
    assert producer.flush(DEADLINE_S) == 0


def found(broker: EmbeddedBroker, topic: str, **more: Any) -> dict[str, Any]:
    """What the verb reports to programs, with the sources by name."""
    report: dict[str, Any] = json.loads(backtest.run(Request(topics=(topic,), bootstrap=broker.bootstrap, json=True, **more)))
    return report | {"sources": {source["source"]: source for source in report["sources"]}}


def typed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HEARTBEAT, "backtest", *arguments], capture_output=True, text=True, timeout=DEADLINE_S, env=ENVIRONMENT)


def at(minute: float) -> str:
    return history_report.utc(round(START + minute * MINUTE))


def test_it_finds_every_down_and_the_smallest_ttl(broker: EmbeddedBroker) -> None:
    report = found(broker, "beats", ttl_s=70, grace_s=20)
    gap, steady = report["sources"]["gap"], report["sources"]["steady"]
    first, last = gap["downs"]
    assert first == {
        "last_beat": at(2),
        "down_at": at(3.5),
        "ended_at": at(8),
        "ended_by": "beat",
        "lasted_s": 270.0,
        "open": False,
    }
    assert (last["down_at"], last["ended_at"], last["open"]) == (at(10.5), None, True)
    assert gap["gaps_ms"] == {"p50": MINUTE, "p90": 6 * MINUTE, "p99": 6 * MINUTE, "max": 6 * MINUTE}
    assert (gap["smallest_ttl_s"], gap["down_count"], steady["smallest_ttl_s"]) == (340, 2, 40)
    assert (report["total"]["sources"], report["total"]["beats"], report["total"]["smallest_ttl_s"]) == (2, 125, 340)
    assert report["records"] == 125


def test_people_read_the_same_with_the_worst_first(broker: EmbeddedBroker) -> None:
    done = typed("--bootstrap-server", broker.bootstrap, "--topic", "beats", "--ttl", "70", "--grace", "20")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    table = [line.split() for line in lines if line.startswith(("gap ", "steady "))]
    assert [row[0] for row in table] == ["gap", "steady"]
    assert table[0][1:] == ["5", "1m0s", "6m0s", "6m0s", "6m0s", "2", "340", "s"]
    assert f"  down at {at(3.5)}, last beat {at(2)}, recovered {at(8)} after 4m30s" in lines
    assert any(line.startswith(f"  down at {at(10.5)}, last beat {at(9)}, open at the end of the log, for ") for line in lines)


def test_top_says_how_many_more_there_are(broker: EmbeddedBroker) -> None:
    text = backtest.run(Request(topics=("beats",), bootstrap=broker.bootstrap, top=1))
    assert "\ngap " in text
    assert "\nsteady " not in text
    assert "... and 1 more source(s)" in text


def test_headers_count_and_bad_ones_are_said(broker: EmbeddedBroker) -> None:
    report = found(broker, "signals")
    own, gone = report["sources"]["own"], report["sources"]["gone"]
    assert [down["down_at"] for down in own["downs"]] == [at(0.25), at(1 + 65 / 60)]
    assert (gone["downs"], gone["goodbyes"], gone["beats"]) == ([], 1, 1)
    assert report["sources"]["null"]["beats"] == 2
    assert report["headers_not_understood"] == 1


def test_a_connectors_file_gives_topics_key_and_ttl_and_what_a_null_means(broker: EmbeddedBroker, tmp_path: Path) -> None:
    file = tmp_path / "connector.json"
    config = {"topics": "signals", "redis.key": "s:${key}", "redis.ttl": "20", "heartbeat.tombstone": "bye"}
    file.write_text(json.dumps({"name": "s", "config": config}))
    report = json.loads(backtest.run(Request(topics=(), bootstrap=broker.bootstrap, connector=file, json=True)))
    assert (report["topics"], report["key"], report["ttl_s"]) == (["signals"], "s:${key}", 20)
    downs = {source["source"]: [down["down_at"] for down in source["downs"]] for source in report["sources"]}
    assert downs == {"s:own": [at(0.25), at(1 + 25 / 60)], "s:gone": [], "s:null": []}
    over = json.loads(backtest.run(Request(topics=("beats",), bootstrap=broker.bootstrap, connector=file, key="k", ttl_s=7, json=True)))
    assert (over["topics"], over["key"], over["ttl_s"]) == (["beats"], "k", 7)


def test_since_leaves_out_what_is_older(broker: EmbeddedBroker) -> None:
    def of_the_last_hour() -> int:
        return sum(START + minute * MINUTE >= time.time_ns() // 1_000_000 - 60 * MINUTE for minute in range(120))

    before, report = of_the_last_hour(), found(broker, "beats", since="1h")
    assert report["sources"].keys() == {"steady"}
    assert of_the_last_hour() <= report["total"]["beats"] <= before
    with pytest.raises(ConnectError, match="there is none of the last 1s"):
        found(broker, "beats", since="1s")


def test_partitions_that_are_held_back_lose_nothing(broker: EmbeddedBroker) -> None:
    """One partition holds a tenth of the other's beats over the same time, and little may wait."""
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for number in range(20_000):
        producer.produce("long", b"v", b"k", 0, timestamp=START + number * 100)
        if number % 10 == 0:
            producer.produce("long", b"v", b"k", 1, timestamp=START + number * 100 + 50)
        producer.poll(0)
    assert producer.flush(DEADLINE_S) == 0
    view = View(template.parse("k"), StringConverter().convert, Reading(MINUTE), 0, START + 120 * MINUTE)
    many = Histories(view, Rule(MINUTE, 0), most_waiting=1000)
    reader = LogReader({"bootstrap.servers": broker.bootstrap}, StringConverter().convert, StringConverter().convert)
    try:
        assert backtest.look_back(reader, ["long"], None, many) == 22_000
    finally:
        reader.close()
    (summary,) = many.finish(START)
    assert summary.beats == 22_000
    assert summary.gaps is not None
    assert summary.gaps.longest <= 150


def test_partitions_held_back_are_read_when_the_one_waited_for_has_ended(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody says so again: there may be too little to sort until then."""
    monkeypatch.setattr(log_reader, "_SILENCE_TIMEOUT_S", 5.0)
    monkeypatch.setattr(log_reader, "_MOST_RECORDS", 10)
    broker.create_topic("held", 3)
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for number in range(300):
        producer.produce("held", b"v", b"k", number % 3, timestamp=START + number)
    assert producer.flush(DEADLINE_S) == 0
    reader = LogReader({"bootstrap.servers": broker.bootstrap}, StringConverter().convert, StringConverter().convert)
    try:
        read = 0
        for records in reader.read(reader.spans(["held"])):
            if not read:
                reader.wait_for_slowest(True)
            read += len(records)
        assert read == 300
    finally:
        reader.close()


def test_what_is_appended_after_it_began_is_not_read(broker: EmbeddedBroker) -> None:
    broker.create_topic("growing")
    send(broker, "growing", [("a", START + number, {}, "v") for number in range(10)])
    reader = LogReader({"bootstrap.servers": broker.bootstrap}, StringConverter().convert, StringConverter().convert)
    try:
        spans = reader.spans(["growing"])
        send(broker, "growing", [("b", START, {}, "v") for _ in range(10)])
        keys = [key for records in reader.read(spans) for key in records.raw_keys()]
        assert keys == [b"a"] * 10
        assert spans == {("growing", 0): Span(0, 10)}
        assert reader.remaining() == 0
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no topic: name one with --topic"),
        (["--topic", "beats", "--key", "${kee}"], "unknown placeholder ${kee}; known are ${topic}, ${key}"),
        (["--topic", "beats", "--key", "hb:{x}"], "names starting with hb:{ are the index's own"),
        (["--topic", "beats", "--key", ""], "--key may not be empty"),
        (["--topic", "beats", "--since", "yesterday"], "--since yesterday: a duration is a number and a unit"),
        (["--topic", "beats", "--connector", "none.json"], "cannot read connector file none.json: No such file or directory"),
        (["--topic", "beats", "--client-config", "none.properties"], "cannot read client properties none.properties: No such file"),
        (["--topic", "beats", "--ttl", "0"], "--ttl"),
        (["--topic", "beats", "--grace", "-1"], "--grace"),
        (["--topic", "beats", "--grace", "nan"], "--grace"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_ends_with_1(arguments: list[str], words: str) -> None:
    done = typed("--bootstrap-server", f"{LOOPBACK}:1", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"redis.key": "x"}, "no topic"),
        ({"topics": "t", "redis.ttl": "soon"}, "redis.ttl: Not a number of type INT"),
        ({"topics": "t", "redis.key": "${x}"}, "unknown placeholder"),
        ({"topics": "t", "key.converter": "a.B"}, "key.converter: Class a.B could not be found."),
        ({"topics": "t", "heartbeat.ttl.max": "long"}, "heartbeat.ttl.max"),
        ({"topics": "t", "consumer.override.ssl.truststore.location": "t.jks", "consumer.override.security.protocol": "SSL"}, "truststore"),
    ],
)
def test_a_bad_connectors_file_is_said_in_one_line(config: dict[str, str], words: str, tmp_path: Path) -> None:
    file = tmp_path / "connector.json"
    file.write_text(json.dumps({"name": "c", "config": config}))
    with pytest.raises(UsageError) as error:
        backtest.run(Request(topics=(), bootstrap=f"{LOOPBACK}:1", connector=file))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("nobody-made-this", "There is no topic nobody-made-this at "),
        ("empty", "No record of empty could be taken as a beat: there is none"),
        ("keyless", "2 name no source with ${key}, the record has no key; see --key"),
    ],
)
def test_topics_without_beats_are_said_in_one_line_and_end_with_3(broker: EmbeddedBroker, topic: str, words: str) -> None:
    done = typed("--bootstrap-server", broker.bootstrap, "--topic", topic)
    assert (done.returncode, done.stdout) == (3, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_topic_that_was_asked_for_in_vain_is_not_made(broker: EmbeddedBroker) -> None:
    for _ in range(2):
        with pytest.raises(ConnectError, match="There is no topic in-vain"):
            found(broker, "in-vain")


def test_a_broker_that_is_not_there_is_said_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "_ANSWER_TIMEOUT_S", 1.0)
    with pytest.raises(ConnectError, match=r"^No broker at 127\.0\.0\.1:\d+ answered in 1 s: "):
        backtest.run(Request(topics=("beats",), bootstrap=f"{LOOPBACK}:{free_port()}"))


def test_a_broker_that_goes_away_is_said_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "_SILENCE_TIMEOUT_S", 2.0)
    with EmbeddedBroker({"beats": 1}) as broker:
        send(broker, "beats", [("a", START, {}, "v")])
        reader = LogReader({"bootstrap.servers": broker.bootstrap}, StringConverter().convert, StringConverter().convert)
        try:
            spans = reader.spans(["beats"])
            broker.set_down()
            with pytest.raises(ConnectError, match="has sent nothing for 2 s"):
                list(reader.read(spans))
        finally:
            reader.close()


def test_client_properties_come_in_javas_names_and_the_option_wins(broker: EmbeddedBroker, tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text(f"bootstrap.servers={broker.bootstrap}\nclient.id=someone\ngroup.id=ours\nauto.offset.reset=none\n")
    report = json.loads(backtest.run(Request(topics=("beats",), client_config=file, json=True)))
    assert report["total"]["beats"] == 125
    file.write_text(f"bootstrap.servers={LOOPBACK}:1\n")
    report = json.loads(backtest.run(Request(topics=("beats",), client_config=file, bootstrap=broker.bootstrap, json=True)))
    assert report["total"]["beats"] == 125


def test_names_cannot_harm_a_terminal_and_stay_valid_json(broker: EmbeddedBroker) -> None:
    broker.create_topic("odd")
    send(broker, "odd", [("\x1b[2J\n", START, {}, "v"), ("a b", START, {}, "v")])
    text = backtest.run(Request(topics=("odd",), bootstrap=broker.bootstrap))
    assert "\x1b" not in text
    assert "\\x1b[2J\\n" in text
    assert found(broker, "odd")["sources"].keys() == {"\x1b[2J\n", "a b"}


def read_to_end(terminal: int) -> bytes:
    """Everything that is written to a terminal until nobody has it open any more."""
    written = b""
    while select.select([terminal], [], [], DEADLINE_S)[0]:
        try:
            written += os.read(terminal, 4096)
        except OSError:  # Linux's way to say so
            break
    return written


def test_progress_is_shown_on_a_terminal_and_there_only(broker: EmbeddedBroker) -> None:
    arguments = ["backtest", "--bootstrap-server", broker.bootstrap, "--topic", "beats", "--json"]
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen([HEARTBEAT, *arguments], stdout=subprocess.PIPE, stderr=theirs, env=ENVIRONMENT) as process:
            os.close(theirs)
            assert b"reading" in read_to_end(ours)
            output, _ = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 0
    finally:
        os.close(ours)
    assert json.loads(output)["total"]["beats"] == 125
    assert typed(*arguments[1:]).stderr == ""
