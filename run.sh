#!/usr/bin/env bash
# The main job in one command:
#   ./run.sh                    the Docker stack where a Docker engine with Compose answers, embedded mode otherwise
#   ./run.sh --docker           the Docker stack (docker-compose.yml): build, start, set up, return
#   ./run.sh --embedded [-d] [options of `heartbeat demo`]
#                               broker, Redis, connector and a producer on this machine, without Docker; installed first if need be
#                               -d: in the background; its output goes to .cache/demo.log
#   ./run.sh down [-v]          take away what runs; -v: the Docker stack's data as well
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

: "${DEMO_WAIT_S:=30}" # how long -d waits for the first beat
mode=''
detach=no
options=()
verb=up
data=()
value_of='' # the option whose value comes next
for argument in "$@"; do
  if [ -n "$value_of" ]; then
    options+=("$argument")
    value_of=''
    continue
  fi
  case $argument in
    down) verb=down ;;
    -v | --volumes) data=(-v) ;;
    -d | --detach) detach=yes ;;
    --docker | --embedded) mode=${argument#--} ;;
    -h | --help)
      sed -n '2,8s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    --every | --connector | --kafka-port | --redis-port | --rest-port)
      options+=("$argument")
      value_of=$argument
      ;;
    -*) options+=("$argument") ;;
    *) fail 1 "$argument is nothing that can be done; ./run.sh --help says what can" ;;
  esac
done

docker_refusal() { # why there can be no Docker stack here; nothing where there can
  local said
  if ! command -v docker >/dev/null; then
    echo "Docker is not installed"
  elif ! said=$(bounded 20 docker version --format '{{.Server.Version}}' 2>&1); then
    case $said in
      *"permission denied"*) echo "this user may not use Docker (add the user to the group docker, or use sudo)" ;;
      *) echo "Docker is installed, but its engine does not answer (start Docker Desktop, or: sudo systemctl start docker)" ;;
    esac
  elif ! bounded 20 docker compose version >/dev/null 2>&1; then
    echo "Docker has no Compose plugin (apt install docker-compose-plugin)"
  fi
}

log=.cache/compose.log
model=''   # what docker-compose.yml comes to
project='' # the name in it
undo=()    # what takes a failed start away again; nothing where the stack was running before

compose() { # compose LIMIT_S ARGUMENT...: what it says goes to the log
  local limit_s=$1
  shift
  bounded "$limit_s" docker compose "$@" >>"$log" 2>&1
}

ask() { # ask ARGUMENT...: what docker answers. No answer is not an empty answer: data may hang on the difference
  bounded 30 docker "$@" 2>"$log" || fail 3 "\`docker ${*:1:2}\` does not answer: $(tail -n 1 "$log")"
}

volumes() {
  ask volume ls -q --filter "label=com.docker.compose.project=$project"
}

read_model() {
  mkdir -p .cache
  model=$(bounded 30 docker compose config 2>"$log") || fail 2 "docker-compose.yml cannot be used: $(tail -n 1 "$log")"
  project=$(printf '%s\n' "$model" | sed -n 's/^name: //p')
}

taken_port() { # taken_port USUAL PRESENT: what to do about it
  local name=KAFKA
  case $1 in 8083) name=REST ;; 6379) name=REDIS ;; 9121) name=EXPORTER ;; esac
  if [ -n "$embedded_state" ]; then
    echo "port $2 is taken: embedded mode is running. ./run.sh down ends it"
  else
    echo "port $2 is taken by another program: end that, or choose another port: HEARTBEAT_${name}_PORT=$(($1 + 10000)) ./run.sh"
  fi
}

published_ports() { # USUAL PRESENT of every port that the stack opens on this machine
  printf '%s\n' "$model" | awk '$1 == "target:" { usual = $2 } $1 == "published:" { gsub(/"/, ""); print usual, $2 }'
}

require_free_ports() {
  local usual present
  while read -r usual present; do
    if [ -n "$present" ] && (exec 3<>"/dev/tcp/127.0.0.1/$present") 2>/dev/null; then fail 3 "$(taken_port "$usual" "$present")"; fi
  done <<<"$(published_ports)"
}

