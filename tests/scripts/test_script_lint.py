"""What a machine can say about our shell scripts without running them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .stage import ROOT

SCRIPTS = sorted([ROOT / "run.sh", ROOT / "test.sh", ROOT / ".ci" / "run", *(ROOT / "scripts").glob("*.sh")])
LIBRARY = ROOT / "scripts" / "lib.sh"


def name(script: Path) -> str:
    return script.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    if shellcheck is None:
        if os.environ.get("HEARTBEAT_REQUIRE_REAL") == "1":
            pytest.fail("shellcheck is missing: apt install shellcheck")
        pytest.skip("shellcheck is missing: apt install shellcheck")
    done = subprocess.run([shellcheck, name(script)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script != LIBRARY], ids=name)
def test_a_script_can_be_run_and_stops_at_its_first_failure(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert "\nset -euo pipefail\n" in script.read_text()


def test_the_original_connector_file_is_what_embedded_mode_and_the_image_package() -> None:
    """Byte for byte the original's, which writes it with two spaces and no comment."""
    text = (ROOT / "config" / "redis-heartbeat-sink.json").read_text()
    assert text.startswith(
        '{\n  "name": "redis-heartbeat-sink",\n  "config": {\n    "connector.class": "com.example.RedisHeartbeatSinkConnector",\n'
    )
    assert '"redis.ttl": "60"' in text
