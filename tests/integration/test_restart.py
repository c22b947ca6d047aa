"""SUSPEND, and online restart: a new process takes over sockets and sessions from the running one."""

import pathlib
import socket
import ssl
import subprocess
import threading
import time

import pytest

import harness
from harness import PATIENCE, wait_until
from postgres import Cluster
from test_cancel import running
from wire import COPY_DONE, SYNC, Wire, bind, execute, parse, query, send_cancel, startup_packet

pytestmark = pytest.mark.pgweir


PGBOUNCER = pathlib.Path("/usr/sbin/pgbouncer")


@pytest.fixture
def make_pooler(make_pooler):
    """Poolers without TLS towards the servers: what is encrypted cannot change over."""
    def make(settings=None, **options):
        return make_pooler(settings={"server_tls_sslmode": "disable", **(settings or {})}, **options)
    return make


def login_without_answer(pooler):
    """A client whose login waits for a server, of which PostgreSQL says nothing."""
    client = Wire(pooler.port)
    client.send(startup("postgres", "app"))
    wait_until(lambda: (pooler.pool() or {}).get("sv_login") == 1, 5, "a login that does not get through")
    return client


class TestSuspend:
    @pytest.mark.smoke
    def test_clients_wait_and_go_on(self, make_pooler):
        pooler = make_pooler()
        client = pooler.wire()
        assert client.value("SELECT 1") == "1"
        with pooler.console() as console:
            assert console.query("SUSPEND").tags == ["SUSPEND"]
            assert console.rows("SHOW STATE")[2] == {"key": "suspended", "value": "yes"}
            client.send(query("SELECT 'late'"))
            assert client.quiet_for(0.2)
            for command in ("SUSPEND", "PAUSE", "PAUSE app", "KILL", "RECONNECT", "RELOAD", "SET log_stats = 1"):
                assert console.query(command).error["M"] == "already suspended/paused"
            assert console.query("RESUME").tags == ["RESUME"]
            assert client.collect().value() == "late"
            assert console.query("RESUME").error["M"] == "pooler is not paused/suspended"

    def test_not_with_paused_databases(self, make_pooler):
        pooler = make_pooler()
        with pooler.console() as console:
            console.query("PAUSE app")
            assert console.query("SUSPEND").error["M"] == "cannot suspend with paused databases"
            console.query("RESUME app")
            console.query("PAUSE")
            assert console.query("SUSPEND").error["M"] == "already suspended/paused"

    def test_goes_on_when_the_console_is_lost(self, make_pooler):
        pooler = make_pooler()
        client = pooler.wire()
        console = pooler.console()
        assert console.query("SUSPEND").tags == ["SUSPEND"]
        client.send(query("SELECT 'on'"))
        assert client.quiet_for(0.1)
        console.abort()
        assert client.collect().value() == "on"
        assert pooler.wire().value("SELECT 'new ones too'") == "new ones too"

    def test_new_connections_wait(self, make_pooler):
        pooler = make_pooler()
        with pooler.console() as console:
            console.query("SUSPEND")
            client = Wire(pooler.port)
            client.send(startup("postgres", "app"))
            assert client.quiet_for(0.2)
            console.query("RESUME")
            client.finish_login("postgres")
            assert client.value("SELECT 1") == "1"

    def test_running_query_is_no_hindrance(self, make_pooler):
        pooler = make_pooler()
        client = pooler.wire()
        client.send(query("SELECT pg_sleep(1), 'slept'"))
        running(pooler)
        with pooler.console() as console:
            assert console.query("SUSPEND").tags == ["SUSPEND"]
            running(pooler)
            console.query("RESUME")
        assert client.collect().rows[0][1] == "slept"

    def test_login_that_does_not_end_is_dropped_in_time(self, make_pooler):
        pooler = make_pooler(settings={"suspend_timeout": 1, "auth_type": "md5"}, userlist={"alice": "secret",
                                                                                            "admin": "secret"})
        stuck = Wire(pooler.port)
        stuck.send(startup("alice", "app"))
        stuck.read_type("R")
        with pooler.console_login("secret") as console:
            assert console.query("SUSPEND").tags == ["SUSPEND"]
            stuck.expect_fatal("suspend_timeout")
            console.query("RESUME")

    def test_login_that_waits_for_a_server_is_no_hindrance(self, make_pooler, cluster):
        pooler = make_pooler()
        bystander = pooler.wire(database="other")
        with cluster.frozen(), pooler.console() as console:
            waiting = login_without_answer(pooler)
            began = time.monotonic()
            assert console.query("SUSPEND").tags == ["SUSPEND"]
            assert time.monotonic() - began < 5 * PATIENCE  # suspend_timeout is 10 s
            console.query("RESUME")
            assert bystander.value("SELECT 1") == "1"
        waiting.finish_login("postgres")
        assert waiting.value("SELECT 'at last'") == "at last"

    def test_login_that_waits_for_a_place_is_no_hindrance(self, make_pooler):
        """Its pool has new servers only, as after RECONNECT, and somebody else has the one there may be."""
        pooler = make_pooler(settings={"default_pool_size": 1})
        busy = pooler.wire()
        busy.query("BEGIN")
        with pooler.console() as console:
            console.query("RECONNECT app")
            waiting = Wire(pooler.port)
            waiting.send(startup("postgres", "app"))
            pooler.wait_waiting(1)
            began = time.monotonic()
            assert console.query("SUSPEND").tags == ["SUSPEND"]
            assert time.monotonic() - began < 5 * PATIENCE
            console.query("RESUME")
        busy.query("COMMIT")
        waiting.finish_login("postgres")
        assert waiting.value("SELECT 'at last'") == "at last"

    def test_whoever_says_nothing_is_no_hindrance(self, make_pooler):
        pooler = make_pooler()
        with socket.create_connection(("127.0.0.1", pooler.port)):
            with pooler.console() as console:
                assert console.query("SUSPEND").tags == ["SUSPEND"]
                console.query("RESUME")

    def test_stats_user_may_not(self, make_pooler):
        pooler = make_pooler()
        with pooler.console("stats") as console:
            for command in ("SUSPEND", "SHOW FDS", "SHOW HANDOVER"):
                assert console.query(command).error["M"] == "admin access needed"

    def test_handover_is_for_the_own_user_and_while_suspended(self, make_pooler):
        pooler = make_pooler()
        with pooler.console() as console:
            told = console.query("SHOW HANDOVER").error["M"]
            assert told == "SHOW HANDOVER is for user pgbouncer on the Unix socket"
        told = harness.run("psql", "-h", pooler.home, "-p", pooler.port, "-U", "pgbouncer", "-At", "pgbouncer", "-c",
                           "\\set ON_ERROR_STOP 0", "-c", "SHOW FDS")
        assert [line.split("|")[1] for line in told.splitlines()] == ["pooler", "pooler"]

    def test_show_fds_without_descriptors(self, make_pooler):
        pooler = make_pooler()
        client = pooler.wire()
        client.query("BEGIN")
        rows = pooler.admin("SHOW FDS")
        assert list(rows[0]) == ["fd", "task", "user", "database", "addr", "port", "cancel", "link", "client_encoding",
                                 "std_strings", "datestyle", "timezone", "password", "scram_client_key",
                                 "scram_server_key"]
        by_task = {task: [row for row in rows if row["task"] == task] for task in ("pooler", "client", "server")}
        assert len(by_task["pooler"]) == 2
        [one], [other] = by_task["client"], by_task["server"]
        assert (one["link"], other["link"]) == (other["fd"], one["fd"])
        assert one["client_encoding"] == "UTF8" and one["database"] == "app"
        assert int(one["cancel"]) == int.from_bytes(client.key, "big", signed=True)


