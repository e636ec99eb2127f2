"""The requests that are sent, in this order, to a real Connect worker and to ours; what is compared stands in ``test_compat``.

Paths and bodies are templates: ``SIDE-`` starts every connector name, ``SINKCLASS`` is the sink under test, ``SINKOPTIONS`` its own keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

TOPIC = "compat.beats"
RECORDS = 3
JSON = "org.apache.kafka.connect.json.JsonConverter"
RUNNING = "RUNNING.*RUNNING"
PAUSED = "PAUSED.*PAUSED"


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``until`` is a pattern the reply must show before it counts: a GET is repeated until then, or a deadline."""

    endpoint: int
    """The row of the reference table (docs/compatibility.md); 0 for what belongs to none."""
    id: str
    method: str
    path: str
    body: str | None = None
    until: str = ""
    content_type: str = "application/json"
    """Sent with a body, and without one if it is not the default; empty: not sent."""
    accept: str = ""
    leaves: str = ""
    """The connector that one of the workers may make of it; deleted on both before the next request, without a comparison."""


def config(name: object = "", **changes: object) -> dict[str, object]:
    """Return a sink's configuration; in ``changes`` a double underscore is a dot, and ``...`` removes the key."""
    values: dict[str, object] = {"connector.class": "SINKCLASS", "tasks.max": "1", "topics": TOPIC, "SINKOPTIONS": ""}
    if name:
        values["name"] = name
    values.update({key.replace("__", "."): value for key, value in changes.items()})
    return {key: value for key, value in values.items() if value is not ...}


def text(value: object) -> str:
    """Return compact JSON, as Connect's clients send it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def create(ident: str, name: str, **changes: object) -> Request:
    """Return a POST of a connector; ``changes`` as for :func:`config`."""
    return Request(4, ident, "POST", "/connectors", text({"name": name, "config": config(**changes)}))


def bad(ident: str, **changes: object) -> Request:
    """Return a POST that at least one of the workers refuses."""
    return raw(ident, text({"name": "SIDE-bad", "config": config(**changes)}))


def born_stopped(ident: str, **changes: object) -> Request:
    """Return a POST that one of the workers refuses, and that makes the other run nothing."""
    return raw(ident, text({"name": "SIDE-bad", "config": config(**changes), "initial_state": "STOPPED"}))


def raw(ident: str, body: str, content_type: str = "application/json") -> Request:
    """Return a POST of text that need not be JSON."""
    return Request(4, f"create-{ident}", "POST", "/connectors", body, content_type=content_type, leaves="SIDE-bad")


def stopped(ident: str, name: str, body: str = "") -> Request:
    """Return a POST of a connector that is born STOPPED."""
    return Request(4, f"create-{ident}", "POST", "/connectors", body or post(name, initial_state="STOPPED"))


def post(name: str, **fields: object) -> str:
    """Return the text of a creation with further fields beside the configuration."""
    return text({"name": name, "config": config(), **fields})


def status(ident: str, name: str, until: str) -> Request:
    """Return a GET of a connector's status that waits for ``until``."""
    return Request(9, f"status-{ident}", "GET", f"/connectors/{name}/status", until=until)


def server() -> Iterable[Request]:
    """Yield what needs no connector."""
    yield Request(1, "root", "GET", "/")
    yield Request(1, "root-head", "HEAD", "/")
    yield Request(1, "root-post", "POST", "/", "{}")
    yield Request(2, "health", "GET", "/health")
    yield Request(0, "unknown-path", "GET", "/nope")
    yield Request(0, "unknown-path-deep", "GET", "/connectors/SIDE-none/nope")
    yield Request(0, "unknown-path-post", "POST", "/nope", "{}")
    yield Request(0, "metrics-path", "GET", "/metrics")
    yield Request(3, "list-empty", "GET", "/connectors")
    yield Request(3, "list-trailing-slash", "GET", "/connectors/")
    yield Request(3, "list-head", "HEAD", "/connectors")
    yield Request(3, "list-expand-empty", "GET", "/connectors?expand=status&expand=info")
    yield Request(3, "list-wrong-method", "DELETE", "/connectors")
    yield Request(3, "list-patch", "PATCH", "/connectors", "{}")
    yield Request(3, "list-options", "OPTIONS", "/connectors")
    yield Request(3, "list-not-acceptable", "GET", "/connectors", accept="text/html")
    yield Request(3, "list-acceptable-star", "GET", "/connectors", accept="application/*")
    yield Request(3, "list-wrong-content-type", "GET", "/connectors", content_type="text/plain")


