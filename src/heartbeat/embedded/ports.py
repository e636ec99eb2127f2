"""Ports on loopback: whether one is free, and a forward that gives the embedded broker the port people type.

The mock broker's port is the system's choice, and it advertises that one to every client. So only a client's first
connection, for bootstrap, has to come through the well-known port, and a small forward is enough.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import threading
from types import TracebackType
from typing import Final, Self

from heartbeat.errors import StartError

LOOPBACK: Final = "127.0.0.1"

_MOST_CONNECTIONS: Final = 64  # every client keeps its bootstrap connection for as long as it lives
_CONNECT_TIMEOUT_S: Final = 5.0
_JOIN_TIMEOUT_S: Final = 5.0
_PROBE_TIMEOUT_S: Final = 0.5
_CHUNK: Final = 65536


def free_port() -> int:
    """Return a loopback port that was free a moment ago; whoever binds it must be ready to lose the race."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(port: int, option: str | None = None) -> None:
    """Check that a port can be listened on; ``option`` is the command-line option by which a user chooses another.

    Raises:
        StartError: it is taken or not allowed, in one line that names the port and the option.
    """
    _listen(port, option).close()


def is_free(port: int) -> bool:
    """Tell whether a port can be listened on."""
    try:
        require_free(port)
    except StartError:
        return False
    return True


class Forward:
    """``127.0.0.1:port`` passed on to another loopback address, from construction to ``close``. Port 0 is the system's choice.

    At most ``most`` connections at once; one above that is closed at once, which every Kafka client retries.

    Raises:
        StartError: the port is taken.
    """

    def __init__(self, port: int, to: str, *, option: str | None = None, most: int = _MOST_CONNECTIONS) -> None:
        host, _, target_port = to.rpartition(":")
        self._target = (host, int(target_port))
        self._most = most
        self._listener = _listen(port, option)
        self.port: Final[int] = self._listener.getsockname()[1]
        self.address: Final = f"{LOOPBACK}:{self.port}"
        self._lock = threading.Lock()
        self._closed = False
        self._connections: dict[socket.socket, threading.Thread] = {}
        # A byte on this pair ends the accepting thread; closing a listener wakes nobody on macOS.
        self._wake, self._woken = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, name=f"forward-{self.port}", daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Stop listening, end every connection and wait for the threads. May be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._wake.send(b"x")
        self._acceptor.join(_JOIN_TIMEOUT_S)
        with self._lock:
            connections = dict(self._connections)
        for client in connections:
            _shut(client)
        for thread in connections.values():
            thread.join(_JOIN_TIMEOUT_S)
        self._wake.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        with self._listener, self._woken, selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._closed:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._listener in ready and not self._closed:
                    # The client may be gone again by now, and the listener does not block.
                    with contextlib.suppress(OSError):
                        self._begin(self._listener.accept()[0])

    def _begin(self, client: socket.socket) -> None:
        with self._lock:
            if self._closed or len(self._connections) >= self._most:
                client.close()
                return
            thread = threading.Thread(target=self._serve, args=(client,), name=f"forward-{self.port}-client", daemon=True)
            self._connections[client] = thread
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, socket.create_connection(self._target, timeout=_CONNECT_TIMEOUT_S) as target:
                for end in (client, target):
                    end.settimeout(None)  # an idle bootstrap connection is a healthy one; shutdown ends the wait
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                back = threading.Thread(target=_pump, args=(target, client), name=f"forward-{self.port}-back", daemon=True)
                back.start()
                _pump(client, target)
                back.join()
        except OSError:
            return  # the target is down: the client sees its connection closed, and tries again
        finally:
            with self._lock:
                self._connections.pop(client, None)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy until either end is gone, then end both directions, so that the other pump ends as well."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(_CHUNK):
            sink.sendall(chunk)
    _shut(source)
    _shut(sink)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def _listen(port: int, option: str | None) -> socket.socket:
    if port and _answers(port):
        raise _taken(port, option, "it is already in use")
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else the last run's closed connections bar us for a minute
        listener.bind((LOOPBACK, port))
        listener.listen()
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _taken(port, option, "it is already in use" if error.errno == errno.EADDRINUSE else str(error)) from error
    return listener


def _answers(port: int) -> bool:
    # macOS lets us bind 127.0.0.1 beside somebody who listens on all addresses; taking over their port is not ours to do.
    with socket.socket() as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        # A probe of a port of the ephemeral range may be given that very port as its own, and connect to itself.
        return probe.connect_ex((LOOPBACK, port)) == 0 and probe.getsockname() != probe.getpeername()


def _taken(port: int, option: str | None, reason: str) -> StartError:
    advice = f"; choose another with {option}" if option else ""
    return StartError(f"Cannot listen on port {port} of {LOOPBACK}: {reason}{advice}.")
