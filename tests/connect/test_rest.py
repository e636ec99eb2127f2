"""Connect's REST API through a client, against a real herder whose tasks consume from a real (embedded) broker.

Texts and codes are those of Kafka Connect 4.1: its clients match on them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from anyio import to_thread
from starlette.testclient import TestClient
from tests.fakes import SlowStore

import heartbeat
from heartbeat.beats.sink import HeartbeatSink
from heartbeat.config import ConfigDef, Key, Type, at_least
from heartbeat.connect import herder
from heartbeat.connect.api import Batch, SinkTask, TaskContext
from heartbeat.connect.assembly import Assembly, admin_properties
from heartbeat.connect.group_offsets import GroupOffsets
from heartbeat.connect.herder import Herder
from heartbeat.connect.kafka_admin import Admin
from heartbeat.connect.kafka_sender import Sender
from heartbeat.connect.plugins import Plugin, Plugins
from heartbeat.connect.rest import Rest
from heartbeat.connect.store import Store
from heartbeat.connect.worker import Worker
from heartbeat.connect.worker_config import WORKER_KEYS, WorkerConfig
from heartbeat.embedded.broker import EmbeddedBroker

STRINGS = "org.apache.kafka.connect.storage.StringConverter"
JSON = "org.apache.kafka.connect.json.JsonConverter"
WORKER = "connect.example:8083"
LAST_LINE = "You can also find the above list of errors at the endpoint `/connector-plugins/{connectorType}/config/validate`"
DEADLINE_S = 20.0
NOT_FOUND = {"error_code": 404, "message": "HTTP 404 Not Found"}
ODD_NAMES = [
    "a b&c=d",
    "quote\"'<>",
    "ünï ✓ 😀",
    "plus+sign",
    "a;b?c#d",
    "per%cent",
    "per%2Fcent",
    "sl/ash",
    "/",
    "back\\slash",
    "a/../b",
    "status",
    "-",
]


class QuietSink(SinkTask):
    """Takes everything."""

    CONFIG = ConfigDef(
        [
            Key(name="quiet.level", type=Type.INT, default=1, validator=at_least(1), doc="How quiet."),
            Key(name="quiet.password", type=Type.PASSWORD, default=None, doc="A secret."),
        ]
    )
    VERSION = "7.1"
    ALIASES = ("com.example.QuietSinkConnector",)

    def start(self, config: Mapping[str, Any], context: TaskContext) -> None:
        """Need nothing."""

    def put(self, batch: Batch) -> None:
        """Take it."""

    def stop(self) -> None:
        """Hold nothing."""


class BrokenSink(QuietSink):
    """Cannot start."""

    def start(self, config: Mapping[str, Any], context: TaskContext) -> None:
        """Fail."""
        raise ValueError("no such luck")


PLUGINS = Plugins(
    [
        Plugin("heartbeat.beats.sink.HeartbeatSink", HeartbeatSink),
        Plugin("tests.BrokenSink", BrokenSink),
        Plugin("tests.QuietSink", QuietSink),
    ]
)


class Api:
    """A worker's REST API and a client of it."""

    def __init__(self, bootstrap: str, store: Store | None = None, **properties: str) -> None:
        given = {
            "bootstrap.servers": bootstrap,
            "key.converter": STRINGS,
            "value.converter": STRINGS,
            "consumer.fetch.max.wait.ms": "10",
            # The embedded broker lets nobody into a group that was left until the session of who left would have ended: hence also a group
            # of its own for each test.
            "consumer.session.timeout.ms": "1000",
            "consumer.heartbeat.interval.ms": "300",
            # Who was joining when his session ended, as on a machine that stands still, it never answers: 3 s after this he asks again.
            "consumer.max.poll.interval.ms": "5000",
            **{name.replace("_", "."): text for name, text in properties.items()},
        }
        config = WorkerConfig(given, WORKER_KEYS.load(given))
        admin = Admin(admin_properties(given))
        self.herder = Herder(store or Store(), Worker(1.5), PLUGINS, Assembly(PLUGINS, config, lambda host, port: (host, port)), given)
        self.rest = Rest(self.herder, GroupOffsets(self.herder, admin, given), admin, config, WORKER)
        self.rest.ready = True
        self.client = TestClient(self.rest.app(), base_url=f"http://{WORKER}", raise_server_exceptions=False)

    def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> httpx2.Response:
        if isinstance(body, str | bytes):
            return self.client.request(method, path, content=body, headers={"Content-Type": "application/json"}, **more)
        return self.client.request(method, path, json=body, **more)

    def create(self, name: str, plugin: str = "QuietSink", state: str | None = None, **config: str) -> httpx2.Response:
        posted = {"connector.class": plugin, "topics": "t", **{key.replace("_", "."): text for key, text in config.items()}}
        body = {"name": name, "config": posted} | ({"initial_state": state} if state else {})
        reply = self("POST", "/connectors", body)
        assert reply.status_code == 201, reply.text
        return reply

    def state(self, name: str) -> tuple[str, list[str]]:
        status = self("GET", f"/connectors/{quote(name, safe='')}/status").json()
        return status["connector"]["state"], [task["state"] for task in status["tasks"]]

    def wait_until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not reached():
            assert time.monotonic() < deadline, [self.state(name) for name in self.herder.connectors()]
            time.sleep(0.02)


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"t": 1, "u": 1}) as broker:
        yield broker


@pytest.fixture
def api(broker: EmbeddedBroker) -> Iterator[Api]:
    api = Api(broker.bootstrap, consumer_group_id=f"group-{uuid.uuid4()}")
    yield api
    api.herder.shut_down(2.0)


def error(reply: httpx2.Response) -> tuple[int, str]:
    """The status and message of an error reply whose form is Connect's."""
    assert reply.headers["Content-Type"] == "application/json"
    assert list(reply.json()) == ["error_code", "message"]
    assert reply.json()["error_code"] == reply.status_code
    return reply.status_code, reply.json()["message"]


def invalid(*errors: str) -> tuple[int, str]:
    head = f"Connector configuration is invalid and contains the following {len(errors)} error(s):"
    return 400, "\n".join([head, *errors, LAST_LINE])


