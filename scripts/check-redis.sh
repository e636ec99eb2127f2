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

readable() { # readable VALUE: what the time stamp means
  local now beat
  case $1 in
    '' | *[!0-9]*) echo "not a time stamp: written by somebody else" ;;
    *)
      now=$(date +%s) beat=$(($1 / 1000))
      echo "$(day "$beat"), $((now - beat)) s ago"
      ;;
  esac
}

value=$(redis_reply GET "$key" 2>/dev/null) && ttl=$(redis_reply TTL "$key" 2>/dev/null) ||
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
echo "✅ ALIVE: $key in Redis at $REDIS_HOST:$REDIS_PORT"
echo "Value: $value ($(readable "$value"))"
echo "TTL:   $ttl s left"
