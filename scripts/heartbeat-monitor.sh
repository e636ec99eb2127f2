#!/usr/bin/env bash
# Says every few seconds whether the heartbeat is there, until it is stopped. Usage: heartbeat-monitor.sh [KEY]
# With SLACK_WEBHOOK_URL set, a lost heartbeat is told there, once per outage. CHECK_EVERY_S=5, ALERT_THRESHOLD=10.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

key=${1:-$REDIS_KEY}
: "${CHECK_EVERY_S:=5}" "${ALERT_THRESHOLD:=10}" "${SLACK_WEBHOOK_URL:=}"
need_redis_client
[ -z "$SLACK_WEBHOOK_URL" ] || command -v curl >/dev/null || fail 2 "SLACK_WEBHOOK_URL is set, but curl is not installed"

tell() { # The address is a secret: it goes through standard input, where no list of processes shows it.
  printf 'url = "%s"\n' "$SLACK_WEBHOOK_URL" |
    curl -sS -o /dev/null -w '%{http_code}\n' --connect-timeout 3 --max-time 5 -X POST -H 'Content-Type: application/json' \
      -d '{"text":"🚨 System heartbeat lost!"}' -K - 2>/dev/null || true
}

told=no
alert() {
  local answer
  [ -n "$SLACK_WEBHOOK_URL" ] && [ "$told" = no ] || return 0
  answer=$(tell)
  case $answer in
    2??) told=yes ;;
    000 | '') echo "Slack did not answer; the next round tries again." >&2 ;;
    *) echo "Slack answered $answer; the next round tries again." >&2 ;;
  esac
}

while true; do
  ttl=$(redis_reply TTL "$key" 2>/dev/null) || ttl=silence
  case $ttl in
    -2)
      echo "⚠️  ALERT: Heartbeat key expired! System may be down."
      alert
      ;;
    -1) echo "❔ UNKNOWN: the heartbeat key has no TTL: somebody else wrote it." ;;
    silence) echo "❔ UNKNOWN: Redis does not answer; nothing can be said about the heartbeat." ;;
    '' | *[!0-9]*) echo "❔ UNKNOWN: Redis answers: $ttl" ;;
    *)
      told=no
      if [ "$ttl" -lt "$ALERT_THRESHOLD" ]; then
        echo "🟡 WARNING: Heartbeat TTL low: ${ttl}s"
      else
        echo "✅ OK: Heartbeat TTL: ${ttl}s"
      fi
      ;;
  esac
  sleep "$CHECK_EVERY_S"
done
