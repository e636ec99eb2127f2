"""Log lines are those of a Connect worker, and none of them tells a secret."""

from __future__ import annotations

import itertools
import json
import logging
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat import logs
from heartbeat.errors import BadRequest, ConnectError, DataError, RetriableError
from heartbeat.logs import ConnectFormatter, Every, Redactor, format_trace

LINE = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\] ")


def line(level: int, message: str, *args: object, error: BaseException | None = None, name: str = "com.example.Task") -> str:
    exc_info = (type(error), error, error.__traceback__) if error is not None else None
    return ConnectFormatter().format(logging.LogRecord(name, level, __file__, 1, message, args, exc_info))


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except type(error) as caught:
        return caught


def test_a_line_is_stamp_level_message_and_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    record = logging.LogRecord("org.apache.kafka.connect.Worker", logging.INFO, __file__, 1, "Hello %s", ("there",), None)
    record.created, record.msecs = 1755138687.4389, 438.9
    monkeypatch.setattr(logs.time, "localtime", logs.time.gmtime)  # type: ignore[attr-defined]
    assert ConnectFormatter().format(record) == "[2025-08-14 02:31:27,438] INFO Hello there (org.apache.kafka.connect.Worker)"


def test_milliseconds_have_three_digits_and_never_four() -> None:
    for msecs, shown in ((0.0, ",000]"), (7.2, ",007]"), (999.99, ",999]")):
        record = logging.LogRecord("x", logging.INFO, __file__, 1, "m", (), None)
        record.msecs = msecs
        assert shown in ConnectFormatter().format(record)


@pytest.mark.parametrize(
    ("level", "shown"),
    [(logging.DEBUG, "DEBUG"), (logging.INFO, "INFO"), (logging.WARNING, "WARN"), (logging.ERROR, "ERROR")],
)
def test_levels_have_log4js_names(level: int, shown: str) -> None:
    text = line(level, "m")
    assert LINE.sub("", text) == f"{shown} m (com.example.Task)"


def test_an_error_brings_its_trace_on_the_lines_below() -> None:
    text = line(logging.ERROR, "It broke", error=raised(BadRequest("no")))
    first, second, *rest = text.splitlines()
    assert first.endswith("ERROR It broke (com.example.Task)")
    assert second == "org.apache.kafka.connect.runtime.rest.errors.BadRequestException: no"
    assert any("test_logs.py" in row for row in rest)


def test_a_trace_begins_with_connects_class_names_and_tells_the_causes() -> None:
    inner = raised(ValueError("bad bytes"))
    middle = raised(DataError("Converting byte[] failed"), inner)
    outer = raised(ConnectError("Tolerance exceeded in error handler"), middle)
    heads = [row for row in format_trace(outer).splitlines() if not row.startswith(" ")]
    assert heads == [
        "org.apache.kafka.connect.errors.ConnectException: Tolerance exceeded in error handler",
        "Caused by: org.apache.kafka.connect.errors.DataException: Converting byte[] failed",
        "Caused by: ValueError: bad bytes",
    ]


def test_a_trace_names_foreign_errors_in_full_and_those_without_a_message_without_a_colon() -> None:
    assert format_trace(raised(subprocess.TimeoutExpired("x", 1))).startswith("subprocess.TimeoutExpired: Command 'x'")
    assert format_trace(raised(KeyboardInterrupt())).splitlines()[0] == "KeyboardInterrupt"


def test_a_trace_follows_the_context_of_an_error_unless_it_was_suppressed() -> None:
    def fail(*, suppress: bool) -> BaseException:
        try:
            try:
                raise ValueError("first")
            except ValueError as error:
                if suppress:
                    raise TypeError("second") from None
                raise TypeError("second") from error
        except TypeError as error:
            return error

    assert "Caused by: ValueError: first" in format_trace(fail(suppress=False))
    assert "first" not in format_trace(fail(suppress=True)).replace('raise ValueError("first")', "")


def test_a_trace_of_errors_that_cause_each_other_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert format_trace(one).count("Caused by:") == 1


