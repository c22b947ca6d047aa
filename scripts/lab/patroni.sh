# The laboratory under Patroni: one etcd, two Patroni nodes, each with its PostgreSQL, and pgweir that asks both.
# shellcheck shell=bash

# Half of Patroni's defaults, in seconds: how long the leader's key in etcd lives, how often each node looks, how long it
# tries. The leader's death is noticed when its key expires, so between ttl - loop_wait and ttl after it.
PATRONI_TTL=15
PATRONI_LOOP_WAIT=5
PATRONI_RETRY_TIMEOUT=5

api_port() {
  case $1 in
    pg1) echo "$PG1_API_PORT" ;;
    pg2) echo "$PG2_API_PORT" ;;
  esac
}

start_etcd() {
  step "starting etcd on port $ETCD_PORT"
  mkdir -p "$DEMO/etcd"
  chmod 700 "$DEMO/etcd"
  give "$DEMO/etcd"
  spawn etcd /usr/bin/etcd --name lab --data-dir "$DEMO/etcd" --listen-client-urls "http://127.0.0.1:$ETCD_PORT" \
    --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" --listen-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" \
    --initial-advertise-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" \
    --initial-cluster "lab=http://127.0.0.1:$ETCD_PEER_PORT" --logger zap
  wait_until 20 listens "$ETCD_PORT" || { tail -n 20 "$DEMO/etcd.log" >&2; die "etcd does not listen"; }
}
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The lines "key = value" of conf/postgresql/primary.conf, as YAML with the given indentation. Values that PostgreSQL takes
# without quotes (on, 1GB) get them here, since YAML would turn them into something else.
settings_as_yaml() {
  sed -n "s/^\([a-z_]*\) = '\{0,1\}\([^']*\)'\{0,1\}\$/$1\1: '\2'/p" "$ROOT/conf/postgresql/primary.conf"
}

write_patroni_config() {
  local node=$1
  write_file 600 "$DEMO/$node.yml" <<CONF
scope: pgweir-lab
name: $node
restapi:
  listen: 127.0.0.1:$(api_port "$node")
  connect_address: 127.0.0.1:$(api_port "$node")
etcd3:
  host: 127.0.0.1:$ETCD_PORT
bootstrap:
  dcs:
    ttl: $PATRONI_TTL
    loop_wait: $PATRONI_LOOP_WAIT
    retry_timeout: $PATRONI_RETRY_TIMEOUT
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters:
$(settings_as_yaml '        ')
  initdb:
    - encoding: UTF8
    - locale: C
    - auth: trust
    - no-sync
  pg_hba:
$(access_rules | sed 's/^/    - /')
postgresql:
  listen: 127.0.0.1:$(node_port "$node")
  connect_address: 127.0.0.1:$(node_port "$node")
  data_dir: $DEMO/$node
  bin_dir: $PG_BIN
  pgpass: $DEMO/$node.pgpass
  authentication:
    superuser: {username: postgres}
    replication: {username: replicator, password: $REPLICATOR_PASSWORD}
  parameters:
    unix_socket_directories: ''
    shared_buffers: 128MB
    log_line_prefix: '%m [%p] %q%u@%d %a '
  basebackup:
    - checkpoint: fast
CONF
}

start_patroni() { spawn "patroni-$1" /usr/bin/patroni "$DEMO/$1.yml"; }
patroni_lives() { lives "$(spawned_pid "patroni-$1")" "$DEMO/$1.yml"; }

# A node that answers, and is (f) or is not (t) the primary.
in_recovery() { says "$1" 'SELECT pg_is_in_recovery()' "$2"; }
await_node() {
  wait_until 60 "${@:2}" || { tail -n 20 "$DEMO/patroni-$1.log" >&2; die "Patroni does not bring $1 up"; }
}

start_patroni_cluster() {
  start_etcd
  write_passwords
  step "Patroni creates the primary pg1 on port $PG1_PORT"
  write_patroni_config pg1
  start_patroni pg1
  await_node pg1 in_recovery pg1 f
  create_objects pg1
  step "Patroni creates the standby pg2 on port $PG2_PORT"
  write_patroni_config pg2
  start_patroni pg2
  await_node pg2 in_recovery pg2 t
  await_node pg2 streams pg2
}

show_patroni() {
  /usr/bin/patronictl -c "$DEMO/pg1.yml" list || warn "patronictl does not answer"
}

# The leader's host is lost: its PostgreSQL and its Patroni at once. Patroni must notice, and promote the other one.
patroni_failover() {
  local began
  choose_nodes
  step "load on app: $WRITERS clients write, $READERS read"
  start_load "$WRITERS" "$READERS" "$(node_port "$NEW")"
  step "kill -9 of Patroni and PostgreSQL on the leader $OLD; the other node takes over by itself"
  began=$(now)
  kill -KILL "$(spawned_pid "patroni-$OLD")"
  kill_node "$OLD"
  await_node "$NEW" in_recovery "$NEW" f
  await_writes 40 200
  stop_load "$began"
  report_load
  say "   promoted $(figure promoted) s after the kill (the leader's key lives $PATRONI_TTL s)"
  check "first write" "$(figure first_write_after_promotion) s after the promotion (limit 1 s)" \
    less "$(figure first_write_after_promotion)" 1
  check "in all" "$(figure first_write) s from the kill to the first write (limit 30 s)" less "$(figure first_write)" 30
  check "reads meanwhile" "longest time without one $(figure longest_read_gap) s (limit 1 s)" \
    less "$(figure longest_read_gap)" 1
  check_lost_host
  step "Patroni on $OLD comes back, and makes it a standby"
  start_patroni "$OLD"
  await_node "$OLD" in_recovery "$OLD" t
  await_node "$OLD" streams "$OLD"
  settle
  show_patroni
}

stop_patroni_cluster() {
  local node
  # First both of Patroni, which stop their PostgreSQL; then what is left without one.
  for node in "${NODES[@]}"; do end_process "$(spawned_pid "patroni-$node")" "$DEMO/$node.yml" TERM; done
  end_process "$(spawned_pid etcd)" "$DEMO/etcd" TERM
}
