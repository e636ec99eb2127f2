"""Logging as a Connect worker's operator knows it: Connect's line format, traces that begin with Connect's class names, no secrets."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterable

from heartbeat.config import HIDDEN
from heartbeat.errors import ConnectError

_LEVELS = {
    "TRACE": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
    "OFF": logging.CRITICAL + 10,
    "ALL": logging.NOTSET + 1,
}
KAFKA_CLIENT = "librdkafka"
"""The logger of the Kafka client library. While a broker is away it says so several times a second."""
_CLIENT_LINE_EVERY_S = 10.0
_SHORT_SECRET = 3
"""Shorter ones are hidden only where they stand alone: without every ``a`` a log could not be read."""


class Redactor:
    """The secrets of this process. Values are added when a configuration that holds them is loaded, and never taken away."""

    def __init__(self) -> None:
        self._secrets: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None
        self._lock = threading.Lock()

    def add(self, secrets: Iterable[str]) -> None:
        """Hide these values from now on."""
        with self._lock:
            known = self._secrets.union(form for secret in secrets if secret for form in _forms(secret))
            if known != self._secrets:
                # Longest first: a secret that contains another must go as a whole.
                self._pattern = re.compile("|".join(map(_pattern, sorted(known, key=len, reverse=True))))
                self._secrets = known

    def clean(self, text: str) -> str:
        """Return ``text`` without any secret."""
        return text if self._pattern is None else self._pattern.sub(HIDDEN, text)


def _pattern(secret: str) -> str:
    return re.escape(secret) if len(secret) >= _SHORT_SECRET else rf"(?<!\w){re.escape(secret)}(?!\w)"


def _forms(secret: str) -> set[str]:
    """Return a secret as it stands in text: plain, in Python's quotes, in JSON's."""
    return {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}


secrets = Redactor()
"""One for the process, because a log line may quote what any part of it was given."""


class ConnectFormatter(logging.Formatter):
    """``[2025-08-14 02:31:27,438] INFO message (logger)``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, redacted, with the trace below it if there is one."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        level = "WARN" if record.levelno == logging.WARNING else record.levelname
        line = f"[{stamp},{int(record.msecs):03d}] {level} {secrets.clean(record.getMessage())} ({record.name})"
        if record.exc_info and record.exc_info[1] is not None:
            line += "\n" + format_trace(record.exc_info[1])
        return line


def set_up(level: str = "INFO") -> None:
    """Log to standard output in Connect's format. ``level`` is a log4j level name; an unknown one means INFO."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(ConnectFormatter())
    logging.basicConfig(level=_LEVELS.get(level.strip().upper(), logging.INFO), handlers=[handler], force=True)
    for chatty in ("uvicorn", "uvicorn.access", "uvicorn.error", "asyncio", "httpx2", "httpcore2"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    client = logging.getLogger(KAFKA_CLIENT)
    client.filters = [OncePer(_CLIENT_LINE_EVERY_S)]


def format_trace(error: BaseException) -> str:
    """Return a trace whose first line is ``fully.qualified.Type: message``, causes below as ``Caused by:``, redacted."""
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        head = f"{'Caused by: ' if parts else ''}{_type_name(current)}: {current}".rstrip(": ")
        parts.append(head + "\n" + "".join(traceback.format_tb(current.__traceback__)).rstrip("\n"))
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return secrets.clean("\n".join(part.rstrip("\n") for part in parts) + "\n")


def _type_name(error: BaseException) -> str:
    if isinstance(error, ConnectError):
        return error.java_name
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


class OncePer(logging.Filter):
    """Passes a line only if none of its kind has passed for ``interval_s``; the kind is the line's first word and level.

    For what a client library repeats for as long as a fault lasts.
    """

    def __init__(self, interval_s: float) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._kinds: dict[tuple[int, str], Every] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the line is to be written."""
        kind = (record.levelno, record.getMessage().partition(" ")[0])
        if len(self._kinds) > 100:  # a bound, in case first words turn out not to be kinds
            self._kinds.clear()
        return self._kinds.setdefault(kind, Every(self._interval_s)).due(time.monotonic())


class Every:
    """Lets something happen at most once in ``interval_s``; the clock is the caller's.

    >>> warn = Every(60.0)
    >>> warn.due(1000.0), warn.due(1059.9), warn.due(1060.0)
    (True, False, True)
    """

    __slots__ = ("_interval_s", "_next")

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next = float("-inf")

    def due(self, now_s: float) -> bool:
        """Return True, and start a new interval, if the last one is over."""
        if now_s < self._next:
            return False
        self._next = now_s + self._interval_s
        return True