def test_a_retriable_error_has_connects_name() -> None:
    assert format_trace(raised(RetriableError("later"))).startswith("org.apache.kafka.connect.errors.RetriableException: later\n")


def test_secrets_are_hidden_in_messages_arguments_and_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "secrets", Redactor())
    logs.secrets.add(["hunter2"])
    text = line(logging.ERROR, "hunter2 and %s", "xhunter2x", error=raised(ConnectError("AUTH hunter2"), raised(OSError("hunter2"))))
    assert "hunter2" not in text
    assert text.count("[hidden]") >= 4


def test_a_secret_that_contains_another_goes_as_a_whole() -> None:
    redactor = Redactor()
    redactor.add(["pass"])
    redactor.add(["password1", "word1"])
    assert redactor.clean("password1 pass word1") == "[hidden] [hidden] [hidden]"


def test_secrets_once_known_stay_known() -> None:
    redactor = Redactor()
    redactor.add(["first-secret"])
    redactor.add(["second-secret"])
    assert redactor.clean("first-secret") == "[hidden]"


def test_a_very_short_secret_is_hidden_where_it_stands_alone_and_leaves_the_log_readable() -> None:
    redactor = Redactor()
    redactor.add(["a", "ab", ""])
    assert redactor.clean("a cab, 'ab'") == "[hidden] cab, '[hidden]'"


def test_a_password_that_is_an_everyday_word_hides_no_level_and_no_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "secrets", Redactor())
    logs.secrets.add(["INFO", "heartbeat"])
    line = ConnectFormatter().format(logging.LogRecord("heartbeat.x", logging.INFO, "", 0, "heartbeat beats", None, None))
    assert line.endswith("INFO [hidden] beats (heartbeat.x)")


@given(st.lists(st.text(min_size=3, alphabet="abc"), min_size=1), st.text(alphabet="abc"))
def test_no_secret_of_any_kind_survives_cleaning(secrets: list[str], around: str) -> None:
    redactor = Redactor()
    redactor.add(secrets)
    assert not any(secret in redactor.clean(around + secrets[0] + around) for secret in secrets)


def test_every_lets_something_happen_once_an_interval() -> None:
    every = Every(60.0)
    assert [every.due(now) for now in (1000.0, 1000.0, 1059.9, 1060.0, 1119.9, 1500.0)] == [True, False, False, True, False, True]


@given(st.lists(st.floats(0, 1e6)))
def test_every_never_happens_twice_within_its_interval(times: list[float]) -> None:
    every = Every(10.0)
    happened = [now for now in sorted(times) if every.due(now)]
    assert all(later - earlier >= 9.999999 for earlier, later in itertools.pairwise(happened))


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("INFO", {"info", "warn", "error"}),
        ("warn", {"warn", "error"}),
        ("WARNING", {"warn", "error"}),
        ("DEBUG", {"debug", "info", "warn", "error"}),
        ("TRACE", {"debug", "info", "warn", "error"}),
        ("ALL", {"debug", "info", "warn", "error"}),
        (" error ", {"error"}),
        ("OFF", set()),
        ("nonsense", {"info", "warn", "error"}),
    ],
)
def test_the_level_is_a_log4j_name_and_lines_go_to_standard_output(level: str, shown: set[str]) -> None:
    program = """
import logging, sys
from heartbeat import logs
logs.set_up(sys.argv[1])
log = logging.getLogger("x")
log.debug("debug"); log.info("info"); log.warning("warn"); log.error("error")
logging.getLogger("uvicorn.access").info("never")
"""
    done = subprocess.run([sys.executable, "-c", program, level], capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
    assert {row.split()[3] for row in done.stdout.splitlines()} == shown


@pytest.mark.parametrize("secret", ['pa"ss\\word', "line\nbreak", "zo\u00ebs'secret"])
def test_a_secret_is_hidden_however_it_was_quoted(secret: str) -> None:
    redactor = Redactor()
    redactor.add([secret])
    for shown in (secret, repr(secret), json.dumps(secret), json.dumps(secret, ensure_ascii=False)):
        assert redactor.clean(f"<{shown}>").strip("<>\"'") == "[hidden]"