def refused_bodies() -> Iterable[Request]:
    """Yield creations whose body is not what a creation is."""
    yield raw("no-body", "")
    yield raw("json-null", "null")
    yield raw("json-array", "[]")
    yield raw("json-string", '"x"')
    yield raw("json-broken", '{"name": k}')
    yield raw("json-cut", '{"name":"SIDE-bad","config":{')
    yield raw("json-trailing", '{"name":"SIDE-bad","config":{}} trailing')
    yield raw("json-bad-utf8", post("SIDE-bad", note="x").replace('"note":"x"', '"initial_state":"PAUSED\udcff"'))
    yield raw("json-bad-utf8-value", post("SIDE-bad").replace('"tasks.max":"1"', '"tasks.max":"1","a":"\udcff"'))
    yield raw("json-unknown-field", post("SIDE-bad", bogus=1))
    yield raw("json-config-array", '{"name":"SIDE-bad","config":[]}')
    yield raw("json-config-string", '{"name":"SIDE-bad","config":"x"}')
    yield raw("json-config-null", '{"name":"SIDE-bad","config":null}')
    yield raw("json-config-missing", '{"name":"SIDE-bad"}')
    yield raw("json-name-number-no-class", '{"name":7,"config":{"a":"b"}}')
    yield raw("json-name-object", '{"name":{},"config":{}}')
    yield raw("json-value-object", post("SIDE-bad").replace('"tasks.max":"1"', '"tasks.max":{"a":1}'))
    yield raw("json-value-array", post("SIDE-bad").replace('"tasks.max":"1"', '"tasks.max":["1"]'))
    yield raw("content-type-missing", post("SIDE-bad"), content_type="")
    yield raw("content-type-wrong", post("SIDE-bad"), content_type="text/plain")
    yield raw("initial-state-bad", post("SIDE-bad", initial_state="BAD"))
    yield raw("initial-state-number", post("SIDE-bad", initial_state=1.5))
    yield raw("name-missing", text({"config": config()}))
    yield raw("name-null", text({"name": None, "config": config()}))
    yield raw("name-empty", text({"name": "", "config": config()}))
    yield raw("name-blank", text({"name": "  ", "config": config()}))
    yield raw("name-control", text({"name": "SIDE-a\nb", "config": config()}))
    yield raw("name-only-in-config", text({"config": config("SIDE-bad")}))
    yield raw("name-mismatch", text({"name": "SIDE-bad", "config": config("SIDE-other")}))
    yield raw("name-mismatch-and-invalid", text({"name": "SIDE-bad", "config": config("SIDE-other", topics=...)}))
    yield raw("config-name-null", text({"name": "SIDE-bad", "config": {**config(), "name": None}}))


def refused_configs() -> Iterable[Request]:
    """Yield creations whose configuration is refused."""
    yield bad("class-missing", connector__class=...)
    yield bad("class-null", connector__class=None)
    yield bad("class-empty", connector__class="")
    yield bad("class-unknown", connector__class="a.B")
    yield bad("class-unknown-again", connector__class="a.B", topics=...)
    yield bad("topics-missing", topics=...)
    yield bad("topics-empty", topics="")
    yield bad("topics-blank", topics=" , ")
    yield bad("topics-both", topics__regex="x.*")
    yield bad("topics-null", topics=None)
    yield bad("topics-regex-broken", topics=..., topics__regex="[")
    yield bad("tasks-max-word", tasks__max="abc")
    yield bad("tasks-max-zero", tasks__max="0")
    yield bad("tasks-max-negative", tasks__max=-1)
    yield bad("tasks-max-fraction", tasks__max="1.5")
    yield bad("tasks-max-huge", tasks__max="99999999999")
    yield born_stopped("tasks-max-1001", tasks__max="1001")
    yield bad("tasks-max-null", tasks__max=None)
    yield bad("tasks-max-empty", tasks__max="")
    yield bad("unknown-key-null", some__key=None)
    yield bad("boolean-word", errors__log__enable="x")
    yield bad("boolean-yes", tasks__max__enforce="yes")
    yield bad("enum-bad", errors__tolerance="some")
    yield bad("enum-case", errors__tolerance="ALL")
    yield bad("reload-bad", config__action__reload="sometimes")
    yield bad("retry-timeout-word", errors__retry__timeout="x")
    yield bad("retry-delay-word", errors__retry__delay__max__ms="1s")
    yield bad("converter-unknown", value__converter="a.B")
    yield bad("converter-not-one", key__converter="SINKCLASS")
    yield bad("converter-empty", value__converter="")
    yield bad("converter-subkey", value__converter=JSON, value__converter__schemas__enable="x")
    yield bad("header-converter-unknown", header__converter="a.B")
    yield bad("plugin-version", connector__plugin__version="9.9")
    yield bad("converter-plugin-version", value__converter=JSON, value__converter__plugin__version="9.9")
    yield bad("plugin-version-range", connector__plugin__version="[9.9")
    yield born_stopped("admin-override", admin__override__client__id="x")
    yield born_stopped("body-large", note="x" * (4 << 20))
    yield bad("override-type", consumer__override__max__poll__records="x")
    yield bad("dlq-consumed", errors__deadletterqueue__topic__name=TOPIC)
    yield bad("dlq-word", errors__deadletterqueue__topic__replication__factor="x")
    yield bad("transform-duplicate", transforms="a,a", transforms__a__type="org.apache.kafka.connect.transforms.Filter")
    yield bad("transform-without-type", transforms="a")
    yield bad("predicate-without-type", predicates="p")
    yield bad("negate-without-predicate", transforms="a", transforms__a__negate="true")
    yield bad("everything", tasks__max="0", topics=..., errors__tolerance="some", errors__log__enable="1", some__key=None)


