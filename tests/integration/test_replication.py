"""Replication connections: each client has a PostgreSQL walsender of its own for as long as both live."""

import signal
import struct
import subprocess
import time

import psycopg
import pytest

import harness
from bystander import Bystander, Footprint
from harness import make_dir, run, wait_until
from wire import COPY_DONE, Wire, WireError, copy_data, parse, query, send_cancel, startup_packet

pytestmark = pytest.mark.pgweir

DATABASES = {"app": "dbname=app", "other": "dbname=other", "replication": "dbname=replication"}
KINDS = {"true": "physical", "database": "logical"}
both_kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def pooler(make_pooler):
    return make_pooler(databases=DATABASES)


@pytest.fixture(autouse=True)
def no_walsender_is_left(cluster):
    yield
    wait_until(lambda: not walsenders(cluster), 10, "every walsender has ended")


def walsenders(cluster):
    return [row[0] for row in cluster.ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender'"
                                          " ORDER BY backend_start, pid")]


def replicating(pooler, kind="database", **more):
    return pooler.wire(replication=kind, **more)


def start(pooler, kind=None):
    """Sends a start-up packet without waiting for what comes of it."""
    client = Wire(pooler.port)
    more = {} if kind is None else {"replication": kind}
    client.send(startup_packet({"user": "postgres", "database": "app", **more}))
    return client


def tool(name):
    return harness.PG15_BIN / name


def status_update(lsn):
    since_2000 = int((time.time() - 946684800) * 1_000_000)
    return copy_data(b"r" + struct.pack("!QQQQB", lsn, lsn, lsn, since_2000, 0))


@pytest.fixture
def slot(cluster):
    """A logical slot of database app that prints changes as text."""
    name = f"slot_{harness.free_port()}"
    with cluster.connect() as connection:
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", (name,))
    yield name
    with cluster.connect() as connection:
        free = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s AND NOT active"
        wait_until(lambda: connection.execute(free, (name,)).fetchone(), what="the slot can be dropped")


class Stream:
    """START_REPLICATION on a slot, as a subscriber does it."""

    def __init__(self, client, slot):
        self.client = client
        client.send(query(f"START_REPLICATION SLOT {slot} LOGICAL 0/0"))
        client.read_type("W")

    def changes(self, count):
        """The next changes as text, without the lines that begin and end transactions."""
        found = []
        while len(found) < count:
            body = self.client.read_type("d").body
            if body[:1] == b"k":
                self.client.send(status_update(0))  # alive, but nothing is confirmed
            elif body[:1] == b"w" and body[25:30] == b"table":
                found.append(body[25:].decode())
        return found

    def end(self):
        """CopyDone both ways; the connection takes commands again."""
        self.client.send(COPY_DONE)
        while self.client.read().type != "c":
            pass
        return self.client.collect()


