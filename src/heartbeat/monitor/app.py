"""The composition root of the monitor: builds the parts, runs each in a thread of its own, applies changed settings, takes them down."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from heartbeat import __version__, logs
from heartbeat.beats.connection import Connection
from heartbeat.beats.outbox import Outbox, trim
from heartbeat.errors import ConnectError, InvalidConfig, StartError, UsageError
from heartbeat.monitor import alert, web
from heartbeat.monitor.beyond import KafkaSide, Nothing
from heartbeat.monitor.channels import open_channel
from heartbeat.monitor.deliver import Deliverer, DelivererState, Pace
from heartbeat.monitor.detect import Detector, Observation
from heartbeat.monitor.flips_topic import FlipsTopic
from heartbeat.monitor.kafka import refusal
from heartbeat.monitor.loop import Loop
from heartbeat.monitor.recorder import Recorder
from heartbeat.monitor.rules import Rules, doubts
from heartbeat.monitor.self_ping import SelfPing
from heartbeat.monitor.settings import Channel, Settings, SettingsFile
from heartbeat.monitor.toml_lines import nearest
from heartbeat.monitor.view import InForce

log = logging.getLogger(__name__)

_TICK_S: Final = 0.4
_CANARY_TURN_S: Final = 0.2
_RECORD_TURN_S: Final = 0.5
_TRIM_EVERY_S: Final = 10.0
_READ_SETTINGS_EVERY_S: Final = 1.0
_STOP_S: Final = 4.0


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Monitor:
    """A monitor by one settings file. It is what the web shows (``view.View``)."""

    def __init__(self, file: Path, environment: Mapping[str, str]) -> None:
        """Read the settings and bind the listener; nothing runs yet.

        Raises:
            InvalidConfig: the settings cannot be used.
            StartError: the listener's port is taken.
        """
        self._file = SettingsFile(file, environment)
        self.rules = Rules(self._file.settings)
        settings = self._file.settings
        self._started_with = settings
        self._server = settings.redis.server()
        try:
            self._beyond = KafkaSide(settings.kafka, _now_ms) if settings.kafka is not None else Nothing()
        except ConnectError as error:
            raise InvalidConfig([f"{file}, [kafka]: {error}"]) from error
        self._detector = Detector(Connection(self._server), f"{socket.gethostname()}-{os.getpid()}", self, self._beyond, _now_ms)
        self._deliverers: dict[tuple[Channel, float], Deliverer] = {}
        self._unusable: tuple[str, ...] = ()
        self._recorder = self._recording(settings)
        self._web = web.serve(settings.monitor.listen, self)
        self._loops = self._made_loops()

    @property
    def origin(self) -> str:
        """Return the URL at which it answers."""
        return self._web.origin

    @property
    def live(self) -> Settings:
        """Return the settings as they are now."""
        return self._file.settings

    def observation(self) -> Observation:
        """Return what the last tick saw."""
        return self._detector.state

    def channels(self) -> Sequence[DelivererState]:
        """Return how far each channel is, the topic of flips included."""
        states: list[DelivererState] = [deliverer.state for deliverer in list(self._deliverers.values())]
        return [*states, self._recorder.state] if self._recorder is not None else states

    def settings(self) -> InForce:
        """Return the settings in force."""
        return InForce(self.rules, self._server, (*self._file.errors, *self._unusable))

    def start(self) -> None:
        """Start everything. Channels begin first: one that begins at the end of the flips must not begin behind the first of them."""
        self._web.start()
        self._warn()
        self._follow_channels()
        for loop in self._loops:
            loop.start()
        log.info("Monitor started, version %s", __version__)

    def ask(self) -> None:
        """Have the settings read anew. Fit for a signal."""
        self._file.ask()

    def turn(self) -> float:
        """Apply settings that have changed; return how long to wait."""
        before = self.live
        if self._file.turn():
            self._warn_of_waiting(before)
            self._warn()
            self.rules = Rules(self.live)
            self._follow_channels()
        return _READ_SETTINGS_EVERY_S

    def _warn(self) -> None:
        for warning in doubts(self._file.reading):
            log.warning("%s", warning)

    def _warn_of_waiting(self, before: Settings) -> None:
        """Say what of other settings takes effect only with the next start, and if there would be none."""
        started, now = self._started_with, self.live
        for name, at_start, was, is_now in (
            ("[redis]", started.redis, before.redis, now.redis),
            ("[kafka]", started.kafka, before.kafka, now.kafka),
            ("listen", started.monitor.listen, before.monitor.listen, now.monitor.listen),
        ):
            if is_now not in (was, at_start):
                log.warning("%s has changed: that takes effect when the monitor is started again", name)
        why = refusal(now.kafka) if now.kafka is not None and now.kafka != before.kafka else ""
        if why:
            log.error("[kafka]: with this the monitor would not start again: %s", why)

    def stop(self) -> None:
        """Stop everything within five seconds; what is late is left behind."""
        deadline_s = time.monotonic() + _STOP_S
        for loop in self._loops:
            loop.stop()
        for deliverer in list(self._deliverers.values()):
            deliverer.end_soon()
        for loop in self._loops:
            loop.join(deadline_s - time.monotonic())
        self._drop(list(self._deliverers), deadline_s)
        self._web.stop()

    def trouble(self) -> str:
        """Return what does not work, empty while everything does."""
        seen = self.observation()
        if wrong := seen.error or seen.stands_still(_now_ms()):
            return wrong
        for name, look in seen.connectors.items():
            if look.blind is not None or look.error:
                return f"connector {name}: {look.blind.message if look.blind is not None else look.error}"
        if self._unusable:
            return self._unusable[0]
        failing = [state for state in self.channels() if state.last_error]  # what was refused for good is no failure to try again
        return f"channel {failing[0].channel}: {failing[0].last_error}" if failing else ""

    # The turns of its loops

    def _made_loops(self) -> list[Loop]:
        trimming = Connection(self._server)
        loops = [
            Loop("detect", self._detect),
            Loop("settings", self.turn),
            Loop("trim", lambda: self._trim(trimming), trimming.close),
            Loop("self", SelfPing(lambda: self.live.self_, self.trouble, time.monotonic).turn),
        ]
        if isinstance(beyond := self._beyond, KafkaSide):
            loops.append(Loop("canary", lambda: self._fly(beyond)))
        if self._recorder is not None:
            recorder = self._recorder
            loops.append(Loop("recorder", lambda: 0.0 if recorder.turn() else _RECORD_TURN_S, recorder.close))
        return loops

    def _detect(self) -> float:
        flips = self._detector.tick()
        if flips:
            for deliverer in list(self._deliverers.values()):
                deliverer.tell(flips)
        seen = self._detector.state
        busy = any(look.busy for look in seen.connectors.values())
        return 0.0 if busy else max(0.0, _TICK_S - seen.took_ms / 1000)

    def _fly(self, beyond: KafkaSide) -> float:
        looks = self.observation().connectors
        partitions = {
            name: [(part.topic, part.partition) for part in look.partitions] for name, look in looks.items() if look.takes_canaries
        }
        spared = {part.topic for look in looks.values() if not look.takes_canaries for part in look.partitions}
        # By the clock that is behind: a canary must not claim to be younger than it is.
        beyond.fly(partitions, _now_ms() + min([0, *(look.ahead_ms for look in looks.values())]), spared)
        return _CANARY_TURN_S

    def _trim(self, connection: Connection) -> float:
        recorded = [self._recorder.state.channel] if self._recorder is not None else []
        with contextlib.suppress(ConnectError):  # detection says that Redis is away, or refuses us
            for name, count in trim(connection, [*(channel.name for channel in self.live.channels), *recorded]).items():
                log.error("Channel %s was not reached for too long: %d changes of state were cut before it got them", name, count)
        return _TRIM_EVERY_S

    # Channels

    def _follow_channels(self) -> None:
        """Run a deliverer for each channel of the settings, and none for any other."""
        group_wait_s = self.live.monitor.group_wait_s
        wanted = [(channel, group_wait_s) for channel in self.live.channels]
        self._drop([key for key in self._deliverers if key not in wanted], time.monotonic() + _STOP_S)
        unusable = []
        for channel, _ in (key for key in wanted if key not in self._deliverers):
            try:
                opened = open_channel(channel)
            except ValueError as error:  # the others are to be told all the same
                unusable.append(f"channel {channel.name}: {error}")
                log.error("Nobody is told by %s", unusable[-1])
                continue
            outbox = Outbox(Connection(self._server), channel.name)
            # Without a topic nothing is kept for longer than Redis keeps it, and one message says so.
            pace = Pace(group_wait_s, recorder=self._recorder.state.channel if self._recorder is not None else "")
            with contextlib.suppress(ConnectError):  # Redis is away: nothing can be stored that this channel would miss
                outbox.lease()
            deliverer = self._deliverers[channel, group_wait_s] = Deliverer(channel.name, opened, outbox, lambda: self.rules, pace)
            deliverer.start()
        self._unusable = tuple(unusable)

    def _drop(self, keys: Sequence[tuple[Channel, float]], deadline_s: float) -> None:
        # The loop that reads the settings, if it hangs in this at the end, may have been faster.
        dropped = [found for key in keys if (found := self._deliverers.pop(key, None)) is not None]
        for deliverer in dropped:
            deliverer.end_soon()
        for deliverer in dropped:
            deliverer.stop(deadline_s - time.monotonic())

    def _recording(self, settings: Settings) -> Recorder | None:
        if not isinstance(self._beyond, KafkaSide) or settings.kafka is None or not settings.kafka.flips_topic:
            return None
        topic = FlipsTopic(settings.kafka, self._beyond.cluster)
        return Recorder(Outbox(Connection(self._server), f"kafka:{topic.name}", from_start=True), topic)


def run(file: Path, environment: Mapping[str, str]) -> None:
    """Run a monitor until SIGTERM or SIGINT; SIGHUP has it read its settings.

    Raises:
        InvalidConfig, ConnectError, StartError: it cannot start.
    """
    logs.set_up(environment.get("HEARTBEAT_LOG_LEVEL", "INFO"))
    monitor = Monitor(file, environment)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: monitor.ask())
    monitor.start()
    while not stop.wait(3600):
        pass
    log.info("Monitor is stopping")
    monitor.stop()
    log.info("Monitor stopped")
    logging.shutdown()
    os._exit(0)  # at once: a client library that hangs would hold up the interpreter's exit


def test_channel(file: Path, name: str, environment: Mapping[str, str]) -> tuple[str, int]:
    """Send a test message to a channel of the settings; return what came of it, and the exit code.

    Raises:
        InvalidConfig: the settings cannot be used.
        UsageError: they name no such channel.
        StartError: it cannot be opened.
    """
    if not file.exists():
        raise UsageError(f"There is no {file}: say with --settings which file names the channel")
    settings = SettingsFile(file, environment).settings
    found = next((channel for channel in settings.channels if channel.name == name), None)
    if found is None:
        raise UsageError(f"{file} has no channel {name!r}. {nearest(name, [channel.name for channel in settings.channels])}")
    try:
        channel = open_channel(found)
    except ValueError as error:
        raise StartError(f"channel {name}: {error}") from error
    try:
        delivery = alert.test(name, channel, _now_ms())
    finally:
        channel.close()
    return f"Channel {name}, {delivery.line()}", 0 if delivery.status == alert.DELIVERED else 1
