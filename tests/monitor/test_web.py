"""The monitor's pages through a client: a view that is a plain value, and a real Redis where one is read."""

from __future__ import annotations

import http.client
import logging
import random
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.monitor.views import NOW, RULES, SEEN, Seen
from tests.patience import patient
from tests.real.programs import free_port

from heartbeat import logs
from heartbeat.beats.connection import Connection, Server
from heartbeat.beats.keys import CONNECTORS, Keys
from heartbeat.beats.verdicts import FAILED, NEVER_MS
from heartbeat.embedded.ports import LOOPBACK
from heartbeat.embedded.redis import EmbeddedRedis
from heartbeat.errors import StartError
from heartbeat.monitor.deliver import DelivererState
from heartbeat.monitor.flips import STATES, incident_of
from heartbeat.monitor.view import InForce
from heartbeat.monitor.vision import Blindness, Part
from heartbeat.monitor.watch import Look
from heartbeat.monitor.web import Web, serve

TTL = 60_000
PATIENCE_S = 20.0


def client_of(view: Seen, now_ms: int = NOW) -> TestClient:
    return TestClient(Web(view, lambda: now_ms).app())


# --- health, readiness, pipeline


def test_it_is_healthy_while_the_detection_loop_turns() -> None:
    assert client_of(Seen(replace(SEEN, tick_ms=NOW - 9_000))).get("/healthz").status_code == 200
    reply = client_of(Seen(replace(SEEN, tick_ms=NOW - 25_000))).get("/healthz")
    assert (reply.status_code, reply.json()) == (503, {"error": "nothing has been looked at for 25 s"})
    assert client_of(Seen(replace(SEEN, tick_ms=0))).get("/healthz").status_code == 503
    assert client_of(Seen(replace(SEEN, tick_ms=NOW + 3_600_000))).get("/healthz").status_code == 503  # the clock was set back


def test_redis_being_away_makes_it_unready_and_not_unhealthy() -> None:
    client = client_of(Seen(replace(SEEN, error="Redis at there:1: refused")))
    assert client.get("/healthz").status_code == 200
    reply = client.get("/readyz")
    assert (reply.status_code, reply.json()["errors"]) == (503, ["Redis at there:1: refused"])


def test_an_index_that_cannot_be_looked_at_makes_it_unready() -> None:
    client = client_of(Seen(replace(SEEN, connectors={"c": Look(error="Redis refuses us"), "d": Look()})))
    assert (client.get("/readyz").status_code, client.get("/readyz").json()["errors"]) == (503, ["connector c: Redis refuses us"])
    assert [one["error"] for one in client.get("/api/v1/pipeline").json()["connectors"]] == ["Redis refuses us", None]


def test_a_file_that_is_not_in_force_makes_it_unready() -> None:
    view = Seen(in_force=InForce(RULES, Server(LOOPBACK, 1), ("monitor.toml, line 3: no such key",)))
    reply = client_of(view).get("/readyz")
    assert (reply.status_code, reply.json()["errors"]) == (503, ["monitor.toml, line 3: no such key"])


def test_a_channel_that_fails_is_told_and_leaves_it_ready() -> None:
    reply = client_of(Seen(told=(DelivererState("ops", last_error="404"), DelivererState("quiet")))).get("/readyz")
    assert (reply.status_code, reply.json()) == (200, {"status": "ok", "errors": [], "channels": {"ops": "404"}})


def test_no_error_shows_a_secret() -> None:
    logs.secrets.add(["hunter22"])
    blind = Blindness("redis", "as hunter22", NOW)
    view = Seen(
        replace(SEEN, error="password hunter22", connectors={"c": Look(blind=blind)}),
        (DelivererState("ops", last_error="https://hooks/hunter22"),),
        InForce(RULES, Server("hunter22.invalid", 1), ("line 1: hunter22",)),
    )
    client = client_of(view)
    for path in ("/readyz", "/api/v1/pipeline", "/metrics", "/api/v1/sources"):
        assert "hunter22" not in client.get(path).text


