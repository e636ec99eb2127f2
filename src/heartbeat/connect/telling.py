"""Plugins are told what operators want of their connectors, beside the verbs: no verb waits for a plugin's store, or fails with it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from heartbeat.connect.store import ConnectorRecord
from heartbeat.errors import HeartbeatError, RetriableError

log = logging.getLogger(__name__)

_BACKOFF_S: Final = 1.0
_LONGEST_BACKOFF_S: Final = 30.0
_LONGEST_SILENCE_S: Final = 5.0


class Telling:
    """One thread, begun with the first thing to tell. What is told is read at that moment, so the last state comes last.

    ``records`` is asked by this thread; ``tell`` blocks for as long as the plugin's store may, and raises what a plugin raises.
    """

    def __init__(self, records: Callable[[], Mapping[str, ConnectorRecord]], tell: Callable[[ConnectorRecord], None]) -> None:
        self._records = records
        self._tell = tell
        self._due_s: dict[str, float] = {}  # no more than there are connectors
        self._failures: dict[str, int] = {}
        self._changed = threading.Condition()
        self._speaking = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def note(self, name: str) -> None:
        """Have a connector's plugin told, soon."""
        with self._changed:
            if self._closed:
                return
            self._due_s[name] = time.monotonic()
            self._failures.pop(name, None)
            if self._thread is None:
                self._thread = self._started()
            self._changed.notify()

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Wait until nobody is being told, and tell nobody meanwhile: what a plugin forgets must not be written again."""
        silent = self._speaking.acquire(timeout=_LONGEST_SILENCE_S)
        try:
            yield
        finally:
            if silent:
                self._speaking.release()

    def close(self) -> None:
        """Tell nobody anything any more. What is being told is not waited for: the next start tells it again."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _started(self) -> threading.Thread | None:
        thread = threading.Thread(target=self._run, name="telling", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left: the next verb tries again, and no verb fails by this
            log.warning("Plugins cannot be told what operators want: %s", error)
            return None
        return thread

    def _run(self) -> None:
        while (name := self._next()) is not None:
            with self._speaking:
                self._turn(name)

    def _next(self) -> str | None:
        with self._changed:
            while not self._closed:
                now_s = time.monotonic()
                name = min(self._due_s, key=self._due_s.__getitem__, default=None)
                if name is not None and self._due_s[name] <= now_s:
                    del self._due_s[name]
                    return name
                self._changed.wait(None if name is None else self._due_s[name] - now_s)
        return None

    def _turn(self, name: str) -> None:
        record = self._records().get(name)
        if record is None:
            return
        try:
            self._tell(record)
        except RetriableError as error:
            self._again(record, error)
        except HeartbeatError as error:
            log.warning("Connector %s is %s, but its plugin could not note it: %s", name, record.target.value, error)
        except Exception as error:  # a plugin's own fault: the others are to be told all the same
            log.error("Connector %s: its plugin failed to note that it is %s", name, record.target.value, exc_info=error)

    def _again(self, record: ConnectorRecord, error: RetriableError) -> None:
        with self._changed:
            failures = self._failures.get(record.name, 0)
            self._failures[record.name] = failures + 1
            wait_s = min(_LONGEST_BACKOFF_S, _BACKOFF_S * 2 ** min(failures, 10))
            self._due_s.setdefault(record.name, time.monotonic() + wait_s)  # unless a verb has come meanwhile
        if not failures:
            log.warning("Connector %s is %s, which its plugin cannot note yet: %s", record.name, record.target.value, error)
