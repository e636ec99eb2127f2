"""Stands in for redis_exporter: reads single keys by the commands the real one sends, and shows them under its metrics' names.

TYPE, then PFCOUNT and STRLEN for the size, then GET for a value that is a number; a key that is gone has size 0 and no value.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO, cast
from urllib.parse import unquote_plus

Reply = str | int | None


class Refused(Exception):
    """An error that Redis replied with."""


def call(stream: BinaryIO, *words: str) -> Reply:
    """Send one command and return the reply."""
    parts = [word.encode() for word in words]
    stream.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
    stream.flush()
    kind, rest = (line := stream.readline().rstrip(b"\r\n"))[:1], line[1:].decode()
    if kind == b"-":
        raise Refused(rest)
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == "-1" else stream.read(int(rest) + 2)[:-2].decode()
    return rest


def size(stream: BinaryIO, key: str) -> Reply:
    """Return a string's size, that of a HyperLogLog being its count."""
    try:
        return call(stream, "PFCOUNT", key)
    except Refused:
        return call(stream, "STRLEN", key)


def metrics() -> Iterator[str]:
    """Yield the lines of one scrape."""
    host, _, port = os.environ.get("REDIS_ADDR", "localhost:6379").removeprefix("redis://").partition(":")
    try:
        connection = socket.create_connection((host, int(port or 6379)), timeout=5)
    except OSError:
        yield "redis_up 0"
        return
    with connection, cast(BinaryIO, connection.makefile("rwb")) as stream:
        yield "redis_up 1"
        for pair in filter(None, os.environ.get("REDIS_EXPORTER_CHECK_SINGLE_KEYS", "").split(",")):
            db, _, key = pair.rpartition("=")
            number, name = db.strip().replace("db", "") or "0", unquote_plus(key.strip())
            label = f'{{db="db{number}",key="{name}"}}'
            call(stream, "SELECT", number)
            if call(stream, "TYPE", name) != "string":
                yield f"redis_key_size{label} 0"
                continue
            yield f"redis_key_size{label} {size(stream, name)}"
            yield f"redis_key_value{label} {float(call(stream, 'GET', name) or 'nan')!r}"


class Page(BaseHTTPRequestHandler):
    """``/metrics``, and ``/health`` for whoever checks it."""

    def do_GET(self) -> None:
        """Answer."""
        body = "ok" if self.path == "/health" else "\n".join(metrics()) + "\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(body.encode())


ThreadingHTTPServer(("", 9121), Page).serve_forever()