# --- rules that hold for every endpoint


def test_the_root_says_whose_behaviour_this_is(api: Api) -> None:
    reply = api("GET", "/")
    assert reply.status_code == 200
    assert list(reply.json()) == ["version", "commit", "kafka_cluster_id"]
    assert (reply.json()["version"], reply.json()["commit"]) == ("4.1.0", heartbeat.__version__)
    assert reply.json()["kafka_cluster_id"]


def test_health_tells_starting_from_ready(api: Api) -> None:
    ready = {"status": "healthy", "message": "Worker has completed startup and is ready to handle requests."}
    assert (api("GET", "/health").status_code, api("GET", "/health").json()) == (200, ready)
    api.rest.ready = False
    try:
        reply = api("GET", "/health")
    finally:
        api.rest.ready = True
    assert (reply.status_code, reply.json()) == (503, {"status": "starting", "message": "Worker is still starting up."})


def test_json_is_compact_and_names_no_charset(api: Api) -> None:
    api.create("ünï")
    reply = api("GET", "/connectors")
    assert reply.content == '["ünï"]'.encode()
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Content-Length"] == str(len(reply.content))


@pytest.mark.parametrize("path", ["/nothing", "/connectors/c/nothing", "/connectors/c/tasks/0", "/connectors/c/tasks-config", "/%2f"])
def test_an_unknown_path_is_a_404_without_a_content_type(api: Api, path: str) -> None:
    reply = api("GET", path)
    assert (reply.status_code, reply.json()) == (404, NOT_FOUND)
    assert "Content-Type" not in reply.headers


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/"), ("PUT", "/connectors"), ("POST", "/connectors/c"), ("GET", "/connectors/c/pause")]
)
def test_a_wrong_method_is_a_405_without_a_content_type(api: Api, method: str, path: str) -> None:
    reply = api(method, path)
    assert (reply.status_code, reply.json()) == (405, {"error_code": 405, "message": "HTTP 405 Method Not Allowed"})
    assert "Content-Type" not in reply.headers


def test_replies_without_a_body_say_so(api: Api) -> None:
    api.create("c")
    accepted, empty = api("PUT", "/connectors/c/pause"), api("PUT", "/connectors/c/stop")
    assert (accepted.status_code, accepted.content, accepted.headers["Content-Length"]) == (202, b"", "0")
    assert (empty.status_code, empty.content) == (204, b"")
    assert "Content-Type" not in accepted.headers
    assert "Content-Type" not in empty.headers


GETS = ["/", "/health", "/connectors", "/connectors/c", "/connectors/c/config", "/connectors/c/status", "/connectors/c/tasks",
        "/connectors/c/tasks/0/status", "/connectors/c/topics", "/connectors/c/offsets", "/connector-plugins",
        "/connector-plugins/QuietSink/config", "/connectors/none", "/none"]  # fmt: skip


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_the_body(api: Api, path: str) -> None:
    api.create("c")
    api.wait_until(lambda: api.state("c") == ("RUNNING", ["RUNNING"]))
    head, get = api("HEAD", path), api("GET", path)
    assert head.content == b""
    assert head.status_code == get.status_code
    assert dict(head.headers) == dict(get.headers)


@pytest.mark.parametrize("path", GETS)
def test_a_trailing_slash_changes_nothing(api: Api, path: str) -> None:
    api.create("c")
    api.wait_until(lambda: api.state("c") == ("RUNNING", ["RUNNING"]))
    assert api("GET", f"{path}/").json() == api("GET", path).json()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_works_percent_encoded(api: Api, name: str) -> None:
    encoded = quote(name, safe="")
    created = api.create(name)
    assert created.json()["name"] == created.json()["config"]["name"] == name
    assert created.headers["Location"] == f"http://{WORKER}/connectors/{encoded}"
    assert api("GET", "/connectors").json() == [name]
    for path in ("", "/config", "/status", "/tasks", "/topics"):
        assert api("GET", f"/connectors/{encoded}{path}").status_code == 200
    assert api("GET", created.headers["Location"]).json()["name"] == name
    assert api("PUT", f"/connectors/{encoded}/config", created.json()["config"]).status_code == 200
    assert api("PUT", f"/connectors/{encoded}/pause").status_code == 202
    assert api("POST", f"/connectors/{encoded}/tasks/0/restart").status_code == 204
    assert api("DELETE", f"/connectors/{encoded}").status_code == 204
    assert error(api("GET", f"/connectors/{encoded}")) == (404, f"Connector {name} not found")
    assert api("GET", "/connectors").json() == []


def test_a_plus_in_a_path_is_a_plus_and_a_bare_semicolon_ends_the_name(api: Api) -> None:
    api.create("a+b")
    assert api("GET", "/connectors/a+b").status_code == 200
    assert error(api("GET", "/connectors/a%20b")) == (404, "Connector a b not found")
    assert api("GET", "/connectors/a+b;c=d/status").status_code == 200


@pytest.mark.parametrize(
    ("query", "only_plan"), [("true", True), ("TRUE", True), ("True", True), ("", False), ("1", False), ("yes", False)]
)
def test_a_boolean_of_the_query_is_true_or_else_false(api: Api, query: str, only_plan: bool) -> None:
    api.create("c")
    assert api("POST", f"/connectors/c/restart?onlyFailed={query}").status_code == (202 if only_plan else 204)


# --- bodies


@pytest.mark.parametrize("number", ["abc", "1.0", "", "0_0", "+0", "%2B0", "%200", "%D9%A0", "0x0", "9999999999"])
def test_a_task_number_that_is_none_is_an_unknown_path(api: Api, number: str) -> None:
    api.create("c")
    for method, verb in (("GET", "status"), ("POST", "restart")):
        reply = api(method, f"/connectors/c/tasks/{number}/{verb}")
        assert (reply.status_code, reply.json()) == (404, NOT_FOUND)


def test_a_negative_task_number_is_an_unknown_task_as_in_connect(api: Api) -> None:
    api.create("c")
    assert error(api("GET", "/connectors/c/tasks/-1/status")) == (404, "No status found for task c--1")


