#!/usr/bin/env bash
# Puts the locked versions into .venv: `scripts/install.sh run` what the product needs, `scripts/install.sh test` the tests' tools
# as well. Says nothing and takes no time where that is done already. Exit 2: this machine lacks Python 3.11, or a part of it.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:?usage: scripts/install.sh run|test}
requirements=requirements.txt
[ "$what" = test ] && requirements=requirements-dev.txt

fail() {
  echo "$0: $1" >&2
  exit 2
}

find_python() {
  local candidate
  # A .venv that is there is kept, whatever it was made from: replacing its Python would empty it under somebody's feet.
  for candidate in ${PYTHON:-.venv/bin/python python3 python3.13 python3.12 python3.11}; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "Python 3.11 or newer is needed: apt install python3, or brew install python (PYTHON=... names another one)"
}

# What .venv was made from; another answer means that it has to be made again.
fingerprint() {
  cat pyproject.toml "$requirements" | cksum
  "$python" -c 'import sys; print(sys.version)'
  pwd
}

python=$(find_python)
stamp=.venv/installed-$what
if [ -x .venv/bin/python ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ]; then
  exit 0
fi

echo "Installing the locked versions into .venv ..." >&2
if command -v uv >/dev/null; then
  groups=(--no-default-groups --inexact)
  [ "$what" = test ] && groups=(--group dev)
  UV_PYTHON_DOWNLOADS=never uv sync --quiet --frozen --compile-bytecode --extra demo --python "$python" "${groups[@]}" || fail "uv could not install the locked versions; see above"
else
  "$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "this Python has no venv or pip: apt install python3-venv (or install uv)"
  if [ -x .venv/bin/python ]; then # made by uv once, which puts no pip into it
    [ -x .venv/bin/pip ] || .venv/bin/python -m ensurepip --upgrade >/dev/null
  else
    "$python" -m venv .venv || fail "could not make .venv: apt install python3-venv"
  fi
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$requirements" &&
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . ||
    fail "pip could not install the locked versions; see above"
fi
fingerprint >"$stamp"