first_match() { # first_match SED_EXPRESSION...: in what the last step said
  sed -nE "$@" "$log" | head -n 1
}

reason() { # reason WHAT: one line for what went wrong, with the way out
  local image port usual service
  image=$(first_match -e 's/.*failed to solve: ([^ ]*): failed to resolve.*/\1/p' -e 's/.*pull access denied for ([^ ,]*),.*/\1/p' \
    -e 's/.*manifest for ([^ ]*) not found.*/\1/p' -e 's/.*failed to resolve reference "([^"]*)".*/\1/p' \
    -e 's|^ *([^ ]+) Error .*https:[^ ]*/v2/.*|the image of \1|p')
  port=$(first_match -e 's/.*:([0-9]+): bind: address already in use.*/\1/p' -e 's/.*:([0-9]+) failed: port is already allocated.*/\1/p')
  service=$(first_match -e "s/.*container $project-(.*)-[0-9]+ (is unhealthy|exited).*/\1/p")
  if grep -qi 'no space left on device' "$log"; then
    echo "the disk is full: \`docker system df\` shows what Docker holds, \`docker builder prune\` frees its build cache"
  elif [ -n "$port" ]; then
    usual=$(published_ports | awk -v port="$port" '$2 == port { print $1; exit }')
    taken_port "${usual:-$port}" "$port"
  elif [ -n "$image" ] || grep -qE 'https://[^ ]*/v2/|toomanyrequests' "$log"; then
    echo "${image:-an image} could not be pulled: check the network, or set Docker's proxy or mirror; without Docker: ./run.sh --embedded"
  elif [ -n "$service" ]; then
    echo "$service did not become healthy; what it said is in $log. Without Docker: ./run.sh --embedded"
  else
    echo "$1 failed: $(grep -v '^[[:space:]]*$' "$log" | tail -n 1) (all of it: $log). Without Docker: ./run.sh --embedded"
  fi
}