def not_built() -> Iterable[Request]:
    """Yield what Connect does and this release refuses."""
    yield bad("dlq", errors__deadletterqueue__topic__name="compat.dlq", errors__deadletterqueue__topic__replication__factor="1")
    yield bad("transforms", transforms="a", transforms__a__type="org.apache.kafka.connect.transforms.Filter")
    yield bad("predicates", predicates="p", predicates__p__type="org.apache.kafka.connect.transforms.predicates.RecordIsTombstone")
    yield bad("other-key-converter", key__converter="org.apache.kafka.connect.converters.LongConverter")
    yield bad("other-value-converter", value__converter="org.apache.kafka.connect.converters.BooleanConverter")


def life() -> Iterable[Request]:
    """Yield a connector's creation, and everything that reads it while it runs."""
    yield create("create", "SIDE-main")
    yield status("running", "SIDE-main", RUNNING)
    yield create("create-duplicate", "SIDE-main")
    yield create("create-duplicate-invalid", "SIDE-main", topics=...)
    yield Request(3, "list-one", "GET", "/connectors")
    yield Request(3, "list-expand-status", "GET", "/connectors?expand=status")
    yield Request(3, "list-expand-info", "GET", "/connectors?expand=info")
    yield Request(3, "list-expand-both", "GET", "/connectors?expand=info&expand=status")
    yield Request(3, "list-expand-comma", "GET", "/connectors?expand=info,status")
    yield Request(3, "list-expand-unknown", "GET", "/connectors?expand=x")
    yield Request(3, "list-expand-blank", "GET", "/connectors?expand=")
    yield Request(3, "list-expand-slash", "GET", "/connectors/?expand=status")
    readers = [(5, ""), (6, "/config"), (9, "/status"), (10, "/tasks"), (11, "/tasks-config"), (12, "/tasks/0/status"), (19, "/topics")]
    for endpoint, path in readers:
        ident = path.strip("/").replace("/", "-") or "connector"
        until = TOPIC if endpoint == 19 else ""
        yield Request(endpoint, f"get-{ident}", "GET", f"/connectors/SIDE-main{path}", until=until)
        yield Request(endpoint, f"get-{ident}-slash", "GET", f"/connectors/SIDE-main{path}/")
        yield Request(endpoint, f"get-{ident}-head", "HEAD", f"/connectors/SIDE-main{path}")
        yield Request(endpoint, f"get-{ident}-unknown", "GET", f"/connectors/SIDE-none{path}")
        yield Request(endpoint, f"get-{ident}-wrong-method", "POST" if endpoint != 10 else "DELETE", f"/connectors/SIDE-main{path}", "{}")
    yield Request(12, "task-status-unknown", "GET", "/connectors/SIDE-main/tasks/7/status")
    yield Request(12, "task-status-word", "GET", "/connectors/SIDE-main/tasks/abc/status")
    yield Request(12, "task-status-negative", "GET", "/connectors/SIDE-main/tasks/-1/status")
    yield Request(12, "task-without-status", "GET", "/connectors/SIDE-main/tasks/0")
    yield Request(20, "topics-reset", "PUT", "/connectors/SIDE-main/topics/reset")
    yield Request(19, "topics-after-reset", "GET", "/connectors/SIDE-main/topics")
    yield Request(20, "topics-reset-unknown", "PUT", "/connectors/SIDE-none/topics/reset")
    yield Request(20, "topics-reset-get", "GET", "/connectors/SIDE-main/topics/reset")


