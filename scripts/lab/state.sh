# The laboratory: where its files are, what is remembered from one call to the next, and its processes.
# Sourced by scripts/demo, which sources scripts/lib.sh before.
#
#   $DEMO/state           ports and kind, written when the laboratory is made
#   $DEMO/pg1, pg2        data directories; which of them is the primary is asked, never remembered
#   $DEMO/NAME.pid        a process started by spawn
# shellcheck shell=bash

# shellcheck disable=SC2034
NODES=(pg1 pg2)

# DEMO_NAME in the environment names another laboratory beside the usual one: that of scripts/test.
# The user of the servers must be able to enter every folder above the data; a private home is no place for it, nor is a
# tree that belongs to somebody else.
choose_directory() {
  if mkdir -p "$VAR" && [ -w "$VAR" ] && as_server_user test -x "$VAR"; then
    DEMO=$VAR/${DEMO_NAME:-demo}
  else
    DEMO=/var/tmp/pgweir-${DEMO_NAME:-demo}-$(id -un)
  fi
}

# KIND is streaming (a primary and a standby of ours) or patroni (Patroni decides which is which).
STATE_VARIABLES=(KIND PG1_PORT PG2_PORT PROXY_PORT PG1_API_PORT PG2_API_PORT ETCD_PORT ETCD_PEER_PORT)
read_state() {
  local name
  for name in "${STATE_VARIABLES[@]}"; do printf -v "$name" ''; done
  # shellcheck source=/dev/null
  if [ -r "$DEMO/state" ]; then . "$DEMO/state"; fi
}
write_state() {
  local name
  for name in "${STATE_VARIABLES[@]}"; do printf '%s=%q\n' "$name" "${!name}"; done >"$DEMO/state"
}

# Gives a file or folder to the user as whom the servers run.
give() {
  if [ "$(id -u)" -eq 0 ]; then chown "$(server_user)" "$@"; fi
}
# write_file MODE FILE: a file of the servers, with what comes on standard input. It is never readable by more than MODE
# says, since some of them hold passwords.
write_file() {
  local mode=$1 file=$2
  (umask 077 && cat >"$file")
  chmod "$mode" "$file"
  give "$file"
}
random_password() { od -An -N 16 -t x1 /dev/urandom | tr -d ' \n'; }

# lives PID PATTERN: the process lives, and its command line still has this text: a number may have been given to another.
lives() {
  local pid=${1:-} pattern=$2
  [ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "$pattern"
}
gone() { ! lives "$1" "$2"; }

# end_process PID PATTERN SIGNAL: ends a process that is ours and waits for it; kills it when it will not go.
end_process() {
  local pid=$1 pattern=$2 signal=$3
  lives "$pid" "$pattern" || return 0
  kill -"$signal" "$pid" || return 0
  if ! wait_until 20 gone "$pid" "$pattern"; then
    warn "process $pid ($pattern) did not end within 20 s and is killed"
    kill -KILL "$pid" || true
    wait_until 10 gone "$pid" "$pattern" || die "process $pid is killed and does not go"
  fi
}

# spawn NAME COMMAND...: runs a server in the background, with its pid in $DEMO/NAME.pid and its output in $DEMO/NAME.log.
# It is in a session of its own, so that Ctrl-C in the terminal does not reach it.
spawn() {
  local name=$1
  shift
  rm -f "$DEMO/$name.pid"
  # shellcheck disable=SC2016
  as_server_user setsid bash -c 'echo $$ >"$1" && shift && exec "$@"' spawn "$DEMO/$name.pid" "$@" \
    </dev/null >>"$DEMO/$name.log" 2>&1 &
  wait_until 10 test -s "$DEMO/$name.pid" || die "$name did not start; see $DEMO/$name.log"
}
# The pid of what spawn started, or nothing.
spawned_pid() {
  if [ -s "$DEMO/$1.pid" ]; then cat "$DEMO/$1.pid"; fi
}

# choose_ports VARIABLE FIRST VARIABLE FIRST ...: sets each variable to the next free port at or above its usual one.
choose_ports() {
  local port chosen=' '
  while [ $# -ge 2 ]; do
    port=$(free_port "$2")
    while [[ $chosen == *" $port "* ]]; do port=$(free_port $((port + 1))); done
    chosen+="$port "
    printf -v "$1" '%s' "$port"
    shift 2
  done
}

# --- What a verb finds out ---

FAILURES=0
# check NAME FIGURE COMMAND...: one line of a list, ok if the command succeeds and FAIL if not.
check() {
  local name=$1 figure=$2 verdict=ok
  shift 2
  if ! "$@"; then
    verdict=FAIL
    FAILURES=$((FAILURES + 1))
  fi
  printf '  %-4s  %-18s %s\n' "$verdict" "$name" "$figure"
}
# less A B, at_most A B: comparisons of decimal numbers; false if A is not one.
is_number() { [[ $1 =~ ^-?[0-9]+(\.[0-9]+)?$ ]]; }
less() { is_number "$1" && awk -v a="$1" -v b="$2" 'BEGIN {exit !(a < b)}'; }
at_most() { is_number "$1" && awk -v a="$1" -v b="$2" 'BEGIN {exit !(a <= b)}'; }
verdict() {
  [ "$FAILURES" -eq 0 ] || die "$FAILURES of the checks failed; logs are in $DEMO"
}