def test_the_pipeline_tells_the_sight_of_every_partition_and_how_fresh_each_stage_is() -> None:
    parts = (Part("t", 0, NOW - 90_000, NOW - 1_000, NOW - 800), Part("t", 1, NOW - 90_000, NOW - 4_000, None))
    blind = Blindness("consumer", "no worker reports on t-1", NOW - 4_000, "t", 1, "abc")
    look = Look(sources=10, late=2, unknown=3, down=4, partitions=parts, proven_until_ms=NOW - 4_000, blind=blind, paused="PAUSED")
    channels = (DelivererState("ops", pending=2, oldest_pending_ms=NOW - 7_000), DelivererState("quiet"))
    reply = client_of(Seen(replace(SEEN, connectors={"pumps": look}), channels)).get("/api/v1/pipeline").json()
    assert reply["stages"] == {"redis": 500, "detection": 500, "delivery": {"ops": 7_000, "quiet": 0}}
    (pumps,) = reply["connectors"]
    assert pumps["sources"] == {"total": 14, "up": 5, "late": 2, "unknown": 3, "down": 4}
    assert pumps["stages"] == {"broker": 800, "consumer": 4_000}
    assert pumps["blind"]["stage"] == "consumer"
    assert pumps["blind"]["partition"] == 1
    assert pumps["paused"] == "PAUSED"
    assert pumps["partitions"][1] == {
        "topic": "t",
        "partition": 1,
        "since_ms": NOW - 90_000,
        "until_ms": NOW - 4_000,
        "canary_ms": None,
        "age_ms": 4_000,
    }


def test_the_pipeline_tells_which_channels_fail_and_with_what() -> None:
    channels = (DelivererState("ops", last_error="HTTP 404", lost=3), DelivererState("quiet"))
    assert client_of(Seen(told=channels)).get("/api/v1/pipeline").json()["channels"] == {"ops": "HTTP 404"}


def test_where_nothing_is_proven_a_stage_has_no_age() -> None:
    looks = {"none": Look(), "some": Look(partitions=(Part("t", 0, NOW, NOW, None), Part("t", 1, None, None, None)))}
    reply = client_of(Seen(replace(SEEN, connectors=looks, redis_ok_ms=0))).get("/api/v1/pipeline").json()
    assert [one["stages"] for one in reply["connectors"]] == [{"broker": None, "consumer": None}, {"broker": 0, "consumer": None}]
    assert reply["stages"]["redis"] is None


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/api/v1/nothing", 404), ("POST", "/api/v1/sources", 405)]
)
def test_what_is_not_there_is_told_as_json(method: str, path: str, status: int) -> None:
    reply = client_of(Seen()).request(method, path)
    assert reply.status_code == status
    assert reply.json()["error"]


# --- sources


@pytest.fixture(scope="module")
def redis() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def connection(redis: EmbeddedRedis) -> Iterator[Connection]:
    connection = Connection(patient(redis.host, redis.port))
    connection.call("FLUSHALL")
    yield connection
    connection.close()


def redis_now(connection: Connection) -> int:
    return int(connection.call("TIME")[0]) * 1000


def store(connection: Connection, connector: str, **rooms: Mapping[str, float]) -> None:
    connection.call("SADD", CONNECTORS, connector)
    connection.call("HSET", Keys(connector).proof, "ttl", TTL)
    for room, scores in rooms.items():
        connection.call("ZADD", getattr(Keys(connector), room), *(word for source, at in scores.items() for word in (at, source)))


@pytest.fixture
def client(redis: EmbeddedRedis) -> TestClient:
    looks = {"paused": Look(paused="PAUSED"), "blind": Look(blind=Blindness("redis", "", 0))}
    return client_of(Seen(replace(SEEN, connectors=looks), in_force=InForce(RULES, patient(redis.host, redis.port))))