give_up() { # give_up CODE MESSAGE
  trap '' INT TERM
  if [ ${#undo[@]} -gt 0 ]; then
    compose 60 logs --no-color --tail 50 || true
    "${undo[@]}" || true
  fi
  fail "$1" "$2"
}

step() { # step LIMIT_S WHAT ARGUMENT...
  local limit_s=$1 what=$2
  shift 2
  echo "$what (at most $((limit_s / 60)) minutes; follow it: tail -f $log)"
  : >"$log"
  compose "$limit_s" "$@" || give_up 3 "$(reason "$what")"
}

say_what_to_try() {
  local rest
  rest=$(published_ports | awk '$1 == 8083 { print $2 }')
  cat <<END

The stack is up. Try:
  curl http://localhost:${rest:-8083}/connectors/redis-heartbeat-sink/status
  docker compose exec test-runner /scripts/test-producer.sh      # a beat every few seconds, until Ctrl-C
  docker compose exec redis redis-cli TTL heartbeat
  docker compose exec test-runner /scripts/heartbeat-monitor.sh  # OK, WARNING, ALERT
  docker compose logs -f kafka-connect
  ./run.sh down                                                  # and with -v its data
END
}

up_docker() {
  local running there
  [ ${#options[@]} -eq 0 ] || fail 1 "${options[0]} is for embedded mode: ./run.sh --embedded ${options[*]}"
  read_model
  running=$(ask compose ps -q)
  if [ -z "$running" ]; then
    require_free_ports
    there=$(volumes)
    undo=(compose 120 down --remove-orphans)
    [ -n "$there" ] || undo+=(-v) # there was no data, so there is none to lose
  fi
  exec 4>&2 # a trap runs with the redirections of the command that it interrupts
  trap 'give_up 130 "interrupted" 2>&4' INT TERM
  step 1800 "Building the images" build
  step 600 "Starting the stack" up -d --wait --wait-timeout 300
  bounded 240 docker compose exec -T test-runner /scripts/setup.sh </dev/null || give_up $? "the connector could not be set up; the line above says why"
  trap - INT TERM
  say_what_to_try
}

end_demo() { # end_demo PID: and wait until it has taken everything away
  kill "$1" 2>/dev/null || true
  for _ in $(seq 75); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.2
  done
  kill -KILL "$1" 2>/dev/null || true
}

up_embedded() {
  local demo deadline_s sign='(UP|LATE): ' # LATE where the TTL is a short one
  case " ${options[*]-} " in *" --no-producer "*) sign='^Running on' ;; esac
  bash scripts/install.sh run
  if [ "$detach" = no ]; then
    echo "Embedded mode: everything runs in this terminal, on this machine only. Ctrl-C stops it and leaves nothing behind."
    exec .venv/bin/heartbeat demo ${options[@]+"${options[@]}"}
  fi
  [ -z "$embedded_state" ] || fail 3 "embedded mode is running already: ./run.sh down ends it" # and its log is in use
  mkdir -p .cache
  log=.cache/demo.log
  : >"$log" # not what the last one said
  nohup .venv/bin/heartbeat demo ${options[@]+"${options[@]}"} >"$log" 2>&1 </dev/null &
  demo=$!
  deadline_s=$((SECONDS + DEMO_WAIT_S))
  while [ "$SECONDS" -lt "$deadline_s" ]; do
    if grep -q '^Running on' "$log" && grep -qE "$sign" "$log"; then
      sed -n '/^Running on/,/^$/p;/^Try/,/^$/p' "$log"
      echo "Running in the background (pid $demo). Follow it: tail -f $log. Stop it: ./run.sh down"
      return
    fi
    kill -0 "$demo" 2>/dev/null || { tail -n 3 "$log" >&2; exit 3; }
    sleep 0.2
  done
  end_demo "$demo"
  fail 3 "embedded mode was ended: no beat reached Redis in $DEMO_WAIT_S s; what it said is in $log"
}

down_docker() { # sets gone to yes if there was anything
  local there left
  read_model
  there=$(ask compose --profile '*' ps -aq)
  [ -n "$there" ] || [ ${#data[@]} -eq 0 ] || there=$(volumes)
  [ -n "$there" ] || return 0
  compose 180 --profile '*' down --remove-orphans ${data[@]+"${data[@]}"} ||
    fail 3 "the Docker stack could not be taken away: $(tail -n 1 "$log")"
  gone=yes
  if [ ${#data[@]} -gt 0 ]; then
    left=$(volumes) # Compose takes away the volumes of the files that it reads: not those of compose.kraft.yml
    # shellcheck disable=SC2086  # one name a line
    [ -z "$left" ] || bounded 60 docker volume rm $left >>"$log" 2>&1 || fail 3 "the data could not be taken away: $(tail -n 1 "$log")"
    echo "The Docker stack is gone, and its data."
  else
    echo "The Docker stack is gone; its data stays (-v takes it away)."
  fi
}

down() {
  local gone=no refusal=''
  if [ "$mode" != docker ] && [ -n "$embedded_state" ]; then
    if [ -n "$heartbeat" ]; then
      "$heartbeat" demo --stop
    else
      echo "Embedded mode was started from another clone, and heartbeat is not installed here: kill $(embedded pid '') ends it." >&2
    fi
    gone=yes
  fi
  if [ "$mode" != embedded ]; then
    refusal=$(docker_refusal)
    if [ -z "$refusal" ]; then
      down_docker
    elif [ "$mode" = docker ]; then
      fail 2 "$refusal"
    fi
  fi
  [ "$gone" = yes ] || echo "Nothing is running here."
}

if [ "$verb" = down ]; then
  down
elif [ "$mode" = embedded ]; then
  up_embedded
elif [ "$mode" = docker ]; then
  refusal=$(docker_refusal)
  [ -z "$refusal" ] || fail 2 "$refusal; without Docker: ./run.sh --embedded"
  up_docker
elif [ ${#options[@]} -gt 0 ]; then
  up_embedded # they are options of nothing else
else
  refusal=$(docker_refusal)
  if [ -z "$refusal" ]; then
    up_docker
  else
    echo "$refusal: embedded mode instead."
    up_embedded
  fi
fi
