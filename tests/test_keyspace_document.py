"""docs/keyspace.md against the code: the keys and fields it names are those that are written, and its examples are what Redis shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.patience import patient
from tests.test_documents import blocks, prose, rows

from heartbeat.beats import console, doubts, outbox, outbox_scripts, packing, scripts, verdict_scripts, verdicts
from heartbeat.beats.connection import Connection, Server
from heartbeat.beats.keys import CONNECTORS, MONITORS, Keys, channel, deliveries
from heartbeat.beats.keyspace import Info, Keyspace
from heartbeat.beats.outbox import Outbox
from heartbeat.beats.partitions import TARGET, TASKS, Partitions, Row, Target
from heartbeat.beats.signals import MOST_RUNS, Order, Signal
from heartbeat.beats.verdicts import FAILED, Verdicts
from heartbeat.connect.api import TopicPartition
from heartbeat.embedded.redis import EmbeddedRedis
from heartbeat.monitor import incidents
from heartbeat.monitor.alert import DELIVERED, Delivery
from heartbeat.monitor.flips import incident_of, pipeline_of
from heartbeat.monitor.incidents import Judged
from heartbeat.monitor.rules import Policy
from heartbeat.monitor.vision import CONSUMER
from heartbeat.monitor.watch import Kept

DOCUMENT = Path(__file__).parents[1] / "docs" / "keyspace.md"
CONNECTOR = "pumps"
PREFIX = f"hb:{{{CONNECTOR}}}:"
SHARED = (MONITORS, channel("NAME"), deliveries("NAME"))
TOKEN = "b3d94f60a1c7e528"
FIRST, SECOND = TopicPartition("beats", 0), TopicPartition("beats", 1)
NOT_FIELDS = {"string", "server"}
"""Words in the scripts' quotes: a type of Lua's and a section of INFO."""
DOWN_DETECTED_MS, BLIND_SINCE_MS = 1795366505600, 1795366560000
OPS = "ops"
MOVING = {"TTL"}
"""Commands whose reply depends on when they are sent."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A Redis that holds what the document shows."""
    with EmbeddedRedis() as redis:
        server = patient(redis.host, redis.port)
        connection = Connection(server)
        fill(Keyspace(connection, CONNECTOR), connection)
        watch(connection)
        connection.close()
        yield server


def fill(keyspace: Keyspace, connection: Connection) -> None:
    """Claim, write and advance as a task does; what is past its deadline touches no public key, so that one is set by hand."""
    partitions = Partitions(connection, CONNECTOR)
    claimed = partitions.claim("9f2c4e61d07b35a8", 60_000, TOKEN, [FIRST, SECOND])
    connection.call("HSET", partitions.keys.proof, "made_ms", 1795360100000)  # a claim takes Redis's time
    assert partitions.begin(TOKEN, {FIRST: 1200, SECOND: 918}, [])
    beats = [("pump:6", 1795366697000), ("pump:7", 1795366626485), ("pump:8", 1795366626000)]
    with connection.faults():
        connection.send(packing.beats(keyspace.keys.deadlines, beats, 60_000, {"pump:8": 120_000}, refusing=None))
        assert connection.replies(1) == [3]
    connection.call("SET", "pump:7", 1795366626485, "EX", 58)
    keyspace.write_infos({"pump:7": Info(1795366000000, 60_000), "pump:8": Info(1795366000500, 120_000, 1795370000000)})
    start = Signal("pump:8", Order(1795366626000, "beats/1", 917), "start", "4711")
    fail = Signal("pump:6", Order(1795366697000, "beats/0", 1203), "fail", message="no pressure")
    signals = [(signal.source, signal.order, signal.status, signal.run, signal.packed()) for signal in (start, fail)]
    assert keyspace.signal(signals, MOST_RUNS) == [1, 1]
    assert keyspace.bye([("pump:9", 1795366600000, 60_000)], 0) == {"pump:9"}
    row = Row(FIRST, TOKEN, 1200, 1204, 1795362031007, 1795366690412, 3, "ZVOvDJw7R0m1x2yT8kq3Gg", 1795366689655)
    assert not partitions.advance(claimed.run_id, [row], {"beats": 2}, 1795366690412).refused
    connection.call(
        "HSET", partitions.keys.proof, TARGET, msgspec.json.encode(Target("STARTED", 1795366000000))
    )  # aim() takes Redis's time
    partitions.say(0, 1795366690500, "lag", 17)


def watch(connection: Connection) -> None:
    """Leave behind what a monitor does. Its scripts take Redis's time: what they would write is written under times that can be shown."""
    index = Verdicts(connection, CONNECTOR)
    assert verdicts.known(connection, "plant-4711", b'{"tick_ms":1795366699600,"tick":74813}', 1795360000000).connectors == {CONNECTOR}
    policy = Policy(5_000, 0, "critical", (), (OPS,))
    flip = incidents.silent(Judged(CONNECTOR, "pump:5", 1795366500000, 60_000, policy))
    incident = incident_of(CONNECTOR, pipeline_of(CONNECTOR), DOWN_DETECTED_MS)
    stage = Kept(CONSUMER, "no worker reports on beats-1", BLIND_SINCE_MS, "beats", 1, incident, after_ms=10_000)
    blind = incidents.went_blind(CONNECTOR, stage)
    index.restore({"pump:5": 1795366500000, "pump:4": 1795366530000 + FAILED}, msgspec.json.encode(stage))
    index.expect(["pump:10"], 1795366690000)
    index.remembered(1795360001200)
    for found, proven_ms, at_ms in ((flip, 1795366505200, DOWN_DETECTED_MS), (blind, BLIND_SINCE_MS, 1795366570400)):
        words = ("flip", msgspec.json.encode(found), "proven_until_ms", proven_ms, "detected_ms", at_ms)
        connection.call("XADD", index.keys.flips, f"{at_ms}-0", *words)
    lease = ("owner", "5d1f0c", "fence", 3, "until_ms", 1795366709900, "born", "c07e4b")
    connection.call("HSET", channel(OPS), *lease, f"at:{CONNECTOR}", "1795366570400-0")
    Outbox(connection, OPS).log(msgspec.json.encode(Delivery(1795366507700, flip.key, 1, 1, DELIVERED, 42)))


