"""The admin console, signals, reload and the command line, against the reference's columns, tags and texts."""

import asyncio
import os
import signal
import ssl
import subprocess
import time

import asyncpg
import psycopg
import pytest

import harness
import wire
from harness import as_run_user, wait_until, write_file
from wire import Wire, WireError, query, row_types, send_cancel

TEXT, INT4, INT8, NUMERIC, BYTEA = 25, 23, 20, 1700, 17
CODES = {"t": TEXT, "i": INT4, "q": INT8, "n": NUMERIC, "b": BYTEA}


def columns(**types):
    """columns(t="a b", i="c") in the order given."""
    return [(name, CODES[kind[0]]) for kind, names in types.items() for name in names.split()]


SOCKET_COLUMNS = columns(
    t1="type user database replication state addr", i1="port", t2="local_addr", i2="local_port",
    t3="connect_time request_time", i3="wait wait_us close_needed", t4="ptr link", i4="remote_pid",
    t5="tls application_name", i5="prepared_statements id")
BUFFER_COLUMNS = columns(i="recv_pos pkt_pos pkt_remain send_pos send_remain pkt_avail send_avail")
STATISTICS = ("server_assignment_count xact_count query_count received sent xact_time query_time wait_time "
              "client_parse_count server_parse_count bind_count client_login_count").split()
TOTALS = ("server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time wait_time "
          "client_parse_count server_parse_count bind_count client_login_count")
AVERAGES = ("server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time wait_time "
            "avg_client_parse_count avg_server_parse_count avg_bind_count avg_client_login_count")

SHOW = {
    "VERSION": columns(t="version"),
    "STATE": columns(t="key value"),
    "DATABASES": columns(t1="name host", i1="port", t2="database force_user", i2="pool_size min_pool_size "
                         "reserve_pool_size server_lifetime", t3="pool_mode load_balance_hosts",
                         i3="max_connections current_connections max_client_connections current_client_connections "
                         "paused disabled"),
    "POOLS": columns(t1="database user", i1="cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active "
                     "sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us",
                     t2="pool_mode load_balance_hosts"),
    "PEER_POOLS": columns(i="peer_id cl_active_cancel_req cl_waiting_cancel_req sv_active_cancel sv_login"),
    "PEERS": columns(i1="peer_id", t="host", i2="port pool_size"),
    "USERS": columns(t="name pool_size reserve_pool_size pool_mode", i="max_user_connections current_connections "
                     "max_user_client_connections current_client_connections"),
    "CLIENTS": SOCKET_COLUMNS,
    "SERVERS": SOCKET_COLUMNS,
    "SOCKETS": SOCKET_COLUMNS + BUFFER_COLUMNS,
    "ACTIVE_SOCKETS": SOCKET_COLUMNS + BUFFER_COLUMNS,
    "STATS": columns(t="database", n=" ".join(
        [f"total_{name}" for name in STATISTICS] +
        ["avg_" + {"received": "recv"}.get(name, name) for name in STATISTICS])),
    "STATS_TOTALS": columns(t="database", n=TOTALS),
    "STATS_AVERAGES": columns(t="database", n=AVERAGES),
    "TOTALS": columns(t="name", n="value"),
    "LISTS": columns(t="list", i="items"),
    "MEM": columns(t="name", i="size used free memtotal"),
    "DNS_HOSTS": columns(t1="hostname", q="ttl", t2="addrs"),
    "DNS_ZONES": columns(t="zonename", q="serial", i="count"),
    "CONFIG": columns(t="key value default changeable"),
    "FDS": columns(i1="fd", t1="task user database addr", i2="port", q="cancel", i3="link",
                   t2="client_encoding std_strings datestyle timezone password", b="scram_client_key scram_server_key"),
}
# The order of section 1.2 of PgBouncer's surface: the rows of SHOW CONFIG.
CONFIG_KEYS = """admin_users application_name_add_host auth_dbname auth_file auth_hba_file auth_ident_file
auth_ldap_options auth_query auth_type auth_user autodb_idle_timeout cancel_wait_timeout client_idle_timeout
client_login_timeout client_tls13_ciphers client_tls_ca_file client_tls_cert_file client_tls_ciphers
client_tls_dheparams client_tls_ecdhcurve client_tls_key_file client_tls_protocols client_tls_sslmode conffile
default_pool_size disable_pqexec dns_max_ttl dns_nxdomain_ttl dns_zone_check_period idle_transaction_timeout
ignore_startup_parameters job_name listen_addr listen_backlog listen_port log_connections log_disconnections
log_pooler_errors log_stats logfile login_notify_message max_client_conn max_db_client_connections
max_db_connections max_packet_size max_prepared_statements max_user_client_connections max_user_connections
min_pool_size peer_id pidfile pkt_buf pool_mode pool_idle_timeout query_timeout query_wait_notify
query_wait_timeout reserve_pool_size reserve_pool_timeout resolv_conf sbuf_loopcnt scram_iterations
server_check_delay server_check_query server_connect_timeout server_fast_close server_idle_timeout
server_lifetime server_login_retry server_reset_query server_reset_query_always server_round_robin
server_tls13_ciphers server_tls_ca_file server_tls_cert_file server_tls_ciphers server_tls_key_file
server_tls_protocols server_tls_sslmode so_reuseport stats_period stats_users suspend_timeout syslog
syslog_facility syslog_ident tcp_defer_accept tcp_keepalive tcp_keepcnt tcp_keepidle tcp_keepintvl
tcp_socket_buffer tcp_user_timeout track_extra_parameters transaction_timeout unix_socket_dir unix_socket_group
unix_socket_mode user verbose""".split()


