"""Everything a run needs, behind links that can be delayed, held and cut: Kafka, Redis and its replica, two workers, two monitors."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import redis

from .. import parts
from ..broker import Kafka
from ..forwarder import Forwarder, forwarding
from ..index import SHORT_SESSION, Index, indexed_config
from ..parts import HeartbeatWorker, Redis
from ..programs import eventually, free_port
from ..scenario import now_ms
from .history import Record, Seen, Source, Verdict
from .monitor import Monitor, settings
from .receiver import Receiver, receiving

PLAIN, COMMITTED = "plain", "committed"
STAGES = ((PLAIN, "plain-beats", 4), (COMMITTED, "committed-beats", 6))
"""Connector, topic, ttl in seconds. The second one reads only what is committed, so that a transaction can hold it up."""
TRANSACTION_SOURCES = tuple(Source(f"within-{topic}", connector, ttl_s * 1000) for connector, topic, ttl_s in STAGES)
"""Of whom only transactions speak."""
PARTITIONS = 2
_LOOK_EVERY_S = 0.25
_MOST_FLIPS = 1_000


class LinkedKafka(Kafka):
    """A broker with a second listener, whose advertised address is a link to it: brokers tell clients where to go."""

    def __init__(self, directory: Path, link: Forwarder, port: int) -> None:
        self.linked = f"127.0.0.1:{link.port}"
        self._listener_port = port
        super().__init__("4.1", directory)

    def _write_settings(self, settings: Mapping[str, str]) -> Path:
        inside = f"PLAINTEXT://127.0.0.1:{self.port}"
        more = {
            "listeners": f"{settings['listeners']},LINKED://127.0.0.1:{self._listener_port}",
            "advertised.listeners": f"{inside},LINKED://{self.linked}",
            "listener.security.protocol.map": f"{settings['listener.security.protocol.map']},LINKED:PLAINTEXT",
        }
        return super()._write_settings({**settings, **more})


class RedisPair:
    """A Redis server and its replica; clients come by ``links``, of which each leads to whoever is the master."""

    def __init__(self, stack: ExitStack, directory: Path, links: int) -> None:
        self._homes: dict[int, Path] = {}
        self.master = self._server(stack, directory / "one")
        self.replication = stack.enter_context(forwarding(self.master.port))
        self.replica = self._server(stack, directory / "two")
        self.links = [stack.enter_context(forwarding(self.master.port)) for _ in range(links)]
        self._follow()

    def _server(self, stack: ExitStack, home: Path) -> Redis:
        server = stack.enter_context(parts.redis_server(home, "--repl-diskless-sync-delay", "0"))
        self._homes[server.port] = home
        return server

    def _follow(self) -> None:
        self.replica.cli("REPLICAOF", "127.0.0.1", str(self.replication.port))

    def save(self) -> Path:
        """Return a dump of what the master holds now."""
        eventually(lambda: self.master.cli("SAVE") == "OK", "a dump")  # it refuses while a replica is given all it holds
        home = self._homes[self.master.port]
        return Path(shutil.copy(home / "dump.rdb", home / "older.rdb"))

    def restart(self, dump: Path | None = None) -> None:
        """Kill the master and start it with a dump, or empty."""
        self.master.end()
        (file := self._homes[self.master.port] / "dump.rdb").unlink(missing_ok=True)
        if dump is not None:
            shutil.copy(dump, file)
        self.master.start()

    def fail_over(self) -> None:
        """Make the replica the master, with what it has got so far; who was master follows it."""
        self.master, self.replica = self.replica, self.master
        self.master.cli("REPLICAOF", "NO", "ONE")
        for link in (*self.links, self.replication):
            link.switch(self.master.port)
        self._follow()


class FlipsReader:
    """Reads what the monitors keep in ``flips``, past every link, before it is trimmed or lost."""

    def __init__(self, pair: RedisPair, connectors: Sequence[str]) -> None:
        self._pair = pair
        self._connectors = connectors
        self._kept: dict[str, Seen] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ended.set()
        self._thread.join(30)

    def kept(self) -> list[Seen]:
        """Return every flip that was seen, once, in that order."""
        return list(self._kept.values())

    def _run(self) -> None:
        while not self._ended.wait(_LOOK_EVERY_S):
            for connector in self._connectors:
                index = Index(self._pair.master, connector)  # anew each time: it may be another server by now
                try:
                    self._take(index.client.xrevrange(index.key("flips"), count=_MOST_FLIPS))
                except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
                    continue  # it is being killed, stopped, or has just changed its role
                finally:
                    index.close()

    def _take(self, entries: Sequence[tuple[str, Mapping[str, str]]]) -> None:
        for _, fields in reversed(entries):
            flip: dict[str, Any] = msgspec.json.decode(fields["flip"])
            flip |= {name: int(fields[name]) for name in ("proven_until_ms", "detected_ms") if fields.get(name)}
            verdict = msgspec.convert(flip, Verdict)
            self._kept.setdefault(verdict.key, Seen(now_ms(), verdict))


@dataclass(frozen=True, slots=True)
class Stage:
    """All parts, and the links between them by name; ``doubtful`` is what was sent within transactions."""

    kafka: LinkedKafka
    redis: RedisPair
    workers: Sequence[HeartbeatWorker]
    monitors: Sequence[Monitor]
    receiver: Receiver
    flips: FlipsReader
    links: Mapping[str, Forwarder]
    doubtful: list[Record]


@contextmanager
def standing(directory: Path) -> Iterator[Stage]:
    """Set everything up: connectors running, monitors watching, nobody has beaten yet."""
    with ExitStack() as stack:
        receiver = stack.enter_context(receiving())
        to_receiver = stack.enter_context(forwarding(receiver.port))
        kafka, to_kafka = _kafka(stack, directory / "kafka")
        pair = RedisPair(stack, directory / "redis", links=3)
        to_redis, *own = pair.links
        workers = _workers(stack, directory, kafka, to_redis)
        monitors = []
        for number, link in enumerate(own):
            tables = settings(link.port, to_receiver.port, kafka=kafka.linked)
            monitors.append(monitor := Monitor(directory / f"monitor-{number}", tables))
            stack.callback(monitor.end)
            monitor.start()
        flips = FlipsReader(pair, [connector for connector, _, _ in STAGES])
        stack.callback(flips.stop)
        links = {
            "worker-redis": to_redis,
            "worker-kafka": to_kafka,
            "monitor-receiver": to_receiver,
            **{f"monitor-{n}-redis": link for n, link in enumerate(own)},
        }
        yield Stage(kafka, pair, workers, monitors, receiver, flips, links, [])


def _kafka(stack: ExitStack, directory: Path) -> tuple[LinkedKafka, Forwarder]:
    link = stack.enter_context(forwarding(0))
    kafka = LinkedKafka(directory, link, port := free_port())
    stack.callback(kafka.end)
    link.switch(port)
    kafka.start()
    for _, topic, _ in STAGES:
        kafka.create_topic(topic, PARTITIONS)
    return kafka, link


def _workers(stack: ExitStack, directory: Path, kafka: LinkedKafka, to_redis: Forwarder) -> list[HeartbeatWorker]:
    connectors = []
    for connector, topic, ttl_s in STAGES:
        more = {"redis.ttl": str(ttl_s), "heartbeat.ttl.max": "8", **SHORT_SESSION}
        if connector == COMMITTED:
            more["consumer.override.isolation.level"] = "read_committed"
        connectors.append({"name": connector, "config": indexed_config(to_redis.port, topic, more)})
    properties = {"bootstrap.servers": kafka.linked}
    workers = []
    for number in range(2):
        (home := directory / f"worker-{number}").mkdir(parents=True)
        workers.append(stack.enter_context(parts.heartbeat_worker(home, kafka, properties, connectors)))
    eventually(lambda: all(_running(worker) for worker in workers), "all tasks run")
    return workers


def _running(worker: HeartbeatWorker) -> bool:
    return all(worker.rest("GET", f"/connectors/{name}/status").json()["tasks"][0]["state"] == "RUNNING" for name, _, _ in STAGES)
