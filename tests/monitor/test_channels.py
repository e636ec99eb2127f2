from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.server
import json
import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.real.programs import free_port

from heartbeat.monitor import alert
from heartbeat.monitor.channels import LONGEST_SEND_S, Channel, TransportError, open_channel
from heartbeat.monitor.channels.post import proxy_of, retry_after_s
from heartbeat.monitor.channels.slack import MOST_CHARACTERS, payload
from heartbeat.monitor.channels.webhook import Webhook
from heartbeat.monitor.flips import Flip
from heartbeat.monitor.messages import Message

MESSAGE = Message("i1:DOWN", "ops", "DOWN pump-7", (Flip("i1:DOWN", "i1", "pump-7", "pumps", "UP", "DOWN", "silence", 1_000),))
SHORT_S = 0.5
"""A limit for what hangs on purpose."""
PATIENCE_S = 30.0
"""Far more than anything bounded takes, far less than for ever."""


@dataclass(frozen=True, slots=True)
class Settings:
    name: str = "ops"
    type: str = "webhook"
    url: str = ""
    secret: str = ""
    timeout_s: float = 5.0


@dataclass(slots=True)
class Receiver:
    """A real HTTP server on loopback. It answers what a test sets, and keeps what it was sent."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    answer: bytes = b"ok"
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serving() as receiver:
        yield receiver


@contextlib.contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    receiver = Receiver()

    class Answers(http.server.BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.got.append((self.path, {name.lower(): text for name, text in self.headers.items()}, body))
            self.send_response(receiver.status)
            for name, text in receiver.headers.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(receiver.answer)))
            self.end_headers()
            self.wfile.write(receiver.answer)

        def do_CONNECT(self) -> None:
            receiver.got.append((self.path, {}, b""))
            self.send_error(502)

        def log_message(self, format: str, *args: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that refuses our certificate
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        receiver.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}/hook"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def raw(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that treats its first connection as ``talk`` says; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(PATIENCE_S)

    def serve() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(PATIENCE_S)
                talk(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        listener.close()
        thread.join(PATIENCE_S)


def refusal(channel: Channel) -> TransportError:
    with pytest.raises(TransportError) as caught:
        channel.send(MESSAGE)
    channel.close()
    return caught.value


def webhook(url: str, timeout_s: float = 5.0) -> Channel:
    return open_channel(Settings(url=url, timeout_s=timeout_s))


def test_a_webhook_gets_the_json_under_its_key(receiver: Receiver) -> None:
    webhook(receiver.url).send(MESSAGE)
    [(path, headers, body)] = receiver.got
    assert (path, headers["content-type"], headers["idempotency-key"]) == ("/hook", "application/json", "i1:DOWN")
    assert json.loads(body)["flips"][0]["source"] == "pump-7"
    assert "x-heartbeat-signature" not in headers
    assert abs(int(headers["x-heartbeat-timestamp"]) - time.time()) < PATIENCE_S


def test_a_receiver_who_knows_the_secret_can_verify_body_and_time(receiver: Receiver) -> None:
    Webhook("ops", receiver.url, "s3cret-of-test", 5.0, lambda: 1_755_093_792.9).send(MESSAGE)
    [(_, headers, body)] = receiver.got
    assert headers["x-heartbeat-timestamp"] == "1755093792"
    signed = b"1755093792." + body
    assert headers["x-heartbeat-signature"] == "sha256=" + hmac.new(b"s3cret-of-test", signed, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_every_2xx_is_success(receiver: Receiver, status: int) -> None:
    receiver.status, receiver.answer = status, b""
    webhook(receiver.url).send(MESSAGE)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_worth_another_try(receiver: Receiver, status: int) -> None:
    receiver.status = status
    error = refusal(webhook(receiver.url))
    assert (error.permanent, str(error)) == (False, f"HTTP {status}: ok")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 422])
def test_what_will_never_succeed_is_permanent(receiver: Receiver, status: int) -> None:
    receiver.status, receiver.answer = status, b"invalid_payload\n\x1b[31m"
    error = refusal(webhook(receiver.url))
    assert error.too_large == (status == 413)
    assert (error.permanent, str(error)) == (True, f"HTTP {status}: invalid_payload\\n\\x1b[31m")


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.status, receiver.headers, receiver.answer = 307, {"Location": receiver.url + "/elsewhere"}, b""
    error = refusal(webhook(receiver.url))
    assert (error.permanent, str(error)) == (True, "HTTP 307 (redirects are not followed)")
    assert len(receiver.got) == 1


def test_the_wish_to_be_left_alone_is_passed_on(receiver: Receiver) -> None:
    receiver.status, receiver.headers = 429, {"Retry-After": "17"}
    assert refusal(webhook(receiver.url)).retry_after_s == 17.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("120", 120.0),
        ("soon", None),
        ("-5", None),
        ("\u0661", None),
        ("Wed, 13 Aug 2025 14:03:42 GMT", 30.0),
        ("Wed, 13 Aug 2025 14:00:00 GMT", 0.0),
        ("Wednesday, 13-Aug-25 14:03:42 GMT", 30.0),
        ("Wed, 99 Aug 2025 14:03:42 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, datetime(2025, 8, 13, 14, 3, 12, tzinfo=UTC)) == seconds


def test_nobody_listening_is_worth_another_try() -> None:
    error = refusal(webhook(f"http://127.0.0.1:{free_port()}/"))
    assert not error.permanent
    assert "refused" in str(error)


@pytest.mark.parametrize("url", ["", "nowhere", "ftp://127.0.0.1/", "http://", "http://[::1/", "http://a:b:c/"])
def test_a_url_that_is_none_is_refused_at_once_and_not_quoted(url: str) -> None:
    with pytest.raises(ValueError, match=r"^the URL cannot be used: ") as caught:
        open_channel(Settings(type="slack", url=url + "#secret"))
    assert "secret" not in str(caught.value)


def hang(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def read_once(connection: socket.socket) -> None:
    connection.recv(65_536)


def trickle(first: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(first)
        until_s = time.monotonic() + PATIENCE_S
        with contextlib.suppress(OSError):
            while time.monotonic() < until_s:
                connection.sendall(b"x")
                time.sleep(0.05)

    return talk


@pytest.mark.parametrize(
    "talk", [hang, trickle(b""), trickle(b"HTTP/1.1 200 OK\r\nX-Long: ")], ids=["silent", "garbage by the byte", "header by the byte"]
)
def test_a_server_that_never_finishes_its_answer_is_left(talk: Callable[[socket.socket], None]) -> None:
    begun_s = time.monotonic()
    with raw(talk) as url:
        error = refusal(webhook(url, SHORT_S))
        took_s = time.monotonic() - begun_s
    assert not error.permanent
    assert took_s < PATIENCE_S / 2


def test_an_error_whose_body_never_ends_is_the_error_that_it_is() -> None:
    begun_s = time.monotonic()
    with raw(trickle(b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 100000000\r\n\r\n")) as url:
        error = refusal(webhook(url, SHORT_S))
    assert time.monotonic() - begun_s < PATIENCE_S / 2
    assert (str(error)[:9], error.permanent, error.retry_after_s) == ("HTTP 503:", False, 3.0)


def test_a_success_does_not_wait_for_its_body() -> None:
    with raw(trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")) as url:
        webhook(url).send(MESSAGE)


def test_of_a_large_answer_only_the_beginning_is_read(receiver: Receiver) -> None:
    receiver.status, receiver.answer = 500, b"x" * 5_000_000
    assert len(str(refusal(webhook(receiver.url)))) < 300


def test_a_server_that_breaks_off_is_worth_another_try() -> None:
    with raw(read_once) as url:
        assert not refusal(webhook(url)).permanent


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed one for 127.0.0.1, and its key, in one file."""
    directory: Path = tmp_path_factory.mktemp("tls")
    both = directory / "both.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=here",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    files = ["-keyout", str(directory / "key.pem"), "-out", str(directory / "certificate.pem")]
    subprocess.run([*made, *files], check=True, capture_output=True, timeout=60)
    both.write_text((directory / "certificate.pem").read_text() + (directory / "key.pem").read_text())
    return both