@pytest.fixture
def console(pooler):
    with pooler.console() as one:
        yield one


def failure(console, command):
    """The text of the error that a command brings; the console must stay usable."""
    result = console.query(command)
    assert result.error is not None, f"{command} did not fail"
    assert result.error["S"] == "ERROR" and result.status == "I"
    assert set(result.error) <= {"S", "C", "M"}
    return result.error["M"]


class TestShow:
    @pytest.mark.pgweir
    @pytest.mark.smoke
    @pytest.mark.parametrize("what", SHOW)
    def test_columns_and_types(self, pooler, console, what):
        if what == "FDS":
            pytest.skip(f"SHOW {what} is not there yet")
        pooler.wire().value("SELECT 1")
        result = console.query(f"SHOW {what}")
        assert result.errors == []
        assert result.tags == ["SHOW"]
        (description,) = [m for m in result.messages if m.type == "T"]
        types = row_types(description.body)
        assert types[:len(SHOW[what])] == SHOW[what]
        ours = {"POOLS": ["host", "port", "role"], "SERVERS": ["host", "role"]}
        assert [name for name, _ in types[len(SHOW[what]):]] == ours.get(what, [])

    def test_version(self, console):
        (row,) = console.rows("SHOW VERSION")
        assert row["version"].startswith("PgBouncer " if harness.IS_PGBOUNCER else "PgWeir ")
        assert console.rows("SELECT version") == [row]
        assert row["version"] == harness.version_line(harness.BINARY)

    @pytest.mark.pgweir
    def test_welcome_parameters(self, console):
        assert console.parameters["server_version"] == "1.25.2/bouncer"
        assert console.parameters["client_encoding"] == "UTF8"
        assert console.parameters["DateStyle"] == "ISO"
        assert console.parameters["TimeZone"] == "GMT"
        assert console.parameters["standard_conforming_strings"] == "on"
        assert console.parameters["is_superuser"] == "on"

    def test_help_is_a_notice(self, console):
        result = console.query("SHOW HELP")
        assert result.tags == ["SHOW"] and result.rows == []
        (notice,) = result.notices
        assert notice["M"] == "Console usage" and "SHOW" in notice["D"]

    @pytest.mark.pgweir
    def test_config_lists_every_setting_in_order(self, console):
        rows = console.rows("SHOW CONFIG")
        keys = [row["key"] for row in rows]
        assert [key for key in keys if key in CONFIG_KEYS] == CONFIG_KEYS
        by_key = {row["key"]: row for row in rows}
        assert by_key["query_wait_timeout"] == {"key": "query_wait_timeout", "value": "30", "default": "120",
                                                "changeable": "yes"}
        assert by_key["listen_port"]["changeable"] == "no"
        assert by_key["auth_user"]["default"] is None
        assert by_key["unix_socket_mode"]["default"] == "0777" and by_key["unix_socket_mode"]["value"] == "511"
        assert by_key["server_check_query"]["default"] == "<empty>"

    @pytest.mark.pgweir
    def test_state(self, console):
        assert {row["key"]: row["value"] for row in console.rows("SHOW STATE")} == {
            "active": "yes", "paused": "no", "suspended": "no"}

    def test_databases_row(self, pooler, cluster, console):
        rows = {row["name"]: row for row in console.rows("SHOW DATABASES")}
        assert list(rows) == sorted(rows) and "pgbouncer" in rows
        assert rows["app"]["host"] == "127.0.0.1" and rows["app"]["port"] == str(cluster.port)
        assert rows["app"]["database"] == "app" and rows["app"]["pool_size"] == "5"
        assert rows["app"]["force_user"] is None and rows["app"]["pool_mode"] is None

    def test_pools_row_counts_clients_and_servers(self, pooler, console):
        busy, idle = pooler.wire(), pooler.wire()
        busy.query("BEGIN")
        idle.value("SELECT 1")
        pool = pooler.pool()
        assert (pool["cl_active"], pool["cl_waiting"], pool["sv_active"], pool["sv_idle"]) == (2, 0, 1, 1)
        assert pool["pool_mode"] == "transaction"
        names = [(row["database"], row["user"]) for row in console.rows("SHOW POOLS")]
        assert names == sorted(names) and ("pgbouncer", "pgbouncer") in names

    def test_clients_and_servers_are_linked(self, pooler):
        client = pooler.wire(application_name="me")
        client.query("BEGIN")
        (row,), (server,) = pooler.clients(), pooler.servers()
        assert (row["type"], row["state"], server["type"], server["state"]) == ("C", "active", "S", "active")
        assert row["link"] == server["ptr"] and server["link"] == row["ptr"]
        assert row["addr"] == "127.0.0.1" and int(row["port"]) == client.socket.getsockname()[1]
        assert row["application_name"] == "me"
        assert server["remote_pid"] == client.value("SELECT pg_backend_pid()")

    @pytest.mark.pgweir
    def test_states_of_clients(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1})
        active, waiting, idle = pooler.wire(), pooler.wire(), pooler.wire()
        active.query("BEGIN")
        waiting.send(query("SELECT 1"))
        pooler.wait_waiting(1)
        assert sorted(row["state"] for row in pooler.clients()) == ["active", "idle", "waiting"]
        assert idle.key

    def test_stats_count_transactions_and_queries(self, pooler):
        client = pooler.wire()
        client.query("BEGIN")
        client.query("SELECT 1")
        client.query("COMMIT")
        client.query("SELECT 2")
        (row,) = [row for row in pooler.admin("SHOW STATS") if row["database"] == "app"]
        assert (row["total_xact_count"], row["total_query_count"]) == ("2", "4")
        assert int(row["total_received"]) > 0 and int(row["total_sent"]) > 0

    @pytest.mark.pgweir
    def test_latency_by_host_and_role(self, pooler, cluster):
        client = pooler.wire()
        for _ in range(10):
            client.query("SELECT 1")
        client.query("SELECT pg_sleep(0.05)")
        (row,) = [row for row in pooler.admin("SHOW LATENCY") if row["waits"] != "0"]
        assert (row["database"], row["host"], row["port"]) == ("app", "127.0.0.1", str(cluster.port))
        assert row["role"] == "primary"
        assert int(row["queries"]) == int(row["xacts"]) == 11
        assert int(row["query_p50"]) < 50_000 <= int(row["query_max"])

    def test_lists(self, console):
        rows = [row["list"] for row in console.rows("SHOW LISTS")]
        assert rows[:2] == ["databases", "users"] and "used_clients" in rows

    @pytest.mark.parametrize("command", ["SHOW", "SHOW nonsense", "NONSENSE", "SELECT 1", "", "SHOW POOLS; SHOW POOLS"])
    def test_invalid_commands(self, console, command):
        assert failure(console, command) in (f"invalid command '{command}', use SHOW HELP;", "bad packet")

    @pytest.mark.pgweir
    def test_very_long_command_is_an_ordinary_error(self, console):
        assert "invalid command" in failure(console, "SELECT " + "a.b, " * 600)

    def test_commands_are_case_insensitive_and_may_end_with_a_semicolon(self, console):
        assert console.rows("show version;") == console.rows("SHOW VERSION")

    def test_fake_shows_for_drivers(self, console):
        assert console.value("SHOW client_encoding") == "UTF-8"
        assert console.value("SHOW standard_conforming_strings") == "on"
        assert console.query("SET DateStyle = ISO").tags == ["SET"]

    @pytest.mark.pgweir
    def test_psycopg_reads_it_by_prepared_statements(self, pooler):
        with psycopg.connect(**pooler.dsn("admin", "pgbouncer"), autocommit=True) as connection:
            pooler.wire().value("SELECT 1")
            # The server is free just after the client has its answer, on another thread than the console's.
            wait_until(lambda: pooler.pool()["sv_idle"] == 1, what="the server is idle")
            for binary in (False, True):
                rows = connection.execute("SHOW POOLS", prepare=True, binary=binary)
                names = [column.name for column in rows.description]
                (row,) = [dict(zip(names, row)) for row in rows if row[0] == "app"]
                assert (row["user"], row["sv_idle"], row["maxwait"], row["pool_mode"]) == ("postgres", 1, 0, "transaction")
                (stats,) = [row for row in connection.execute("SHOW STATS_TOTALS", prepare=True, binary=binary)
                            if row[0] == "app"]
                assert stats[2] == 1 and stats[4] > 0
            assert connection.execute("PAUSE other", prepare=True).statusmessage == "PAUSE"
            assert connection.execute("RESUME other", prepare=True).statusmessage == "RESUME"
            with pytest.raises(psycopg.Error, match="no such database: nosuch"):
                connection.execute("PAUSE nosuch", prepare=True)
            assert connection.execute("SHOW VERSION", prepare=True).fetchone()[0].startswith("PgWeir ")

    @pytest.mark.pgweir
    def test_asyncpg_reads_it(self, pooler):
        async def read():
            connection = await asyncpg.connect(host="127.0.0.1", port=pooler.port, user="admin", password="",
                                               database="pgbouncer", ssl=False)
            try:
                return await connection.fetch("SHOW DATABASES")
            finally:
                await connection.close()

        rows = asyncio.run(read())
        assert [row["name"] for row in rows] == ["app", "other", "pgbouncer"]
        assert rows[0]["port"] == pooler.cluster.port

    def test_read_only_users_may_look_but_not_act(self, pooler):
        console = pooler.console("stats")
        assert console.rows("SHOW POOLS")
        for command in ("PAUSE", "RELOAD", "SET verbose = 1", "KILL app"):
            assert failure(console, command) == "admin access needed"
        assert console.query("SHOW FDS").error