@pytest.mark.parametrize(
    "body", ['{"name": }', "{", '{"name":"c","config":{}} trailing', b'{"name": "\xff"}', '{"name": "c", "config": {"k": "\\ud83d"}}']
)
def test_malformed_json_is_a_500_with_the_parsers_reason(api: Api, body: str | bytes) -> None:
    status, message = error(api("POST", "/connectors", body))
    assert status == 500
    assert len(message) > 10
    assert "Traceback" not in message
    assert api("GET", "/connectors").json() == []


@pytest.mark.parametrize("body", ["[]", '"x"', '{"name": "c", "config": ["a"]}', '{"name": "c", "config": {"topics": ["t"]}}'])
def test_a_wrong_type_is_a_500_in_jacksons_words(api: Api, body: str) -> None:
    status, message = error(api("POST", "/connectors", body))
    assert status == 500
    assert message.startswith("Cannot deserialize value of type ")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/connectors"), ("PUT", "/connectors/c/config"), ("PATCH", "/connectors/c/config"), ("PATCH", "/connectors/c/offsets"),
     ("PUT", "/connector-plugins/QuietSink/config/validate")],
)  # fmt: skip
@pytest.mark.parametrize("body", [b"", b"null"])
def test_an_empty_body_is_a_500_with_a_plain_sentence(api: Api, method: str, path: str, body: bytes) -> None:
    status, message = error(api(method, path, body))
    assert status == 500
    assert message.startswith("The request has no body; it must hold ")


def test_an_unknown_field_is_a_500_that_names_it(api: Api) -> None:
    status, message = error(api("POST", "/connectors", {"name": "c", "config": {}, "bogus": 1}))
    assert status == 500
    assert message.startswith('Unrecognized field "bogus" (class ')


def test_a_huge_body_is_refused_before_it_fills_the_memory(api: Api) -> None:
    status, _ = error(api("POST", "/connectors", b'{"name":"c","config":{"x":"' + b"y" * (5 << 20) + b'"}}'))
    assert status == 413
    assert api("GET", "/connectors").json() == []


def test_a_body_within_the_bound_is_taken_however_long(api: Api) -> None:
    long = "y" * (1 << 20)
    api.create("c", comment=long)
    assert api("GET", "/connectors/c/config").json()["comment"] == long


def test_a_body_nested_beyond_reason_is_an_error_reply(api: Api) -> None:
    assert error(api("POST", "/connectors", b'{"config":' + b"[" * 200_000))[0] == 500


def test_scalars_are_stored_as_they_were_written(api: Api) -> None:
    body = b'{"name":"c","config":{"connector.class":"QuietSink","topics":"t","a":1.50,"b":1e3,"c":true,"d":-0,"e":"1","e":2}}'
    stored = api("POST", "/connectors", body).json()["config"]
    assert [stored[key] for key in "abcde"] == ["1.50", "1e3", "true", "-0", "2"]
    assert api("GET", "/connectors/c/config").json() == stored


# --- connectors: list, create, read


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        ("expand=status", {"status"}),
        ("expand=info", {"info"}),
        ("expand=status&expand=info", {"status", "info"}),
        ("expand=info&expand=bogus", {"info"}),
        ("expand=status,info", set[str]()),
        ("expand=bogus", set[str]()),
        ("expand=", set[str]()),
    ],
)
def test_expand_adds_what_it_names(api: Api, query: str, parts: set[str]) -> None:
    api.create("a")
    api.create("b", state="PAUSED")
    reply = api("GET", f"/connectors?{query}").json()
    assert set(reply) == {"a", "b"}
    assert all(set(one) == parts for one in reply.values())
    if "info" in parts:
        assert reply["b"]["info"] == api("GET", "/connectors/b").json()
    if "status" in parts:
        assert reply["b"]["status"] == api("GET", "/connectors/b/status").json()


def test_a_created_connector_is_told_with_its_tasks(api: Api) -> None:
    reply = api.create("c", tasks_max="2")
    assert list(reply.json()) == ["name", "config", "tasks", "type"]
    assert reply.json() == {
        "name": "c",
        "config": {"connector.class": "QuietSink", "topics": "t", "tasks.max": "2", "name": "c"},
        "tasks": [{"connector": "c", "task": 0}, {"connector": "c", "task": 1}],
        "type": "sink",
    }
    assert reply.headers["Location"] == f"http://{WORKER}/connectors/c"
    assert api("GET", "/connectors/c").json() == reply.json()
    assert api("GET", "/connectors/c/config").json() == reply.json()["config"]


def test_tasks_carry_the_connectors_config(api: Api) -> None:
    config = api.create("c").json()["config"]
    task = {"id": {"connector": "c", "task": 0}, "config": {**config, "task.class": "tests.QuietSink"}}
    assert api("GET", "/connectors/c/tasks").json() == [task]


def test_a_running_connector_tells_its_state(api: Api) -> None:
    api.create("c")
    api.wait_until(lambda: api.state("c") == ("RUNNING", ["RUNNING"]))
    status = api("GET", "/connectors/c/status").json()
    assert list(status) == ["name", "connector", "tasks", "type"]
    assert status == {
        "name": "c",
        "connector": {"state": "RUNNING", "worker_id": WORKER, "version": "7.1"},
        "tasks": [{"id": 0, "state": "RUNNING", "worker_id": WORKER, "version": "7.1"}],
        "type": "sink",
    }
    assert list(status["tasks"][0]) == ["id", "state", "worker_id", "version"]
    assert api("GET", "/connectors/c/tasks/0/status").json() == status["tasks"][0]


def test_a_failed_task_tells_its_trace_and_leaves_the_connector_running(api: Api) -> None:
    api.create("c", plugin="BrokenSink")
    api.wait_until(lambda: api.state("c") == ("RUNNING", ["FAILED"]))
    task = api("GET", "/connectors/c/tasks/0/status").json()
    assert list(task) == ["id", "state", "worker_id", "version", "trace"]
    assert "ValueError: no such luck" in task["trace"]
    assert "trace" not in api("GET", "/connectors/c/status").json()["connector"]


