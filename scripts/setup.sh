#!/usr/bin/env bash
# Applies connector files: waits for Connect, creates their topics, PUTs their config, prints their status. May be run again at any
# time: what is applied already is left alone. Usage: setup.sh [FILE...]     default: config/redis-heartbeat-sink.json
# Exit 1: a file is broken, or Connect refuses it; 2: a program is missing; 3: something did not answer, or does not run, in time.
# SETUP_WAIT_S=120 bounds the wait for Connect.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

: "${SETUP_WAIT_S:=120}"
[ $# -gt 0 ] || set -- "${scripts%/*}/config/redis-heartbeat-sink.json"
command -v curl >/dev/null || fail 2 "curl is missing: apt install curl"
python=$(first_of "${scripts%/*}/.venv/bin/python" python3 || true)
[ -z "$python" ] || "$python" -c '' 2>/dev/null || python='' # a stub that offers to install it, or a shim without a version
jq=$(first_of jq || true)
[ -n "$python$jq" ] || fail 2 "neither python3 nor jq is here to read JSON: apt install jq"

# JSON on standard input -> four lines: name, name for a URL, topics, and the config in one spelling, so that two can be compared.
read_with_python='
import json, sys, urllib.parse
try:
    given = json.loads(sys.stdin.buffer.read().decode("utf-8-sig"), parse_int=str, parse_float=str)
    if not (isinstance(given, dict) and isinstance(given.get("config"), dict)):
        sys.exit("it must be {\"name\": ..., \"config\": {...}}")
except json.JSONDecodeError as error:
    sys.exit(f"line {error.lineno}, column {error.colno}: {error.msg}")
except UnicodeDecodeError as error:
    sys.exit(f"it is not UTF-8 at byte {error.start}")
config = {key: str(value).lower() if isinstance(value, bool) else value for key, value in given["config"].items()}
name = str(given.get("name") or config.get("name") or "")
config.pop("name", None)
print(name, urllib.parse.quote(name, safe=""), config.get("topics", ""), json.dumps(config, sort_keys=True), sep="\n")
'
# shellcheck disable=SC2016  # $given is of jq
read_with_jq='
(if length == 1 then .[0] elif length == 0 then error("it is empty") else error("it holds more than one object") end) as $given
| $given | if (type == "object") and (.config | type == "object") then . else error("it must be {\"name\": ..., \"config\": {...}}") end
| (.config | with_entries(if .value | type == "number" or type == "boolean" then .value |= tostring else . end)) as $config
| ($given.name // $config.name // "" | tostring) | ., @uri, ($config.topics // ""),
  ($config | del(.name) | to_entries | sort_by(.key) | from_entries | tojson)'

read_json() {
  if [ -n "$python" ]; then
    "$python" -c "$read_with_python"
  else
    "$jq" -rs "$read_with_jq" # -s: all of the input is read before anything is printed
  fi
}

# shellcheck disable=SC2016  # $text is of jq
message() { # the words in an error's body, or the body
  if [ -n "$python" ]; then
    "$python" -c 'import json, sys; text = sys.stdin.read()
try: print(json.loads(text)["message"])
except (ValueError, KeyError, TypeError): print(text)'
  else
    "$jq" -rR -s '. as $text | try (fromjson | .message) catch $text'
  fi
}

complain() { # complain FILE WORDS: what the reader of JSON has said, in one form
  local words hint=''
  words=$(printf '%s\n' "$2" | sed -e 's/^jq: //' -e 's/^error (at [^)]*): //' -e 's/^parse error: \(.*\) at \(line .*\)/\2: \1/')
  case $words in
    line*) case $(sed -n "$(printf '%s\n' "$words" | sed 's/line \([0-9]*\),.*/\1/')p" "$1") in *' //'*) hint='; JSON has no comments' ;; esac ;;
  esac
  fail 1 "$1: $words$hint"
}

read_file() { # read_file FILE: sets name, path, topics, config; says what is wrong with it and where
  local lines
  [ -r "$1" ] || fail 1 "$1 cannot be read"
  # What a reader printed before it failed may hold a password: only its complaint is shown.
  lines=$(read_json 2>/dev/null <"$1") || complain "$1" "$(read_json 2>&1 >/dev/null <"$1")"
  { read -r name && read -r path && read -r topics && read -r config; } <<<"$lines" || fail 1 "$1: it is empty"
  [ -n "$name" ] || fail 1 "$1: it has no \"name\""
  path=/connectors/$path
}

