#!/usr/bin/env bash
# The heartbeat key in Redis: its value, its TTL, its age. Usage: check-redis.sh [KEY]
# Exit 0: alive; 1: expired; 2: unknown, because Redis does not answer or somebody else wrote the key.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

key=${1:-$REDIS_KEY}
need_redis_client

day() { # day SECONDS: readable; GNU's date first, then BSD's
  date -d "@$1" '+%F %T' 2>/dev/null || date -r "$1" '+%F %T'
}

readable() { # readable STAMP_MS: what the time stamp means
  local now beat
  now=$(date +%s) beat=$(($1 / 1000))
  echo "$(day "$beat"), $((now - beat)) s ago"
}

answer() { # answer COMMAND...: a refusal, such as WRONGTYPE, is an answer too: one client fails with it, the other does not
  local said
  said=$(redis_reply "$@" 2>/dev/null) || [ -n "$said" ] || return
  printf '%s\n' "$said"
}

value=$(answer GET "$key") && ttl=$(answer TTL "$key") ||
  { echo "❔ UNKNOWN: Redis at $REDIS_HOST:$REDIS_PORT does not answer; nothing can be said about $key."; exit 2; }

case $ttl in
  -2)
    echo "⚠️  EXPIRED: there is no key $key in Redis at $REDIS_HOST:$REDIS_PORT: no beat in time, or never one."
    exit 1
    ;;
  -1)
    echo "❔ UNKNOWN: $key has no TTL: somebody else wrote it. Its value: $value"
    exit 2
    ;;
  '' | *[!0-9]*)
    echo "❔ UNKNOWN: Redis at $REDIS_HOST:$REDIS_PORT answers: $ttl"
    exit 2
    ;;
esac
if ! [[ $value =~ ^[1-9][0-9]{12}$ ]]; then # what the connector writes: milliseconds since 1970
  echo "❔ UNKNOWN: $key was written by somebody else: it holds no time stamp of a beat. Its value: $value"
  exit 2
fi
echo "✅ ALIVE: $key in Redis at $REDIS_HOST:$REDIS_PORT"
echo "Value: $value ($(readable "$value"))"
echo "TTL:   $ttl s left"
