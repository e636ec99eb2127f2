#!/usr/bin/env bash
# Sends a beat every few seconds through one producer, and ends when that producer ends: `pkill -f kafka-console-producer` stops
# the beats. BEAT_EVERY_S=5.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

: "${BEAT_EVERY_S:=5}"
need_producer

folder=$(mktemp -d)
producer=
end() {
  [ -z "$producer" ] || kill "$producer" 2>/dev/null || true
  rm -rf "$folder"
}
trap end EXIT
trap 'exit 130' INT HUP
trap 'exit 143' TERM
mkfifo "$folder/beats"

# pkill -f looks at whole command lines. Java's gets the words by the client's id; without Java, a loop has them as its name.
if [ -n "$console_producer" ]; then
  "$console_producer" --topic "$TOPIC" --bootstrap-server "$KAFKA_BOOTSTRAP" --producer-property client.id=kafka-console-producer \
    --producer-property linger.ms=0 <"$folder/beats" >/dev/null &
else
  # shellcheck disable=SC2016  # expanded by the loop
  bash -c 'while IFS= read -r beat; do "$@" "$beat" >/dev/null || true; done' kafka-console-producer \
    "$heartbeat" send --bootstrap-server "$KAFKA_BOOTSTRAP" --topic "$TOPIC" -- <"$folder/beats" &
fi
producer=$!
exec 3>"$folder/beats"
trap '' PIPE # a producer that has ended is noticed below

echo "A beat to $TOPIC at $KAFKA_BOOTSTRAP every $BEAT_EVERY_S s. Ctrl-C stops it, and so does: pkill -f kafka-console-producer"
next_s=$SECONDS
while kill -0 "$producer" 2>/dev/null; do
  if [ "$SECONDS" -ge "$next_s" ]; then
    beat="test-$(date)"
    if echo "$beat" 2>/dev/null >&3; then echo "Beat $beat"; fi # not "sent": the pipe has it, and whether Kafka took it is not known here
    next_s=$((SECONDS + BEAT_EVERY_S))
  fi
  sleep 0.5
done
code=0
wait "$producer" 2>/dev/null || code=$?
producer=
if [ "$code" -gt 128 ]; then
  echo "The producer was stopped: no more beats."
else
  fail "$((code ? code : 1))" "the producer has ended by itself (exit code $code): no more beats"
fi
