# Load on the laboratory: clients of our own (load.py), which survive what is done to the servers, and pgbench.
# shellcheck shell=bash
# Some variables are for the other parts.
# shellcheck disable=SC2034

CLIENTS=50
SECONDS_EACH=${PGWEIR_DEMO_SECONDS:-5}
WRITERS=8
READERS=8
# The interpreter for which Debian's python3-psycopg2 is.
PYTHON=/usr/bin/python3
LOAD_PID=''
LOAD_RUN=0
LOG_BEFORE=0

now() { date +%s.%N; }

# start_load WRITERS READERS [PORT...]: through `app`; the ports are of nodes whose promotion is to be noted. Returns when
# all clients are at work.
start_load() {
  local writers=$1 readers=$2
  shift 2
  LOAD_RUN=$(date +%s)
  LOG_BEFORE=$(stat -c %s "$DEMO/pgweir.log")
  : >"$DEMO/load.events"
  "$PYTHON" -B "$ROOT/scripts/lab/load.py" run --port "$PROXY_PORT" --run "$LOAD_RUN" --writers "$writers" \
    --readers "$readers" --events "$DEMO/load.events" --watch "$@" >"$DEMO/load.log" 2>&1 &
  LOAD_PID=$!
  wait_until 30 clients_at_work "$((writers + readers))" ||
    { cat "$DEMO/load.log" >&2; head -n 5 "$DEMO/load.events" >&2; die "the clients do not get through"; }
}
clients_at_work() {
  [ "$(awk '$2 == "W" || $2 == "R" {count[$3]++} END {for (c in count) if (count[c] >= 10) n++; print n + 0}' \
    "$DEMO/load.events")" -eq "$1" ]
}
acknowledged_writes() { grep -c ' W ' "$DEMO/load.events" || true; }
# For wait_until: so many writes were acknowledged.
has_written() { [ "$(acknowledged_writes)" -ge "$1" ]; }

# Ends the clients and leaves their figures in $DEMO/load.report; times count from $1.
stop_load() {
  local stuck=no
  kill -TERM "$LOAD_PID"
  wait "$LOAD_PID" || stuck=yes
  LOAD_PID=''
  "$PYTHON" -B "$ROOT/scripts/lab/load.py" report --events "$DEMO/load.events" --since "${1:-0}" >"$DEMO/load.report" ||
    die "the events of the clients cannot be read"
  check "clients" "none is left without an answer" [ "$stuck" = no ]
}
# Nothing outlives the script.
abandon_load() {
  if [ -n "$LOAD_PID" ]; then kill -KILL "$LOAD_PID" 2>/dev/null || true; fi
}

# One figure of the last report; 0 for a counter that is not there.
figure() { awk -v key="$1" '$1 == key {print $2}' "$DEMO/load.report"; }
errors() { echo $(($(figure writer_errors) + $(figure reader_errors))); }
# The errors of the clients, and what pgweir told them: libpq hands on only that the connection is gone then.
show_errors() {
  sed -n 's/^error /      /p' "$DEMO/load.report"
  tail -c "+$((LOG_BEFORE + 1))" "$DEMO/pgweir.log" | sed -n 's/.* pooler error: //p' | sort | uniq -c |
    awk '{count = $1; $1 = ""; print "      pgweir told " count " clients:" $0}'
}

# What became of the writes of the last run on the primary: sets MISSING and TWICE.
reconcile() {
  local node
  node=$(primary_node)
  [ -n "$node" ] || die "there is no primary"
  awk '$2 == "W" {print substr($3, 2) "\t" $4}' "$DEMO/load.events" >"$DEMO/acknowledged"
  read -r MISSING TWICE < <(PGAPPNAME=lab "$PG_BIN/psql" -X -q -At -F ' ' -v ON_ERROR_STOP=1 -h 127.0.0.1 \
    -p "$(node_port "$node")" -U postgres -d app <<SQL
CREATE TEMP TABLE acknowledged (client int, number int);
\\copy acknowledged FROM '$DEMO/acknowledged'
SELECT (SELECT count(*) FROM (SELECT * FROM acknowledged
                              EXCEPT SELECT client, number FROM lab_writes WHERE run = $LOAD_RUN) AS missing),
       (SELECT count(*) FROM (SELECT FROM lab_writes WHERE run = $LOAD_RUN
                              GROUP BY client, number HAVING count(*) > 1) AS twice);
SQL
  ) || die "the writes cannot be counted"
}

# Notes every 0.1 s how many connections that have served pgbench each node has, while the process $1 lives.
watch_connections() {
  local node
  while kill -0 "$1" 2>/dev/null; do
    for node in "${NODES[@]}"; do
      node_lives "$node" || continue
      echo "$node $(sql "$node" "SELECT count(*) FROM pg_stat_activity WHERE datname = 'app' AND application_name = 'pgbench'
                                 AND backend_type = 'client backend'")"
    done
    sleep 0.1
  done >"$DEMO/connections"
}
most_connections() { awk -v node="$1" '$1 == node && $2 > most {most = $2} END {print most + 0}' "$DEMO/connections"; }

# run_pgbench TITLE OPTIONS...: runs pgbench through `app` and prints one paragraph.
run_pgbench() {
  local title=$1 log=$DEMO/pgbench.log pid code=0 transactions failed tps latency before after
  shift
  step "pgbench, $title: $CLIENTS clients for $SECONDS_EACH s"
  before=$(routed)
  "$PG_BIN/pgbench" -h 127.0.0.1 -p "$PROXY_PORT" -U demo -n -c "$CLIENTS" -j 2 -T "$SECONDS_EACH" "$@" app \
    >"$log" 2>&1 &
  pid=$!
  watch_connections "$pid"
  wait "$pid" || code=$?
  after=$(routed)
  transactions=$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$log")
  failed=$(sed -n 's/^number of failed transactions: \([0-9]*\).*/\1/p' "$log")
  tps=$(sed -n 's/^tps = \([0-9]*\).*/\1/p' "$log")
  latency=$(sed -n 's/^latency average = //p' "$log")
  say "   $transactions transactions, $tps per second, $latency on average, $failed failed"
  say "   $CLIENTS clients shared at most $(most_connections "$(primary_node)") connections to the primary and" \
    "$(most_connections "$(standby_node)") to the standby"
  awk -v before="$before" -v after="$after" 'BEGIN {
    split(before, b); split(after, a)
    printf "   routed: %d reads to the standby, %d reads to the primary, %d writes\n", a[1] - b[1], a[2] - b[2], a[3] - b[3]
  }'
  if [ "$code" -ne 0 ]; then sed -n 's/.*ERROR: */      /p' "$log" | sort | uniq -c | head -n 5; fi
  check "pgbench" "exit code $code, ${failed:-unknown} transactions failed" [ "$code $failed" = "0 0" ]
}
# Counters of `app` since pgweir started: reads to the standby, reads to the primary for any reason, writes.
routed() {
  console 'SHOW ROUTES' -A -F '|' -P footer=off | awk -F '|' '
    NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
    $(at["database"]) == "app" {
      print $(at["reads_standby"]), $(at["reads_primary_no_standby"]) + $(at["reads_primary_read_your_writes"]) + \
            $(at["reads_primary_other"]), $(at["writes"])
    }'
}
