# The laboratory's PostgreSQL servers: nodes pg1 and pg2, made from conf/postgresql/, of which one is the primary.
# shellcheck shell=bash

# The physical slot that the standby uses.
SLOT=standby_slot

node_port() {
  case $1 in
    pg1) echo "$PG1_PORT" ;;
    pg2) echo "$PG2_PORT" ;;
  esac
}
node_of_port() {
  case $1 in
    "$PG1_PORT") echo pg1 ;;
    "$PG2_PORT") echo pg2 ;;
  esac
}
other_node() {
  case $1 in
    pg1) echo pg2 ;;
    pg2) echo pg1 ;;
  esac
}

# The pid of a node's postmaster, or nothing. The file stays behind when a postmaster is killed.
node_pid() {
  local pid=''
  if [ -r "$DEMO/$1/postmaster.pid" ]; then pid=$(head -n 1 "$DEMO/$1/postmaster.pid"); fi
  if lives "$pid" "$DEMO/$1"; then echo "$pid"; fi
}
node_lives() { [ -n "$(node_pid "$1")" ]; }

# sql NODE STATEMENT [DATABASE]: asks a node directly, as superuser; rows without decoration.
sql() {
  PGAPPNAME=lab PGCONNECT_TIMEOUT=5 "$PG_BIN/psql" -X -q -At -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$(node_port "$1")" \
    -U postgres -d "${3:-postgres}" -c "$2"
}
# says NODE STATEMENT ANSWER: for wait_until.
says() { [ "$(sql "$1" "$2")" = "$3" ]; }

# The node that is the primary now, or the standby; nothing if there is none.
node_with_recovery() {
  local node
  for node in "${NODES[@]}"; do
    if node_lives "$node" && says "$node" 'SELECT pg_is_in_recovery()' "$1" 2>/dev/null; then
      echo "$node"
      return
    fi
  done
}
primary_node() { node_with_recovery f; }
standby_node() { node_with_recovery t; }

# pg_ctl with its output kept; on failure the end of the node's log says why.
control() {
  local node=$1
  shift
  as_server_user "$PG_BIN/pg_ctl" "$@" -D "$DEMO/$node" -w -t 60 >"$DEMO/pg_ctl.log" 2>&1 || {
    cat "$DEMO/pg_ctl.log" >&2
    tail -n 20 "$DEMO/$node.log" >&2
    die "pg_ctl $1 of $node failed"
  }
}
start_node() { control "$1" start -l "$DEMO/$1.log"; }
stop_node() { control "$1" stop -m "$2"; }
promote_node() { control "$1" promote; }

# As a crash of the whole host: the postmaster and all its children, none of which may say goodbye.
kill_node() {
  local pid children=()
  pid=$(node_pid "$1")
  [ -n "$pid" ] || die "$1 is not running"
  read -r -a children <"/proc/$pid/task/$pid/children" || true
  kill -KILL "$pid" "${children[@]}" 2>/dev/null || true
  wait_until 10 gone "$pid" "$DEMO/$1" || die "$1 is killed and does not go"
}

# The settings that only this node has. Both nodes have the same primary.conf and standby.conf.
configure_node() {
  local node=$1
  write_file 600 "$DEMO/$node/primary.conf" <"$ROOT/conf/postgresql/primary.conf"
  write_file 600 "$DEMO/$node/standby.conf" <"$ROOT/conf/postgresql/standby.conf"
  write_file 600 "$DEMO/$node/lab.conf" <<CONF
port = $(node_port "$node")
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
cluster_name = '$node'
shared_buffers = 128MB
log_line_prefix = '%m [%p] %q%u@%d %a '
primary_conninfo = '$(conninfo_of "$(other_node "$node")" "$node" | sed "s/'/''/g")'
CONF
}
# conninfo_of NODE NAME: how the other node, under its own name, connects to this one.
conninfo_of() { echo "host=127.0.0.1 port=$(node_port "$1") user=replicator passfile='$DEMO/passfile' application_name=$2"; }