class TestPause:
    @pytest.mark.smoke
    def test_pause_waits_for_transactions_and_resume_lets_clients_go_on(self, pooler, console):
        client, waiter = pooler.wire(), pooler.wire()
        client.query("BEGIN")
        console.send(query("PAUSE"))
        assert console.quiet_for(0.3)
        assert client.value("SELECT 'inside'") == "inside"
        client.query("COMMIT")
        assert console.collect().tags == ["PAUSE"]
        waiter.send(query("SELECT 'after'"))
        assert waiter.quiet_for(0.3)
        assert console.query("RESUME").tags == ["RESUME"]
        assert waiter.collect().value() == "after"

    def test_pause_of_one_database_leaves_the_others(self, pooler, console, cluster):
        client, other = pooler.wire(), pooler.wire(database="other")
        client.value("SELECT 1")
        assert console.query("PAUSE app").tags == ["PAUSE"]
        wait_until(lambda: not cluster.backends(), what="the paused database has no servers")
        assert other.value("SELECT 'free'") == "free"
        client.send(query("SELECT 'late'"))
        assert client.quiet_for(0.3)
        console.query("RESUME app")
        assert client.collect().value() == "late"

    def test_errors(self, console):
        assert failure(console, "PAUSE nowhere") == "no such database: nowhere"
        assert failure(console, "PAUSE pgbouncer") == "cannot pause admin db: pgbouncer"
        assert failure(console, "RESUME") == "pooler is not paused/suspended"
        assert failure(console, "RESUME app") == "database app is not paused"
        console.query("PAUSE")
        assert failure(console, "PAUSE") == "already suspended/paused"

    def test_pending_pause_is_interrupted_by_a_cancel(self, pooler, console):
        client = pooler.wire()
        client.query("BEGIN")
        console.send(query("PAUSE"))
        assert console.quiet_for(0.3)
        send_cancel(pooler.port, console.key)
        client.query("COMMIT")
        other = pooler.wire()
        assert other.value("SELECT 'resumed'") == "resumed"

    @pytest.mark.skip(reason="SUSPEND is not there yet")
    def test_suspend_and_resume(self, pooler, console):
        client = pooler.wire()
        client.value("SELECT 1")
        assert console.query("SUSPEND").tags == ["SUSPEND"]
        client.send(query("SELECT 'suspended'"))
        assert client.quiet_for(0.3)
        assert console.query("RESUME").tags == ["RESUME"]
        assert client.collect().value() == "suspended"

    def test_loss_of_the_suspending_console_resumes(self, pooler):
        client = pooler.wire()
        console = pooler.console()
        console.query("SUSPEND")
        client.send(query("SELECT 'back'"))
        console.close()
        assert client.collect().value() == "back"

    @pytest.mark.pgweir
    def test_usr1_pauses_and_usr2_resumes(self, pooler, console):
        pooler.signal(signal.SIGUSR1)
        self.wait_paused(console, "yes")
        pooler.signal(signal.SIGUSR2)
        self.wait_paused(console, "no")

    def wait_paused(self, console, expected):
        def reached():
            return {"key": "paused", "value": expected} in console.rows("SHOW STATE")
        wait_until(reached, what=f"paused = {expected}")