def states() -> Iterable[Request]:
    """Yield pause, resume and stop, and every restart in every state."""
    base = "/connectors/SIDE-main"
    yield Request(15, "pause", "PUT", f"{base}/pause")
    yield status("paused", "SIDE-main", PAUSED)
    yield Request(15, "pause-again", "PUT", f"{base}/pause")
    yield Request(15, "pause-get", "GET", f"{base}/pause")
    yield Request(13, "restart-task-paused", "POST", f"{base}/tasks/0/restart")
    yield status("task-restarted-paused", "SIDE-main", PAUSED)
    yield Request(14, "restart-paused", "POST", f"{base}/restart")
    yield status("restarted-paused", "SIDE-main", PAUSED)
    yield Request(14, "restart-tasks-paused", "POST", f"{base}/restart?includeTasks=true")
    yield status("restarted-tasks-paused", "SIDE-main", PAUSED)
    yield Request(16, "resume", "PUT", f"{base}/resume")
    yield status("resumed", "SIDE-main", RUNNING)
    yield Request(16, "resume-again", "PUT", f"{base}/resume")
    flags = ["", "?includeTasks=true", "?onlyFailed=true", "?includeTasks=true&onlyFailed=true", "?includeTasks=TRUE", "?includeTasks=1"]
    for number, query in enumerate([*flags, "?includeTasks=", "?onlyFailed=yes&includeTasks=True", "?includeTasks=false&onlyFailed=false"]):
        yield Request(14, f"restart-{number}", "POST", f"{base}/restart{query}")
        yield status(f"restarted-{number}", "SIDE-main", RUNNING)
    yield Request(14, "restart-wrong-content-type", "POST", f"{base}/restart", "", content_type="application/x-www-form-urlencoded")
    yield Request(13, "restart-task", "POST", f"{base}/tasks/0/restart")
    yield status("task-restarted", "SIDE-main", RUNNING)
    yield Request(13, "restart-task-word", "POST", f"{base}/tasks/abc/restart")
    yield Request(13, "restart-task-get", "GET", f"{base}/tasks/0/restart")
    yield Request(17, "stop", "PUT", f"{base}/stop")
    yield status("stopped", "SIDE-main", 'STOPPED.*"tasks":\\[\\]')
    yield Request(5, "connector-stopped", "GET", base)
    yield Request(10, "tasks-stopped", "GET", f"{base}/tasks")
    yield Request(12, "task-status-stopped", "GET", f"{base}/tasks/0/status")
    yield Request(17, "stop-again", "PUT", f"{base}/stop")
    yield Request(14, "restart-stopped", "POST", f"{base}/restart")
    yield status("restarted-stopped", "SIDE-main", "STOPPED")
    yield Request(14, "restart-tasks-stopped", "POST", f"{base}/restart?includeTasks=true")
    yield status("restarted-tasks-stopped", "SIDE-main", "STOPPED")
    yield Request(15, "pause-stopped", "PUT", f"{base}/pause")
    yield status("paused-from-stopped", "SIDE-main", "PAUSED")
    yield Request(16, "resume-from-stopped", "PUT", f"{base}/resume")
    yield status("resumed-from-stopped", "SIDE-main", RUNNING)
    unknown = "/connectors/SIDE-none"
    for endpoint, verb in [(15, "pause"), (16, "resume"), (17, "stop")]:
        yield Request(endpoint, f"{verb}-unknown", "PUT", f"{unknown}/{verb}")
        yield Request(endpoint, f"{verb}-post", "POST", f"{base}/{verb}")
        yield Request(endpoint, f"{verb}-slash", "PUT", f"{unknown}/{verb}/")
    for number, query in enumerate(flags):
        yield Request(14, f"restart-unknown-{number}", "POST", f"{unknown}/restart{query}")
    yield Request(13, "restart-task-unknown-connector", "POST", f"{unknown}/tasks/0/restart")


