# The validation list: what must be true of the laboratory, each line asked anew and shown with its figure.
# shellcheck shell=bash

setting() { sql "$1" "SELECT current_setting('$2')"; }

check_primary() {
  local node=$1 found wanted='replica, 10 senders, 1GB kept, 10 slots'
  found="$(setting "$node" wal_level), $(setting "$node" max_wal_senders) senders, $(setting "$node" wal_keep_size) kept,"
  found+=" $(setting "$node" max_replication_slots) slots"
  check "primary settings" "$node, port $(node_port "$node"): $found" [ "$found" = "$wanted" ]
}

# Patroni names the slot after the member that uses it.
# shellcheck disable=SC2153
slot_of() { if [ "$KIND" = patroni ]; then echo "$1"; else echo "$SLOT"; fi; }

check_replication() {
  local primary=$1 standby=$2 slot found
  slot=$(slot_of "$standby")
  found=$(sql "$primary" "SELECT slot_type || ', ' || CASE WHEN active THEN 'active' ELSE 'not active' END
                          FROM pg_replication_slots WHERE slot_name = '$slot'")
  check "slot" "$slot: ${found:-does not exist}" [ "$found" = "physical, active" ]
  found=$(sql "$primary" "SELECT usename FROM pg_stat_replication JOIN pg_roles ON rolname = usename
                          WHERE application_name = '$standby' AND rolreplication AND NOT rolsuper")
  check "role" "the standby logs in as ${found:-nobody}" [ "$found" = replicator ]
  found=$(sql "$primary" "SELECT state || ', ' || sync_state FROM pg_stat_replication WHERE application_name = '$standby'")
  check "streaming" "$standby: ${found:-not connected}" [ "${found%%,*}" = streaming ]
}

# How long until the standby has replayed what was written just now, measured; replay_lag of an idle primary is NULL.
check_lag() {
  local primary=$1 standby=$2 began position taken=none
  began=$(now)
  sql "$primary" "SELECT pg_logical_emit_message(true, 'lab', 'lag')" >/dev/null
  position=$(sql "$primary" 'SELECT pg_current_wal_lsn()')
  if wait_until 10 says "$standby" "SELECT pg_last_wal_replay_lsn() >= '$position'" t; then
    taken=$(awk -v from="$began" -v to="$(now)" 'BEGIN {printf "%.3f", to - from}')
  fi
  check "lag under 1 s" "replayed $taken s after the write" less "$taken" 1
}

check_read_only() {
  local standby=$1 answer
  answer=$("$PG_BIN/psql" -X -q -v VERBOSITY=sqlstate -h 127.0.0.1 -p "$(node_port "$standby")" -U postgres -d app \
    -c 'CREATE TABLE not_here ()' 2>&1 || true)
  check "standby read-only" "CREATE TABLE on $standby: ${answer:-accepted}" [ "$answer" = "ERROR:  25006" ]
}

# As many clients as connections would be far too many for a server; needs the last run_pgbench.
check_pooling() {
  local node most=0 count
  for node in "${NODES[@]}"; do
    count=$(most_connections "$node")
    if [ "$count" -gt "$most" ]; then most=$count; fi
  done
  check "pooling" "$CLIENTS clients on at most $most server connections of one host (limit $POOL_SIZE)" \
    [ "$most" -ge 1 -a "$most" -le "$POOL_SIZE" ]
}

served_by() {
  local database=$1 statement=$2 node
  node=$(node_of_port "$(through "$database" "$statement" 2>&1 | head -n 1)")
  echo "${node:-nobody}"
}
check_routing() {
  local primary=$1 standby=$2 insert='INSERT INTO lab_writes VALUES (0, 0, 0) RETURNING inet_server_port()'
  local read write rw ro own
  # A read waits for nobody; right after a write by the same client it may not be served by a standby that is behind.
  read=$(served_by app 'SELECT inet_server_port()')
  check "routing: read" "app: SELECT is served by $read" [ "$read" = "$standby" ]
  write=$(served_by app "$insert")
  check "routing: write" "app: INSERT is served by $write" [ "$write" = "$primary" ]
  rw=$(served_by app_rw 'SELECT inet_server_port()')
  check "routing: app_rw" "SELECT is served by $rw" [ "$rw" = "$primary" ]
  ro=$(served_by app_ro 'SELECT inet_server_port()')
  check "routing: app_ro" "SELECT is served by $ro" [ "$ro" = "$standby" ]
  own=$(own_writes_seen)
  check "read your writes" "$own of 20 writes were seen by the same client's next read" [ "$own" = 20 ]
}
# One client writes a number and reads it back, 20 times.
own_writes_seen() {
  local i
  for i in {1..20}; do
    echo "UPDATE lab_counter SET value = $i;"
    echo "SELECT value = $i FROM lab_counter;"
  done | "$PG_BIN/psql" -X -q -At -h 127.0.0.1 -p "$PROXY_PORT" -U demo -d app 2>&1 | grep -cx t || true
}

check_monitoring() {
  local primary=$1 standby=$2 role state lag
  role=$(host_value "$primary" role)
  check "SHOW HOSTS" "$primary is ${role:-not there}" [ "$role" = primary ]
  role=$(host_value "$standby" role)
  lag=$(host_value "$standby" lag_ms)
  state=$(host_value "$standby" state)
  check "SHOW HOSTS" "$standby is ${role:-not there}, $state, ${lag:-unknown} ms behind" [ "$role" = standby ]
  role=$(console_value 'SHOW POOLS' role database app user demo port "$(node_port "$standby")")
  check "SHOW POOLS" "a pool of app on $standby, which is ${role:-not there}" [ "$role" = standby ]
  read -r -a counters < <(routed) || true
  check "SHOW ROUTES" \
    "${counters[0]:-no} reads to the standby, ${counters[1]:-no} to the primary, ${counters[2]:-no} writes" \
    [ "${counters[0]:-0}" -gt 0 -a "${counters[2]:-0}" -gt 0 ]
}

validate() {
  local primary standby
  # A question that fails is a line that fails, not the end of the list.
  set +e
  primary=$(primary_node)
  standby=$(standby_node)
  step "validation"
  check "hosts" "primary ${primary:-none}, standby ${standby:-none}" [ -n "$primary" -a -n "$standby" ]
  if [ -n "$primary" ] && [ -n "$standby" ]; then
    check_primary "$primary"
    check_replication "$primary" "$standby"
    check_lag "$primary" "$standby"
    check_read_only "$standby"
    check_pooling
    check_routing "$primary" "$standby"
    check_monitoring "$primary" "$standby"
  fi
  set -e
}