class TestActions:
    def test_kill_drops_everybody_until_resume(self, pooler, console, cluster):
        client = pooler.wire()
        client.value("SELECT 1")
        assert console.query("KILL app").tags == ["KILL"]
        client.expect_fatal("database removed" if not harness.IS_PGBOUNCER else None, "08P01")
        wait_until(lambda: not cluster.backends())
        assert console.query("RESUME app").tags == ["RESUME"]
        assert pooler.wire().value("SELECT 1") == "1"
        assert failure(console, "KILL nowhere") == "no such database: nowhere"

    @pytest.mark.pgweir
    def test_kill_client(self, pooler, console):
        client, other = pooler.wire(application_name="victim"), pooler.wire()
        (row,) = [row for row in pooler.clients() if row["application_name"] == "victim"]
        assert console.query(f"KILL_CLIENT {row['id']}").tags == ["KILL_CLIENT"]
        client.expect_fatal("admin forced disconnect", "08P01")
        assert other.value("SELECT 1") == "1"
        assert failure(console, f"KILL_CLIENT {row['id']}") == "client not found"
        assert failure(console, "KILL_CLIENT nonsense") == "invalid client pointer supplied"

    @pytest.mark.pgweir
    def test_console_is_a_database_of_its_own_in_the_statistics(self, pooler):
        def counts():
            (row,) = [row for row in pooler.admin("SHOW STATS_TOTALS") if row["database"] == "pgbouncer"]
            return [int(row[key]) for key in ("client_login_count", "xact_count", "query_count")]

        before = counts()
        assert [now - then for now, then in zip(counts(), before)] == [1, 1, 1]

    @pytest.mark.pgweir
    def test_ids_are_one_sequence_over_all_threads(self, make_pooler):
        pooler = make_pooler(settings={}, pgweir={"worker_threads": 2})
        console, clients = pooler.console(), [pooler.wire() for _ in range(4)]
        for client in clients:
            client.query("BEGIN")
        ids = sorted(int(row["id"]) for row in console.rows("SHOW SOCKETS"))
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert console.query(f"KILL_CLIENT {ids[1]}").tags == ["KILL_CLIENT"]

    @pytest.mark.smoke
    def test_reconnect_replaces_servers_without_hurting_clients(self, pooler, console):
        client, busy = pooler.wire(), pooler.wire()
        old = client.value("SELECT pg_backend_pid()")
        busy.query("BEGIN")
        busy_pid = busy.value("SELECT pg_backend_pid()")
        assert console.query("RECONNECT app").tags == ["RECONNECT"]
        assert busy.value("SELECT pg_backend_pid()") == busy_pid
        assert client.value("SELECT pg_backend_pid()") not in (old, busy_pid)
        console.send(query("WAIT_CLOSE app"))
        assert console.quiet_for(0.3)
        busy.query("COMMIT")
        assert console.collect().tags == ["WAIT_CLOSE"]
        assert busy.value("SELECT pg_backend_pid()") != busy_pid

    def test_wait_close_answers_at_once_without_servers(self, console):
        assert console.query("WAIT_CLOSE").tags == ["WAIT_CLOSE"]

    def test_disable_and_enable(self, pooler, console):
        client = pooler.wire()
        assert console.query("DISABLE app").tags == ["DISABLE"]
        with pytest.raises(WireError) as refused:
            pooler.wire()
        if not harness.IS_PGBOUNCER:
            assert refused.value.text == 'database "app" is disabled'
        assert client.value("SELECT 'stays'") == "stays"
        assert console.query("ENABLE app").tags == ["ENABLE"]
        assert pooler.wire().value("SELECT 1") == "1"
        assert failure(console, "DISABLE") == "a database is required"

    def test_set_changes_a_setting_until_the_next_reload(self, pooler, console):
        def value():
            return {row["key"]: row["value"] for row in console.rows("SHOW CONFIG")}["default_pool_size"]

        assert console.query("SET default_pool_size = 7").tags == ["SET default_pool_size=7"] or harness.IS_PGBOUNCER
        assert value() == "7"
        console.query("RELOAD")
        wait_until(lambda: value() == "5")
        assert failure(console, "SET no_such_setting = 1") == "SET failed"
        assert failure(console, "SET default_pool_size = many") == "SET failed"
        assert console.query("SET listen_port = 1").errors == []

    def test_set_pool_size_takes_effect(self, make_pooler, cluster):
        pooler = make_pooler(settings={"default_pool_size": 1})
        holder, waiter = pooler.wire(), pooler.wire()
        holder.query("BEGIN")
        waiter.send(query("SELECT 'more room'"))
        pooler.wait_waiting(1)
        with pooler.console() as console:
            console.query("SET default_pool_size = 2")
        assert waiter.collect().value() == "more room"

    @pytest.mark.pgweir
    def test_set_of_the_log_file_moves_the_log(self, pooler, console):
        other = pooler.home / "other log"
        other.touch()
        harness.give_to_run_user(other)
        assert console.query(f"SET logfile = '{other}'").errors == []
        pooler.wire().close()
        wait_until(lambda: "login attempt" in other.read_text())
        assert failure(console, "SET logfile = '/no/such/folder/log'") == "SET failed"
        assert dict((row["key"], row["value"]) for row in console.rows("SHOW CONFIG"))["logfile"] == str(other)

    @pytest.mark.pgweir
    def test_set_of_tls_is_checked_and_takes_effect(self, make_pooler, authority):
        pooler = make_pooler(settings={"server_tls_sslmode": "verify-ca", "server_tls_ca_file": authority.cert})
        cert, key = authority.issue("set", "localhost")
        with pooler.console() as console:
            assert failure(console, "SET client_tls_sslmode = require") == "SET failed"
            assert failure(console, "SET server_tls_ca_file = '/no/such/ca'") == "SET failed"
            assert pooler.wire().value("SELECT 1") == "1"
            assert console.query(f"SET client_tls_key_file = '{key}'").errors == []
            assert console.query(f"SET client_tls_cert_file = '{cert}'").errors == []
            assert console.query("SET client_tls_sslmode = allow").errors == []
        client = Wire(pooler.port).start_tls(ssl.create_default_context(cafile=str(authority.cert)))
        client.login("postgres", "app")
        assert client.value("SELECT 1") == "1"

    @pytest.mark.pgweir
    def test_certificate_and_key_are_replaced_by_two_commands(self, make_pooler, authority):
        files = [authority.issue(name, "localhost") for name in ("old", "new", "other")]
        pooler = make_pooler(settings={"client_tls_sslmode": "allow", "client_tls_cert_file": files[0][0],
                                       "client_tls_key_file": files[0][1]})

        def shown():
            config = {row["key"]: row["value"] for row in pooler.admin("SHOW CONFIG")}
            return config["client_tls_cert_file"], config["client_tls_key_file"]

        with pooler.console() as console:
            for (cert, key), key_first in ((files[1], True), (files[2], False)):
                halves = [f"SET client_tls_key_file = '{key}'", f"SET client_tls_cert_file = '{cert}'"]
                before = shown()
                first = console.query(halves.pop(0 if key_first else 1))
                assert (first.errors, len(first.notices)) == ([], 1)
                assert shown() == before
                assert console.query("SET verbose = 0").errors == []
                second = console.query(halves.pop())
                assert (second.errors, second.notices) == ([], [])
                assert shown() == (str(cert), str(key))
            assert failure(console, "SET client_tls_key_file = '/no/such/key'") == "SET failed"
        client = Wire(pooler.port).start_tls(ssl.create_default_context(cafile=str(authority.cert)))
        client.login("postgres", "app")
        assert client.value("SELECT 1") == "1"

    @pytest.mark.pgweir
    def test_set_of_tcp_defer_accept_counts_for_the_sockets_there_are(self, make_pooler):
        """Deferred: the kernel keeps a connection to itself that says nothing."""
        pooler = make_pooler(settings={"tcp_defer_accept": "30"})

        def logins(console):
            return [row["items"] for row in console.rows("SHOW LISTS") if row["list"] == "login_clients"]

        with Wire(pooler.port), pooler.console() as console:
            assert logins(console) == ["0"]
            console.query("SET tcp_defer_accept = 0")
            with Wire(pooler.port):
                wait_until(lambda: logins(console) == ["1"], what="the second one is accepted")
                assert console.query("SET tcp_defer_accept = 30").tags == ["SET tcp_defer_accept=30"]
                with Wire(pooler.port), pooler.console() as other:
                    assert logins(other) == ["1"]

    @pytest.mark.pgweir
    def test_set_does_not_read_files_that_it_does_not_concern(self, pooler, console):
        pooler.auth_file.write_text('"half a line\n')
        assert console.query("SET default_pool_size = 7").errors == []

    def test_lists_count_clients_consoles_and_databases(self, make_pooler):
        pooler = make_pooler()
        clients = [pooler.wire() for _ in range(3)]
        assert [client.value("SELECT 1") for client in clients] == ["1"] * 3
        with pooler.console() as console:
            rows = {row["list"]: row["items"] for row in console.rows("SHOW LISTS")}
            names = {row["name"] for row in console.rows("SHOW DATABASES")}
        assert (rows["used_clients"], rows["login_clients"]) == ("4", "0")
        assert rows["databases"] == str(len(names))
        assert rows["pools"] == "2"


