"""What an HTTP server answers, read within bounds: by the doctor from a worker, by ``heartbeat status`` from a monitor."""

from __future__ import annotations

import http.client
import time

from heartbeat.errors import ConnectError


def body_of(reply: http.client.HTTPResponse, timeout_s: float, most_bytes: int) -> bytes:
    """Read the body within the time-out as a whole: a socket's own time-out starts anew with every byte.

    Raises:
        TimeoutError: it was not there in time.
        ConnectError: it is larger than that.
    """
    deadline_s, body = time.monotonic() + timeout_s, bytearray()
    while part := reply.read1(1 << 16):
        body += part
        if len(body) > most_bytes:
            raise ConnectError(f"it answers with more than {most_bytes >> 20} MB")
        if time.monotonic() > deadline_s:
            raise TimeoutError
    return bytes(body)