class TestCommands:
    @pytest.mark.smoke
    @both_kinds
    def test_identify_system(self, pooler, cluster, kind):
        client = replicating(pooler, kind)
        result = client.query("IDENTIFY_SYSTEM")
        assert result.columns == ["systemid", "timeline", "xlogpos", "dbname"]
        assert result.rows[0][3] == ("app" if kind == "database" else None)
        assert len(walsenders(cluster)) == 1
        for command, row_type in (("SHOW CLIENTS", "C"), ("SHOW SERVERS", "S"), ("SHOW SOCKETS", "C")):
            rows = [row for row in pooler.admin(command) if row["database"] == "app" and row["type"] == row_type]
            assert [row["replication"] for row in rows] == [KINDS[kind]]
        (server,) = pooler.servers()
        assert server["state"] == "active" and int(server["remote_pid"]) == walsenders(cluster)[0]
        (row,) = pooler.clients()
        assert row["link"] == server["ptr"]
        word = "yes" if kind == "true" else kind
        assert f"login attempt: db=app user=postgres tls=no replication={word}" in pooler.log()

    @pytest.mark.smoke
    def test_psycopg(self, pooler):
        with psycopg.connect(**pooler.dsn(replication="database"), autocommit=True) as connection:
            assert connection.execute("IDENTIFY_SYSTEM").fetchone()[3] == "app"
            assert connection.execute("SELECT current_database()").fetchone() == ("app",)

    @pytest.mark.parametrize("value", ["false", "off", "0", "garbage"])
    def test_what_means_no_replication(self, pooler, cluster, value):
        client = replicating(pooler, value)
        assert client.value("SELECT 1") == "1"
        assert walsenders(cluster) == []

    def test_options_and_parameters_are_the_servers(self, pooler):
        client = replicating(pooler, options="-c geqo=off --work_mem=65kB -c search_path=a,\\ b", TimeZone="Europe/Rome",
                             application_name="a subscriber", statement_timeout="12345")
        assert client.parameters["TimeZone"] == "Europe/Rome"
        assert client.parameters["application_name"] == "a subscriber"
        for name, value in (("geqo", "off"), ("work_mem", "65kB"), ("search_path", "a, b"), ("TimeZone", "Europe/Rome"),
                            ("statement_timeout", "12345ms")):
            assert client.value(f"SELECT current_setting('{name}')") == value
        client.query("SET TimeZone = 'Asia/Tokyo'")
        client.query("RESET TimeZone")
        assert client.parameters["TimeZone"] == "Europe/Rome"

    def test_a_user_name_cannot_be_smuggled_in(self, pooler):
        with pytest.raises(WireError, match="unsupported startup parameter: User"):
            replicating(pooler, User="finder")

    def test_sql_transactions_and_errors(self, pooler, table):
        client = replicating(pooler)
        assert client.query("BEGIN").status == "T"
        assert client.query(f"INSERT INTO {table} VALUES (1, 'x')").tags == ["INSERT 0 1"]
        assert client.query("SELECT 1/0").status == "E"
        assert client.query("ROLLBACK").status == "I"
        result = client.extended(parse("", "SELECT 1"))
        assert "extended query protocol not supported" in result.error["M"]
        assert client.value(f"SELECT count(*) FROM {table}") == "0"

    def test_copy_in_and_out(self, pooler, table):
        client = replicating(pooler)
        client.send(query(f"COPY {table} FROM STDIN"))
        client.read_type("G")
        client.send(copy_data(b"1\tone\n2\ttwo\n"), COPY_DONE)
        assert client.collect().tags == ["COPY 2"]
        client.send(query(f"COPY {table} TO STDOUT"))
        assert client.collect().types == "HddcCZ"

    def test_cancel(self, pooler, cluster):
        client = replicating(pooler)
        client.send(query("SELECT pg_sleep(60)"))
        asleep = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event = 'PgSleep'"
        wait_until(lambda: cluster.ask(asleep), what="the query runs")
        send_cancel(pooler.port, client.key)
        assert client.collect().error["C"] == "57014"
        assert client.value("SELECT 1") == "1"