class TestReload:
    @pytest.mark.smoke
    @pytest.mark.parametrize("how", ["command", "signal"])
    def test_reload_takes_new_databases_and_settings(self, pooler, console, how):
        pooler.databases["fresh"] = "dbname=other"
        pooler.settings["query_wait_timeout"] = 17
        pooler.write_config()
        if how == "command":
            assert console.query("RELOAD").tags == ["RELOAD"]
        else:
            pooler.signal(signal.SIGHUP)
        wait_until(lambda: "fresh" in [row["name"] for row in console.rows("SHOW DATABASES")])
        assert pooler.wire(database="fresh").value("SELECT current_database()") == "other"
        config = {row["key"]: row["value"] for row in console.rows("SHOW CONFIG")}
        assert config["query_wait_timeout"] == "17"

    def test_deleted_line_restores_the_default(self, pooler, console):
        pooler.settings["query_wait_timeout"] = None
        pooler.write_config()
        console.query("RELOAD")
        config = {row["key"]: row["value"] for row in console.rows("SHOW CONFIG")}
        assert config["query_wait_timeout"] == "120"

    @pytest.mark.pgweir
    def test_removed_database_drops_its_clients(self, pooler, console):
        client, other = pooler.wire(), pooler.wire(database="other")
        client.value("SELECT 1")
        del pooler.databases["app"]
        pooler.write_config()
        console.query("RELOAD")
        client.expect_fatal("database removed", "08P01")
        assert other.value("SELECT 1") == "1"

    def test_changed_address_recycles_the_servers(self, pooler, console):
        client = pooler.wire()
        assert client.value("SELECT current_database()") == "app"
        pooler.databases["app"] = "dbname=other"
        pooler.write_config()
        console.query("RELOAD")
        assert client.value("SELECT current_database()") == "other"

    @pytest.mark.pgweir
    @pytest.mark.smoke
    def test_reload_is_all_or_nothing(self, pooler, console):
        client = pooler.wire()
        before = console.rows("SHOW CONFIG"), [row["name"] for row in console.rows("SHOW DATABASES")]
        pooler.write_config(pooler.ini_text().replace("[databases]\n", "[databases]\nnew = dbname=other\n")
                            .replace("query_wait_timeout = 30", "query_wait_timeout = 3\nno_such_key = 1"))
        result = console.query("RELOAD")
        assert (result.error["C"], result.error["M"]) == ("F0000",
                                                          "RELOAD failed, see logs for additional details")
        assert (console.rows("SHOW CONFIG"), [row["name"] for row in console.rows("SHOW DATABASES")]) == before
        assert client.value("SELECT 'unharmed'") == "unharmed"
        assert "no_such_key" in pooler.log()

    def test_reload_under_load_loses_no_client(self, pooler, console):
        client = pooler.wire()
        for turn in range(30):
            client.send(query(f"SELECT {turn}"))
            assert console.query("RELOAD").tags == ["RELOAD"]
            assert client.collect().value() == str(turn)

    def test_log_is_reopened(self, pooler):
        moved = pooler.log_file.with_suffix(".1")
        pooler.log_file.rename(moved)
        pooler.signal(signal.SIGHUP)
        wait_until(lambda: pooler.wire() and pooler.log_file.exists(), what="a new log file")