def startup(user, database):
    return startup_packet({"user": user, "database": database})


class TestOnlineRestart:
    def test_nobody_notices_under_load(self, make_pooler, cluster):
        pooler = make_pooler(settings={"default_pool_size": 10})
        command = [harness.PG15_BIN / "pgbench", "-h", "127.0.0.1", "-p", str(pooler.port), "-U", "postgres", "-n",
                   "-c", "40", "-j", "2", "-T", "6", "-M", "extended", "-f", "-", "app"]
        load = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True)
        load.stdin.write("BEGIN;\nSELECT :client_id + 1;\nSELECT pg_backend_pid();\nEND;\n")
        load.stdin.close()
        wait_until(lambda: len(cluster.backends()) == 10, what="the load is there")
        pids = set(cluster.backends())
        for _ in range(3):
            pooler.restart_online()
        assert set(cluster.backends()) == pids, "servers changed over too, and none was opened beside them"
        output = load.stdout.read()
        assert load.wait() == 0, output
        assert "number of failed transactions: 0" in output and "error" not in output, output

    @pytest.mark.smoke
    def test_transaction_goes_on(self, make_pooler, table):
        pooler = make_pooler()
        client = pooler.wire()
        client.query("BEGIN")
        client.query(f"INSERT INTO {table} VALUES (1, 'kept')")
        pid = client.value("SELECT pg_backend_pid()")
        pooler.restart_online()
        assert client.value("SELECT pg_backend_pid()") == pid
        assert client.query("COMMIT").tags == ["COMMIT"]
        assert pooler.wire().value(f"SELECT token FROM {table}") == "kept"

    def test_failed_transaction_stays_failed(self, make_pooler):
        pooler = make_pooler()
        client = pooler.wire()
        client.query("BEGIN")
        assert client.query("SELECT 1/0").error["C"] == "22012"
        pooler.restart_online()
        assert client.query("SELECT 1").error["C"] == "25P02"
        assert client.query("ROLLBACK").tags == ["ROLLBACK"]
        assert client.value("SELECT 1") == "1"

    @pytest.mark.smoke
    def test_answer_comes_from_the_other_process(self, make_pooler):
        pooler = make_pooler()
        client = pooler.wire()
        client.send(query("SELECT pg_sleep(2), 'slept'"))
        running(pooler)
        pooler.restart_online()
        running(pooler)
        assert client.collect().rows[0][1] == "slept"

    def test_pipeline_is_answered_in_order(self, make_pooler):
        pooler = make_pooler()
        client = pooler.wire()
        client.send(parse("one", "SELECT $1::text"), bind("one", ["a"]), execute(), parse("", "SELECT pg_sleep(1)"),
                    bind(), execute(), bind("one", ["b"]), execute(), SYNC, query("SELECT 'last'"))
        running(pooler)
        pooler.restart_online()
        first, second = client.collect(), client.collect()
        assert [row[0] for row in first.rows] == ["a", "", "b"]
        assert second.value() == "last"
        assert client.extended(bind("one", ["c"]), execute()).value() == "c"

    def test_prepared_statements_and_parameters_stay(self, make_pooler):
        pooler = make_pooler()
        client = pooler.wire(application_name="mine", options="-c work_mem=7MB", DateStyle="SQL, DMY")
        client.extended(parse("s1", "SELECT 'from s1', $1::int"))
        client.query("SET TimeZone = 'Europe/Berlin'")
        pooler.restart_online()
        pooler.restart_online()
        assert client.extended(bind("s1", ["5"]), execute()).rows == [["from s1", "5"]]
        for name, value in (("application_name", "mine"), ("work_mem", "7MB"), ("DateStyle", "SQL, DMY"),
                            ("TimeZone", "Europe/Berlin")):
            assert client.value(f"SHOW {name}") == value
        assert client.query("DISCARD ALL").tags == ["DISCARD ALL"]
        assert client.value("SHOW work_mem") == "7MB"
        assert client.extended(bind("s1", ["5"]), execute()).error["C"] == "26000"
        assert pooler.wire().value("SHOW DateStyle") == "ISO, MDY"

    def test_half_a_message(self, make_pooler):
        pooler = make_pooler()
        client = pooler.wire()
        whole = query("SELECT 'whole again'")
        client.send(whole[:9])
        assert client.quiet_for(0.1)
        pooler.restart_online()
        client.send(whole[9:])
        assert client.collect().value() == "whole again"

    def test_connection_that_has_said_nothing(self, make_pooler):
        pooler = make_pooler()
        client = Wire(pooler.port)
        pooler.restart_online()
        client.login("postgres", "app")
        assert client.value("SELECT 1") == "1"

    def test_half_a_copy(self, make_pooler, table):
        pooler = make_pooler()
        client = pooler.wire()
        client.send(query(f"COPY {table} FROM STDIN"))
        client.read_type("G")
        row = b"1\t" + b"x" * 100_000 + b"\n"
        message = b"d" + (len(row) + 4).to_bytes(4, "big") + row
        client.send(message[:70_000])
        assert client.quiet_for(0.1)
        pooler.restart_online()
        client.send(message[70_000:], COPY_DONE)
        assert client.collect().tags == ["COPY 1"]
        assert client.value(f"SELECT length(token) FROM {table}") == "100000"

    def test_large_result_is_not_cut(self, make_pooler):
        pooler = make_pooler()
        client = Wire(pooler.port, receive_buffer=4096)
        client.login("postgres", "app")
        client.send(query("SELECT repeat('x', 1000), i FROM generate_series(1, 5000) i"))
        client.read_type("T")
        pooler.restart_online()
        result = client.collect()
        assert len(result.rows) == 5000 and result.rows[-1][1] == "5000"

    def test_waiting_clients_wait_on(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1})
        holder, waiter, other = pooler.wire(), pooler.wire(), pooler.wire()
        holder.query("BEGIN")
        waiter.send(query("SELECT 'at last'"))
        other.send(parse("", "SELECT 'me too'"), bind(), execute(), SYNC)
        pooler.wait_waiting(2)
        pooler.restart_online()
        pooler.wait_waiting(2)
        assert waiter.quiet_for(0.1)
        holder.query("COMMIT")
        assert waiter.collect().value() == "at last" and other.collect().value() == "me too"

    def test_waiting_clients_keep_their_order(self, make_pooler, table):
        # On one worker: between several, a millisecond may count for nothing.
        pooler = make_pooler(settings={"default_pool_size": 1}, pgweir={"worker_threads": 1})
        holder = pooler.wire()
        holder.query("BEGIN")
        waiters = [pooler.wire() for _ in range(8)]
        for number, waiter in enumerate(waiters):
            waiter.send(query(f"INSERT INTO {table} VALUES ({number}, clock_timestamp()::text)"))
            pooler.wait_waiting(number + 1)
        pooler.restart_online()
        pooler.wait_waiting(8)
        assert int(pooler.pool()["maxwait_us"]) + int(pooler.pool()["maxwait"]) > 0
        holder.query("COMMIT")
        for waiter in waiters:
            assert waiter.collect().tags == ["INSERT 0 1"]
        assert holder.query(f"SELECT n FROM {table} ORDER BY token").rows == [[str(n)] for n in range(8)]

    def test_session_mode(self, make_pooler):
        pooler = make_pooler(settings={"pool_mode": "session"})
        client = pooler.wire()
        client.query("CREATE TEMP TABLE mine AS SELECT 42 AS n")
        client.query("SET search_path = pg_temp, public")
        client.query("PREPARE p AS SELECT n FROM mine")
        pooler.restart_online()
        assert client.value("EXECUTE p") == "42"
        client.close()
        wait_until(lambda: [row["state"] for row in pooler.servers()] == ["idle"], what="the server is free")
        assert pooler.wire().value("SELECT to_regclass('pg_temp.mine') IS NULL") == "t"

    def test_cancel_key_stays(self, make_pooler):
        pooler = make_pooler()
        client = pooler.wire()
        client.send(query("SELECT pg_sleep(60)"))
        running(pooler)
        pooler.restart_online()
        send_cancel(pooler.port, client.key)
        assert client.collect().error["C"] == "57014"

    def test_scram_keys_stay(self, make_pooler, cluster):
        """Servers that ask for SCRAM are opened with what the client's login has shown, also after the restart."""
        pooler = make_pooler(settings={"auth_type": "scram-sha-256", "server_lifetime": 3600},
                             userlist={"scram_user": cluster.secret("scram_user"), "admin": "x"})
        client = pooler.wire("scram_user", password="scram secret")
        assert client.value("SELECT 1") == "1"
        pooler.restart_online()
        with pooler.console_login("x") as console:
            console.query("RECONNECT")
        assert client.value("SELECT 'logged in again'") == "logged in again"

    def test_tls_clients_are_served_until_they_leave(self, make_pooler, authority):
        pooler = make_pooler(settings=tls_settings(authority))
        plain = pooler.wire()
        secure = Wire(pooler.port)
        secure.start_tls(ssl.create_default_context(cafile=authority.cert))
        secure.login("postgres", "app")
        secure.query("BEGIN")
        old = pooler.restart_online(old_stays=True)
        assert plain.value("SELECT 'over'") == "over"
        assert secure.value("SELECT 'still in the old one'") == "still in the old one"
        assert secure.query("COMMIT").tags == ["COMMIT"]
        assert secure.value("SELECT 2") == "2"
        assert old.poll() is None
        secure.close()
        old.wait(10 * harness.PATIENCE)
        assert old.returncode == 0
        again = Wire(pooler.port)
        again.start_tls(ssl.create_default_context(cafile=authority.cert))
        again.login("postgres", "app")
        assert again.value("SELECT 'in the new one'") == "in the new one"

    def test_login_that_waits_for_a_server_is_served_until_the_client_leaves(self, make_pooler, cluster):
        pooler = make_pooler()
        client = pooler.wire(database="other")
        with cluster.frozen():
            waiting = login_without_answer(pooler)
            began = time.monotonic()
            old = pooler.restart_online(old_stays=True)
            assert time.monotonic() - began < 5 * PATIENCE
            assert client.value("SELECT 'with the new one'") == "with the new one"
        waiting.finish_login("postgres")
        assert waiting.value("SELECT 'with the old one'") == "with the old one"
        waiting.close()
        assert old.wait(10 * PATIENCE) == 0

    def test_clients_of_before_are_told_that_postgresql_is_down(self, make_pooler, base):
        """It has worked for them: nobody has to wait until it is known whether it ever does."""
        own = Cluster(base, harness.PG15_BIN)
        try:
            pooler = make_pooler(server=own, settings={"query_wait_timeout": 60, "server_login_retry": 30})
            clients = [pooler.wire() for _ in range(2)]
            for client in clients:
                assert client.value("SELECT 1") == "1"
        finally:
            own.stop("immediate")
        pooler.restart_online()
        clients[0].send(query("SELECT 1"))
        wait_until(lambda: "connect failed" in pooler.log(), what="a login has failed")
        clients[1].send(query("SELECT 2"))
        assert clients[1].expect_fatal()["M"].startswith("server login has been failing")
        clients[0].abort()

    def test_starts_normally_if_nobody_answers(self, make_pooler):
        pooler = make_pooler(start=False, arguments=["-R"])
        pooler.start()
        assert pooler.wire().value("SELECT 1") == "1"
        assert "no process to take over from answers, starting normally" in pooler.log()

    def test_refused_restart_leaves_all_as_it_was(self, make_pooler):
        pooler = make_pooler()
        client = pooler.wire()
        with pooler.console() as console:
            console.query("PAUSE app")
            old = pooler.process
            pooler.spawn("-R")
            pooler.process.wait(10 * harness.PATIENCE)
            assert pooler.process.returncode == 1
            assert "the running process refused SUSPEND: cannot suspend with paused databases" in pooler.log()
            pooler.process = old
            console.query("RESUME app")
        assert client.value("SELECT 'as before'") == "as before"

    @pytest.mark.smoke
    def test_many_times_with_clients_coming_and_going(self, make_pooler, cluster):
        pooler = make_pooler(settings={"default_pool_size": 3})
        stop = threading.Event()
        failures = []

        def live(number):
            count = 0
            while not stop.is_set():
                client = None
                try:
                    client = pooler.wire()
                    for _ in range(5):
                        assert client.value(f"SELECT '{number}.{count}'") == f"{number}.{count}"
                        count += 1
                    client.close()
                except Exception as problem:  # noqa: BLE001  (collected, and shown below)
                    failures.append(f"{number}.{count}: {problem!r}")
                    return

        threads = [threading.Thread(target=live, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(6):
                pooler.restart_online()
                assert len(set(cluster.backends())) <= 3
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert failures == []


class TestFromPgbouncer:
    @pytest.mark.skipif(not PGBOUNCER.exists(), reason="Debian's pgbouncer is not installed")
    def test_idle_clients_change_over(self, make_pooler, cluster):
        """An operator replaces a running PgBouncer: nobody is disconnected."""
        pooler = make_pooler(binary=PGBOUNCER)
        clients = [pooler.wire(TimeZone="Europe/Berlin") for _ in range(5)]
        for client in clients:
            assert client.value("SELECT 1") == "1"
        pooler.becomes(harness.BINARY)
        pooler.restart_online()
        assert "took over 8 sockets from PgBouncer" in pooler.log()
        for number, client in enumerate(clients):
            assert client.value(f"SELECT {number}") == str(number)
            assert client.value("SHOW TimeZone") == "Europe/Berlin"
        wait_until(lambda: len(set(cluster.backends())) <= 5, what="the servers of the other process have ended")
        send_cancel(pooler.port, clients[0].key)
        assert pooler.wire().value("SELECT 'new'") == "new"


def tls_settings(authority):
    certificate, key = authority.issue("restart", "localhost")
    return {"client_tls_sslmode": "allow", "client_tls_key_file": key, "client_tls_cert_file": certificate}