class TestStreaming:
    @pytest.mark.smoke
    @pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
    def test_changes_arrive_and_the_stream_ends(self, make_pooler, cluster, table, slot, mode):
        pooler = make_pooler(databases=DATABASES, settings={"pool_mode": mode})
        client = replicating(pooler)
        stream = Stream(client, slot)
        with pooler.wire() as writer:
            for n in range(3):
                writer.query(f"INSERT INTO {table} VALUES ({n}, 'token {n}')")
        got = stream.changes(3)
        assert [f"n[integer]:{n} token[text]:'token {n}'" in change for n, change in enumerate(got)] == [True] * 3
        assert stream.end().status == "I"
        assert client.query("IDENTIFY_SYSTEM").rows
        client.close()
        assert Stream(replicating(pooler), slot).changes(3) == got  # nothing was confirmed, so it comes again

    def test_much_data_for_a_slow_reader(self, pooler, cluster, table, slot):
        client = replicating(pooler)
        stream = Stream(client, slot)
        before = pooler.memory_kib()
        with cluster.connect() as connection:
            connection.execute(f"INSERT INTO {table} SELECT n, repeat('x', 10000) FROM generate_series(1, 3000) n")
        stuck = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event = 'WalSenderWriteData'"
        wait_until(lambda: cluster.ask(stuck), what="nothing more is taken from the server")
        changes = stream.changes(3000)
        assert len(changes) == 3000 and all(len(change) > 10000 for change in changes)
        assert pooler.memory_kib() - before < 20_000

    def test_the_server_hears_from_a_client_that_does_not_read(self, pooler, cluster, table, slot):
        client = replicating(pooler, options="-c wal_sender_timeout=1s")
        stream = Stream(client, slot)
        with cluster.connect() as connection:
            connection.execute(f"INSERT INTO {table} SELECT n, repeat('x', 10000) FROM generate_series(1, 3000) n")
        over = time.monotonic() + 4 * harness.PATIENCE
        heard = "SELECT count(*) FROM pg_stat_replication WHERE reply_time > now() - interval '0.5 s'"
        while time.monotonic() < over:
            client.send(status_update(0))
            wait_until(lambda: cluster.value(heard) == 1, what="the server hears of the client")
        assert len(stream.changes(3000)) == 3000

    def test_two_streams_do_not_mix(self, pooler, cluster, table, slot):
        first = Stream(replicating(pooler), slot)
        second = replicating(pooler)
        name = f"{slot}_b"
        second.query(f"CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL test_decoding NOEXPORT_SNAPSHOT")
        second = Stream(second, name)
        with Bystander(pooler), cluster.connect() as connection:
            connection.execute(f"INSERT INTO {table} VALUES (7, 'both')")
            assert first.changes(1) == second.changes(1)
        assert len(walsenders(cluster)) == 2

    @pytest.mark.smoke
    @pytest.mark.parametrize("how", ["abort", "close", "half a message"])
    def test_client_leaves_in_the_middle(self, pooler, cluster, slot, how):
        footprint = Footprint(pooler)
        client = replicating(pooler)
        Stream(client, slot)
        assert len(walsenders(cluster)) == 1
        if how == "half a message":
            client.send(status_update(0)[:11])
        if how == "close":
            client.close()
        else:
            client.abort()
        wait_until(lambda: not walsenders(cluster), what="the walsender has ended")
        footprint.returns()
        assert pooler.servers() == []
        wait_until(lambda: "closing because: replication client was closed" in pooler.log())

    @pytest.mark.smoke
    def test_server_is_terminated_in_the_middle(self, pooler, cluster, slot):
        client = replicating(pooler)
        Stream(client, slot)
        cluster.ask("SELECT pg_terminate_backend(%s)", walsenders(cluster)[0])
        errors = [m.fields() for m in client.expect_closed() if m.type == "E"]
        assert [(e["S"], e["C"]) for e in errors] == [("FATAL", "57P01"), ("FATAL", "08P01")]
        assert errors[1]["M"] == "server conn crashed?"
        wait_until(lambda: pooler.servers() == [] and pooler.clients() == [])

    def test_server_is_terminated_at_rest(self, pooler, cluster):
        client = replicating(pooler, "true")
        cluster.ask("SELECT pg_terminate_backend(%s)", walsenders(cluster)[0])
        client.expect_fatal("server conn crashed?")
        wait_until(lambda: pooler.clients() == [])

    def test_query_timeout_counts_from_what_the_client_sends(self, make_pooler, cluster, table, slot):
        pooler = make_pooler(databases=DATABASES, settings={"query_timeout": "2", "transaction_timeout": "1"})
        client = replicating(pooler)
        stream = Stream(client, slot)
        over = time.monotonic() + 3
        with cluster.connect() as writer:
            while time.monotonic() < over:
                writer.execute(f"INSERT INTO {table} VALUES (1, 'x')")
                assert len(stream.changes(1)) == 1
                client.send(status_update(0))
        client.expect_fatal("query timeout")