def test_a_name_is_trimmed_and_put_into_the_config(api: Api) -> None:
    reply = api("POST", "/connectors", {"name": "  c ", "config": {"connector.class": "QuietSink", "topics": "t"}})
    assert (reply.status_code, reply.json()["name"], reply.json()["config"]["name"]) == (201, "c", "c")


def test_a_config_that_names_another_connector_is_refused(api: Api) -> None:
    config = {"connector.class": "QuietSink", "topics": "t", "name": "b"}
    expected = (400, "Connector name configuration (b) doesn't match connector name in the URL (a)")
    assert error(api("POST", "/connectors", {"name": "a", "config": config})) == expected
    assert error(api("PUT", "/connectors/a/config", config)) == expected
    assert api("GET", "/connectors").json() == []


@pytest.mark.parametrize("body", [{}, {"name": None}, {"name": ""}])
def test_a_connector_without_a_name_is_refused(api: Api, body: dict[str, Any]) -> None:
    reply = api("POST", "/connectors", {**body, "config": {"connector.class": "QuietSink", "topics": "t"}})
    assert error(reply) == invalid("Invalid value  for configuration name: String may not be empty")


@pytest.mark.parametrize(
    ("state", "expected"), [("RUNNING", ("RUNNING", ["RUNNING"])), ("paused", ("PAUSED", [])), ("Stopped", ("STOPPED", []))]
)
def test_a_connector_begins_in_the_state_asked_for(api: Api, state: str, expected: tuple[str, list[str]]) -> None:
    created = api.create("c", state=state)
    assert len(created.json()["tasks"]) == len(expected[1])
    api.wait_until(lambda: api.state("c") == expected)


def test_a_bad_initial_state_is_a_500(api: Api) -> None:
    status, message = error(api("POST", "/connectors", {"name": "c", "config": {}, "initial_state": "BAD"}))
    assert status == 500
    assert "No enum constant" in message
    assert "InitialState.BAD" in message


def test_a_name_can_be_taken_once(api: Api) -> None:
    api.create("c")
    body = {"name": "c", "config": {"connector.class": "QuietSink", "topics": "u"}}
    assert error(api("POST", "/connectors", body)) == (409, "Connector c already exists")
    assert api("GET", "/connectors/c/config").json()["topics"] == "t"


def test_an_invalid_config_for_a_taken_name_is_invalid_first(api: Api) -> None:
    api.create("c")
    assert error(api("POST", "/connectors", {"name": "c", "config": {"connector.class": "QuietSink"}}))[0] == 400


def test_of_concurrent_creations_of_one_name_one_wins(api: Api) -> None:
    body = {"name": "c", "config": {"connector.class": "QuietSink", "topics": "t"}}
    with ThreadPoolExecutor(6) as pool:
        codes = sorted(pool.map(lambda _: api("POST", "/connectors", body).status_code, range(6)))
    assert codes == [201, 409, 409, 409, 409, 409]


# --- validation in Connect's words, nothing stored


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"topics": "t", "tasks.max": "abc"},
            [
                "Invalid value abc for configuration tasks.max: Not a number of type INT",
                "Invalid value null for configuration tasks.max: Value must be non-null",
            ],
        ),
        (
            {"topics": "t", "tasks.max": "0", "quiet.level": "0"},
            [
                "Invalid value 0 for configuration tasks.max: Value must be at least 1",
                "Invalid value 0 for configuration quiet.level: Value must be at least 1",
            ],
        ),
        (
            {},
            [
                "Must configure one of topics or topics.regex",
                "Must configure one of topics or topics.regex",
            ],
        ),
        (
            {"topics": "t", "value.converter": "a.B"},
            ["Invalid value a.B for configuration value.converter: Class a.B could not be found."],
        ),
        ({"topics": "t", "made.up": None}, ["Null value can not be supplied as the configuration value."]),
        (
            {"topics": "t", "tasks.max": None},
            [
                "Invalid value null for configuration tasks.max: Value must be non-null",
                "Null value can not be supplied as the configuration value.",
            ],
        ),
    ],
)
def test_an_invalid_config_is_a_400_with_every_error_and_nothing_is_stored(api: Api, config: dict[str, Any], expected: list[str]) -> None:
    posted = {"connector.class": "QuietSink", **config}
    assert error(api("POST", "/connectors", {"name": "c", "config": posted})) == invalid(*expected)
    assert error(api("PUT", "/connectors/c/config", posted)) == invalid(*expected)
    assert api("GET", "/connectors").json() == []
    assert error(api("GET", "/connectors/c")) == (404, "Connector c not found")


@pytest.mark.parametrize(
    "config",
    [
        {"transforms": "a", "transforms.a.type": "org.apache.kafka.connect.transforms.InsertField$Value"},
        {"predicates": "p", "predicates.p.type": "org.apache.kafka.connect.transforms.predicates.RecordIsTombstone"},
        {"errors.deadletterqueue.topic.name": "dlq"},
        {"key.converter": "io.confluent.connect.avro.AvroConverter"},
        {"value.converter": "org.apache.kafka.connect.converters.IntegerConverter"},
        {"header.converter": "a.B"},
        {"consumer.override.ssl.truststore.location": "/x.jks", "consumer.override.security.protocol": "SSL"},
    ],
)
def test_what_is_not_built_is_refused_and_nothing_is_stored(api: Api, config: dict[str, str]) -> None:
    reply = api("POST", "/connectors", {"name": "c", "config": {"connector.class": "QuietSink", "topics": "t", **config}})
    assert error(reply)[0] == 400
    assert error(reply)[1].splitlines()[0] == "Connector configuration is invalid and contains the following 1 error(s):"
    assert api("GET", "/connectors").json() == []


def test_a_failed_update_leaves_the_connector_as_it_was(api: Api) -> None:
    config = api.create("c").json()["config"]
    assert error(api("PUT", "/connectors/c/config", {**config, "tasks.max": "-1"}))[0] == 400
    assert error(api("PATCH", "/connectors/c/config", {"tasks.max": "-1"}))[0] == 400
    assert api("GET", "/connectors/c/config").json() == config
    api.wait_until(lambda: api.state("c") == ("RUNNING", ["RUNNING"]))