def examples() -> list[tuple[str, str]]:
    """Each command that the document shows, with its reply."""
    shown = "".join(f"\n{text}" for language, text in blocks(DOCUMENT) if language == "redis")
    return [(command, reply) for command, _, reply in (part.partition("\n") for part in shown.split("\n> ")[1:])]


def column(header: str) -> list[str]:
    """The first cells of the table with this header, without their backquotes."""
    return [row[0].strip("`") for row in rows(prose(DOCUMENT), header)]


def test_the_keys_are_those_of_the_keyspace_and_each_has_its_section() -> None:
    written = [str(getattr(Keys(CONNECTOR), name)).removeprefix(PREFIX) for name in Keys.__slots__]
    named = column("| Key | Type | Content |")
    assert sorted(named) == sorted(["<source>", *written, CONNECTORS, *SHARED])
    assert [title.strip("`") for title in re.findall(r"^### (\S+)$", prose(DOCUMENT), re.MULTILINE)] == named


def test_the_fields_of_the_proof_are_those_of_the_scripts() -> None:
    text = scripts.CLAIM + scripts.BEGIN + scripts.ADVANCE
    written = set(re.findall(r"'(/?[a-z_]+)'", text)) - NOT_FIELDS
    named = column("| Field | Meaning | Written |")
    written |= {TARGET, f"{TASKS}N"}
    assert {name.removeprefix("TOPIC/PARTITION") for name in named} == written
    assert len(named) == len(set(named)) == len(written)


def test_the_reasons_of_a_task_are_those_that_it_gives() -> None:
    assert column("| `why` | Meaning |") == [doubts.BROKER, doubts.LAG, doubts.CLOCKS, doubts.PAUSED]


def test_the_fields_of_a_flips_entry_are_those_of_the_scripts() -> None:
    xadd = re.compile(r"'XADD', key, '\*', 'flip', .*?'detected_ms'", re.DOTALL)
    written = [set(re.findall(r"'([a-z_]+)'", text)) for text in xadd.findall(verdict_scripts.JUDGE + verdict_scripts.BLIND)]
    assert written == [set(column("| Of an entry | Meaning |"))] * 2


def test_the_fields_of_blindness_are_those_that_are_kept() -> None:
    assert column("| Of `blind` | Meaning |") == list(Kept.__struct_fields__)


def test_the_fields_of_a_channel_are_those_of_the_scripts() -> None:
    text = outbox_scripts.LEASE + outbox_scripts.BEGIN + outbox_scripts.RELEASE
    written = set(re.findall(r"'([a-z_]+)'", text))
    beside = {f"{prefix}CONNECTOR" for prefix in (outbox._AT, outbox._LOST, outbox._CUT)}
    assert set(column("| Of a channel | Meaning |")) == written | beside


def test_the_fields_of_a_delivery_are_those_that_are_logged() -> None:
    assert column("| Of a delivery | Meaning |") == list(Delivery.__struct_fields__)


def test_the_incidents_that_are_shown_are_those_of_their_sources() -> None:
    shown = dict(examples())
    assert incident_of(CONNECTOR, "pump:5", 1795366500000) in shown[f"XRANGE {PREFIX}flips - + COUNT 1"]
    assert incident_of(CONNECTOR, pipeline_of(CONNECTOR), DOWN_DETECTED_MS) in shown[f"GET {PREFIX}blind"]


def test_the_fields_of_a_signal_are_those_that_are_packed() -> None:
    packed = Signal("source", Order(1, "topic/0", 2), "ok").packed().decode()
    assert re.findall(r'"(\w+)":', packed) == column("| Field | Meaning |")


@pytest.mark.parametrize(("command", "reply"), examples(), ids=[command for command, _ in examples()])
def test_redis_shows_what_the_document_shows(server: Server, command: str, reply: str) -> None:
    words = command.split()
    printed, failed = console.run(server, words, raw=False)
    assert not failed
    shown = printed.decode().strip()
    if words[0] in MOVING:
        shown, reply = (re.sub(r"\d+", "N", text) for text in (shown, reply))
    assert shown == reply.strip()


def test_every_key_that_is_written_has_an_example(server: Server) -> None:
    connection = Connection(server)
    try:
        written = {key.decode() for key in connection.call("KEYS", "hb:*")}
    finally:
        connection.close()
    assert written == {command.split()[1] for command, _ in examples() if command.split()[1].startswith("hb:")}
    assert written == {CONNECTORS, MONITORS, channel(OPS), deliveries(OPS), *Keys(CONNECTOR).all}


def test_the_proof_that_is_shown_has_every_field_and_no_other() -> None:
    (shown,) = [reply for command, reply in examples() if command == f"HGETALL {PREFIX}proof"]
    fields = re.findall(r'^ *\d+\) "(.*)"$', shown, re.MULTILINE)[::2]
    general = {re.sub(r"^tasks/\d+$", "tasks/N", re.sub(r"^beats/\d+(?=/)", "TOPIC/PARTITION", name)) for name in fields}
    assert general == set(column("| Field | Meaning | Written |"))