class TestTools:
    def command(self, pooler, name, *arguments):
        return [str(tool(name)), "-h", "127.0.0.1", "-p", str(pooler.port), "-U", "postgres", *map(str, arguments)]

    @pytest.mark.smoke
    def test_pg_basebackup(self, pooler, base, cluster):
        target = make_dir(base, "bb") / "data"
        footprint = Footprint(pooler)
        run(*self.command(pooler, "pg_basebackup", "-D", target, "-X", "stream", "-c", "fast", "--no-sync"))
        run(tool("pg_verifybackup"), target)
        footprint.returns()

    def test_pg_basebackup_as_tar_over_one_connection(self, pooler, base, cluster):
        target = make_dir(base, "bt") / "data"
        run(*self.command(pooler, "pg_basebackup", "-D", target, "-X", "fetch", "-Ft", "-c", "fast", "--no-sync"))
        assert (target / "base.tar").stat().st_size > 10_000_000

    def test_pg_basebackup_that_is_interrupted(self, pooler, base, cluster):
        """A limited rate makes it last; what it leaves behind is nothing."""
        footprint = Footprint(pooler)
        target = make_dir(base, "bi") / "data"
        command = self.command(pooler, "pg_basebackup", "-D", target, "-X", "none", "-c", "fast", "-r", "1M", "--no-sync")
        backup = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                                  **harness.as_run_user())
        try:
            wait_until(lambda: (target / "base").exists() and any((target / "base").iterdir()), 30, "files arrive")
        finally:
            backup.send_signal(signal.SIGKILL)
            backup.wait()
        wait_until(lambda: not walsenders(cluster), 10, "the walsender has ended")
        footprint.returns()

    def test_pg_receivewal(self, pooler, base, cluster, table):
        target = make_dir(base, "rw")
        cluster.ask("SELECT pg_switch_wal()")
        with cluster.connect() as connection:
            connection.execute(f"INSERT INTO {table} SELECT n, 'wal' FROM generate_series(1, 1000) n")
        end = cluster.value("SELECT pg_current_wal_flush_lsn()::text")
        run(*self.command(pooler, "pg_receivewal", "-D", target, "-n", "--no-sync", "--endpos", end))
        assert list(target.iterdir())

    def test_pg_recvlogical(self, pooler, base, cluster, table):
        name = f"tool_{harness.free_port()}"
        target = make_dir(base, "rl") / "changes"
        logical = ["-d", "app", "--slot", name]
        run(*self.command(pooler, "pg_recvlogical", *logical, "--create-slot", "-P", "test_decoding"))
        try:
            with cluster.connect(options="-c synchronous_commit=on") as connection:
                connection.execute(f"INSERT INTO {table} SELECT n, 'logical' FROM generate_series(1, 500) n")
            end = cluster.value("SELECT pg_current_wal_flush_lsn()::text")
            run(*self.command(pooler, "pg_recvlogical", *logical, "--start", "-n", "--endpos", end, "-f", target))
            lines = [line for line in target.read_text().splitlines() if table in line]
            assert len(lines) == 500 and len(set(lines)) == 500
        finally:
            run(*self.command(pooler, "pg_recvlogical", *logical, "--drop-slot"))


