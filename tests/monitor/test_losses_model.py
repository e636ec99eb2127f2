"""Losses, at random: whatever is lost, killed and frozen, in the end the receiver knows who is down, and of nobody else that he is."""

from __future__ import annotations

import os
import random

import pytest
from tests.monitor.losing import CHANNEL, CONNECTOR, RECORDER, Node, Topic, World

from heartbeat.beats.connection import Connection
from heartbeat.monitor import flips_topic, losses
from heartbeat.monitor.flips import incident_of

SEEDS = int(os.environ.get("HEARTBEAT_LOSSES_SEEDS", "250"))
FIRST_SEED = int(os.environ.get("HEARTBEAT_LOSSES_FIRST_SEED", "0"))
STEPS = 80
USUAL = {"say": 6, "tick": 8, "deliver": 8, "record": 6, "prove": 8, "replay": 4, "expire": 3, "time": 2}
FAULTS = {"lose": 1, "restore": 1, "dump": 1, "kill": 1, "sleep": 1, "wake": 2, "kafka": 1, "blind": 1}
WEIGHTS = USUAL | FAULTS
FATES = {"fine": 8, "fails": 2, "unheard": 1, "dies": 1, "slow": 1}
WORDS = ("beat", "ok", "silent", "silent", "fail", "bye")
LONG_QUIET = 16
"""So many rounds without any change: for more of them than that, nobody holds what was told against a new Redis."""


class Story:
    """What happens in a world, step by step. One seed is one story; ``steps`` is it, to be read."""

    def __init__(self, connection: Connection, topic: Topic, seed: int) -> None:
        self.steps = [f"seed {seed}"]
        self._rng = random.Random(seed)
        self._flaky = True
        self._hanging = 0
        self.world = World(connection, topic, self._rng.randint(1, 3), self._fate, self._without)

    def step(self) -> None:
        """Let something happen."""
        world = self.world
        world.now_s += 0.1
        world.beat_ms += 2
        number = self._rng.randrange(2)
        what = self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        self.steps.append(what)
        if what in ("tick", "deliver", "record"):
            self.steps[-1] += f" m{number}" + (" asleep" if world.nodes[number].asleep else "")
            if not world.nodes[number].asleep:
                world.nodes[number].do(what)
        elif what in ("kill", "sleep", "wake"):
            self._strike(what, number)
        else:
            self._happen(what)

    def _strike(self, what: str, number: int) -> None:
        node = self.world.nodes[number]
        if self._hanging or (what == "kill" and not self.world.may_kill(node)):
            self.steps[-1] += " not"
            return
        self.steps[-1] += f" m{number}"
        if what == "kill":
            node.kill()
        node.asleep = what == "sleep"

    def _happen(self, what: str) -> None:
        world, rng = self.world, self._rng
        if what == "say":
            source = rng.choice(world.sources)
            word = rng.choice(WORDS)
            self.steps[-1] += f" {source.name} {word}"
            world.say(source, word)
        elif what in ("prove", "blind"):
            world.prove(stale=what == "blind")
        elif what == "replay":
            world.replay(rng.randint(1, 3))
        elif what == "expire":
            world.expire(rng.choice((CHANNEL, RECORDER)))
        elif what == "time":
            world.now_s += 100.0
        elif what == "dump":
            world.dump()
        elif what == "kafka":
            world.topic.away, world.topic.unheard = rng.random() < 0.5, rng.random() < 0.3
        elif world.may_lose() and (what == "lose" or world.older):
            world.lose(all_of_it=what == "lose")
        else:
            self.steps[-1] += " not"

    def _fate(self) -> str:
        return self._rng.choices(list(FATES), list(FATES.values()))[0] if self._flaky else "fine"

    def _without(self, number: int) -> None:
        """Go on while a monitor waits for an answer. It is not killed then: that is a fate of its own."""
        node = self.world.nodes[number]
        self._hanging += 1
        self.steps.append(f"m{number} waits for an answer {{")
        was_asleep, node.asleep = node.asleep, True
        for _ in range(self._rng.randint(1, 6)):
            self.step()
        node.asleep = was_asleep
        self.steps.append("}")
        self._hanging -= 1

    def calm(self) -> None:
        """Let everything be well again, until nothing changes any more."""
        self.steps.append("calm")
        world = self.world
        self._flaky = world.topic.away = world.topic.unheard = False
        for node in world.nodes:
            node.asleep = False
        world.replay(len(world.sources))
        quiet, before = 0, ""
        for _ in range(100):
            world.now_s += 100.0
            world.beat_ms += 2
            world.prove()
            for channel in (CHANNEL, RECORDER):
                world.expire(channel)
            for node in world.nodes:
                _turn(node)
            blind = world.connection.call("GET", world.index.keys.blind)
            now = repr((world.index.down(), blind, len(world.index.flips()), len(world.receiver.first)))
            quiet, before = quiet + 1 if now == before else 0, now
            if quiet == LONG_QUIET:
                return
        raise AssertionError("it does not come to rest")

    def wrong(self) -> list[str]:
        """Return what is not as it must be."""
        world = self.world
        down, told = world.index.down(), world.receiver
        should = {source.name for source in world.sources if source.is_down}
        opened = {incident_of(CONNECTOR, source, judged_ms): source for source, judged_ms in down.items()}
        found = [f"down are {sorted(down)}, silent or failed are {sorted(should)}"] if down.keys() != should else []
        found += [f"open at the receiver: {told.open}, in Redis: {opened}"] if told.open != opened else []
        found += ["blind for ever"] if world.connection.call("EXISTS", world.index.keys.blind) else []
        return found + ([f"the beginning was told after the end: {told.late}"] if told.late else [])


def _turn(node: Node) -> None:
    for what in ("tick", "deliver", "record"):
        node.do(what)


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Topic:
    topic = Topic()
    monkeypatch.setattr(flips_topic, "read_to_end", topic.read)
    monkeypatch.setattr(losses, "_ASK_EVERY_MS", 0)
    return topic


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
def test_whatever_is_lost_the_receiver_knows_in_the_end_who_is_down(connection: Connection, topic: Topic, seed: int) -> None:
    story = Story(connection, topic, seed)
    for _ in range(STEPS):
        story.step()
    story.calm()
    assert not story.wrong(), "\n".join(story.steps)