def test_a_config_without_a_class_names_its_keys_and_never_its_values(api: Api) -> None:
    status, message = error(api("POST", "/connectors", {"name": "c", "config": {"topics": "t", "redis.password": "hunter2"}}))
    assert (status, message) == (400, "Connector config {topics, redis.password, name} contains no connector type")


@pytest.mark.parametrize("name", ["a.B", "", "HeartbeatSin", "heartbeat"])
def test_an_unknown_class_is_a_400_that_lists_what_there_is(api: Api, name: str) -> None:
    status, message = error(api("POST", "/connectors", {"name": "c", "config": {"connector.class": name}}))
    assert status == 400
    assert message.startswith(
        f"Failed to find any class that implements Connector and which name matches {name}, "
        "available connectors are: PluginDesc{klass=class "
    )
    assert "name='tests.QuietSink', version='7.1'" in message


@pytest.mark.parametrize(
    "name",
    ["heartbeat.beats.sink.HeartbeatSink", "com.example.RedisHeartbeatSinkConnector", "RedisHeartbeatSinkConnector", "RedisHeartbeatSink"],
)
def test_the_sink_goes_by_the_originals_names(api: Api, name: str) -> None:
    api.create("c", plugin=name, redis_host="127.0.0.1", redis_port="1", state="STOPPED")
    assert api("GET", "/connectors/c").json()["config"]["connector.class"] == name
    assert api("GET", "/connectors/c/status").json()["connector"]["version"] == HeartbeatSink.VERSION


def test_a_control_character_in_a_name_is_refused_by_its_code(api: Api) -> None:
    reply = api("POST", "/connectors", {"name": "a\nb", "config": {"connector.class": "QuietSink", "topics": "t"}})
    assert error(reply) == invalid(
        "Invalid value a\nb for configuration name: String may not contain control sequences but had the following ASCII chars: 10"
    )


def test_a_client_property_of_the_wrong_type_is_refused_by_name(api: Api) -> None:
    config = {"connector.class": "QuietSink", "topics": "t", "consumer.override.fetch.min.bytes": "x"}
    status, message = error(api("POST", "/connectors", {"name": "c", "config": config}))
    assert status in {400, 500}
    assert "Invalid value x for configuration fetch.min.bytes: Not a number of type INT" in message
    assert api("GET", "/connectors").json() == []


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_secret_is_in_no_reply_but_the_stored_config(api: Api, method: str) -> None:
    config = {"connector.class": "QuietSink", "quiet.password": "hunter2", "tasks.max": "x"}
    refused = (
        api("POST", "/connectors", {"name": "c", "config": config}) if method == "POST" else api("PUT", "/connectors/c/config", config)
    )
    validated = api("PUT", "/connector-plugins/QuietSink/config/validate", config)
    assert "hunter2" not in refused.text + validated.text
    assert '"[hidden]"' in validated.text


# --- put, patch, delete


def test_put_creates_and_then_replaces(api: Api) -> None:
    config = {"connector.class": "QuietSink", "topics": "t"}
    created = api("PUT", "/connectors/c/config", config)
    assert (created.status_code, created.headers["Location"]) == (201, f"http://{WORKER}/connectors/c")
    replaced = api("PUT", "/connectors/c/config", {**config, "tasks.max": "2"})
    assert replaced.status_code == 200
    assert "Location" not in replaced.headers
    assert replaced.json()["config"] == {**config, "tasks.max": "2", "name": "c"}
    assert len(replaced.json()["tasks"]) == 2
    api.wait_until(lambda: api.state("c") == ("RUNNING", ["RUNNING", "RUNNING"]))


@pytest.mark.parametrize(("verb", "state"), [("pause", ("PAUSED", ["PAUSED"])), ("stop", ("STOPPED", []))])
def test_put_keeps_what_an_operator_wanted(api: Api, verb: str, state: tuple[str, list[str]]) -> None:
    config = api.create("c").json()["config"]
    api("PUT", f"/connectors/c/{verb}")
    assert api("PUT", "/connectors/c/config", {**config, "quiet.level": "2"}).status_code == 200
    api.wait_until(lambda: api.state("c") == state)


def test_patch_merges_and_null_removes(api: Api) -> None:
    api.create("c", quiet_level="2", comment="x")
    reply = api("PATCH", "/connectors/c/config", b'{"quiet.level": 3, "comment": null, "new": "n", "absent": null}')
    assert reply.status_code == 200
    assert reply.json()["config"] == {"connector.class": "QuietSink", "topics": "t", "name": "c", "quiet.level": "3", "new": "n"}
    assert api("GET", "/connectors/c/config").json() == reply.json()["config"]


def test_patch_may_neither_rename_nor_remove_the_name(api: Api) -> None:
    api.create("c")
    renamed = api("PATCH", "/connectors/c/config", {"name": "d"})
    assert error(renamed) == (400, "Connector name configuration (d) doesn't match connector name in the URL (c)")
    removed = api("PATCH", "/connectors/c/config", {"name": None})
    assert error(removed) == invalid('Missing required configuration "name" which has no default value.')


def test_delete_forgets_everything(api: Api) -> None:
    api.create("c")
    reply = api("DELETE", "/connectors/c")
    assert (reply.status_code, reply.content) == (204, b"")
    assert error(api("DELETE", "/connectors/c")) == (404, "Connector c not found")
    assert error(api("GET", "/connectors/c/status")) == (404, "No status found for connector c")
    assert error(api("GET", "/connectors/c/tasks/0/status")) == (404, "No status found for task c-0")
    api.create("c")
    api.wait_until(lambda: api.state("c") == ("RUNNING", ["RUNNING"]))


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("GET", "", None, "Connector x not found"),
        ("GET", "/config", None, "Connector x not found"),
        ("PATCH", "/config", {}, "Connector x not found"),
        ("GET", "/status", None, "No status found for connector x"),
        ("GET", "/tasks", None, "Connector x not found"),
        ("GET", "/tasks/0/status", None, "No status found for task x-0"),
        ("POST", "/tasks/0/restart", None, "Unknown connector: x"),
        ("POST", "/restart", None, "Unknown connector: x"),
        ("POST", "/restart?includeTasks=true", None, "Unknown connector: x"),
        ("PUT", "/pause", None, "Unknown connector x"),
        ("PUT", "/resume", None, "Unknown connector x"),
        ("PUT", "/stop", None, "Unknown connector x"),
        ("DELETE", "", None, "Connector x not found"),
        ("GET", "/offsets", None, "Connector x not found"),
        ("DELETE", "/offsets", None, "Connector x not found"),
    ],
)
def test_an_unknown_connector_is_a_404_in_the_endpoints_own_words(api: Api, method: str, path: str, body: Any, message: str) -> None:
    assert error(api(method, f"/connectors/x{path}", body)) == (404, message)