class TestLimits:
    def sessions(self, cluster):
        return cluster.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('walsender', 'client backend')"
                             " AND application_name <> 'monitor'")

    @pytest.mark.smoke
    def test_pool_size_holds_and_waiters_are_served_in_turn(self, make_pooler, cluster):
        pooler = make_pooler(databases=DATABASES, settings={"default_pool_size": "2"})
        first, second = replicating(pooler), replicating(pooler, "true")
        third = start(pooler, "database")
        pooler.wait_waiting(1)
        normal = start(pooler)
        pooler.wait_waiting(2)
        assert self.sessions(cluster) == 2
        first.close()
        third.finish_login("postgres")
        assert third.query("IDENTIFY_SYSTEM").rows
        assert self.sessions(cluster) == 2
        assert pooler.pool()["cl_waiting"] == 1
        second.abort()
        normal.finish_login("postgres")
        assert normal.value("SELECT 1") == "1"
        assert self.sessions(cluster) == 2

    @pytest.mark.parametrize("setting", ["default_pool_size", "max_db_connections", "max_user_connections"])
    def test_an_idle_server_makes_room(self, make_pooler, cluster, setting):
        pooler = make_pooler(databases=DATABASES, settings={setting: "1"})
        normal = pooler.wire()
        pid = normal.value("SELECT pg_backend_pid()")
        client = replicating(pooler)
        assert client.query("IDENTIFY_SYSTEM").rows
        assert self.sessions(cluster) == 1 and cluster.backends() == []
        assert "closing because: evicted" in pooler.log()
        normal.send(query("SELECT pg_backend_pid()"))
        pooler.wait_waiting(1)
        client.close()
        assert normal.collect().value() != pid

    def test_query_wait_timeout(self, make_pooler):
        pooler = make_pooler(databases=DATABASES, settings={"default_pool_size": "1", "query_wait_timeout": "1"})
        with replicating(pooler):
            start(pooler, "true").expect_fatal("query_wait_timeout")

    def test_a_waiter_that_leaves(self, make_pooler):
        pooler = make_pooler(databases=DATABASES, settings={"default_pool_size": "1"})
        client = replicating(pooler)
        waiter = start(pooler, "true")
        pooler.wait_waiting(1)
        waiter.abort()
        pooler.wait_waiting(0)
        client.close()
        with replicating(pooler) as again:
            assert again.query("IDENTIFY_SYSTEM").rows

    def test_many_clients_come_and_go_beside_queries(self, make_pooler, cluster):
        pooler = make_pooler(databases=DATABASES, settings={"default_pool_size": "4"}, pgweir={"worker_threads": 4})
        with Bystander(pooler, slowest=20):
            for n in range(30):
                clients = [start(pooler, kind) for kind in ("true", "database", "true")]
                for client in clients:
                    client.finish_login("postgres")
                    assert client.query("IDENTIFY_SYSTEM").rows
                    assert self.sessions(cluster) <= 4
                for client in clients:
                    client.abort() if n % 2 else client.close()


class TestLogin:
    @pytest.mark.smoke
    def test_a_refusal_is_told_in_two_words(self, pooler):
        with Bystander(pooler):
            for kind in KINDS:
                with pytest.raises(WireError) as refused:
                    replicating(pooler, kind, user="alice")
                assert (refused.value.code, refused.value.text) == ("08P01", "login failed")
            with pooler.wire("alice") as normal:
                assert normal.value("SELECT 1") == "1"
        assert "server login failed: FATAL must be superuser or replication role to start walsender" in pooler.log()

    def test_a_bad_parameter(self, pooler):
        with pytest.raises(WireError, match="login failed"):
            replicating(pooler, options="-c no_such_thing=1")

    def test_no_server(self, make_pooler):
        pooler = make_pooler(databases={"app": f"host=127.0.0.1 port={harness.free_port()}"})
        with pytest.raises(WireError, match="login failed"):
            replicating(pooler)

    @both_kinds
    @pytest.mark.parametrize("stored", ["plain", "secret"])
    def test_scram_on_both_sides(self, make_pooler, cluster, kind, stored):
        cluster.ask("ALTER ROLE scram_user REPLICATION")
        secret = "scram secret" if stored == "plain" else cluster.secret("scram_user")
        pooler = make_pooler(databases=DATABASES, settings={"auth_type": "scram-sha-256"},
                             userlist={"scram_user": secret, "admin": "console"})
        client = pooler.wire("scram_user", "app", "scram secret", replication=kind)
        assert client.authentication == [10, 11, 12, 0]
        assert client.query("IDENTIFY_SYSTEM").rows
        assert len(walsenders(cluster)) == 1
        with pytest.raises(WireError, match="SASL authentication failed"):
            pooler.wire("scram_user", "app", "wrong", replication=kind)

    def test_auth_query_finds_the_user(self, make_pooler, cluster):
        cluster.ask("ALTER ROLE scram_user REPLICATION")
        pooler = make_pooler(databases={"app": "dbname=app auth_user=finder"}, settings={"auth_type": "md5"},
                             userlist={"finder": "finder secret"})
        client = pooler.wire("scram_user", "app", "scram secret", replication="true")
        assert client.query("IDENTIFY_SYSTEM").rows

    def test_forced_user(self, make_pooler):
        pooler = make_pooler(databases={"app": "dbname=app user=postgres"})
        client = pooler.wire("bob", replication="database")
        assert client.value("SELECT current_user") == "postgres"

    def test_tls_to_the_server(self, make_pooler, cluster):
        pooler = make_pooler(databases=DATABASES, settings={"server_tls_sslmode": "require"})
        client = replicating(pooler)
        assert client.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == "t"

    @pytest.mark.parametrize("rules, physical, logical", [
        ("host all all 127.0.0.1/32 trust", False, True),
        ("host replication postgres 127.0.0.1/32 trust", True, False),
        ("host replication alice 127.0.0.1/32 trust\nhost app all 127.0.0.1/32 trust", False, True),
        ("host replication all 127.0.0.1/32 reject\nhost replication,all all 127.0.0.1/32 trust", "login rejected", True),
    ])
    def test_hba(self, make_pooler, rules, physical, logical):
        pooler = make_pooler(start=False, databases=DATABASES, settings={"auth_type": "hba"})
        pooler.settings["auth_hba_file"] = pooler.home / "hba"
        (pooler.home / "hba").write_text(rules + "\nhost pgbouncer admin 127.0.0.1/32 trust\n")
        pooler.start()
        for kind, expected in (("true", physical), ("database", logical)):
            if expected is True:
                with replicating(pooler, kind) as client:
                    assert client.query("IDENTIFY_SYSTEM").rows
            else:
                with pytest.raises(WireError, match=expected or "no authentication method is found"):
                    replicating(pooler, kind)


