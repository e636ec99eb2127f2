"""One HTTP POST as a channel needs it: bounded in time as a whole and in what is read, and told apart by whether another try is worth it.

httpx bounds each step, not their sum: a server that sends a byte now and then would hold a channel for ever. And it follows proxies,
.netrc and cookies of the environment, of which an alert needs the first only.
"""

from __future__ import annotations

import email.utils
import ipaddress
import logging
import socket
import threading
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

import httpx2

from heartbeat.display import visible
from heartbeat.logs import secrets
from heartbeat.monitor.channels import TransportError

_PASSING: Final = frozenset({408, 425, 429})
_TOO_LARGE: Final = 413
_MOST_READ: Final = 4_096
_MOST_QUOTED: Final = 200
_CONNECTED: Final = (".connect_tcp.complete", ".start_tls.complete")

log = logging.getLogger(__name__)


class Poster:
    """Sends requests to one URL. A connection is not kept: between two alerts any would have gone stale.

    Raises:
        ValueError: the URL is none that can be posted to, or proxy or certificates that the environment names cannot be used.
    """

    def __init__(self, name: str, url: str, timeout_s: float, method: str = "POST") -> None:
        self._method = method
        self._url = _usable(url)
        self._timeout_s = timeout_s
        proxy = proxy_of(self._url)
        if proxy is not None:
            log.info("Channel %s goes through the proxy %s, as the environment says", visible(name), _without_account(proxy))
        try:
            certificates = httpx2.create_ssl_context()  # the system's, or those of SSL_CERT_FILE: where a company adds its own
        except OSError as error:
            raise ValueError(f"the certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be used: {error}") from error
        try:
            self._client = httpx2.Client(
                verify=certificates,
                proxy=proxy,
                trust_env=False,
                follow_redirects=False,
                timeout=timeout_s,
                limits=httpx2.Limits(max_keepalive_connections=0),
                headers={"User-Agent": "redis-heartbeat-sink", "Accept-Encoding": "identity"},
            )
        except (ImportError, httpx2.InvalidURL, ValueError) as error:  # what it says may quote the proxy's password
            raise ValueError(
                "the proxy that the environment names cannot be used: it must be http:// or https://, and name a host"
            ) from error

    def send(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a body. A 2xx is success.

        Raises:
            TransportError: anything else. Redirects and most of 4xx are permanent; what the network or TLS says is not: cables are
                plugged in again, and certificates renewed.
        """
        limit = _Limit(self._timeout_s)
        try:
            with (
                limit,
                self._client.stream(self._method, self._url, content=body, headers=headers, extensions={"trace": limit.trace}) as response,
            ):
                if not response.is_success:
                    raise _refusal(response, _beginning(response))
        except (httpx2.HTTPError, OSError) as error:
            if limit.over:
                raise TransportError(f"no answer within {self._timeout_s:g} s") from error
            raise TransportError(_quoted(str(error) or type(error).__name__)) from error

    def close(self) -> None:
        """Close the client."""
        self._client.close()


class _Limit:
    """Ends a request when its time is over, whatever it hangs in. Only a look-up of a name cannot be ended: nothing is sent after it."""

    def __init__(self, limit_s: float) -> None:
        self._until_s = time.monotonic() + limit_s
        self._timer = threading.Timer(limit_s, self._end)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    @property
    def over(self) -> bool:
        """Tell whether the time is over."""
        return time.monotonic() >= self._until_s

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Be told by httpx of each step of the request."""
        if event.endswith(_CONNECTED):
            with self._lock:
                self._socket = info["return_value"].get_extra_info("socket")
        if self.over and not event.endswith(".failed") and "close" not in event:
            raise httpx2.WriteTimeout("the time was over before the request was sent")

    def _end(self) -> None:
        with self._lock:
            if self._socket is not None:
                try:
                    self._socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    return  # closed, or handed to TLS, whose handshake has a limit as a whole

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._timer.cancel()


def proxy_of(url: httpx2.URL) -> str | None:
    """Return the proxy that the environment names for a URL, as curl would take it.

    Followed, because from inside a plant it is often the only way to Slack; but never to this machine: a receiver on loopback is
    ours, a proxy would look for it on its own machine, and send there what was meant to stay here.
    """
    if _is_loopback(url.host) or urllib.request.proxy_bypass(url.host):
        return None
    proxies = urllib.request.getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    if not found:
        return None
    return found if "://" in found else f"http://{found}"


def _usable(url: str) -> httpx2.URL:
    """Return the URL. What is wrong with it is said without it: it may be a secret."""
    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ValueError(f"the URL cannot be used: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ValueError("the URL cannot be used: it must begin with http:// or https://, and name a host")
    return parts


def retry_after_s(text: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for, in either of its forms (RFC 9110, 10.2.3); None if it says nothing."""
    if not text:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return float(text)
    try:
        then = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds())


def _refusal(response: httpx2.Response, said: str) -> TransportError:
    status = response.status_code
    text = f"HTTP {status}" + (f": {said}" if said else "")
    if status in _PASSING or status >= 500:
        return TransportError(text, retry_after_s=retry_after_s(response.headers.get("Retry-After"), datetime.now(UTC)))
    return TransportError(
        f"{text} (redirects are not followed)" if 300 <= status < 400 else text, permanent=True, too_large=status == _TOO_LARGE
    )


def _beginning(response: httpx2.Response) -> str:
    """Return how the answer begins, for people. A server that refuses need not say why, so nothing is made of an answer that breaks off."""
    found = b""
    try:
        for part in response.iter_raw():
            found += part
            if len(found) >= _MOST_READ:
                break
    except httpx2.HTTPError as error:
        log.debug("The rest of an answer did not come: %s", error)
    return _quoted(found.decode("utf-8", "replace").strip())


def _quoted(text: str) -> str:
    return visible(secrets.clean(text), _MOST_QUOTED)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _without_account(proxy: str) -> str:
    return proxy.rpartition("@")[2].rpartition("//")[2]