def test_an_unknown_task_is_a_404_and_leaves_no_trace(api: Api) -> None:
    api.create("c")
    assert error(api("GET", "/connectors/c/tasks/1/status")) == (404, "No status found for task c-1")
    assert error(api("POST", "/connectors/c/tasks/1/restart")) == (404, "Unknown task: c-1")
    assert len(api("GET", "/connectors/c/status").json()["tasks"]) == 1


# --- pause, resume, stop, restart


def test_pause_resume_and_stop_are_idempotent(api: Api) -> None:
    api.create("c")
    for verb, code, state in [
        ("pause", 202, ("PAUSED", ["PAUSED"])),
        ("resume", 202, ("RUNNING", ["RUNNING"])),
        ("stop", 204, ("STOPPED", [])),
        ("pause", 202, ("PAUSED", [])),
        ("resume", 202, ("RUNNING", ["RUNNING"])),
    ]:
        for _ in range(2):
            assert api("PUT", f"/connectors/c/{verb}").status_code == code
            api.wait_until(lambda state=state: api.state("c") == state)  # type: ignore[misc]
    assert api("GET", "/connectors/c/tasks").json()[0]["id"] == {"connector": "c", "task": 0}


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_failed_task_stays_failed(api: Api, verb: str) -> None:
    api.create("c", plugin="BrokenSink")
    api.wait_until(lambda: api.state("c")[1] == ["FAILED"])
    assert api("PUT", f"/connectors/c/{verb}").status_code == 202
    assert api.state("c")[1] == ["FAILED"]


@pytest.mark.parametrize(
    ("query", "code", "connector", "tasks"),
    [
        ("", 204, None, None),
        ("?includeTasks=false&onlyFailed=false", 204, None, None),
        ("?includeTasks=true", 202, "RESTARTING", "RESTARTING"),
        ("?onlyFailed=true", 202, "RUNNING", "RUNNING"),
        ("?includeTasks=true&onlyFailed=true", 202, "RUNNING", "RUNNING"),
    ],
)
def test_a_restart_tells_its_plan(api: Api, query: str, code: int, connector: str | None, tasks: str | None) -> None:
    api.create("c", tasks_max="2")
    api.wait_until(lambda: api.state("c") == ("RUNNING", ["RUNNING", "RUNNING"]))
    reply = api("POST", f"/connectors/c/restart{query}")
    assert reply.status_code == code
    if code == 204:
        assert reply.content == b""
    else:
        plan = reply.json()
        assert list(plan) == ["name", "connector", "tasks", "type"]
        assert (plan["connector"]["state"], [task["state"] for task in plan["tasks"]]) == (connector, [tasks, tasks])
    api.wait_until(lambda: api.state("c") == ("RUNNING", ["RUNNING", "RUNNING"]))


def test_a_restart_of_what_failed_shows_the_old_trace_and_spares_the_rest(api: Api) -> None:
    api.create("c", plugin="BrokenSink")
    api.wait_until(lambda: api.state("c") == ("RUNNING", ["FAILED"]))
    plan = api("POST", "/connectors/c/restart?includeTasks=true&onlyFailed=true").json()
    assert plan["connector"]["state"] == "RUNNING"
    assert plan["tasks"][0]["state"] == "RESTARTING"
    assert "no such luck" in plan["tasks"][0]["trace"]


def test_a_task_restarted_while_paused_comes_up_paused(api: Api) -> None:
    api.create("c")
    api("PUT", "/connectors/c/pause")
    api.wait_until(lambda: api.state("c") == ("PAUSED", ["PAUSED"]))
    assert api("POST", "/connectors/c/tasks/0/restart").status_code == 204
    api.wait_until(lambda: api.state("c") == ("PAUSED", ["PAUSED"]))


# --- topics


def test_active_topics_are_those_that_had_records(api: Api, broker: EmbeddedBroker) -> None:
    api.create("c", topics="t,u")
    assert api("GET", "/connectors/c/topics").json() == {"c": {"topics": []}}
    Sender({"bootstrap.servers": broker.bootstrap}).send("u", None, b"x")
    api.wait_until(lambda: api("GET", "/connectors/c/topics").json()["c"]["topics"] == ["u"])
    reset = api("PUT", "/connectors/c/topics/reset")
    assert (reset.status_code, reset.content) == (202, b"")
    assert api("GET", "/connectors/c/topics").json() == {"c": {"topics": []}}


def test_active_topics_of_an_unknown_connector_are_none(api: Api) -> None:
    assert api("GET", "/connectors/x/topics").json() == {"x": {"topics": []}}
    assert api("PUT", "/connectors/x/topics/reset").status_code == 202


def test_active_topics_are_gone_with_the_connector(api: Api, broker: EmbeddedBroker) -> None:
    api.create("gone", topics="u")
    Sender({"bootstrap.servers": broker.bootstrap}).send("u", None, b"x")
    api.wait_until(lambda: api("GET", "/connectors/gone/topics").json()["gone"]["topics"] == ["u"])
    api("DELETE", "/connectors/gone")
    assert api("GET", "/connectors/gone/topics").json() == {"gone": {"topics": []}}


def test_topic_tracking_can_be_switched_off(broker: EmbeddedBroker) -> None:
    off = Api(broker.bootstrap, topic_tracking_enable="false")
    assert error(off("GET", "/connectors/c/topics")) == (403, "Topic tracking is disabled.")
    assert error(off("PUT", "/connectors/c/topics/reset")) == (403, "Topic tracking is disabled.")
    fixed = Api(broker.bootstrap, topic_tracking_allow_reset="false")
    assert fixed("GET", "/connectors/c/topics").status_code == 200
    assert error(fixed("PUT", "/connectors/c/topics/reset")) == (403, "Topic tracking reset is disabled.")


