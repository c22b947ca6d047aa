# What is done to the laboratory under load: the primary is lost, the primary is exchanged, the standby falls behind.
# Each ends with a primary and a standby again, so that it can be repeated.
# shellcheck shell=bash

# Sets OLD and NEW: the primary now, and the node that is to be it afterwards.
choose_nodes() {
  OLD=$(primary_node)
  NEW=$(standby_node)
  if [ -z "$OLD" ] || [ -z "$NEW" ]; then die "there must be a primary and a standby; see scripts/demo status"; fi
  wait_until 10 takes_for_both "$OLD" "$NEW" ||
    { console 'SHOW HOSTS' >&2; die "pgweir does not take $OLD for the primary and $NEW for the standby"; }
}
# takes_for_both PRIMARY STANDBY: so pgweir sees it.
takes_for_both() { takes_for "$1" primary && takes_for "$2" standby; }

# So many more writes are acknowledged, however many there are.
await_writes() {
  wait_until "$1" has_written $(($(acknowledged_writes) + $2)) || {
    show_load_failure
    die "no writes go through"
  }
}
show_load_failure() {
  tail -n 5 "$DEMO/load.events" >&2
  console 'SHOW HOSTS' >&2
  tail -n 10 "$DEMO/pgweir.log" >&2
}

# repeat TIMES FUNCTION: does it so often; if more than once, sums up what report_load found.
repeat() {
  local i
  : >"$DEMO/times"
  for ((i = 1; i <= $1; i++)); do
    if [ "$1" -gt 1 ]; then say "---- $i of $1"; fi
    "$2"
  done
  if [ "$1" -gt 1 ]; then
    step "median and worst of $1, in seconds"
    sum_up 1 "promotion, from the kill or the command"
    sum_up 2 "first write, from the kill or the command"
    sum_up 3 "first write, from the promotion"
    sum_up 4 "longest time without a write"
  fi
}
# sum_up COLUMN TITLE: of $DEMO/times. An even number of values has two in the middle; the median is between them.
sum_up() {
  cut -d ' ' -f "$1" "$DEMO/times" | sort -n | awk -v title="$2" '
    { value[NR] = $1 }
    END { printf "  %-42s %5.2f  %5.2f\n", title, (value[int((NR + 1) / 2)] + value[int(NR / 2) + 1]) / 2, value[NR] }'
}

# The figures that both ways to another primary have in common; reconciles what was acknowledged.
report_load() {
  say "   $(figure writes) writes acknowledged, longest time without one $(figure longest_gap) s;" \
    "$(figure reads) reads, longest time without one $(figure longest_read_gap) s"
  show_errors
  echo "$(figure promoted) $(figure first_write) $(figure first_write_after_promotion) $(figure longest_gap)" >>"$DEMO/times"
  reconcile
}

# What was under way on a lost host has an unknown outcome, which the client is told; everything else waits.
check_lost_host() {
  check "errors, writers" "$(figure writer_errors) (at most the $WRITERS that were under way)" \
    at_most "$(figure writer_errors)" "$WRITERS"
  check "errors, readers" "$(figure reader_errors)" [ "$(figure reader_errors)" = 0 ]
  check "applied twice" "$TWICE writes" [ "$TWICE" = 0 ]
  say "        acknowledged, but missing on $NEW: $MISSING (replication is asynchronous: the last ones may be lost)"
}

failover() {
  local began
  choose_nodes
  step "load on app: $WRITERS clients write, $READERS read"
  start_load "$WRITERS" "$READERS" "$(node_port "$NEW")"
  step "kill -9 of the primary $OLD, then the standby $NEW is promoted"
  began=$(now)
  kill_node "$OLD"
  promote_node "$NEW"
  await_writes 40 200
  stop_load "$began"
  report_load
  say "   promoted $(figure promoted) s after the kill, first write $(figure first_write) s after it"
  check "first write" "$(figure first_write_after_promotion) s after the promotion (limit 1 s)" \
    less "$(figure first_write_after_promotion)" 1
  check_lost_host
  create_standby "$OLD"
  settle
}

