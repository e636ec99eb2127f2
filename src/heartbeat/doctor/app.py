"""``heartbeat doctor``: looks at the worker, then Redis, then Kafka, and has what was found judged. Writes nothing anywhere.

Each step tells the next where to look: a worker's configs name Redis and the topics; without a worker, what lies in Redis does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from heartbeat import __version__, logs
from heartbeat.beats import inspection
from heartbeat.beats.connection import Server
from heartbeat.beats.inspection import RedisState
from heartbeat.beats.sink import HeartbeatSink
from heartbeat.connect import cluster, worker_config
from heartbeat.connect.api import TopicPartition
from heartbeat.connect.cluster import GroupState, Sightings
from heartbeat.doctor import judge_kafka, judge_redis, judge_sight, judge_worker, target, worker
from heartbeat.doctor.bounded import Failed, at_once
from heartbeat.doctor.findings import EXIT_CODES, Finding, as_json, as_text, fail, warn, worst
from heartbeat.doctor.target import Client, Override, Target
from heartbeat.doctor.worker import Connector, Worker
from heartbeat.errors import InvalidConfig, UsageError, WorkerFileError

_REST_S: Final = 8.0
_REDIS_S: Final = 4.0
_KAFKA_S: Final = 7.0
"""Bounds of three steps. Inside them each question has its own: when nothing answers, the whole ends below a quarter of a minute."""
_OURS: Final = {*HeartbeatSink.ALIASES, f"{HeartbeatSink.__module__}.{HeartbeatSink.__qualname__}"}
_START: Final = "start (or wake) the worker: heartbeat connect-standalone worker.properties"


@dataclass(frozen=True, slots=True)
class Request:
    """The command line; None where it says nothing. ``demo`` holds the running demo's addresses: Kafka, Redis, REST."""

    rest: str | None = None
    connector: str | None = None
    worker: Path | None = None
    bootstrap: str | None = None
    redis: str | None = None
    redis_password: str | None = None
    json: bool = False
    demo: tuple[str, str, str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Plan:
    url: str
    worker: Mapping[str, str]
    override: Override


@dataclass(frozen=True, slots=True)
class _Case:
    """A connector under the doctor's eyes: what the worker says of it (None if it does not answer), and what is to be looked at."""

    target: Target
    known: Connector | None
    standing: tuple[Finding, ...] = ()

    @property
    def held(self) -> Finding | None:
        """Return the finding that somebody has paused or stopped it."""
        return self.standing[0] if self.known is not None and self.known.state in {"PAUSED", "STOPPED"} else None

    @property
    def running(self) -> int | None:
        """Return how many of its tasks run, None where that is not known."""
        return None if self.known is None else sum(task.state == "RUNNING" for task in self.known.tasks)


def run(request: Request) -> tuple[str, int]:
    """Return the report and the exit code: 0 all OK, 1 a FAIL, 2 WARN only.

    Raises:
        UsageError: the command line or a file it names is wrong.
    """
    plan = _plan(request)
    findings = [*_look(plan, request.connector)]
    return (as_json if request.json else as_text)(findings), EXIT_CODES[worst(findings)]


def _look(plan: _Plan, wanted: str | None) -> Iterator[Finding]:
    found = at_once({"rest": partial(worker.look, plan.url)}, _REST_S)["rest"]
    cases, unusable = _cases(plan, found, wanted)
    servers = _ask_redis(plan, cases, wanted)
    if isinstance(found, Failed):
        cases = _cases_in_redis(plan, servers, wanted)
    clusters = _ask_kafka(plan, cases, servers)

    yield from _of_worker(plan, found, clusters, wanted)
    yield from unusable
    for case in cases:
        yield from case.standing
    for client, sightings in clusters.items():
        yield from _of_kafka(client, sightings, [case for case in cases if case.target.client == client], servers)
    if not servers:
        yield warn("redis", "where it is is not known, as no connector says it", "heartbeat doctor --redis HOST:PORT")
    for server, state in servers.items():
        yield from _of_redis(plan, server, state, [case for case in cases if case.target.server == server], clusters)


# The worker


def _cases(plan: _Plan, found: Worker | Failed, wanted: str | None) -> tuple[list[_Case], list[Finding]]:
    cases: list[_Case] = []
    unusable: list[Finding] = []
    for name, known in ({} if isinstance(found, Failed) else found.connectors).items():
        if wanted not in {None, name}:
            continue
        logs.secrets.add(target.secrets(known.config))
        standing = tuple(judge_worker.connector(plan.url, known))
        if known.config.get("connector.class") not in _OURS:
            unusable += standing
            continue
        try:
            cases.append(_Case(target.of(known.config, plan.worker, plan.override), known, standing))
        except InvalidConfig as error:
            unusable += standing
            unusable.append(
                fail(f"connector {name}", f"its config cannot be used: {'; '.join(error.errors)}", "correct it and PUT it again")
            )
    return cases, unusable


def _of_worker(plan: _Plan, found: Worker | Failed, clusters: Mapping[Client, Sightings | Failed], wanted: str | None) -> Iterator[Finding]:
    if isinstance(found, Failed):
        yield judge_worker.no_worker(plan.url, found.reason)
        return
    seen = {sightings.brokers.cluster_id for sightings in clusters.values() if isinstance(sightings, Sightings)}
    yield from judge_worker.worker(plan.url, found, __version__, seen.pop() if len(seen) == 1 else None)
    if not found.connectors or (wanted is not None and wanted not in found.connectors):
        yield judge_worker.none_there(plan.url, wanted, found)


# Redis


def _ask_redis(plan: _Plan, cases: list[_Case], wanted: str | None) -> dict[Server, RedisState | Failed]:
    names: dict[Server, list[str] | None] = {}
    for case in cases:
        if case.target.server is not None:
            names.setdefault(case.target.server, []).append(case.target.name)  # type: ignore[union-attr]
    alone = plan.override.server(None)
    if not names and alone is not None:
        names[alone] = None if wanted is None else [wanted]
    return at_once({server: partial(inspection.look, server, of) for server, of in names.items()}, _REDIS_S)


def _cases_in_redis(plan: _Plan, servers: Mapping[Server, RedisState | Failed], wanted: str | None) -> list[_Case]:
    """Return the connectors that have an index in Redis, for want of a worker that names them."""
    names = {name for state in servers.values() if isinstance(state, RedisState) for name in state.indexes}
    return [_Case(target.unknown(name, plan.worker, plan.override), None) for name in sorted(names | ({wanted} if wanted else set()))]


def _of_redis(
    plan: _Plan, server: Server, state: RedisState | Failed, cases: list[_Case], clusters: Mapping[Client, Sightings | Failed]
) -> Iterator[Finding]:
    if isinstance(state, Failed):
        yield judge_redis.no_server(f"{server.host}:{server.port}", state.reason)
        for case in cases:
            text = "what is proven lies in Redis, which does not answer: nothing can be concluded from silence"
            yield fail(f"sight {case.target.name}", text, "see the redis line above")
        return
    yield from judge_redis.server(server, state)
    for case in cases:
        index = state.indexes.get(case.target.name)
        if index is None:
            yield judge_sight.no_index(case.target, state.connectors)
            continue
        sightings = clusters.get(case.target.client)
        ends: Mapping[TopicPartition, int] = sightings.ends if isinstance(sightings, Sightings) else {}
        fix = _START if case.known is None else f"mend what FAILs above; else {judge_worker.restart_of(plan.url, case.target.name)}"
        yield from judge_sight.judge(case.target, index, ends, case.held, fix)
        yield from judge_redis.keys(case.target.name, index)


# Kafka


def _ask_kafka(plan: _Plan, cases: list[_Case], servers: Mapping[Server, RedisState | Failed]) -> dict[Client, Sightings | Failed]:
    by_client: dict[Client, list[Target]] = {}
    for case in cases:
        by_client.setdefault(case.target.client, []).append(case.target)
    if not by_client:
        by_client[target.unknown("", plan.worker, plan.override).client] = []
    return at_once({client: partial(_ask_cluster, client, targets, servers) for client, targets in by_client.items()}, _KAFKA_S)


def _ask_cluster(client: Client, targets: list[Target], servers: Mapping[Server, RedisState | Failed]) -> Sightings:
    properties = dict(client)
    names = cluster.topic_names(properties) if any(one.pattern is not None for one in targets) else []
    topics = {topic for one in targets for topic in (*one.resolved(names), *_proven(one, servers))}
    return cluster.look(properties, topics, {one.group for one in targets})


def _proven(of: Target, servers: Mapping[Server, RedisState | Failed]) -> tuple[str, ...]:
    """Return the topics that Redis says are a connector's."""
    state = servers.get(of.server) if of.server is not None else None
    index = state.indexes.get(of.name) if isinstance(state, RedisState) else None
    return () if index is None else tuple(index.topics)


def _of_kafka(
    client: Client, sightings: Sightings | Failed, cases: list[_Case], servers: Mapping[Server, RedisState | Failed]
) -> Iterator[Finding]:
    bootstrap = dict(client)["bootstrap.servers"]
    if isinstance(sightings, Failed):
        yield judge_kafka.no_brokers(bootstrap, sightings.reason)
        return
    yield from judge_kafka.brokers(bootstrap, sightings.brokers)
    horizons: dict[str, int | None] = {}
    for one in (case.target for case in cases):
        for topic in dict.fromkeys((*one.resolved(list(sightings.topics)), *_proven(one, servers))):
            horizons[topic] = max(filter(None, (horizons.get(topic), one.horizon_ms)), default=None)
        if one.pattern is not None and not one.resolved(list(sightings.topics)):
            yield judge_kafka.no_match(one.name, one.pattern)
    for topic, horizon_ms in horizons.items():
        yield from judge_kafka.topic(topic, sightings.topics.get(topic), horizon_ms, bootstrap)
    for case in cases:
        of = {*case.target.resolved(list(sightings.topics)), *_proven(case.target, servers)}
        ends = {partition: end for partition, end in sightings.ends.items() if partition.topic in of}
        yield judge_kafka.group(case.target, sightings.groups.get(case.target.group, GroupState()), ends, case.running)


# The command line


def _plan(request: Request) -> _Plan:
    given, rest = _worker(request)
    demo = request.demo if request.rest is None and given is None else None
    kafka, redis, demo_rest = demo or (None, None, None)
    logs.secrets.add({request.redis_password} if request.redis_password else ())
    properties = {"bootstrap.servers": kafka or "127.0.0.1:9092"} if given is None else given
    logs.secrets.add(target.secrets(properties))
    plan = _Plan(
        (request.rest or rest or demo_rest or "http://127.0.0.1:8083").rstrip("/"),
        properties,
        Override(request.bootstrap, _address(request.redis or redis), request.redis_password),
    )
    worker.address(plan.url)
    try:
        target.unknown("", plan.worker, plan.override)
    except InvalidConfig as error:
        raise UsageError("; ".join(error.errors)) from error
    return plan


def _worker(request: Request) -> tuple[dict[str, str] | None, str | None]:
    """Return the worker's properties and where its REST API listens, as its file or, in its container, the environment says."""
    if request.worker is None and "CONNECT_BOOTSTRAP_SERVERS" not in request.environment:
        return None, None
    try:
        config = worker_config.load(request.worker, request.environment)
    except WorkerFileError as error:
        raise UsageError(str(error)) from error
    listener = config.listeners[0]
    return dict(config.given), replace(listener, host="127.0.0.1" if listener.everywhere else listener.host).origin


def _address(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port[:6]) < 65536:
        raise UsageError(f"--redis {text}: HOST:PORT is needed")
    return host.strip("[]"), int(port)
