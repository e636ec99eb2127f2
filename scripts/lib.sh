# shellcheck shell=bash
# shellcheck disable=SC2034  # what is set here is for the scripts that source this file
# Where Kafka, Redis and Connect are, and which programs can speak to them. The scripts beside this file run in three places: inside
# the compose stack's test-runner (mounted at /scripts), on a host beside that stack, and beside embedded mode.
# The environment wins: CONNECT_URL, KAFKA_BOOTSTRAP, REDIS_HOST, REDIS_PORT, REDIS_DB, REDIS_KEY, TOPIC, HEARTBEAT (our command).

fail() { # fail CODE MESSAGE: end with one line
  echo "$(basename "$0"): $2" >&2
  exit "$1"
}

bounded() { # bounded SECONDS COMMAND...: macOS has perl, but no timeout
  local limit_s=$1
  shift
  if command -v timeout >/dev/null; then
    timeout --foreground -k 2 "$limit_s" "$@"
  else
    perl -e 'alarm shift; exec @ARGV or exit 127' "$limit_s" "$@"
  fi
}

first_of() { # first_of NAME...: the first of these commands that exists
  local name
  for name in "$@"; do
    if [ -n "$name" ] && command -v "$name"; then return; fi
  done
  return 1
}

embedded_state() { # what the embedded mode that was started last says about itself (embedded/state.py), one line of JSON
  local file
  # shellcheck disable=SC2012  # the newest first; the names are our own
  ls -t "${TMPDIR:-/tmp}/redis-heartbeat-sink-$(id -u)"-*.json 2>/dev/null | while IFS= read -r file; do
    if [ -O "$file" ] && kill -0 "$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' "$file")" 2>/dev/null; then
      cat "$file"
      break
    fi
  done || true
}

embedded() { # embedded FIELD DEFAULT: where embedded mode runs, that field of its state
  local value
  value=$(printf '%s\n' "$embedded_state" | sed -n 's/.*"'"$1"'":"\{0,1\}\([^",}]*\).*/\1/p')
  echo "${value:-$2}"
}

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
embedded_state=$(embedded_state)
if [ "$scripts" = /scripts ]; then
  : "${CONNECT_URL:=http://kafka-connect:8083}" "${KAFKA_BOOTSTRAP:=kafka:29092}" "${REDIS_HOST:=redis}" "${REDIS_PORT:=6379}"
else
  # The variables by which docker-compose.yml is told other ports.
  : "${CONNECT_URL:=$(embedded rest "http://127.0.0.1:${HEARTBEAT_REST_PORT:-8083}")}"
  : "${KAFKA_BOOTSTRAP:=$(embedded kafka "127.0.0.1:${HEARTBEAT_KAFKA_PORT:-9092}")}"
  : "${REDIS_HOST:=$(embedded redis_host 127.0.0.1)}" "${REDIS_PORT:=$(embedded redis_port "${HEARTBEAT_REDIS_PORT:-6379}")}"
fi
: "${REDIS_DB:=0}" "${REDIS_KEY:=heartbeat}" "${TOPIC:=heartbeat-topic}"
readonly lack="or use the compose stack's: docker compose exec test-runner /scripts/${0##*/}; ./run.sh --embedded installs the heartbeat command"

heartbeat=$(first_of "${HEARTBEAT:-}" "${scripts%/*}/.venv/bin/heartbeat" heartbeat || true)
redis_cli=$(first_of redis-cli || true)
# The embedded broker understands no Java client.
if [ -n "$embedded_state" ] && [ "$KAFKA_BOOTSTRAP" = "$(embedded kafka '')" ]; then
  console_producer='' kafka_topics=''
else
  console_producer=$(first_of kafka-console-producer kafka-console-producer.sh || true)
  kafka_topics=$(first_of kafka-topics kafka-topics.sh || true)
fi

need_redis_client() {
  [ -n "$redis_cli$heartbeat" ] || fail 2 "no redis-cli here: apt install redis-tools, $lack"
}

redis_reply() { # redis_reply COMMAND...: the reply as redis-cli prints it into a pipe; a failure means that Redis did not answer
  local speak=(bounded 10 "$heartbeat" redis)
  [ -z "$redis_cli" ] || speak=(bounded 3 "$redis_cli")
  "${speak[@]}" -h "$REDIS_HOST" -p "$REDIS_PORT" -n "$REDIS_DB" "$@" </dev/null
}

need_producer() {
  [ -n "$console_producer$heartbeat" ] || fail 2 "no kafka-console-producer here: install Kafka's tools, $lack"
}

send_beat() { # send_beat TEXT
  if [ -n "$console_producer" ]; then
    printf '%s\n' "$1" | bounded 20 "$console_producer" --topic "$TOPIC" --bootstrap-server "$KAFKA_BOOTSTRAP" >/dev/null
  else
    bounded 20 "$heartbeat" send --bootstrap-server "$KAFKA_BOOTSTRAP" --topic "$TOPIC" -- "$1" >/dev/null
  fi
}
