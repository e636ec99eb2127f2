"""Ask the worker of this container whether it is healthy: exit 0 if ``GET /health`` answers 200, else 1 and the reason.

It stands apart from the package, and imports as little as it can, because it runs every few seconds.
"""

from __future__ import annotations

import os
import socket
import sys
from urllib.parse import urlsplit

ANYWHERE = {"", "0.0.0.0", "::"}


def main() -> int:
    """Return the exit code."""
    listener = os.environ.get("CONNECT_LISTENERS", "http://:8083").split(",")[0].strip()
    url = urlsplit(listener)
    host = "127.0.0.1" if (url.hostname or "") in ANYWHERE else str(url.hostname)
    try:
        with socket.create_connection((host, url.port or 8083), timeout=4) as connection:
            connection.sendall(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
            with connection.makefile("rb") as reply:
                status = reply.readline(1000).decode("latin-1").strip()
                body = reply.read(2000).partition(b"\r\n\r\n")[2].decode("utf-8", "replace")
    except OSError as error:
        sys.stdout.write(f"{host}:{url.port or 8083}: {error}\n")
        return 1
    sys.stdout.write(f"{status} {body}\n")
    return 0 if status.split()[1:2] == ["200"] else 1


sys.exit(main())
