"""The lock is the truth; the exports are for machines without uv, and must say the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = ("--no-default-groups", "--group", "build")
TEST = ("--group", "dev")


@pytest.mark.parametrize(("export", "groups"), [("requirements.txt", RUN), ("requirements-dev.txt", TEST)])
def test_the_hashed_export_says_what_the_lock_says(export: str, groups: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "uv", "export", "--quiet", "--frozen", *groups]
    options = ["--extra", "demo", "--no-emit-project", "--no-header"]
    fresh = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert (ROOT / export).read_text() == fresh.stdout, f"uv export {' '.join(groups + tuple(options))} -o {export}"


def test_every_requirement_carries_a_hash() -> None:
    for export in ("requirements.txt", "requirements-dev.txt"):
        entries = (ROOT / export).read_text().replace("\\\n", " ").splitlines()
        pinned = [entry for entry in entries if entry and not entry.startswith((" ", "#"))]
        assert pinned
        assert all("--hash=sha256:" in entry for entry in pinned)
