# shellcheck shell=bash
# shellcheck disable=SC2034  # what is set here is for the scripts that source this file
# Where Kafka, Redis and Connect are, and which programs can speak to them. The scripts beside this file run in three places: inside
# the compose stack's test-runner (mounted at /scripts), on a host beside that stack, and beside embedded mode.
# The environment wins: CONNECT_URL, KAFKA_BOOTSTRAP, REDIS_HOST, REDIS_PORT, REDIS_DB, REDIS_KEY, TOPIC, HEARTBEAT (our command);
# and HEARTBEAT_{REST,KAFKA,REDIS}_PORT, by which docker-compose.yml is told other ports. After it come embedded mode, where it runs, and
# those ports in .env, where Compose reads them.

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

held() { # held FILE: whether the embedded mode that wrote this state still lives
  if command -v flock >/dev/null; then
    # It holds a lock on its file; its process id may be somebody else's by now. Opened here: flock would make a file that has just gone.
    (exec 9<"$1" && ! flock -n -s 9) 2>/dev/null
  else
    kill -0 "$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' "$1")" 2>/dev/null
  fi
}

embedded_state() { # what the embedded mode that was started last says about itself (embedded/state.py), one line of JSON
  local file
  # shellcheck disable=SC2012  # the newest first; the names are our own
  ls -t "${TMPDIR:-/tmp}/redis-heartbeat-sink-$(id -u)"-*.json 2>/dev/null | while IFS= read -r file; do
    if [ -f "$file" ] && [ ! -L "$file" ] && [ -O "$file" ] && held "$file"; then
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

port() { # port VARIABLE USUAL: the variable, from the environment or else from .env
  local value=${!1:-}
  [ -n "$value" ] ||
    value=$(sed -n 's/^ *\(export  *\)\{0,1\}'"$1"' *= *["'\'']\{0,1\}\([0-9][0-9]*\).*/\2/p' "${scripts%/*}/.env" 2>/dev/null | tail -n 1) || true
  echo "${value:-$2}"
}

place() { # place FIELD VARIABLE USUAL: that field of embedded mode where it runs, unless the environment says which port is meant
  if [ -n "${!2:-}" ]; then echo "$3"; else embedded "$1" "$3"; fi
}

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
embedded_state=$(embedded_state)
if [ "$scripts" = /scripts ]; then
  : "${CONNECT_URL:=http://kafka-connect:8083}" "${KAFKA_BOOTSTRAP:=kafka:29092}" "${REDIS_HOST:=redis}" "${REDIS_PORT:=6379}"
else
  : "${CONNECT_URL:=$(place rest HEARTBEAT_REST_PORT "http://127.0.0.1:$(port HEARTBEAT_REST_PORT 8083)")}"
  : "${KAFKA_BOOTSTRAP:=$(place kafka HEARTBEAT_KAFKA_PORT "127.0.0.1:$(port HEARTBEAT_KAFKA_PORT 9092)")}"
  # A host and a port are one address: neither half of one goes with half of another.
  if [ -z "${REDIS_HOST:-}${REDIS_PORT:-}" ]; then
    REDIS_HOST=$(place redis_host HEARTBEAT_REDIS_PORT 127.0.0.1)
    REDIS_PORT=$(place redis_port HEARTBEAT_REDIS_PORT "$(port HEARTBEAT_REDIS_PORT 6379)")
  fi
  : "${REDIS_HOST:=127.0.0.1}" "${REDIS_PORT:=$(port HEARTBEAT_REDIS_PORT 6379)}"
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