@pytest.fixture
def self_signed(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_certificate_that_nobody_vouches_for_is_refused_but_may_be_renewed(self_signed: ssl.SSLContext) -> None:
    with serving(self_signed) as receiver:
        error = refusal(webhook(receiver.url))
        assert receiver.got == []
    assert not error.permanent
    assert "certificate verify failed" in str(error).lower()


def test_a_certificate_of_ones_own_is_named_by_the_environment(
    self_signed: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(self_signed) as receiver:
        webhook(receiver.url).send(MESSAGE)
        assert len(receiver.got) == 1
        assert not refusal(webhook(receiver.url.replace("127.0.0.1", "localhost"))).permanent, "it is another name"


def test_a_server_that_speaks_no_tls_is_worth_another_try(receiver: Receiver) -> None:
    assert not refusal(webhook(receiver.url.replace("http:", "https:"))).permanent


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """The environment names a proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with serving() as proxy:
        address = proxy.url.removesuffix("/hook").replace("//", "//user:word@")
        monkeypatch.setenv("http_proxy", address)
        monkeypatch.setenv("https_proxy", address)
        yield proxy


def test_what_is_for_this_machine_never_goes_to_a_proxy(proxied: Receiver, receiver: Receiver) -> None:
    webhook(receiver.url).send(MESSAGE)
    webhook(receiver.url.replace("127.0.0.1", "localhost")).send(MESSAGE)
    assert (len(receiver.got), proxied.got) == (2, [])
    assert proxy_of(httpx2.URL("http://[::1]:9000/hook")) is None


def test_what_is_for_elsewhere_goes_where_the_environment_says_and_the_log_tells(
    proxied: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "heartbeat.monitor")
    webhook("http://hooks.invalid/x").send(MESSAGE)
    assert proxied.got[0][0] == "http://hooks.invalid/x"
    assert not refusal(webhook("https://hooks.invalid/x")).permanent
    assert proxied.got[1][0] == "hooks.invalid:443"
    assert "Channel ops goes through the proxy 127.0.0.1:" in caplog.text
    assert "word" not in caplog.text


def test_no_proxy_is_obeyed(proxied: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "hooks.invalid")
    assert proxy_of(httpx2.URL("https://hooks.invalid/x")) is None
    assert proxy_of(httpx2.URL("https://other.invalid/x")) is not None


def test_netrc_lends_nobody_its_passwords(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    webhook(receiver.url).send(MESSAGE)
    assert "authorization" not in receiver.got[0][1]


def slack(url: str) -> Channel:
    return open_channel(Settings(type="slack", url=url))


def test_slack_gets_text_that_nothing_in_a_name_can_format(receiver: Receiver) -> None:
    text = "DOWN <!channel> & *bold* `code` <http://evil|x>"
    slack(receiver.url).send(Message("k", "ops", text))
    body = json.loads(receiver.got[0][2])
    escaped = "DOWN &lt;!channel&gt; &amp; *bold* `code` &lt;http://evil|x&gt;"
    assert body["text"] == escaped
    assert body["mrkdwn"] is False
    assert body["blocks"] == [{"type": "section", "text": {"type": "plain_text", "text": escaped, "emoji": False}}]


def test_slacks_limits_are_kept_and_no_entity_is_cut() -> None:
    body = payload("x" * 2_998 + "&" * 100_000)
    texts = [block["text"]["text"] for block in body["blocks"]]
    assert len(texts) == 50
    assert max(map(len, texts)) <= MOST_CHARACTERS
    assert len(body["text"]) <= MOST_CHARACTERS
    assert set("".join(texts[1:]).split(";")) == {"&amp", ""}
    assert payload("")["blocks"][0]["text"]["text"] == " "


@pytest.mark.parametrize(
    ("status", "said"), [(400, b"invalid_payload"), (403, b"action_prohibited"), (404, b"no_service"), (410, b"channel_is_archived")]
)
def test_a_hook_that_slack_has_revoked_is_permanent(receiver: Receiver, status: int, said: bytes) -> None:
    receiver.status, receiver.answer = status, said
    error = refusal(slack(receiver.url))
    assert (error.permanent, str(error)) == (True, f"HTTP {status}: {said.decode()}")


def test_slack_may_ask_for_patience(receiver: Receiver) -> None:
    receiver.status, receiver.headers, receiver.answer = 429, {"Retry-After": "30"}, b"rate_limited"
    error = refusal(slack(receiver.url))
    assert (error.permanent, error.retry_after_s) == (False, 30.0)


def test_what_a_server_echoes_of_a_secret_is_not_shown(receiver: Receiver) -> None:
    receiver.status, receiver.answer = 500, b"no: a-secret-of-mine"
    channel = open_channel(Settings(url=receiver.url, secret="a-secret-of-mine"))
    assert "a-secret" not in str(refusal(channel))


def test_the_log_gets_one_line_whatever_the_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    channel = open_channel(Settings(type="log"))
    channel.send(Message("k", "ops", "2 DOWN\nDOWN: a, b", MESSAGE.flips))
    channel.send(Message("k", "ops", "all is well"))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "2 DOWN | DOWN: a, b"),
        ("INFO", "all is well"),
    ]


def test_there_are_three_types_of_channel() -> None:
    with pytest.raises(ValueError, match="pigeon is no type of channel"):
        open_channel(Settings(type="pigeon"))


def test_a_sending_ends_before_the_lease_does_whatever_the_settings_say() -> None:
    from heartbeat.beats.outbox import LEASE_MS

    assert LONGEST_SEND_S * 1000 < LEASE_MS
    channel = open_channel(Settings(url="http://127.0.0.1:1/", timeout_s=60.0))
    assert channel._poster._timeout_s == LONGEST_SEND_S  # type: ignore[attr-defined]


def test_a_person_can_try_a_channel(receiver: Receiver) -> None:
    done = alert.test("ops", webhook(receiver.url), 5)
    assert (done.status, done.attempt, done.error) == ("delivered", 1, "")
    assert json.loads(receiver.got[0][2])["text"].startswith("TEST of channel ops: nothing has happened.")
    receiver.status = 404
    assert alert.test("ops", webhook(receiver.url), 5).line().endswith(" ms, not tried again: HTTP 404: ok")
    receiver.status = 503
    assert alert.test("ops", webhook(receiver.url), 5).line().endswith(" ms: HTTP 503: ok")
