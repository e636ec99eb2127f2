"""What the monitor's figures share: a backlog that a worker has applied and goes on proving, sources that fall silent, a monitor process.

Sources fall silent as they do everywhere: by beats that Kafka had, each with a ttl of its own (``hb-ttl``), and none after them.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from confluent_kafka import Producer
from tests.real.parts import heartbeat_argv
from tests.real.programs import Program, free_port

from bench.index import Index
from bench.race import connector
from bench.setting import Setting, Worker, ended, ours, python_environment, unique, wait_until
from bench.workloads import Workload, load
from heartbeat.beats.keys import Keys
from heartbeat.monitor.flips import DOWN, Flip

CHANNEL = "hook"
SLACK_MS = 1_000
"""The monitor's default."""
_ROOM = "2000000"
_EVERY_S = 0.05
_AHEAD_MS = 250
_POLL_EVERY = 1_000
_LIVING_A_SECOND = 10_000


@dataclass(frozen=True, slots=True)
class Persisted:
    """A DOWN as it stands in the stream of flips; ``at_ms`` is when Redis took it."""

    flip: Flip
    at_ms: int

    def late_s(self, grace_ms: int) -> float:
        """Return the seconds from deadline + grace + slack until it was persisted."""
        return (self.at_ms - (self.flip.deadline_ms or 0) - grace_ms - SLACK_MS) / 1000


class Scene:
    """One connector whose living sources are those of a backlog, applied and freshly proven; ``ttl`` of the living is a day."""

    def __init__(self, setting: Setting, index: Index, worker: Worker) -> None:
        self.setting = setting
        self.index = index
        self.worker = worker
        self.keys = Keys(index.connector)
        self._partitions = index.backlog.workload.partitions
        self._producer = Producer({"bootstrap.servers": setting.kafka.bootstrap, "linger.ms": 5, "queue.buffering.max.messages": 2_000_000})

    def last_beats(self, beats: Mapping[str, int], ttl_ms: int) -> None:
        """Send the only beat of these sources, each of its time in ms; return when the broker has them.

        A time before the sending may be corrected by the worker, which knows after when a record was appended; one soon after it stands.
        """
        for number, (source, at_ms) in enumerate(beats.items()):
            self._last_beat(number, source, at_ms, ttl_ms)
        self._flush()

    def live(self, beats: Mapping[str, int], ttl_ms: int, until_s: float) -> None:
        """Let the living beat until then (wall clock), and these sources once, each when its time in ms has nearly come."""
        coming = deque(sorted(beats.items(), key=lambda beat: beat[1]))
        keys = self.index.backlog.workload.keys
        burst = max(1, int(min(keys, _LIVING_A_SECOND) * _EVERY_S))
        lives, next_s = 0, time.time()
        while (now_s := time.time()) < until_s:
            while coming and coming[0][1] <= now_s * 1000 + _AHEAD_MS:
                source, at_ms = coming.popleft()
                self._last_beat(len(coming), source, at_ms, ttl_ms)
            for number in range(lives, lives + burst):
                self._producer.produce(self.index.backlog.topic, b"beat", b"dev-%08d" % (number % keys), number % self._partitions)
            lives += burst
            self._producer.poll(0)
            self.worker.check_alive()
            next_s += _EVERY_S
            time.sleep(max(0.0, next_s - time.time()))
        self._flush()

    def downs(self) -> int:
        """Return how many flips the stream holds."""
        return int(self.setting.redis.xlen(self.keys.flips))

    def wait_for_downs(self, count: int) -> None:
        """Wait until so many flips are persisted."""
        wait_until(lambda: self.downs() >= count, f"{count:,} flips in the stream", self.worker.check_alive, every_s=0.1)

    def persisted(self, beats: Mapping[str, int], ttl_ms: int) -> list[Persisted]:
        """Return the flips of these sources, who are exactly those that fell silent.

        Raises:
            RuntimeError: one is missing, twice, or judged on another deadline; or somebody is DOWN who lives.
        """
        entries: Sequence[tuple[bytes, dict[bytes, bytes]]] = cast(Any, self.setting.redis.xrange(self.keys.flips))
        found = [Persisted(msgspec.json.decode(entry[b"flip"], type=Flip), int(id_.partition(b"-")[0])) for id_, entry in entries]
        told = {one.flip.source: one.flip.deadline_ms for one in found if one.flip.to == DOWN}
        if len(found) != len(beats) or told != {source: at_ms + ttl_ms for source, at_ms in beats.items()}:
            wrong = [one.flip for one in found if beats.get(one.flip.source, 0) + ttl_ms != one.flip.deadline_ms or one.flip.to != DOWN]
            raise RuntimeError(f"{len(found)} flips of {len(told)} sources, not {len(beats)}; {len(wrong)} are wrong, as {wrong[:2]}")
        return found

    def _last_beat(self, number: int, source: str, at_ms: int, ttl_ms: int) -> None:
        headers = [("hb-ttl", b"%.3f" % (ttl_ms / 1000))]
        if number % _POLL_EVERY == 0:
            self._producer.poll(0)
        self._producer.produce(self.index.backlog.topic, b"beat", source, number % self._partitions, timestamp=at_ms, headers=headers)

    def _flush(self) -> None:
        if self._producer.flush(30):
            raise RuntimeError("the broker did not take all beats")