def configs() -> Iterable[Request]:
    """Yield PUT and PATCH of a configuration, and how values are kept."""
    base = "/connectors/SIDE-put"
    path = f"{base}/config"
    yield Request(7, "put-new", "PUT", path, text(config()))
    yield status("put-new", "SIDE-put", RUNNING)
    yield Request(7, "put-same", "PUT", path, text(config()))
    yield Request(7, "put-changed", "PUT", path, text(config("SIDE-put", consumer__override__max__poll__records="10")))
    yield status("put-changed", "SIDE-put", RUNNING)
    yield Request(7, "put-more-tasks", "PUT", path, text(config(tasks__max="2")))
    yield status("put-more-tasks", "SIDE-put", "RUNNING.*RUNNING.*RUNNING")
    yield Request(10, "tasks-two", "GET", f"{base}/tasks")
    yield Request(5, "connector-two", "GET", base)
    yield Request(7, "put-invalid", "PUT", path, text(config(topics=...)))
    yield Request(7, "put-name-mismatch", "PUT", path, text(config("SIDE-other")))
    yield Request(7, "put-class-missing", "PUT", path, text(config(connector__class=...)))
    yield Request(7, "put-class-unknown", "PUT", path, text(config(connector__class="a.B")))
    yield Request(7, "put-null-value", "PUT", path, text(config(some__key=None)))
    yield Request(7, "put-json-array", "PUT", path, "[]")
    yield Request(7, "put-json-broken", "PUT", path, "{")
    yield Request(7, "put-json-null", "PUT", path, "null")
    yield Request(7, "put-no-body", "PUT", path)
    yield Request(6, "config-unchanged", "GET", path)
    yield Request(8, "patch", "PATCH", path, text({"tasks.max": "1", "extra": "x"}))
    yield status("patched", "SIDE-put", '"tasks":\\[[^]]*RUNNING[^,]*,[^,]*,[^,]*\\]')
    yield Request(8, "patch-remove", "PATCH", path, text({"extra": None, "never.there": None}))
    yield Request(8, "patch-empty", "PATCH", path, "{}")
    yield Request(8, "patch-invalid", "PATCH", path, text({"tasks.max": "0"}))
    yield Request(8, "patch-remove-name", "PATCH", path, text({"name": None}))
    yield Request(8, "patch-remove-class", "PATCH", path, text({"connector.class": None}))
    yield Request(8, "patch-json-array", "PATCH", path, "[]")
    yield Request(8, "patch-unknown", "PATCH", "/connectors/SIDE-none/config", "{}")
    yield Request(6, "config-patched", "GET", path)
    yield Request(15, "put-pause", "PUT", f"{base}/pause")
    yield Request(7, "put-paused", "PUT", path, text(config(extra="y")))
    yield status("put-paused", "SIDE-put", PAUSED)
    yield Request(18, "put-delete", "DELETE", base)
    yield Request(7, "put-new-invalid", "PUT", path, text(config(topics=...)))
    yield Request(7, "put-new-name-mismatch", "PUT", path, text(config("SIDE-other")))
    scalars = (
        '"a.int":1,"a.num":1.50,"a.exp":1e3,"a.true":true,"a.false":false,"a.big":123456789012345678901234567890,"a.text":"ü\\u00fc\\n"'
    )
    body = post("SIDE-sca", initial_state="stopped").replace('"tasks.max"', f'{scalars},"tasks.max"')
    yield stopped("scalars", "SIDE-sca", body)
    yield raw("scalars-leading-zero", body.replace(":1,", ":01,"))
    yield Request(6, "scalars-kept", "GET", "/connectors/SIDE-sca/config")
    yield status("created-stopped", "SIDE-sca", "STOPPED")
    yield Request(10, "tasks-created-stopped", "GET", "/connectors/SIDE-sca/tasks")
    yield Request(8, "patch-other-name", "PATCH", "/connectors/SIDE-sca/config", text({"name": "SIDE-other"}))
    yield Request(18, "scalars-delete", "DELETE", "/connectors/SIDE-sca")
    yield stopped("initial-state-paused", "SIDE-pau", post("SIDE-pau", initial_state="paused"))
    yield status("created-paused", "SIDE-pau", "PAUSED")
    yield Request(16, "resume-created-paused", "PUT", "/connectors/SIDE-pau/resume")
    yield status("created-paused-resumed", "SIDE-pau", RUNNING)
    yield Request(18, "paused-delete", "DELETE", "/connectors/SIDE-pau")
    duplicate = post("SIDE-dup", initial_state="STOPPED").replace('"tasks.max":"1"', '"tasks.max":"5","tasks.max":" 2 "')
    yield stopped("duplicate-key", "SIDE-dup", duplicate.replace(f'"{TOPIC}"', f'" {TOPIC} ,, {TOPIC}"'))
    yield Request(16, "duplicate-key-resume", "PUT", "/connectors/SIDE-dup/resume")
    yield status("duplicate-key", "SIDE-dup", "RUNNING.*RUNNING.*RUNNING")
    yield Request(10, "duplicate-key-tasks", "GET", "/connectors/SIDE-dup/tasks")
    yield Request(18, "duplicate-key-delete", "DELETE", "/connectors/SIDE-dup")