# --- offsets: reading, and every fault of a request to change them


def test_offsets_of_a_group_that_never_committed_are_none(api: Api) -> None:
    api.create("never-committed", state="STOPPED")
    assert api("GET", "/connectors/never-committed/offsets").json() == {"offsets": []}


@pytest.mark.parametrize("body", [{}, {"offsets": None}, {"offsets": []}])
def test_a_change_of_no_offsets_is_refused_before_the_connector_is_looked_for(api: Api, body: dict[str, Any]) -> None:
    expected = (400, "Partitions / offsets need to be provided for an alter offsets request")
    assert error(api("PATCH", "/connectors/x/offsets", body)) == expected


def test_offsets_change_only_while_the_connector_is_stopped(api: Api) -> None:
    api.create("c")
    body = {"offsets": [{"partition": {"kafka_topic": "t", "kafka_partition": 0}, "offset": {"kafka_offset": 1}}]}
    expected = (
        400,
        "Connectors must be in the STOPPED state before their offsets can be modified. This can be done for the specified connector by "
        "issuing a 'PUT' request to the '/connectors/c/stop' endpoint",
    )
    assert error(api("PATCH", "/connectors/c/offsets", body)) == expected
    assert error(api("DELETE", "/connectors/c/offsets")) == expected
    assert error(api("PATCH", "/connectors/x/offsets", body)) == (404, "Connector x not found")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"offset": None}, "The partition for a sink connector offset cannot be null or missing"),
        ({"partition": None}, "The partition for a sink connector offset cannot be null or missing"),
        (
            {"partition": {"kafka_topic": "t"}},
            "The partition for a sink connector offset must contain the keys 'kafka_topic' and 'kafka_partition'",
        ),
        ({"partition": {"kafka_topic": None, "kafka_partition": 0}}, "Kafka topic names must be valid strings and may not be null"),
        ({"partition": {"kafka_topic": "t", "kafka_partition": None}}, "Kafka partitions must be valid numbers and may not be null"),
        (
            {"partition": {"kafka_topic": "t", "kafka_partition": "x"}},
            "Failed to parse the following Kafka partition value in the provided offsets: 'x'. "
            "Partition values for sink connectors need to be integers.",
        ),
        (
            {"partition": {"kafka_topic": "t", "kafka_partition": "0"}, "offset": {}},
            "The offset for a sink connector should either be null or contain the key 'kafka_offset'",
        ),
        (
            {"partition": {"kafka_topic": "t", "kafka_partition": 0}, "offset": {"kafka_offset": "x"}},
            "Failed to parse the following Kafka offset value in the provided offsets: 'x'. "
            "Offset values for sink connectors need to be integers.",
        ),
    ],
)
def test_a_faulty_offset_is_a_400_in_connects_words(api: Api, entry: dict[str, Any], message: str) -> None:
    api.create("c", state="STOPPED")
    assert error(api("PATCH", "/connectors/c/offsets", {"offsets": [entry]})) == (400, message)


# --- plugins


def test_plugins_are_sinks_then_on_request_converters(api: Api) -> None:
    sinks = [
        {"class": "heartbeat.beats.sink.HeartbeatSink", "type": "sink", "version": HeartbeatSink.VERSION},
        {"class": "tests.BrokenSink", "type": "sink", "version": "7.1"},
        {"class": "tests.QuietSink", "type": "sink", "version": "7.1"},
    ]
    for query in ("", "?connectorsOnly=true", "?connectorsOnly=TRUE"):
        assert api("GET", f"/connector-plugins{query}").json() == sinks
    every = api("GET", "/connector-plugins?connectorsOnly=false").json()
    assert every[:3] == sinks
    assert {"class": STRINGS, "type": "converter", "version": "4.1.0"} in every
    assert {"class": STRINGS, "type": "header_converter", "version": "4.1.0"} in every


@pytest.mark.parametrize("name", ["tests.QuietSink", "QuietSink", "com.example.QuietSinkConnector"])
def test_a_plugins_keys_are_its_own_then_connects(api: Api, name: str) -> None:
    keys = [key["name"] for key in api("GET", f"/connector-plugins/{name}/config").json()]
    assert keys[:5] == ["quiet.level", "quiet.password", "name", "connector.class", "connector.plugin.version"]
    assert len(keys) == len(set(keys))


def test_a_converters_keys_can_be_asked_for(api: Api) -> None:
    keys = {key["name"]: key for key in api("GET", f"/connector-plugins/{JSON}/config").json()}
    assert keys["schemas.enable"]["default_value"] == "true"


def test_an_unknown_plugin_is_a_404(api: Api) -> None:
    assert error(api("GET", "/connector-plugins/a.B/config")) == (404, "Unknown plugin a.B.")


def test_validation_is_a_200_with_every_error(api: Api) -> None:
    reply = api("PUT", "/connector-plugins/QuietSink/config/validate", {"connector.class": "QuietSink", "tasks.max": "x"})
    assert reply.status_code == 200
    infos = reply.json()
    assert list(infos) == ["name", "error_count", "groups", "configs"]
    assert (infos["name"], infos["error_count"]) == ("QuietSink", 5)
    assert infos["groups"] == ["Common", "Transforms", "Predicates", "Error Handling"]
    by_name = {one["value"]["name"]: one["value"] for one in infos["configs"]}
    assert by_name["name"]["errors"] == ['Missing required configuration "name" which has no default value.']
    assert len(by_name["tasks.max"]["errors"]) == 2
    assert by_name["quiet.level"] == {"name": "quiet.level", "value": "1", "recommended_values": [], "errors": [], "visible": True}
    assert api("GET", "/connectors").json() == []


def test_a_valid_config_has_no_errors(api: Api) -> None:
    config = {"connector.class": "tests.QuietSink", "name": "c", "topics": "t"}
    for path in ("QuietSink", "QuietSinkConnector", "tests.QuietSink"):
        assert api("PUT", f"/connector-plugins/{path}/config/validate", config).json()["error_count"] == 0