def sources(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    """All pages of an answer."""
    rows: list[dict[str, Any]] = []
    while True:
        reply = client.get("/api/v1/sources", params=query)
        assert reply.status_code == 200, reply.text
        rows += reply.json()["sources"]
        if reply.json()["next"] is None:
            return rows
        query["cursor"] = reply.json()["next"]


def test_a_source_is_told_as_the_contract_says(client: TestClient, connection: Connection) -> None:
    judged = redis_now(connection) - 600_000
    store(connection, "c", down={"pump-7": judged}, deadlines={"heartbeat": (up := judged + 10_000_000)})
    assert sources(client) == [
        {
            "name": "pump-7",
            "connector": "c",
            "state": "DOWN",
            "last_beat_ms": judged - TTL,
            "deadline_ms": judged,
            "ttl_s": 60.0,
            "grace_s": 60.0,
            "since_ms": judged + 60_000,
            "tags": ["plant-1"],
            "incident": incident_of("c", "pump-7", judged),
        },
        {
            "name": "heartbeat",
            "connector": "c",
            "state": "UP",
            "last_beat_ms": up - TTL,
            "deadline_ms": up,
            "ttl_s": 60.0,
            "grace_s": 5.0,
            "since_ms": None,
            "tags": [],
            "incident": None,
        },
    ]


def test_what_somebody_else_wrote_about_a_source_hides_no_other(client: TestClient, connection: Connection) -> None:
    judged = redis_now(connection) - 600_000
    store(connection, "c", down={"a": judged, "b": judged}, deadlines={"up": judged + 10_000_000})
    connection.call("HSET", Keys("c").info, "a", "no info", "up", "")
    assert [(row["name"], row["last_beat_ms"]) for row in sources(client)] == [
        ("a", judged - TTL),
        ("b", judged - TTL),
        ("up", judged + 10_000_000 - TTL),
    ]


def test_every_state_has_its_moment(client: TestClient, connection: Connection) -> None:
    """Offsets far enough from the borders for the seconds that a busy machine takes between storing and asking."""
    now = redis_now(connection) + 2_000
    offsets = {
        "pump-up": 90_000,
        "pump-warned": 10_000,
        "pump-late": -5_000,
        "pump-over": -120_000,
        "other-up": 10_000,
        "other-over": -20_000,
    }
    store(connection, "blind", deadlines={name: now + offset for name, offset in offsets.items()}, expected={"declared": now})
    store(connection, "paused", deadlines={"p-over": now - 60_000, "p-up": now + 90_000}, down={"p-down": now - 90_000})
    rows = {row["name"]: row for row in sources(client)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "pump-up": "UP",
        "pump-warned": "LATE",
        "pump-late": "LATE",
        "pump-over": "UNKNOWN",
        "other-up": "UP",
        "other-over": "UNKNOWN",
        "declared": "NEW",
        "p-over": "PAUSED",
        "p-up": "UP",
        "p-down": "DOWN",
    }
    assert rows["pump-warned"]["since_ms"] == now + 10_000 - 20_000
    assert rows["pump-late"]["since_ms"] == now - 5_000 - 20_000
    assert rows["pump-over"]["since_ms"] == now - 120_000 + 60_000
    assert rows["p-over"]["since_ms"] == now - 60_000 + 5_000
    assert (rows["declared"]["since_ms"], rows["declared"]["deadline_ms"], rows["declared"]["last_beat_ms"]) == (now, None, None)


def test_a_declared_source_that_has_said_goodbye_is_paused(client: TestClient, connection: Connection) -> None:
    now = redis_now(connection)
    store(connection, "c", expected={"new": now, "left": now, "left-long-ago": NEVER_MS}, gone={"left": now, "never declared": now})
    states = {row["name"]: (row["state"], row["since_ms"]) for row in sources(client)}
    assert states == {"new": ("NEW", now), "left": ("PAUSED", None), "left-long-ago": ("PAUSED", None)}
    assert [row["name"] for row in sources(client, state="PAUSED")] == ["left", "left-long-ago"]
    assert [row["name"] for row in sources(client, state="NEW")] == ["new"]


def test_nobody_is_late_since_before_its_last_beat(client: TestClient, connection: Connection) -> None:
    """A pump's warning is longer than this one's ttl."""
    now = redis_now(connection)
    connection.call("SADD", CONNECTORS, "c")
    connection.call("HSET", Keys("c").proof, "ttl", 15_000)
    connection.call("ZADD", Keys("c").deadlines, now + 14_000, "pump")
    assert [(row["state"], row["since_ms"], row["last_beat_ms"]) for row in sources(client)] == [("LATE", now - 1_000, now - 1_000)]


def test_who_said_that_it_failed_is_down_since_then(client: TestClient, connection: Connection) -> None:
    store(connection, "c", down={"s": NOW + FAILED})
    assert [(row["since_ms"], row["last_beat_ms"]) for row in sources(client)] == [(NOW, NOW)]


@pytest.mark.parametrize("seed", range(5))
def test_a_filter_leaves_exactly_what_everything_has_of_it(client: TestClient, connection: Connection, seed: int) -> None:
    """What must not be looked at for a state's sake holds none in that state."""
    chance, now = random.Random(seed), redis_now(connection)
    # No deadline just before a border: a state must not change between two questions.
    borders = (0, 5_000, 60_000, -20_000)
    for connector in ("blind", "paused", "c"):
        names = [f"{kind}-{number}" for kind in ("pump", "fan") for number in range(150)]
        moments = [at for at in range(-90_000, 90_000, 1_000) if all(not 0 <= border - at < 15_000 for border in borders)]
        rooms = {
            room: {name: now - chance.choice(moments) for name in chance.sample(names, 150)} for room in ("down", "deadlines", "expected")
        }
        store(connection, connector, **rooms)
    everything = sources(client, limit=1000)
    assert {row["state"] for row in everything} == set(STATES)
    for states in ["DOWN", "UP", "LATE", "UNKNOWN", "PAUSED", "NEW", "UP,DOWN", "late,new,paused", ",".join(STATES)]:
        wanted = [row for row in everything if row["state"] in states.upper().split(",")]
        assert sources(client, state=states, limit=chance.choice([9, 100, 1000])) == wanted
    for q, kept in {"pump-1": "pump-1", "fan-?": "fan-", "*-14[0-4]": "-14"}.items():
        globbed = len(q) != len(kept) or q != kept
        wanted = [row for row in everything if kept in row["name"] and (not globbed or fits(q, row["name"]))]
        assert wanted
        assert sources(client, q=q, limit=50) == wanted
    assert sources(client, connector="c", limit=50) == [row for row in everything if row["connector"] == "c"]


def fits(glob: str, name: str) -> bool:
    """The two globs of the test above, by hand."""
    kind, number = name.split("-")
    return (kind == "fan" and len(number) == 1) if glob == "fan-?" else number in {"140", "141", "142", "143", "144"}


def test_a_page_is_not_longer_than_asked_and_the_next_goes_on(client: TestClient, connection: Connection) -> None:
    store(connection, "c", down={f"s{number:04}": NOW - 10**9 for number in range(250)})
    first = client.get("/api/v1/sources").json()
    assert len(first["sources"]) == 100
    rest = client.get("/api/v1/sources", params={"limit": 1000, "cursor": first["next"]}).json()
    assert [row["name"] for row in first["sources"] + rest["sources"]] == [f"s{number:04}" for number in range(250)]
    assert rest["next"] is None


def test_names_of_any_kind_are_told(client: TestClient, connection: Connection) -> None:
    names = ["line\nbreak", "\u202eliam", "<script>", "a/b", "ünï", 'quote"', "raw\udcff"]
    store(connection, "c\udcff", down=dict.fromkeys(names, NOW - 10**9))
    assert {row["name"] for row in sources(client)} == {*names[:-1], "raw\\xff"}
    assert {row["connector"] for row in sources(client)} == {"c\\xff"}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=%2B5", "limit"),
        ("limit=", "limit"),
        ("state=DWN", "DWN is none of NEW, UP"),
        ("state=", "state"),
        ("state=UP,", "state"),
        ("cursor=garbage", "cursor"),
        ("cursor=", "cursor"),
        ("page=2", "page: no such parameter"),
        ("q=a&q=b", "q: given twice"),
        ("q=" + "x" * 257, "q"),
        ("connector=nobody", "connector: none of that name"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(client: TestClient, connection: Connection, query: str, words: str) -> None:
    store(connection, "c", down={"s": 1})
    reply = client.get(f"/api/v1/sources?{query}")
    assert reply.status_code == 400
    assert words in reply.json()["error"]


def test_a_redis_that_is_away_is_told() -> None:
    view = Seen(in_force=InForce(RULES, Server(LOOPBACK, port := free_port())))
    reply = client_of(view).get("/api/v1/sources")
    assert reply.status_code == 503
    assert f"Redis at {LOOPBACK}:{port}" in reply.json()["error"]


def test_a_redis_that_hangs_is_told_and_holds_up_a_bounded_number_of_readers() -> None:
    """It accepts and never answers; the connections of those who gave up are counted."""
    with socket.create_server((LOOPBACK, 0)) as hanging:
        client = client_of(Seen(in_force=InForce(RULES, Server(LOOPBACK, hanging.getsockname()[1], timeout_s=60.0))))
        replies: list[int] = []
        threads = [threading.Thread(target=lambda: replies.append(client.get("/api/v1/sources").status_code)) for _ in range(8)]
        deadline_s = time.monotonic() + PATIENCE_S
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        assert replies == [503] * 8
        assert client.get("/healthz").status_code == 200


def test_a_fault_of_our_own_is_a_reply_and_a_log_line(
    redis: EmbeddedRedis, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    connection.call("SADD", CONNECTORS, "c")
    connection.call("ZADD", Keys("c").deadlines, 1, "s")
    connection.call("HSET", Keys("c").proof, "ttl", "garbage")
    reply = client_of(Seen(in_force=InForce(RULES, patient(redis.host, redis.port)))).get("/api/v1/sources")
    assert reply.status_code == 500
    assert "Uncaught exception in /api/v1/sources" in caplog.text


# --- serving


def get(origin: str, path: str) -> int:
    host, _, port = origin.removeprefix("http://").rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_it_serves_until_it_is_stopped(caplog: pytest.LogCaptureFixture) -> None:
    view = Seen(replace(SEEN, tick_ms=time.time_ns() // 1_000_000))
    server = serve("127.0.0.1:0", view)
    server.start()
    try:
        assert get(server.origin, "/healthz") == 200
        assert "beyond this machine" not in caplog.text
        assert get(server.origin, "/metrics") == 200
        assert get(server.origin, f"/api/v1/sources?cursor={'x' * 8_000}") == 400  # read, and found to be none
    finally:
        server.stop()
    with pytest.raises(OSError, match="refused"):
        get(server.origin, "/healthz")


def test_it_warns_when_it_listens_beyond_this_machine(caplog: pytest.LogCaptureFixture) -> None:
    server = serve("0.0.0.0:0", Seen())
    with caplog.at_level(logging.WARNING):
        server.start()
    server.stop()
    assert "beyond this machine, without authentication" in caplog.text


def test_a_server_that_never_started_can_be_stopped() -> None:
    server = serve("127.0.0.1:0", Seen())
    port = int(server.origin.rpartition(":")[2])
    server.stop()
    socket.create_server((LOOPBACK, port)).close()


@pytest.mark.parametrize(
    "listen", ["nonsense", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:x", "no-such-host.invalid:80", "203.0.113.1:80"]
)
def test_where_it_cannot_listen_it_says_so(listen: str) -> None:
    with pytest.raises(StartError, match=r"cannot listen on .*\. Set another listen in \[monitor\]$"):
        serve(listen, Seen())


def test_a_taken_port_is_told_before_anything_starts() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"127\.0\.0\.1:{port}: .*Stop what uses the port, or set another listen"):
            serve(f"127.0.0.1:{port}", Seen())