def failures() -> Iterable[Request]:
    """Yield a task that fails on its first record, and what an operator can do about it."""
    base = "/connectors/SIDE-fail"
    failed = "RUNNING.*FAILED"
    yield create("create-failing", "SIDE-fail", value__converter=JSON)
    yield status("failed", "SIDE-fail", failed)
    yield Request(12, "task-status-failed", "GET", f"{base}/tasks/0/status")
    yield Request(3, "list-expand-failed", "GET", "/connectors?expand=status")
    yield Request(15, "pause-failed", "PUT", f"{base}/pause")
    yield status("paused-failed", "SIDE-fail", "PAUSED.*FAILED")
    yield Request(16, "resume-failed", "PUT", f"{base}/resume")
    yield status("resumed-failed", "SIDE-fail", failed)
    yield Request(14, "restart-only-failed", "POST", f"{base}/restart?onlyFailed=true")
    yield Request(14, "restart-failed-tasks", "POST", f"{base}/restart?includeTasks=true&onlyFailed=true")
    yield status("failed-again", "SIDE-fail", failed)
    yield Request(13, "restart-task-failed", "POST", f"{base}/tasks/0/restart")
    yield status("failed-a-third-time", "SIDE-fail", failed)
    yield Request(8, "patch-failed", "PATCH", f"{base}/config", text({"errors.tolerance": "all", "errors.log.enable": "false"}))
    yield status("tolerant", "SIDE-fail", RUNNING)
    yield Request(18, "failed-delete", "DELETE", base)
    yield create("create-for-phantom", "SIDE-phan")
    yield Request(13, "restart-task-unknown", "POST", "/connectors/SIDE-phan/tasks/7/restart")
    yield status("phantom", "SIDE-phan", RUNNING)
    yield Request(18, "phantom-delete", "DELETE", "/connectors/SIDE-phan")


def names() -> Iterable[Request]:
    """Yield connectors whose names need encoding."""
    odd = {
        "space": ("a b&c=d", "a%20b&c=d"),
        "quotes": ("quote\"'<>", "quote%22'%3C%3E"),
        "umlaut": ("ünï", "%C3%BCn%C3%AF"),
        "plus": ("plus+sign", "plus+sign"),
        "reserved": ("a;b?c#d", "a%3Bb%3Fc%23d"),
        "dots": ("..", ".."),
    }
    for ident, (name, path) in odd.items():
        yield stopped(f"name-{ident}", f"SIDE-{name}")
        yield Request(5, f"name-{ident}-get", "GET", f"/connectors/SIDE-{path}")
        yield Request(3, f"name-{ident}-list", "GET", "/connectors?expand=status")
        yield Request(18, f"name-{ident}-delete", "DELETE", f"/connectors/SIDE-{path}")
    yield stopped("name-trimmed", "  SIDE-trim ")
    yield Request(18, "name-trimmed-delete", "DELETE", "/connectors/SIDE-trim")
    yield Request(5, "name-encoded-letter", "GET", "/connectors/SIDE-m%61in")
    yield Request(5, "name-semicolon", "GET", "/connectors/SIDE-main;x=y")
    yield Request(5, "name-bad-escape", "GET", "/connectors/SIDE-%zz")
    yield Request(5, "name-bad-utf8", "GET", "/connectors/SIDE-%FF")
    yield Request(5, "name-control-character", "GET", "/connectors/SIDE-%0A")


def unreachable() -> Iterable[Request]:
    """Yield names that Connect takes and then cannot find; it cannot delete them either, so they come last."""
    for ident, name, path in [("slash", "a/b", "a%2Fb"), ("percent", "100%", "100%25"), ("backslash", "a\\b", "a%5Cb")]:
        yield stopped(f"name-{ident}", f"SIDE-{name}")
        yield Request(5, f"name-{ident}-get", "GET", f"/connectors/SIDE-{path}")
        yield Request(9, f"name-{ident}-status", "GET", f"/connectors/SIDE-{path}/status")
        yield Request(18, f"name-{ident}-delete", "DELETE", f"/connectors/SIDE-{path}")