# Roles that come over the network have passwords, in $DEMO/passfile; the owner of the data and his applications do not.
write_passwords() {
  MONITOR_PASSWORD=$(random_password)
  REPLICATOR_PASSWORD=$(random_password)
  write_file 600 "$DEMO/passfile" <<CONF
127.0.0.1:*:*:replicator:$REPLICATOR_PASSWORD
127.0.0.1:*:*:pgweir_monitor:$MONITOR_PASSWORD
CONF
}
access_rules() {
  cat <<CONF
host  replication  replicator      127.0.0.1/32  scram-sha-256
host  all          replicator      127.0.0.1/32  scram-sha-256
host  all          pgweir_monitor  127.0.0.1/32  scram-sha-256
host  all          all             127.0.0.1/32  trust
CONF
}

create_primary() {
  local node=$1
  step "creating the primary $node on port $(node_port "$node") as user $(server_user)"
  as_server_user "$PG_BIN/initdb" -D "$DEMO/$node" -U postgres -A trust -E UTF8 --locale=C --no-sync --no-instructions \
    >"$DEMO/initdb.log" 2>&1 || { cat "$DEMO/initdb.log" >&2; die "initdb failed"; }
  printf "include 'primary.conf'\ninclude 'standby.conf'\ninclude 'lab.conf'\n" >>"$DEMO/$node/postgresql.conf"
  access_rules | write_file 600 "$DEMO/$node/pg_hba.conf"
  configure_node "$node"
  start_node "$node"
  sql "$node" "CREATE ROLE replicator LOGIN REPLICATION PASSWORD '$REPLICATOR_PASSWORD'"
  create_objects "$node"
}

# What the laboratory needs in a new cluster, apart from the role for replication.
create_objects() {
  local node=$1
  sql "$node" "CREATE ROLE pgweir_monitor LOGIN PASSWORD '$MONITOR_PASSWORD' IN ROLE pg_monitor"
  sql "$node" 'CREATE ROLE demo LOGIN'
  sql "$node" 'CREATE DATABASE app OWNER demo'
  # No key: an insert that was applied twice must show as two rows.
  sql "$node" 'SET ROLE demo; CREATE TABLE lab_writes (run bigint, client int, number int)' app
  sql "$node" 'SET ROLE demo; CREATE TABLE lab_counter AS SELECT 0 AS value' app
  "$PG_BIN/pgbench" -h 127.0.0.1 -p "$(node_port "$node")" -U demo -i -s 10 -q app >"$DEMO/pgbench.log" 2>&1 ||
    { cat "$DEMO/pgbench.log" >&2; die "pgbench -i failed"; }
}

create_slot() {
  sql "$1" "SELECT pg_create_physical_replication_slot('$SLOT', true)
            WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '$SLOT')" >/dev/null
}

# Makes a node a standby of the other one, from a new copy of everything. The directory itself stays: PostgreSQL finds the
# shared memory that a killed server left by its inode.
create_standby() {
  local node=$1 from
  from=$(other_node "$node")
  step "creating the standby $node on port $(node_port "$node"), by pg_basebackup from $from"
  mkdir -p "$DEMO/$node"
  chmod 700 "$DEMO/$node"
  find "$DEMO/$node" -mindepth 1 -delete
  give "$DEMO/$node"
  create_slot "$from"
  as_server_user "$PG_BIN/pg_basebackup" -d "$(conninfo_of "$from" "$node")" -D "$DEMO/$node" -X stream \
    -S "$SLOT" -c fast --no-password >"$DEMO/basebackup.log" 2>&1 ||
    { cat "$DEMO/basebackup.log" >&2; die "pg_basebackup failed"; }
  join_as_standby "$node"
}

# Starts a node, whose data can follow the other's, as its standby.
join_as_standby() {
  local node=$1
  configure_node "$node"
  write_file 600 "$DEMO/$node/standby.signal" </dev/null
  start_node "$node"
  wait_until 60 streams "$node" ||
    { tail -n 20 "$DEMO/$node.log" >&2; die "$node does not stream from $(other_node "$node")"; }
}
# The other node sends to this one, and this one has applied all that was written before the question.
streams() {
  local from position
  from=$(other_node "$1")
  position=$(sql "$from" 'SELECT pg_current_wal_lsn()') &&
    says "$from" "SELECT count(*) FROM pg_stat_replication WHERE application_name = '$1' AND state = 'streaming'" 1 &&
    says "$1" "SELECT pg_last_wal_replay_lsn() >= '$position'" t
}
