"""A finding, and how findings are told: a line each for people, one object for programs, an exit code for scripts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import msgspec

from heartbeat import logs
from heartbeat.display import visible


class Level(IntEnum):
    """How bad it is, rising."""

    OK = 0
    WARN = 1
    FAIL = 2


EXIT_CODES: Final = {Level.OK: 0, Level.WARN: 2, Level.FAIL: 1}


@dataclass(frozen=True, slots=True)
class Finding:
    """``check`` says what was looked at, ``text`` what was found and what it means, ``fix`` what to type."""

    level: Level
    check: str
    text: str
    fix: str | None = None


def ok(check: str, text: str) -> Finding:
    """Return a finding that asks for nothing."""
    return Finding(Level.OK, check, text)


def warn(check: str, text: str, fix: str) -> Finding:
    """Return a finding that is worth a look."""
    return Finding(Level.WARN, check, text, fix)


def fail(check: str, text: str, fix: str) -> Finding:
    """Return a finding that keeps beats from being seen, or verdicts from being given."""
    return Finding(Level.FAIL, check, text, fix)


def worst(findings: Sequence[Finding]) -> Level:
    """Return the level of the whole."""
    return max((finding.level for finding in findings), default=Level.OK)


def as_text(findings: Sequence[Finding]) -> str:
    """Return a line for each finding, in the order of looking, and a last one with how many there are of each level."""
    width = max((len(finding.check) for finding in findings), default=0)
    lines = [
        f"{finding.level.name:<4}  {finding.check:<{width}}  {clean(finding.text)}{f'. Fix: {clean(finding.fix)}' if finding.fix else ''}"
        for finding in findings
    ]
    counts = ", ".join(f"{sum(finding.level is level for finding in findings)} {level.name}" for level in reversed(Level))
    return "\n".join([*lines, counts]) + "\n"


def as_json(findings: Sequence[Finding]) -> str:
    """Return one JSON object."""
    rows = [
        {
            "level": finding.level.name,
            "check": finding.check,
            "text": clean(finding.text),
            "fix": None if finding.fix is None else clean(finding.fix),
        }
        for finding in findings
    ]
    return msgspec.json.format(msgspec.json.encode({"level": worst(findings).name, "findings": rows}), indent=2).decode() + "\n"


def clean(text: str) -> str:
    """Return text that holds no secret of ours and can do no harm to a terminal: half of what we say was chosen by others."""
    return visible(logs.secrets.clean(text))
