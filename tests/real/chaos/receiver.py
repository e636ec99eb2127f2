"""A webhook's receiver on loopback that records every request, checks its signature, and answers as badly as a test wants."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from ..scenario import now_ms
from .history import Seen, Verdict

SECRET = "chaos-secret"
_LONGEST_HANG_S = 30.0


class Answer(Enum):
    """What a request is answered with."""

    OK = 200
    BUSY = 429
    BROKEN = 500
    HANG = 0


class Message(msgspec.Struct, frozen=True):
    """A webhook's body."""

    key: str
    channel: str
    text: str
    flips: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request: when it came, what it was answered with, whether its signature was right, and what it said."""

    at_ms: int
    answer: Answer
    signed: bool
    idempotency_key: str
    message: Message


class Receiver:
    """Answers what ``choose`` says at each request: with success, unless it is replaced."""

    def __init__(self) -> None:
        self.choose: Callable[[], Answer] = lambda: Answer.OK
        self.attempts: list[Attempt] = []
        self.faults: list[str] = []
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def close(self) -> None:
        """Accept nothing more."""
        self._ending.set()
        self._server.shutdown()
        self._server.server_close()

    def told(self) -> list[Seen]:
        """Return the flips that were accepted, in that order."""
        with self._lock:
            accepted = [attempt for attempt in self.attempts if attempt.answer is Answer.OK]
        return [Seen(attempt.at_ms, flip) for attempt in accepted for flip in attempt.message.flips]

    def of(self, source: str) -> list[Verdict]:
        """Return what was accepted about one source, each key once, in the order of its first time."""
        return list({seen.verdict.key: seen.verdict for seen in self.told() if seen.verdict.source == source}.values())

    def text(self, key: str) -> str:
        """Return the text of the message that first told a flip."""
        return next(a.message.text for a in self.attempts if a.answer is Answer.OK and key in {flip.key for flip in a.message.flips})

    def _take(self, body: bytes, headers: Any) -> Answer:
        answer = self.choose()
        if answer is Answer.HANG:
            self._ending.wait(_LONGEST_HANG_S)
            return answer
        try:
            message = msgspec.json.decode(body, type=Message)
        except msgspec.MsgspecError as error:
            self.faults.append(f"{error}: {body[:500]!r}")  # an answer would hide it: it is told with the test
            return Answer.BROKEN
        with self._lock:
            self.attempts.append(Attempt(now_ms(), answer, _is_signed(body, headers), headers.get("Idempotency-Key", ""), message))
        return answer

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                answer = receiver._take(body, self.headers)
                if answer is Answer.HANG:
                    self.close_connection = True
                    return
                self.send_response(answer.value)
                if answer is Answer.BUSY:
                    self.send_header("Retry-After", "1")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        return Handler


def _is_signed(body: bytes, headers: Any) -> bool:
    stamp, given = headers.get("X-Heartbeat-Timestamp", ""), headers.get("X-Heartbeat-Signature", "")
    wanted = hmac.new(SECRET.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return stamp.isdigit() and abs(now_ms() / 1000 - int(stamp)) < 60 and hmac.compare_digest(given, f"sha256={wanted}")


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Receive while the block lasts; afterwards every request must have been right."""
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.close()
    assert not receiver.faults, receiver.faults
    assert all(attempt.signed and attempt.idempotency_key == attempt.message.key for attempt in receiver.attempts)
