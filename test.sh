#!/usr/bin/env bash
# All checks and all tests: what a change must pass. HEARTBEAT_REQUIRE_REAL=1 makes a missing real part a failure, not a skip.
set -euo pipefail
cd "$(dirname "$0")"
bash scripts/install.sh test
PATH="$PWD/.venv/bin:$PATH"
make check test real
