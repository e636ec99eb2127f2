#!/usr/bin/env bash
# Runs a job and sends a beat when it starts and every 30 s while it runs, so that a hung-up machine or a killed job is noticed.
# Usage: batch-job-example.sh COMMAND [ARGUMENT...]. Ends with the job's exit code; the job neither waits for a
# beat nor stops for one that cannot be sent.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

: "${BEAT_EVERY_S:=30}"
[ $# -gt 0 ] || fail 2 "usage: $(basename "$0") COMMAND [ARGUMENT...]"

beat() { # beat WHAT
  send_beat "batch-$1-$(date)" || echo "$(basename "$0"): no beat could be sent to $TOPIC at $KAFKA_BOOTSTRAP; the job goes on" >&2
}

beats() { # while this script lives
  while sleep "$BEAT_EVERY_S" && kill -0 $$ 2>/dev/null; do beat running; done
}

"$@" <&0 &
job=$!
trap 'kill -TERM "$job" 2>/dev/null || true' TERM INT
beating=''
if [ -n "$console_producer$heartbeat" ]; then
  beat start & # not ended with the job: one that is shorter than a producer's start has its beat all the same
  set -m       # a group of their own, so that they end at once, with whatever they wait for
  beats &
  beating=$!
  set +m
else
  echo "$(basename "$0"): no kafka-console-producer here, so the job runs without beats: install Kafka's tools, $lack" >&2
fi
code=0
wait "$job" || code=$?
# A signal to us ends `wait` early; the job has been told, and its own end is what counts.
while kill -0 "$job" 2>/dev/null; do
  code=0
  wait "$job" || code=$?
done
[ -z "$beating" ] || kill -TERM -- "-$beating" 2>/dev/null || true
exit "$code"
