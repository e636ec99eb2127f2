"""A fixed port in front of a server, where a test does to connections what networks do: delay, hold back, cut, lead elsewhere.

A failover is what it is to a client: the address stays, the server changes.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .programs import free_port

_PIECE = 65_536
_WAIT_S = 5.0
_LONGEST_HOLD_S = 60.0


class Forwarder:
    """Forwards connections to ``target``, a loopback port, until it is switched to another.

    ``delay_s`` is added to every piece on its way, in both directions.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.delay_s = 0.0
        self._target = target
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def switch(self, target: int) -> None:
        """Send what connects from now on elsewhere, and cut what is connected."""
        with self._lock:
            self._target = target
            for end in self._open:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def cut(self) -> None:
        """Cut what is connected; who connects again is served."""
        self.switch(self._target)

    def hold(self) -> None:
        """Let nothing pass in either direction: connections stay, and are accepted, as before a network that swallows everything."""
        self._flowing.clear()

    def release(self) -> None:
        """Let everything pass, what was held back first."""
        self._flowing.set()

    def close(self) -> None:
        """Forward nothing more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self.switch(0)
        self.release()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                try:
                    server = socket.create_connection(("127.0.0.1", self._target), timeout=_WAIT_S)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE):
                if self.delay_s:
                    time.sleep(self.delay_s)  # the delay itself
                self._flowing.wait(_LONGEST_HOLD_S)
                sink.sendall(piece)
        self._flowing.wait(_LONGEST_HOLD_S)  # an end is held back like everything else
        for end in (source, sink):  # either side's end is the end of both
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open.discard(source)
        source.close()


@contextmanager
def forwarding(target: int) -> Iterator[Forwarder]:
    """Forward to a loopback port while the block lasts."""
    forwarder = Forwarder(target)
    try:
        yield forwarder
    finally:
        forwarder.close()
