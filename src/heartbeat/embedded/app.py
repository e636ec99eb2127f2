"""The demo: broker, Redis, worker and producer in one command, on loopback, leaving nothing behind."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from heartbeat import logs
from heartbeat.beats.connection import Connection, Server
from heartbeat.connect import worker_config
from heartbeat.connect.app import StandaloneWorker
from heartbeat.connect.kafka_sender import Sender
from heartbeat.embedded import state
from heartbeat.embedded.broker import EmbeddedBroker
from heartbeat.embedded.ports import LOOPBACK, Forward, is_free, require_free
from heartbeat.embedded.redis import EmbeddedRedis
from heartbeat.errors import ConnectError, StartError
from heartbeat.monitor.app import Monitor
from heartbeat.monitor.detect import Observation

log = logging.getLogger(__name__)

_STOP_TIMEOUT_S: Final = 10.0
_LATE_BELOW_S: Final = 10
"""Where the original's monitor says WARNING."""
_NO_ANSWER: Final = "❔ UNKNOWN: Redis does not answer; nothing can be said about the heartbeat."
_MONITOR_PORT: Final = 8080
"""Another one if it is taken: the demo's monitor is found by its state file."""
_NAME: Final = "redis-heartbeat-sink"
_REDIS_IN_COMPOSE: Final = ("redis", 6379)
"""The address in the original's connector config: a name of its compose network."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports people type."""

    kafka: int = 9092
    redis: int = 6379
    rest: int = 8083


def default_connector() -> Path:
    """Return the original's connector config: packaged, or beside the source in a clone."""
    packaged = Path(__file__).with_name("redis-heartbeat-sink.json")
    return packaged if packaged.exists() else Path(__file__).parents[3] / "config" / packaged.name


def run(connector: Path, ports: Ports, beat_every_s: float | None) -> None:
    """Run the demo until SIGTERM or SIGINT; ``beat_every_s`` None leaves the sending to the user.

    Raises:
        StartError, NoRedisServer: a port is taken, the connector's file is bad, or there is no Redis to start.
    """
    logs.set_up()
    config = _read_config(connector)
    for port, option in ((ports.kafka, "--kafka-port"), (ports.redis, "--redis-port"), (ports.rest, "--rest-port")):
        require_free(port, option)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with contextlib.ExitStack() as stack:
        topics = [topic.strip() for topic in config["topics"].split(",")]
        broker = stack.enter_context(EmbeddedBroker(dict.fromkeys(topics, 1)))
        stack.enter_context(Forward(ports.kafka, broker.bootstrap, option="--kafka-port"))
        redis = stack.enter_context(EmbeddedRedis(ports.redis, also_remove=[state.own_file()], option="--redis-port"))

        def resolve(host: str, port: int) -> tuple[str, int]:
            return (redis.host, redis.port) if (host, port) == _REDIS_IN_COMPOSE else (host, port)

        worker = StandaloneWorker(_worker_config(broker.bootstrap, ports.rest, redis.directory), resolve)
        stack.callback(worker.stop)
        worker.start([connector])
        monitor = Monitor(_monitor_settings(redis), {})
        stack.callback(monitor.stop)
        monitor.start()
        rest = f"http://{LOOPBACK}:{ports.rest}"
        here = state.DemoState(os.getpid(), f"{LOOPBACK}:{ports.kafka}", redis.host, redis.port, rest, monitor.origin)
        stack.enter_context(state.published(here))
        _say_what_is_where(here, topics[0], config, beat_every_s)
        if beat_every_s is not None:
            threading.Thread(target=_send_beats, args=(broker.bootstrap, topics[0], beat_every_s, stop), daemon=True).start()
        _watch(monitor, config, Connection(Server(redis.host, redis.port, timeout_s=1.0)), stop)
        _say("Stopping: the connector commits and leaves its group, then everything goes.")


def stop_running() -> bool:
    """Stop the demo that is running, if any, and wait for its end. Return whether there was one.

    Raises:
        StartError: it does not end.
    """
    running = state.read()
    if running is None:
        return False
    with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
        os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while state.alive(running.pid):
        if time.monotonic() > deadline:
            raise StartError(
                f"the demo (pid {running.pid}) did not stop in {_STOP_TIMEOUT_S:.0f} s; kill -9 {running.pid} takes all of it away"
            )
        time.sleep(0.05)
    return True


def line(seen: Observation, connector: str, ttl_s: int | None) -> str:
    """Return what is known of the connector's sources, in one line; ``ttl_s`` is its fixed key's, None if it has none."""
    look = seen.connectors.get(connector)
    if seen.error:
        return _NO_ANSWER
    if look is None or not look.sources + look.down:
        return "⚪ NEW: no beat yet"
    if look.paused:
        return f"⏸️  PAUSED: an operator wants the connector {look.paused}; its silence says nothing"
    if look.down:
        return f"🔴 DOWN: {_many(look.down)} silent, and proven to be: everything Kafka had by then has been read"
    if look.unknown or look.blind is not None:
        return f"❔ UNKNOWN: {look.blind.stage + ': ' + look.blind.message if look.blind is not None else 'due, and not proven yet'}"
    if look.late:
        return f"🟡 LATE: {_many(look.late)} past the deadline, not yet past the grace"
    if ttl_s is None:
        return f"✅ UP: {_many(look.sources)}"
    if ttl_s < 0:
        return "🟡 UP, but its key is not there, or has no TTL: somebody else touched it"
    if ttl_s < _LATE_BELOW_S:
        return f"🟡 LATE: Heartbeat TTL low: {ttl_s}s"
    return f"✅ UP: Heartbeat TTL: {ttl_s}s"