class TestConsole:
    @pytest.mark.smoke
    @pytest.mark.parametrize("command", ["RECONNECT", "RECONNECT app"])
    def test_reconnect_ends_them_at_once(self, pooler, cluster, slot, command):
        at_rest, streaming = replicating(pooler, "true"), replicating(pooler)
        Stream(streaming, slot)
        pooler.admin(command)
        at_rest.expect_fatal("database configuration changed", "08P01")
        streaming.expect_fatal("database configuration changed", "08P01")
        with replicating(pooler) as client:
            assert client.query("IDENTIFY_SYSTEM").rows

    def test_reload_of_a_changed_entry(self, pooler):
        changed, other = replicating(pooler), replicating(pooler, database="other")
        pooler.databases["app"] = "dbname=app connect_query='SELECT 1'"
        pooler.write_config()
        pooler.admin("RELOAD")
        changed.expect_fatal("database configuration changed")
        assert other.query("IDENTIFY_SYSTEM").rows

    def test_pause_waits_and_resume_serves(self, pooler):
        client = replicating(pooler)
        console = pooler.console()
        console.send(query("PAUSE app"))
        wait_until(lambda: [row["paused"] for row in pooler.admin("SHOW DATABASES") if row["name"] == "app"] == ["1"])
        waiter = start(pooler, "database")
        pooler.wait_waiting(1)
        assert client.query("IDENTIFY_SYSTEM").rows
        assert not console.buffer
        client.close()
        assert console.collect().tags == ["PAUSE"]
        assert pooler.pool()["cl_waiting"] == 1
        pooler.admin("RESUME app")
        waiter.finish_login("postgres")
        assert waiter.query("IDENTIFY_SYSTEM").rows

    @pytest.mark.parametrize("command, text", [("KILL app", "database removed"),
                                               ("KILL_CLIENT {id}", "admin forced disconnect")])
    def test_kill(self, pooler, cluster, slot, command, text):
        client = replicating(pooler)
        Stream(client, slot)
        (row,) = pooler.clients()
        pooler.admin(command.format(**row))
        client.expect_fatal(text)
        wait_until(lambda: not walsenders(cluster))

    def test_shutdown_waits_for_servers(self, pooler, cluster):
        client = replicating(pooler)
        pooler.signal(signal.SIGINT)
        wait_until(lambda: not harness.listening(pooler.port))
        assert client.query("IDENTIFY_SYSTEM").rows
        client.close()
        pooler.wait_exit()

    def test_disabled_database(self, pooler):
        pooler.admin("DISABLE app")
        with pytest.raises(WireError, match='database "app" is disabled'):
            replicating(pooler)