status='' reply=''
rest() { # rest LIMIT_S METHOD PATH [BODY]: sets status (000: no answer) and reply. A body may hold a password: not on a command line
  # Connect is near by: a proxy that is set for the world does not know it.
  local options=(-sS --noproxy '*' -m "$1" -X "$2" -H 'Accept: application/json' -w '\n%{http_code}') answer
  [ $# -lt 4 ] || options+=(-H 'Content-Type: application/json' --data-binary @-)
  answer=$(printf '%s' "${4:-}" | curl "${options[@]}" "$CONNECT_URL$3" 2>/dev/null) || true
  status=${answer##*$'\n'} reply=${answer%$'\n'*}
  [ -n "$status" ] || status=000
}

wait_for_connect() {
  local deadline_s=$((SECONDS + SETUP_WAIT_S)) said=no
  rest 5 GET /connectors
  while [ "$status" != 200 ]; do
    [ "$said" = yes ] || echo "Waiting for Kafka Connect at $CONNECT_URL, at most $SETUP_WAIT_S s ..."
    said=yes
    [ "$SECONDS" -lt "$deadline_s" ] ||
      fail 3 "Kafka Connect at $CONNECT_URL did not answer within $SETUP_WAIT_S s; is it up? CONNECT_URL names another one"
    sleep 1
    rest 5 GET /connectors
  done
}

create_topics() {
  local topic said
  for topic in ${topics//,/ }; do
    if [ -n "$kafka_topics" ]; then
      said=$(bounded 60 "$kafka_topics" --bootstrap-server "$KAFKA_BOOTSTRAP" --create --if-not-exists --topic "$topic" \
        --partitions 1 --replication-factor 1 2>&1) || fail 3 "topic $topic could not be created at $KAFKA_BOOTSTRAP: ${said:-no answer}"
      case $said in *Created*) echo "Topic $topic: created" ;; *) echo "Topic $topic: exists" ;; esac
    elif [ "$KAFKA_BOOTSTRAP" != "$(embedded kafka '')" ]; then
      echo "Topic $topic: not created from here, for want of kafka-topics; the broker makes it with the first beat if it may"
    fi
  done
}

apply() {
  local current
  rest 30 GET "$path/config"
  if [ "$status" = 200 ]; then
    current=$(printf '{"name": "x", "config": %s}' "$reply" | read_json | tail -n 1)
    # A PUT of what is there already would restart the tasks.
    if [ "$current" = "$config" ]; then
      echo "Connector $name: unchanged"
      return
    fi
  fi
  rest 90 PUT "$path/config" "$config"
  case $status in
    201) echo "Connector $name: created" ;;
    200) echo "Connector $name: updated" ;;
    000) fail 3 "Kafka Connect at $CONNECT_URL does not answer any more" ;;
    *) fail 1 "Kafka Connect refuses $name ($status): $(printf '%s' "$reply" | message)" ;;
  esac
}

show_status() {
  local deadline_s=$((SECONDS + 30))
  while true; do
    rest 10 GET "$path/status"
    case $status:$reply in
      200:*'"state":"FAILED"'*) break ;;
      200:*'"state":"PAUSED"'* | 200:*'"state":"STOPPED"'*) break ;; # somebody's wish, which an applied config does not undo
      200:*'"tasks":[]'* | 200:*UNASSIGNED* | 200:*RESTARTING*) ;;
      200:*) break ;;
    esac
    [ "$SECONDS" -lt "$deadline_s" ] || fail 3 "connector $name does not run after 30 s: $reply"
    sleep 0.5
  done
  echo "$reply"
  case $reply in *'"state":"FAILED"'*) fail 3 "connector $name has failed; the trace above says why" ;; esac
}

for file in "$@"; do read_file "$file"; done # all of them, before any is applied
wait_for_connect
for file in "$@"; do
  read_file "$file"
  create_topics
  apply
  show_status
done
