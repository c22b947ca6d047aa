# Shared by the scripts in this folder: where things are, how to speak, how to act as another user.
# Sourced, not run. The caller has set -euo pipefail.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034
VAR=$ROOT/var
PG_BIN=${PG_BIN:-/usr/lib/postgresql/15/bin}

say() { printf '%s\n' "$*"; }
step() { printf '== %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a long command with its output in a log file; a dot every ten seconds shows that it lives. On
# failure the end of the log is printed and the command's exit code returned.
quietly() {
  local log=$1 code=0 ticker
  shift
  mkdir -p "$(dirname "$log")"
  (while sleep 10; do printf '.'; done) &
  ticker=$!
  "$@" >"$log" 2>&1 </dev/null || code=$?
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  if [ "$code" -ne 0 ]; then
    printf '\n' >&2
    tail -n 40 "$log" >&2
    warn "failed with exit code $code: $* (full output in $log)"
  fi
  return "$code"
}

# Root, directly or by a sudo that asks nothing when there is no terminal to ask on.
can_be_root() {
  [ "$(id -u)" -eq 0 ] && return 0
  have sudo || return 1
  sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }
}
as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# PostgreSQL and pgweir refuse to run as root; under root they run as this user.
server_user() {
  if [ "$(id -u)" -ne 0 ]; then
    id -un
  elif id postgres >/dev/null 2>&1; then
    echo postgres
  else
    echo nobody
  fi
}
as_server_user() {
  local user
  user=$(server_user)
  if [ "$(id -un)" = "$user" ]; then
    "$@"
  else
    setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups -- env HOME=/ "$@"
  fi
}

# The first TCP port at or above $1 on which nothing listens on the loopback address.
free_port() {
  local port=$1
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    port=$((port + 1))
    [ "$port" -lt 65536 ] || die "no free port above $1"
  done
  echo "$port"
}

# wait_until SECONDS COMMAND...: repeats the command until it succeeds; false when the time is up.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.1
  done
}

# One job per core, but no more than the memory can carry: a sanitizer build takes about 1.5 GiB a job.
build_jobs() {
  local cores memory_gib
  cores=$(nproc)
  memory_gib=$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
  local jobs=$((memory_gib * 2 / 3))
  [ "$jobs" -ge 1 ] || jobs=1
  [ "$jobs" -le "$cores" ] || jobs=$cores
  echo "$jobs"
}
