"""Findings are told a line each, harmless to terminals, without secrets, and the exit code names the worst."""

from __future__ import annotations

import json

import pytest

from heartbeat import logs
from heartbeat.doctor.findings import EXIT_CODES, Finding, as_json, as_text, fail, ok, warn, worst

OK, WARN, FAIL = ok("a", "is well"), warn("b", "is old", "look"), fail("longer c", "is gone", "mend it")


@pytest.mark.parametrize(
    ("findings", "code"),
    [([OK, OK], 0), ([OK, WARN], 2), ([WARN, FAIL, OK], 1), ([FAIL], 1), ([], 0)],
    ids=["ok", "warn", "both", "fail", "none"],
)
def test_the_exit_code_names_the_worst(findings: list[Finding], code: int) -> None:
    assert EXIT_CODES[worst(findings)] == code


def test_a_finding_is_one_line_with_its_fix_and_the_last_line_counts() -> None:
    assert as_text([OK, WARN, FAIL]).splitlines() == [
        "OK    a         is well",
        "WARN  b         is old. Fix: look",
        "FAIL  longer c  is gone. Fix: mend it",
        "1 FAIL, 1 WARN, 1 OK",
    ]


def test_what_others_chose_does_no_harm_to_a_terminal() -> None:
    text = as_text([fail("topic x", "named \x1b[31mred\n\udcff", "type \x07")])
    assert text.count("\n") == 2
    assert "named \\x1b[31mred\\n\\xff. Fix: type \\x07" in text
    assert json.loads(as_json([fail("topic x", "\x1b", "\udcff")]))["findings"][0]["text"] == "\\x1b"


def test_a_secret_is_never_told() -> None:
    logs.secrets.add({"doctors-own-secret"})
    finding = [fail("redis", "refuses doctors-own-secret", "use doctors-own-secret")]
    assert "doctors-own-secret" not in as_text(finding) + as_json(finding)


def test_programs_get_the_level_of_the_whole() -> None:
    told = json.loads(as_json([OK, WARN]))
    assert told["level"] == "WARN"
    assert told["findings"][1] == {"level": "WARN", "check": "b", "text": "is old", "fix": "look"}