class TestShutdown:
    @pytest.mark.pgweir
    def test_quit_ends_at_once(self, make_pooler):
        pooler = make_pooler()
        client = pooler.wire()
        client.query("BEGIN")
        pooler.signal(signal.SIGQUIT)
        pooler.wait_exit(3)
        assert not pooler.pidfile.exists()

    def test_shutdown_command_closes_without_an_answer(self, pooler, console):
        client = pooler.wire()
        console.send(query("SHUTDOWN"))
        assert [got.type for got in console.expect_closed() if got.type != "E"] == []
        assert [got.type for got in client.expect_closed() if got.type != "E"] == []
        if not harness.IS_PGBOUNCER:
            pooler.wait_exit(3)

    @pytest.mark.smoke
    def test_int_lets_transactions_finish(self, pooler, cluster, table):
        worker, idle = pooler.wire(), pooler.wire()
        worker.query(f"BEGIN; INSERT INTO {table} VALUES (1)")
        pooler.signal(signal.SIGINT)
        wait_until(lambda: "shutdown" in pooler.log().lower() or "SIGINT" in pooler.log())
        assert worker.query("COMMIT").tags == ["COMMIT"]
        pooler.wait_exit(10)
        assert cluster.connect().execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)
        assert idle.key

    @pytest.mark.pgweir
    def test_int_drops_waiting_clients(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1})
        holder, waiter = pooler.wire(), pooler.wire()
        holder.query("BEGIN")
        waiter.send(query("SELECT 1"))
        pooler.wait_waiting(1)
        pooler.signal(signal.SIGINT)
        waiter.expect_fatal("server shutting down", "08P01")
        holder.query("COMMIT")
        pooler.wait_exit()

    @pytest.mark.pgweir
    @pytest.mark.smoke
    def test_term_waits_for_clients(self, pooler):
        client = pooler.wire()
        pooler.signal(signal.SIGTERM)

        def refused():
            try:
                Wire(pooler.port).socket.close()
                return False
            except OSError:
                return True

        wait_until(refused, what="no new connections are taken")
        assert client.value("SELECT 'still served'") == "still served"
        client.close()
        pooler.wait_exit()
        assert not pooler.pidfile.exists()
        assert not (pooler.home / f".s.PGSQL.{pooler.port}").exists()

    @pytest.mark.pgweir
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_second_signal_ends_at_once(self, pooler, number):
        client = pooler.wire()
        client.query("BEGIN")
        pooler.signal(number)
        wait_until(lambda: "shut" in pooler.log().lower())
        pooler.signal(signal.SIGUSR2)
        wait_until(lambda: harness.IS_PGBOUNCER or "got SIGUSR2 while shutting down, ignoring" in pooler.log())
        pooler.signal(number)
        pooler.wait_exit(3)
        name = signal.Signals(number).name
        assert harness.IS_PGBOUNCER or f"got {name} while shutting down, fast exit" in pooler.log()

    @pytest.mark.pgweir
    @pytest.mark.parametrize("mode", ["WAIT_FOR_SERVERS", "WAIT_FOR_CLIENTS"])
    def test_graceful_shutdown_commands(self, pooler, mode):
        client, console = pooler.wire(), pooler.console()
        client.query("BEGIN")
        assert console.query(f"SHUTDOWN {mode}").tags == ["SHUTDOWN"]
        assert client.query("COMMIT").tags == ["COMMIT"]
        client.close()
        console.close()
        pooler.wait_exit()
        assert f" LOG SHUTDOWN {mode} command issued\n" in pooler.log()

    @pytest.mark.pgweir
    def test_shutdown_that_waits_for_servers_refuses_whoever_needs_one(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1})
        busy, queued, idle, console = pooler.wire(), pooler.wire(), pooler.wire(), pooler.console()
        busy.query("BEGIN")
        queued.send(query("SELECT 1"))
        wait_until(lambda: any(row["state"] == "waiting" for row in console.rows("SHOW CLIENTS")))
        assert console.query("SHUTDOWN WAIT_FOR_SERVERS").tags == ["SHUTDOWN"]
        queued.expect_fatal("server shutting down")
        idle.send(query("SELECT 1"))
        idle.expect_fatal("server shutting down")
        assert busy.value("SELECT 1") == "1"
        busy.query("COMMIT")
        pooler.wait_exit()

    @pytest.mark.pgweir
    def test_a_console_may_change_its_mind_about_whom_to_wait_for(self, pooler):
        """PgBouncer's modes replace each other; only a second signal ends it at once."""
        client, waiting, console = pooler.wire(), pooler.wire(), pooler.console()
        client.query("BEGIN")
        assert console.query("SHUTDOWN WAIT_FOR_CLIENTS").tags == ["SHUTDOWN"]
        assert waiting.value("SELECT 1") == "1"
        assert console.query("SHUTDOWN WAIT_FOR_SERVERS").tags == ["SHUTDOWN"]
        waiting.send(query("SELECT 1"))
        assert client.value("SELECT 1") == "1"
        client.query("COMMIT")
        pooler.wait_exit()

    @pytest.mark.pgweir
    def test_console_on_the_unix_socket_stays_open_during_shutdown(self, pooler):
        client = pooler.wire()
        with pooler.console() as console:
            console.query("SHUTDOWN WAIT_FOR_CLIENTS")

        def refused():
            with Wire(pooler.port, path=pooler.home) as late:
                try:
                    late.login("postgres", "app")
                except WireError as error:
                    return error.text == "pooler is shutting down"
            return False

        # The command is answered at once, and reaches the other threads soon after.
        wait_until(refused, what="newcomers are refused")
        inside = Wire(pooler.port, path=pooler.home)
        inside.login("admin", "pgbouncer")
        assert inside.value("SHOW VERSION")
        inside.close()
        client.close()
        pooler.wait_exit()