def _many(sources: int) -> str:
    return "1 source" if sources == 1 else f"{sources} sources"


def _monitor_settings(redis: EmbeddedRedis) -> Path:
    """Write what the demo's monitor goes by: as shipped, but for a settling time that nobody wants to sit out."""
    listen = f"{LOOPBACK}:{_MONITOR_PORT if is_free(_MONITOR_PORT) else 0}"
    path = redis.directory / "monitor.toml"
    path.write_text(
        f'''[monitor]
listen = "{listen}"
settle_s = 10
[redis]
url = "redis://{redis.host}:{redis.port}/0"
[defaults]
warn_s = {_LATE_BELOW_S}
channels = ["demo-log"]
[[channel]]
name = "demo-log"
type = "log"
'''
    )
    return path


def _read_config(connector: Path) -> Mapping[str, str]:
    from heartbeat.connect import connector_files

    config = {key: value for key, value in connector_files.read(connector).config.items() if value is not None}
    if not config.get("topics"):
        raise StartError(f'{connector}: the demo creates the topics it names, so its config must have "topics"')
    return config


def _worker_config(bootstrap: str, rest_port: int, directory: Path) -> worker_config.WorkerConfig:
    string_converter = "org.apache.kafka.connect.storage.StringConverter"
    given = {
        "bootstrap.servers": bootstrap,
        "listeners": f"http://{LOOPBACK}:{rest_port}",
        "key.converter": string_converter,
        "value.converter": string_converter,
        "offset.flush.interval.ms": "1000",
        "config.storage.file": str(directory / "connectors.json"),
        # The mock broker holds an empty fetch for the whole wait.
        "consumer.fetch.max.wait.ms": "10",
        # It lets nobody into a group that its last member has left until that member's session would have ended: a restart waits that long.
        "consumer.session.timeout.ms": "3000",
        # It forgets to answer who was joining when his session ended, as on a machine that stood still: he asks again after this.
        "consumer.max.poll.interval.ms": "10000",
        "consumer.heartbeat.interval.ms": "1000",
        # It does not find records by their time, so that a connector without offsets would begin at the end.
        "consumer.auto.offset.reset": "earliest",
    }
    return worker_config.parse(given)


def _send_beats(bootstrap: str, topic: str, every_s: float, stop: threading.Event) -> None:
    sender = Sender({"bootstrap.servers": bootstrap})
    while not stop.is_set():
        try:
            sender.send(topic, None, f"demo-{datetime.now():%Y-%m-%dT%H:%M:%S}".encode())
        except ConnectError as error:
            log.warning("%s", error)
        stop.wait(every_s)


def _watch(monitor: Monitor, config: Mapping[str, str], connection: Connection, stop: threading.Event) -> None:
    """Print one line a second until told to stop."""
    name, key = config.get("name", _NAME), config.get("redis.key", "heartbeat")
    while not stop.wait(1.0):
        try:
            connection.call("PING")
            text = line(monitor.observation(), name, None if "${" in key else connection.call("TTL", key))
        except ConnectError:
            text = _NO_ANSWER
        _say(f"{datetime.now():%H:%M:%S}  {text}")
    connection.close()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _say_what_is_where(here: state.DemoState, topic: str, config: Mapping[str, str], beat_every_s: float | None) -> None:
    name = config.get("name", _NAME)
    # As the reader can type it: on PATH, or beside the Python that runs this.
    heartbeat = "heartbeat" if shutil.which("heartbeat") else os.path.relpath(Path(sys.executable).with_name("heartbeat"))
    sending = (
        f"A beat goes to {topic} every {beat_every_s:g} s."
        if beat_every_s is not None
        else f"Nobody sends beats: {heartbeat} send --topic {topic}"
    )
    _say(
        f"""
Running on this machine only, and gone when it ends (Ctrl-C):
  Kafka          {here.kafka}   (an embedded broker: for kcat and librdkafka clients, not for Java's)
  Redis          {here.redis_host}:{here.redis_port}
  Kafka Connect  {here.rest}   connector {json.dumps(name)}
  Monitor        {here.monitor}
{sending}

Try, in another terminal:
  curl {here.rest}/connectors/{name}/status
  {heartbeat} status
  {heartbeat} redis TTL {config.get("redis.key", "heartbeat")}
  {heartbeat} send "test-$(date)"
  curl -X PUT {here.rest}/connectors/{name}/pause      # nobody reads: PAUSED, not DOWN
  curl -X PUT {here.rest}/connectors/{name}/resume     # and come back
"""
    )