switchover() {
  local began notice=$DEMO/switchover.out code=0
  choose_nodes
  step "load on app: $WRITERS clients write, $READERS read"
  start_load "$WRITERS" "$READERS" "$(node_port "$NEW")"
  step "SWITCHOVER app"
  began=$(now)
  console 'SWITCHOVER app' -v QUIET=off >"$notice" 2>&1 &
  SWITCHOVER_PID=$!
  wait_until 40 grep -q 'promote it now' "$notice" ||
    { cat "$notice" >&2; show_load_failure; die "SWITCHOVER does not say that the standby may be promoted"; }
  say "   $(grep 'promote it now' "$notice")"
  grep -q ":$(node_port "$NEW") " "$notice" || die "this is not $NEW"
  stop_node "$OLD" fast
  promote_node "$NEW"
  wait "$SWITCHOVER_PID" || code=$?
  SWITCHOVER_PID=''
  await_writes 40 200
  stop_load "$began"
  report_load
  check "SWITCHOVER" "$(tail -n 1 "$notice"), exit code $code" [ "$code" = 0 ]
  check "first write" \
    "$(figure first_write_after_promotion) s after the promotion, $(figure first_write) s after the command" \
    less "$(figure first_write_after_promotion)" 1
  check "errors" "$(errors)" [ "$(errors)" = 0 ]
  check "missing" "$MISSING acknowledged writes" [ "$MISSING" = 0 ]
  check "applied twice" "$TWICE writes" [ "$TWICE" = 0 ]
  step "the former primary $OLD becomes the standby"
  create_slot "$NEW"
  join_as_standby "$OLD"
  settle
}

# pgweir sees what is true now, and the plain database `demo` is told.
settle() {
  reload_proxy
  check "SHOW HOSTS" "$NEW is the primary, $OLD its standby" wait_until 10 takes_for_both "$NEW" "$OLD"
  check "demo" "follows to $(served_by demo "INSERT INTO lab_writes VALUES (0, 0, 0) RETURNING inet_server_port()")" \
    [ "$(served_by demo 'SELECT inet_server_port()')" = "$NEW" ]
}

# Reads by where they went since the last call: sets MOVED_STANDBY and MOVED_PRIMARY.
routed_since() {
  local now_standby now_primary rest
  read -r now_standby now_primary rest < <(routed)
  MOVED_STANDBY=$((now_standby - ${LAST_STANDBY:-now_standby}))
  MOVED_PRIMARY=$((now_primary - ${LAST_PRIMARY:-now_primary}))
  LAST_STANDBY=$now_standby
  LAST_PRIMARY=$now_primary
}
# follow_reads SECONDS CONDITION: a line every half second until the condition holds; false when the time is up. Sets
# TOOK, in seconds.
follow_reads() {
  local deadline=$((SECONDS + $1)) condition=$2 began
  began=$(now)
  routed_since
  printf '   %7s  %-10s %10s %14s %16s %16s\n' 'time' 'state' 'lag ms' 'lag bytes' 'reads standby' 'reads primary'
  while :; do
    sleep 0.5
    routed_since
    TOOK=$(awk -v from="$began" -v to="$(now)" 'BEGIN {printf "%.1f", to - from}')
    printf '   %5s s  %-10s %10s %14s %16s %16s\n' "$TOOK" "$(host_value "$NEW" state)" "$(host_value "$NEW" lag_ms)" \
      "$(host_value "$NEW" lag_bytes)" "$MOVED_STANDBY" "$MOVED_PRIMARY"
    if "$condition"; then return 0; fi
    [ "$SECONDS" -lt "$deadline" ] || return 1
  done
}
reads_at_primary() { [ "$MOVED_STANDBY" -eq 0 ] && [ "$MOVED_PRIMARY" -gt 0 ]; }
reads_at_standby() { [ "$MOVED_STANDBY" -gt 0 ] && [ "$MOVED_PRIMARY" -eq 0 ]; }

lag() {
  local moved=no returned=no limit
  limit=$(awk -v ms="$MAX_LAG_MS" 'BEGIN {print ms / 1000 + 2}')
  choose_nodes
  step "load on app: 2 clients write, $READERS read"
  start_load 2 "$READERS"
  step "replay on the standby $NEW is paused; reads may be $MAX_LAG_MS ms old"
  PAUSED_NODE=$NEW
  sql "$NEW" 'SELECT pg_wal_replay_pause()' >/dev/null
  if follow_reads 20 reads_at_primary; then moved=$TOOK; fi
  step "replay is resumed"
  resume_replay
  if follow_reads 20 reads_at_standby; then returned=$TOOK; fi
  stop_load
  show_errors
  check "reads moved" "to the primary, $moved s after the pause" at_most "$moved" "$limit"
  check "reads returned" "to the standby, $returned s after replay went on" at_most "$returned" 5
  check "errors" "$(errors)" [ "$(errors)" = 0 ]
}
# When the script is interrupted: a standby whose replay is paused would stay so, and writes that are held would wait.
undo() {
  resume_replay
  if [ -n "${SWITCHOVER_PID:-}" ]; then kill "$SWITCHOVER_PID" 2>/dev/null || true; fi
}
resume_replay() {
  if [ -n "${PAUSED_NODE:-}" ]; then sql "$PAUSED_NODE" 'SELECT pg_wal_replay_resume()' >/dev/null; fi
  PAUSED_NODE=''
}
