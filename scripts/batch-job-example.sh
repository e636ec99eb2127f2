#!/usr/bin/env bash
# Runs a job and sends a beat when it starts and every 30 s while it runs, so that a hung-up machine or a killed job is noticed.
# Usage: batch-job-example.sh COMMAND [ARGUMENT...]. Ends with the job's exit code; a beat that cannot be sent never stops the job.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

: "${BEAT_EVERY_S:=30}"
[ $# -gt 0 ] || fail 2 "usage: $(basename "$0") COMMAND [ARGUMENT...]"
need_producer

beat() { # beat WHAT
  send_beat "batch-$1-$(date)" || echo "$(basename "$0"): no beat could be sent to $TOPIC at $KAFKA_BOOTSTRAP; the job goes on" >&2
}

beats() { # while this script lives
  while sleep "$BEAT_EVERY_S" && kill -0 $$ 2>/dev/null; do beat running; done
}

beat start
"$@" <&0 &
job=$!
trap 'kill -TERM "$job" 2>/dev/null || true' TERM INT
set -m # a group of their own, so that they end at once, with whatever they wait for
beats &
beating=$!
set +m
code=0
wait "$job" || code=$?
# A signal to us ends `wait` early; the job has been told, and its own end is what counts.
while kill -0 "$job" 2>/dev/null; do
  code=0
  wait "$job" || code=$?
done
kill -TERM -- "-$beating" 2>/dev/null || true
exit "$code"