def offsets() -> Iterable[Request]:
    """Yield reading, altering and resetting of offsets, and every refusal."""
    base = "/connectors/SIDE-off"
    path = f"{base}/offsets"
    here = {"kafka_topic": TOPIC, "kafka_partition": 0}

    def patch(ident: str, partition: object, offset: object) -> Request:
        return Request(22, f"offsets-{ident}", "PATCH", path, text({"offsets": [{"partition": partition, "offset": offset}]}))

    yield create("create-for-offsets", "SIDE-off")
    yield Request(21, "offsets", "GET", path, until=f'(?=.*"kafka_partition":0)(?=.*"kafka_offset":{RECORDS})')
    yield Request(21, "offsets-unknown", "GET", "/connectors/SIDE-none/offsets")
    yield patch("while-running", here, {"kafka_offset": 1})
    yield Request(23, "offsets-reset-while-running", "DELETE", path)
    yield Request(17, "offsets-stop", "PUT", f"{base}/stop")
    yield status("offsets-stopped", "SIDE-off", 'STOPPED.*"tasks":\\[\\]')
    for ident, body in [("empty", '{"offsets":[]}'), ("null", '{"offsets":null}'), ("none", "{}"), ("unknown-field", '{"offset":[]}')]:
        yield Request(22, f"offsets-{ident}", "PATCH", path, body)
    yield Request(22, "offsets-json-array", "PATCH", path, "[]")
    yield Request(22, "offsets-no-body", "PATCH", path)
    yield Request(22, "offsets-empty-unknown", "PATCH", "/connectors/SIDE-none/offsets", '{"offsets":[]}')
    yield Request(
        22, "offsets-patch-unknown", "PATCH", "/connectors/SIDE-none/offsets", text({"offsets": [{"partition": here, "offset": None}]})
    )
    yield Request(22, "offsets-partition-missing", "PATCH", path, text({"offsets": [{"offset": {"kafka_offset": 1}}]}))
    yield patch("partition-null", None, {"kafka_offset": 1})
    yield patch("partition-keys", {"kafka_topic": TOPIC}, {"kafka_offset": 1})
    yield patch("topic-null", {"kafka_topic": None, "kafka_partition": 0}, {"kafka_offset": 1})
    yield patch("number-null", {"kafka_topic": TOPIC, "kafka_partition": None}, {"kafka_offset": 1})
    yield patch("number-word", {"kafka_topic": TOPIC, "kafka_partition": "x"}, {"kafka_offset": 1})
    yield patch("number-fraction", {"kafka_topic": TOPIC, "kafka_partition": 0.5}, {"kafka_offset": 1})
    yield patch("key-missing", here, {"offset": 1})
    yield patch("offset-word", here, {"kafka_offset": "x"})
    yield patch("offset-null", here, {"kafka_offset": None})
    yield patch("offset-negative", here, {"kafka_offset": -1})
    yield patch("offset-string", here, "x")
    yield patch("altered", here, {"kafka_offset": 1})
    yield Request(21, "offsets-after-altering", "GET", path)
    yield patch("altered-by-text", {"kafka_topic": TOPIC, "kafka_partition": "1"}, {"kafka_offset": "2"})
    yield Request(21, "offsets-after-text", "GET", path, until='_partition":1')
    yield patch("removed", here, None)
    yield Request(21, "offsets-after-removal", "GET", path)
    yield Request(23, "offsets-reset", "DELETE", path)
    yield Request(21, "offsets-after-reset", "GET", path)
    yield Request(23, "offsets-reset-again", "DELETE", path)
    yield Request(23, "offsets-reset-unknown", "DELETE", "/connectors/SIDE-none/offsets")
    yield Request(21, "offsets-wrong-method", "PUT", path, "{}")
    yield Request(18, "offsets-delete", "DELETE", base)