def test_validation_for_another_plugin_is_refused(api: Api) -> None:
    reply = api("PUT", "/connector-plugins/BrokenSink/config/validate", {"connector.class": "QuietSink"})
    assert error(reply) == (400, "Included connector type QuietSink does not match request type BrokenSink")


def test_validation_without_a_known_class_is_a_500(api: Api) -> None:
    without = api("PUT", "/connector-plugins/QuietSink/config/validate", {"topics": "t"})
    java = "org.apache.kafka.connect.runtime.rest.errors.BadRequestException"
    assert error(without) == (500, f"{java}: Connector config {{topics}} contains no connector type")
    status, message = error(api("PUT", "/connector-plugins/QuietSink/config/validate", {"connector.class": "a.B"}))
    assert status == 500
    assert "Failed to find any class that implements Connector and which name matches a.B" in message


# --- a worker that is busy, or ends


class LateClock:
    """The time of the herder's module, which a test moves on."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
def slow(broker: EmbeddedBroker) -> Iterator[tuple[Api, SlowStore]]:
    """An API with a stopped connector ``c``, and its store."""
    store = SlowStore()
    api = Api(broker.bootstrap, store, consumer_group_id=f"group-{uuid.uuid4()}")
    api.create("c", state="STOPPED")
    store.begun.clear()
    yield api, store
    store.gate.set()
    api.herder.shut_down(2.0)


POOL = 40
"""Threads that Starlette runs handlers in."""


def test_health_answers_when_every_thread_of_the_pool_waits_for_a_verb_that_hangs(slow: tuple[Api, SlowStore]) -> None:
    api, store = slow

    def pool_is_exhausted() -> bool:
        return client.portal is not None and client.portal.call(free_threads) == 0

    with api.client as client, ThreadPoolExecutor(POOL + 1) as users:  # one event loop for all requests, as in a server
        store.gate.clear()
        waiting = [users.submit(api, "PUT", "/connectors/c/pause") for _ in range(POOL)]
        try:
            api.wait_until(pool_is_exhausted)
            assert users.submit(api, "GET", "/health").result(DEADLINE_S / 2).status_code == 200
        finally:
            store.gate.set()
        assert {reply.result(DEADLINE_S).status_code for reply in waiting} == {202}


async def free_threads() -> float:
    return to_thread.current_default_thread_limiter().available_tokens


def test_health_tells_of_a_verb_that_holds_the_others_up_for_over_ten_seconds(
    slow: tuple[Api, SlowStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    api, store = slow
    clock = LateClock()
    monkeypatch.setattr(herder, "time", clock)
    store.gate.clear()
    with ThreadPoolExecutor(1) as users:
        verb = users.submit(api, "PUT", "/connectors/c/pause")
        try:
            assert store.begun.wait(DEADLINE_S)
            assert api("GET", "/health").status_code == 200
            clock.ahead_s = 10.1
            reply = api("GET", "/health")
            message = "Worker was unable to handle this request and may be unable to handle other requests."
            assert (reply.status_code, reply.json()) == (500, {"status": "unhealthy", "message": message})
        finally:
            store.gate.set()
        assert verb.result(DEADLINE_S).status_code == 202
    assert api("GET", "/health").status_code == 200


def test_a_worker_that_shuts_down_refuses_verbs_and_still_reads(api: Api) -> None:
    api.create("c")
    api.herder.shut_down(2.0)
    refused = (500, "Worker is shutting down")
    assert error(api("POST", "/connectors", {"name": "d", "config": {"connector.class": "QuietSink", "topics": "t"}})) == refused
    for method, path in (("PUT", "pause"), ("PUT", "resume"), ("PUT", "stop"), ("POST", "restart"), ("POST", "tasks/0/restart")):
        assert error(api(method, f"/connectors/c/{path}")) == refused
    assert error(api("DELETE", "/connectors/c")) == refused
    assert api("GET", "/connectors").json() == ["c"]
    assert api("GET", "/connectors/c/status").status_code == 200


@pytest.mark.parametrize("query", ["expand=status", "expand=info", "expand=info&expand=status"])
def test_a_connector_that_is_deleted_while_all_are_listed_is_left_out(api: Api, monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    api.create("c")
    monkeypatch.setattr(api.herder, "connectors", lambda: ["gone", "c", "gone-too"])  # as read before the others were deleted
    reply = api("GET", f"/connectors?{query}")
    assert (reply.status_code, list(reply.json())) == (200, ["c"])


def test_a_connectors_secret_in_an_error_message_is_hidden(api: Api) -> None:
    secret = f"geheim-{uuid.uuid4()}"
    api.create("c", quiet_password=secret)
    status, message = error(api("GET", f"/connectors/{secret}"))
    assert (status, message) == (404, "Connector [hidden] not found")
    refused = api("POST", "/connectors", {"name": "d", "config": {"connector.class": secret, "topics": "t"}})
    assert (refused.status_code, secret in refused.text) == (400, False)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"tasks.max": "1001"}, "Invalid value 1001 for configuration tasks.max: Value must be no more than 1000"),
        ({"admin.override.client.id": "x"}, "admin.override.* is not supported by this worker yet"),
    ],
)
def test_what_would_end_the_process_or_be_ignored_is_a_400(api: Api, config: dict[str, str], words: str) -> None:
    status, message = error(api("POST", "/connectors", {"name": "c", "config": {"connector.class": "QuietSink", "topics": "t", **config}}))
    assert status == 400
    assert message.splitlines()[1].startswith(words)
    assert api("GET", "/connectors").json() == []


@pytest.mark.parametrize("key", ["s:${kye}", "hb:{x}:down", "${key"])
def test_a_template_that_cannot_be_used_is_a_400(api: Api, key: str) -> None:
    config = {"connector.class": "HeartbeatSink", "topics": "t", "redis.key": key}
    status, message = error(api("PUT", "/connectors/c/config", config))
    assert status == 400
    assert f"Invalid value {key} for configuration redis.key: " in message
