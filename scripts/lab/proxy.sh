# The laboratory's pgweir: conf/pgweir.ini, with what differs on this machine added behind it.
# shellcheck shell=bash

POOL_SIZE=9
# What the checks measure against; the same as pgweir's default.
# shellcheck disable=SC2034
MAX_LAG_MS=5000

build_program() {
  BINARY=${PGWEIR_BINARY:-$ROOT/build/release/pgweir}
  if [ -z "${PGWEIR_BINARY:-}" ]; then
    step "building pgweir (release)"
    quietly "$VAR/log/configure-release.log" cmake --preset release -S "$ROOT" || die "cmake failed"
    quietly "$VAR/log/build-release.log" cmake --build "$ROOT/build/release" --parallel "$(build_jobs)" \
      --target pgweir || die "the build failed"
  fi
  [ -x "$BINARY" ] || die "there is no program at $BINARY"
  if ! as_server_user test -x "$BINARY"; then
    cp "$BINARY" "$DEMO/pgweir"
    BINARY=$DEMO/pgweir
  fi
}

# A later value in the file wins, so the file that ships is read first. `demo` is what PgBouncer would have: one host, no
# roles; when the primary moves, somebody must change the line.
write_proxy_config() {
  local hosts="host=127.0.0.1,127.0.0.1 port=$PG1_PORT,$PG2_PORT dbname=app" patroni=''
  if [ "$KIND" = patroni ]; then
    patroni="patroni_urls = http://127.0.0.1:$PG1_API_PORT,http://127.0.0.1:$PG2_API_PORT"
  fi
  write_file 644 "$DEMO/shipped.ini" <"$ROOT/conf/pgweir.ini"
  write_file 644 "$DEMO/pgweir.ini" <<CONF
%include $DEMO/shipped.ini

[databases]
app    = $hosts read_write_split=1
app_rw = $hosts target_session_attrs=primary
app_ro = $hosts target_session_attrs=prefer-standby
demo   = host=127.0.0.1 port=$(node_port "$(primary_node)") dbname=app

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $PROXY_PORT
unix_socket_dir =
auth_type = trust
auth_file = $DEMO/userlist.txt
admin_users = demo
pool_mode = transaction
default_pool_size = $POOL_SIZE
reserve_pool_size = 0
max_client_conn = 1000
log_connections = 0
log_disconnections = 0
logfile = $DEMO/pgweir.log
pidfile = $DEMO/pgweir.pid

[pgweir]
role_check_user = pgweir_monitor
$patroni
CONF
}

proxy_pid() {
  local pid=''
  if [ -s "$DEMO/pgweir.pid" ]; then pid=$(cat "$DEMO/pgweir.pid"); fi
  if lives "$pid" "$DEMO/pgweir.ini"; then echo "$pid"; fi
}
proxy_lives() { [ -n "$(proxy_pid)" ]; }

start_proxy() {
  step "starting pgweir on port $PROXY_PORT, $POOL_SIZE server connections at most for each host"
  printf '"demo" ""\n"pgweir_monitor" "%s"\n' "$MONITOR_PASSWORD" | write_file 600 "$DEMO/userlist.txt"
  write_proxy_config
  as_server_user "$BINARY" -d "$DEMO/pgweir.ini" >"$DEMO/pgweir.err" 2>&1 ||
    { cat "$DEMO/pgweir.err" >&2; die "pgweir did not start"; }
  wait_until 10 proxy_lives || { tail -n 20 "$DEMO/pgweir.log" >&2; die "pgweir wrote no pidfile"; }
  wait_until 10 console 'SHOW VERSION' ||
    { tail -n 20 "$DEMO/pgweir.log" >&2; die "pgweir does not answer on port $PROXY_PORT"; }
  # Until pgweir has asked the hosts, and read from pg_proc which functions write, everything goes to the primary.
  wait_until 10 divides ||
    { console 'SHOW HOSTS' >&2; tail -n 20 "$DEMO/pgweir.log" >&2; die "pgweir sends no reads to the standby"; }
}
divides() { [ "$(through app 'SELECT inet_server_port()')" = "$(node_port "$(standby_node)")" ]; }

# The primary has moved: the line of `demo`, which knows only one host, follows.
reload_proxy() {
  write_proxy_config
  console RELOAD
}

# console COMMAND [PSQL-OPTIONS...]: one command on pgweir's console.
console() {
  local command=$1
  shift
  PGCONNECT_TIMEOUT=10 "$PG_BIN/psql" -X -q -h 127.0.0.1 -p "$PROXY_PORT" -U demo -d pgbouncer "$@" -c "$command"
}
# through DATABASE STATEMENT: as an application, through pgweir; rows without decoration.
through() {
  PGCONNECT_TIMEOUT=40 "$PG_BIN/psql" -X -q -At -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$PROXY_PORT" -U demo -d "$1" -c "$2"
}

# console_value COMMAND COLUMN [CONDITION-COLUMN VALUE]...: the column in the first row that meets the conditions.
console_value() {
  local command=$1 column=$2
  shift 2
  console "$command" -A -F '|' -P footer=off | awk -F '|' -v column="$column" -v conditions="$*" '
    BEGIN { n = split(conditions, condition, " ") }
    NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
    {
      for (i = 1; i < n; i += 2) if ($(at[condition[i]]) != condition[i + 1]) next
      print $(at[column]); exit
    }'
}
# console_table COMMAND COLUMN...: all rows with these columns, which fit on a screen.
console_table() {
  local command=$1
  shift
  console "$command" -A -F '|' -P footer=off | awk -F '|' -v columns="$*" '
    BEGIN { n = split(columns, wanted, " ") }
    NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
    {
      for (i = 1; i <= n; i++) {
        cell[NR, i] = NR == 1 ? wanted[i] : wanted[i] in at ? $(at[wanted[i]]) : ""
        if (length(cell[NR, i]) > width[i]) width[i] = length(cell[NR, i])
      }
    }
    END {
      for (row = 1; row <= NR; row++) {
        for (i = 1; i < n; i++) printf "  %-*s", width[i], cell[row, i]
        print "  " cell[row, n]
      }
    }'
}
# What pgweir takes a node for, and what it knows of it: host_value NODE COLUMN.
host_value() { console_value 'SHOW HOSTS' "$2" port "$(node_port "$1")"; }
route_value() { console_value 'SHOW ROUTES' "$1" database app; }
# takes_for NODE ROLE: for wait_until.
takes_for() { [ "$(host_value "$1" role)" = "$2" ]; }