@contextmanager
def scene(setting: Setting, workload: Workload) -> Iterator[Scene]:
    """Empty Redis, let a worker apply the workload, and go on when its sight is fresh."""
    backlog = load(setting.kafka, workload)  # a new one: beats and canaries are added to it
    body = connector(setting, backlog, "${key}")
    body["config"]["heartbeat.sources.max"] = _ROOM
    setting.redis.flushall()
    index = Index(setting.redis, body["name"], backlog)
    with ended(ours(setting.scratch("watched"), setting.kafka, [body])) as worker:
        worker.start()
        worker.wait_for_rest()
        wait_until(index.applied, "the backlog is applied", worker.check_alive, every_s=0.02)
        index.wait_for_sight()
        yield Scene(setting, index, worker)
        worker.stop()


@contextmanager
def monitor(scene: Scene, hook: str = "", rules: str = "") -> Iterator[Worker]:
    """Run ``heartbeat monitor`` with its defaults and ``[kafka]``; go on when it proves the connector.

    Its topic of flips is its own: what others have found stays in memory as long as it is DOWN.
    """
    setting, port = scene.setting, free_port()
    directory = setting.scratch("monitor")
    file = directory / "monitor.toml"
    channel = f'[[channel]]\nname = "{CHANNEL}"\ntype = "webhook"\nurl = "{hook}"\n' if hook else ""
    file.write_text(
        f'[monitor]\nlisten = "127.0.0.1:{port}"\n'
        f'[redis]\nurl = "redis://127.0.0.1:{setting.redis_port}/0"\n'
        f'[kafka]\nbootstrap_servers = "{setting.kafka.bootstrap}"\nflips_topic = "{unique("flips")}"\n'
        f"[defaults]\nchannels = [{json.dumps(CHANNEL) if hook else ''}]\n{channel}{rules}"
    )
    program = Program("monitor", heartbeat_argv("monitor", str(file)), directory, python_environment())
    with ended(Worker(program, port)) as process:
        process.start()
        pipeline = f"http://127.0.0.1:{port}/api/v1/pipeline"
        wait_until(lambda: _proves(pipeline, scene.index.connector), "the monitor proves", process.check_alive, every_s=0.1)
        yield process
        process.stop()


def _proves(pipeline: str, name: str) -> bool:
    """Tell whether a monitor sees a proof of this connector, with a canary in every partition."""
    try:
        with urllib.request.urlopen(pipeline, timeout=5) as reply:
            found: dict[str, Any] = {one["name"]: one for one in json.load(reply)["connectors"]}.get(name, {})
    except (OSError, urllib.error.URLError):
        return False
    return bool(found.get("proven_until_ms")) and all(part["canary_ms"] for part in found["partitions"])