class TestCommandLine:
    def run(self, *arguments, cwd="/"):
        return subprocess.run([str(harness.BINARY), *map(str, arguments)], capture_output=True, text=True, timeout=20,
                              check=False, cwd=cwd, **as_run_user())

    def test_help_and_version_exit_with_0(self):
        assert self.run("--help").returncode == 0
        assert self.run("-V").returncode == 0
        assert self.run("--version").stdout

    @pytest.mark.parametrize("arguments", [[], ["a.ini", "b.ini"], ["--no-such-option", "a.ini"], ["/no/such.ini"]])
    def test_unusable_command_lines_exit_with_1(self, arguments):
        done = self.run(*arguments)
        assert done.returncode == 1 and done.stderr + done.stdout

    @pytest.mark.skipif(os.getuid() != 0, reason="needs to be root")
    def test_root_is_refused(self, make_pooler):
        pooler = make_pooler(start=False)
        pooler.write_config()
        done = subprocess.run([str(harness.BINARY), str(pooler.ini)], capture_output=True, text=True, timeout=20,
                              check=False)
        assert done.returncode == 1
        assert "should not run as root" in done.stderr + pooler.log()

    def test_second_instance_is_refused(self, pooler):
        done = self.run(pooler.ini)
        assert done.returncode == 1
        assert pooler.wire().value("SELECT 1") == "1"

    def test_daemon_writes_its_pidfile_and_ends_by_signal(self, make_pooler):
        pooler = make_pooler(start=False)
        pooler.write_config()
        assert self.run("-d", pooler.ini).returncode == 0
        wait_until(lambda: pooler.pidfile.exists() and pooler.pidfile.read_text().strip(), 10, "the pidfile")
        pid = int(pooler.pidfile.read_text())
        try:
            wait_until(lambda: "process up" in pooler.log(), 10)
            assert pooler.wire().value("SELECT 1") == "1"
        finally:
            os.kill(pid, signal.SIGINT)
        wait_until(lambda: not pooler.pidfile.exists(), 10, "the daemon is gone")

    def test_stale_pidfile_is_replaced(self, make_pooler):
        pooler = make_pooler(start=False)
        write_file(pooler.pidfile, "2000000000\n")
        pooler.start()
        wait_until(lambda: pooler.pidfile.read_text().strip() == str(pooler.pid))

    @pytest.mark.pgweir
    def test_check_accepts_a_good_file_and_starts_nothing(self, make_pooler):
        pooler = make_pooler(start=False)
        pooler.write_config()
        assert self.run("--check", pooler.ini).returncode == 0
        assert not pooler.pidfile.exists()

    @pytest.mark.pgweir
    def test_check_names_every_problem_with_file_and_line(self, make_pooler):
        pooler = make_pooler(start=False, settings={"pool_mode": "nonsense", "auth_file": "/no/such/file"})
        pooler.write_config(pooler.ini_text() + "\n[pgbouncer]\nno_such_key = 1\n")
        done = self.run("--check", pooler.ini)
        text = done.stdout + done.stderr
        assert done.returncode == 1
        lines = pooler.ini_text().splitlines()
        mode_line = next(n for n, line in enumerate(lines, 1) if line.startswith("pool_mode"))
        assert f"{pooler.ini}:{mode_line}" in text
        assert "no_such_key" in text and "/no/such/file" in text


class TestProtocolOfTheConsole:
    def test_several_consoles_at_once(self, pooler):
        consoles = [pooler.console() for _ in range(10)]
        for console in consoles:
            console.send(query("SHOW CLIENTS"))
        for console in consoles:
            assert console.collect().tags == ["SHOW"]

    def test_unsupported_message(self, pooler):
        console = pooler.console()
        console.send(wire.message("F"))
        errors = [got.fields()["M"] for got in console.expect_closed() if got.type == "E"]
        assert errors and errors[0].startswith("unsupported packet type for admin console: ")

    @pytest.mark.heavy
    def test_show_clients_with_many_clients(self, make_pooler):
        pooler = make_pooler(settings={"max_client_conn": 500})
        clients = [pooler.wire() for _ in range(300)]
        began = time.monotonic()
        assert len(pooler.clients()) == len(clients)
        assert time.monotonic() - began < 2 * harness.PATIENCE
