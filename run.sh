#!/usr/bin/env bash
# The main job in one command: broker, Redis, connector and a producer on this machine, installed first if need be.
#   ./run.sh [--embedded] [-d] [options of `heartbeat demo`]     -d: in the background; its output goes to .cache/demo.log
#   ./run.sh down                                               stop it
set -euo pipefail
cd "$(dirname "$0")"

detach=no
options=()
verb=up
for argument in "$@"; do
  case $argument in
    down) verb=down ;;
    -d | --detach) detach=yes ;;
    --embedded) ;; # what there is; the Docker stack comes with the next release
    -h | --help)
      sed -n '2,4s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    *) options+=("$argument") ;;
  esac
done

if [ "$verb" = down ]; then
  [ -x .venv/bin/heartbeat ] || { echo "Nothing has been installed here, so nothing is running."; exit 0; }
  exec .venv/bin/heartbeat demo --stop
fi

bash scripts/install.sh run

if [ "$detach" = no ]; then
  echo "Embedded mode: everything runs in this terminal, on this machine only. Ctrl-C stops it and leaves nothing behind."
  exec .venv/bin/heartbeat demo ${options[@]+"${options[@]}"}
fi

mkdir -p .cache
log=.cache/demo.log
nohup .venv/bin/heartbeat demo ${options[@]+"${options[@]}"} >"$log" 2>&1 </dev/null &
demo=$!
for _ in $(seq 150); do
  if grep -q "OK: Heartbeat" "$log"; then
    sed -n '/^Running on/,/^$/p;/^Try/,/^$/p' "$log"
    echo "Running in the background (pid $demo). Follow it: tail -f $log. Stop it: ./run.sh down"
    exit 0
  fi
  kill -0 "$demo" 2>/dev/null || { tail -n 3 "$log" >&2; exit 3; }
  sleep 0.2
done
case " ${options[*]-} " in
  *" --no-producer "*) echo "Running in the background (pid $demo), no beats are sent. Stop it: ./run.sh down" ;;
  *)
    echo "No beat reached Redis in 30 s; see $log. Stop it: ./run.sh down" >&2
    exit 3
    ;;
esac
