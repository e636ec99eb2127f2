"""The practical limit of a Python heartbeat sink: a hot loop made by hand, without any product around it.

It consumes, keeps the newest beat of each key in a batch, writes ``SET key beat PXAT beat + ttl`` for each and one variadic
``ZADD GT`` for all, and has one batch in flight: batch k+1 is built while Redis works on batch k. It does not retry, claim, prove
anything or speak TLS. Values are read as the beat's ms, so that it works on the topics of ``bench.workloads`` only.

A program of its own: ``sketch.py --bootstrap ... --topic ... --group ... --redis-port ... --ttl-s ... --batch ...``; SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import signal
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import Consumer, TopicPartition

_IDLE_S = 0.5
_MEMBERS_A_COMMAND = 3_500
"""More would make Redis hold up everybody else for long."""
_INDEX = b"$6\r\n~bench\r\n"


class Wire:
    """A connection that counts replies by line ends and stops the program at the first error among them."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(1 << 20))
        self._due = 0

    def send(self, commands: bytes, replies: int) -> None:
        """Send commands that will be answered by so many one-line replies."""
        self._socket.sendall(commands)
        self._due += replies

    def drain(self) -> None:
        """Read all replies that are due."""
        last = b"\n"
        while self._due > 0:
            count = self._socket.recv_into(self._buffer)
            got = bytes(self._buffer[:count])
            if not got or b"\n-" in last + got:
                raise SystemExit(f"Redis said {got[:200]!r}")
            last = got[-1:]
            self._due -= got.count(b"\r\n")


def newest_by_key(messages: Iterable[Any]) -> dict[bytes, bytes]:
    """Return the newest value of each key; errors and records without a key are left out. Values have one width, so bytes compare."""
    newest: dict[bytes, bytes] = {}
    for message in messages:
        if message.error() is None:
            key = message.key()
            if key is not None:
                value = message.value()
                if value > newest.get(key, b""):
                    newest[key] = value
    return newest


def commands(newest: Mapping[bytes, bytes], ttl_ms: int) -> tuple[bytes, int]:
    """Return the batch as Redis reads it, and how many replies it will have."""
    sets: list[bytes] = []
    members: list[bytes] = []
    for key, beat in newest.items():
        source = b"$%d\r\n%b\r\n" % (len(key), key)
        deadline = b"$13\r\n%d\r\n" % (int(beat) + ttl_ms)
        sets.append(b"*5\r\n$3\r\nSET\r\n%b$%d\r\n%b\r\n$4\r\nPXAT\r\n%b" % (source, len(beat), beat, deadline))
        members.append(deadline + source)
    replies = len(sets)
    for first in range(0, len(members), _MEMBERS_A_COMMAND):
        part = members[first : first + _MEMBERS_A_COMMAND]
        sets.append(b"*%d\r\n$4\r\nZADD\r\n%b$2\r\nGT\r\n" % (3 + 2 * len(part), _INDEX))
        sets += part
        replies += 1
    return b"".join(sets), replies


def run(consumer: Consumer, wire: Wire, ttl_ms: int, batch: int, ended: list[int]) -> None:
    """Apply batches until ``ended`` has something in it."""
    in_flight: list[TopicPartition] = []
    while not ended:
        first = consumer.poll(0 if in_flight else _IDLE_S)
        messages: list[Any] = [] if first is None else [first, *consumer.consume(batch - 1, 0)]
        if messages:
            data, replies = commands(newest_by_key(messages), ttl_ms)
            last = {message.partition(): message for message in messages}
        if in_flight:
            wire.drain()
            consumer.store_offsets(offsets=in_flight)
            in_flight = []
        if messages:
            wire.send(data, replies)
            in_flight = [TopicPartition(m.topic(), m.partition(), m.offset() + 1) for m in last.values()]


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    for name in ("--bootstrap", "--topic", "--group"):
        parser.add_argument(name, required=True)
    for name in ("--redis-port", "--ttl-s", "--batch"):
        parser.add_argument(name, type=int, required=True)
    arguments = parser.parse_args()
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    consumer = Consumer(
        {
            "bootstrap.servers": arguments.bootstrap,
            "group.id": arguments.group,
            "auto.offset.reset": "earliest",
            "enable.auto.offset.store": False,  # stored when Redis has acknowledged, and committed by the client every second
            "auto.commit.interval.ms": 1000,
            "fetch.queue.backoff.ms": 10,
        }
    )
    consumer.subscribe([arguments.topic])
    try:
        run(consumer, Wire(arguments.redis_port), arguments.ttl_s * 1000, arguments.batch, ended)
    finally:
        consumer.close()


if __name__ == "__main__":
    main()