def plugins() -> Iterable[Request]:
    """Yield the plugin endpoints."""
    yield Request(24, "plugins", "GET", "/connector-plugins")
    yield Request(24, "plugins-slash", "GET", "/connector-plugins/")
    yield Request(24, "plugins-all", "GET", "/connector-plugins?connectorsOnly=false")
    yield Request(24, "plugins-odd-flag", "GET", "/connector-plugins?connectorsOnly=1")
    yield Request(24, "plugins-wrong-method", "POST", "/connector-plugins", "{}")
    sink = "/connector-plugins/SINKCLASS"
    yield Request(25, "plugin-config", "GET", f"{sink}/config")
    yield Request(25, "plugin-config-converter", "GET", f"/connector-plugins/{JSON}/config")
    yield Request(25, "plugin-config-alias", "GET", "/connector-plugins/StringConverter/config")
    yield Request(25, "plugin-config-bytes", "GET", "/connector-plugins/ByteArrayConverter/config")
    yield Request(25, "plugin-config-unknown", "GET", "/connector-plugins/a.B/config")
    path = f"{sink}/config/validate"
    yield Request(26, "validate", "PUT", path, text(config("SIDE-val")))
    yield Request(26, "validate-simple-name", "PUT", "/connector-plugins/SINKALIAS/config/validate", text(config("SIDE-val")))
    yield Request(26, "validate-alias-in-body", "PUT", path, text(config("SIDE-val", connector__class="SINKALIAS")))
    yield Request(
        26, "validate-short-alias", "PUT", "/connector-plugins/SINKSHORT/config/validate", text(config(connector__class="SINKSHORT"))
    )
    yield Request(26, "validate-empty", "PUT", path, "{}")
    yield Request(26, "validate-no-body", "PUT", path)
    yield Request(26, "validate-json-string", "PUT", path, text(text(config())))
    yield Request(26, "validate-json-array", "PUT", path, "[]")
    yield Request(26, "validate-class-unknown", "PUT", "/connector-plugins/a.B/config/validate", text(config(connector__class="a.B")))
    yield Request(26, "validate-other-class", "PUT", "/connector-plugins/a.B/config/validate", text(config()))
    yield Request(26, "validate-class-missing", "PUT", path, text(config(connector__class=...)))
    yield Request(
        26, "validate-errors", "PUT", path, text(config(tasks__max="abc", topics=..., errors__tolerance="x", some__key=None, other="1"))
    )
    yield Request(
        26, "validate-converters", "PUT", path, text(config("SIDE-val", value__converter=JSON, value__converter__schemas__enable="false"))
    )
    yield Request(
        26, "validate-converter-subkey", "PUT", path, text(config("SIDE-val", value__converter=JSON, value__converter__schemas__enable="x"))
    )
    yield Request(26, "validate-override", "PUT", path, text(config("SIDE-val", consumer__override__max__poll__records="7")))
    yield Request(26, "validate-get", "GET", path)


def ends() -> Iterable[Request]:
    """Yield deletion, what is left after it, and the endpoints of later releases."""
    yield create("create-again", "SIDE-more")
    yield Request(3, "list-two", "GET", "/connectors")
    yield Request(18, "delete", "DELETE", "/connectors/SIDE-main")
    yield Request(9, "status-deleted", "GET", "/connectors/SIDE-main/status", until="error_code")
    yield Request(12, "task-status-deleted", "GET", "/connectors/SIDE-main/tasks/0/status")
    yield Request(18, "delete-again", "DELETE", "/connectors/SIDE-main")
    yield Request(18, "delete-slash", "DELETE", "/connectors/SIDE-more/")
    yield Request(19, "topics-of-deleted", "GET", "/connectors/SIDE-more/topics")
    yield Request(3, "list-at-the-end", "GET", "/connectors")
    yield Request(27, "loggers", "GET", "/admin/loggers")
    yield Request(28, "logger", "GET", "/admin/loggers/root")
    yield Request(28, "logger-unknown", "GET", "/admin/loggers/no.such.logger")
    yield Request(29, "logger-set", "PUT", "/admin/loggers/some.logger", '{"level":"DEBUG"}')
    yield Request(29, "logger-bad-level", "PUT", "/admin/loggers/some.logger", '{"level":"LOUD"}')
    yield Request(30, "internal-tasks", "POST", "/connectors/SIDE-main/tasks", "[]")
    yield Request(31, "internal-fence", "PUT", "/connectors/SIDE-main/fence")


def requests() -> list[Request]:
    """Return all requests, in the order in which they are sent."""
    groups = (
        server,
        refused_bodies,
        refused_configs,
        not_built,
        life,
        states,
        configs,
        failures,
        names,
        offsets,
        plugins,
        ends,
        unreachable,
    )
    return [request for group in groups for request in group()]
