"""Who gets a server connection, how many there are, when they are given back, and the timeouts."""

import threading
import time

import psycopg
import pytest

import harness
import wire
from harness import PATIENCE, wait_until
from wire import SYNC, Wire, WireError, bind, copy_data, execute, parse, query

PID = "SELECT pg_backend_pid()"


def in_threads(count, work):
    """Runs work(n) in `count` threads at once and re-raises the first failure."""
    failures = []

    def guarded(number):
        try:
            work(number)
        except BaseException as failure:  # handed to the test's own thread
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90 * PATIENCE)
        assert not thread.is_alive(), "a client is stuck"
    if failures:
        raise failures[0]


class Sampler:
    """Watches the number of server connections of a database, directly on the server, all the time."""

    def __init__(self, cluster, database="app", **columns):
        self.cluster, self.database, self.columns = cluster, database, columns
        self.seen = []
        self.over = threading.Event()

    def __enter__(self):
        wait_until(lambda: not self.cluster.backends(self.database), what="earlier backends are gone")
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self):
        extra = "".join(f" AND {name} = %s" for name in self.columns)
        with self.cluster.connect("postgres") as connection:
            while not self.over.is_set():
                row = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = %s"
                    " AND application_name <> 'monitor'" + extra, (self.database, *self.columns.values())).fetchone()
                self.seen.append(row[0])

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    @property
    def most(self):
        return max(self.seen)


class TestModes:
    @pytest.mark.smoke
    def test_transaction_mode_shares_one_server_between_transactions(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1})
        first, second = pooler.wire(), pooler.wire()
        assert first.value(PID) == second.value(PID) == first.value(PID)

    @pytest.mark.smoke
    def test_transaction_mode_keeps_the_server_for_a_whole_transaction(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 2})
        holder, other = pooler.wire(), pooler.wire()
        holder.query("BEGIN")
        mine = holder.value(PID)
        assert other.value(PID) != mine
        assert holder.value(PID) == mine
        holder.query("COMMIT")

    def test_server_is_kept_until_the_pipeline_is_answered(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1})
        first, second = pooler.wire(), pooler.wire()
        first.send(query("SELECT 'a', pg_sleep(0.05)"), query("SELECT 'b'"), query("SELECT 'c'"))
        second.send(query("SELECT 'd'"))
        assert [first.collect().value() for _ in range(3)] == ["a", "b", "c"]
        assert second.collect().value() == "d"

    @pytest.mark.smoke
    def test_session_mode_keeps_the_server_until_the_client_leaves(self, make_pooler):
        pooler = make_pooler(settings={"pool_mode": "session", "default_pool_size": 1})
        first = pooler.wire()
        pid = first.value(PID)
        second = pooler.wire()
        second.send(query(PID))
        pooler.wait_waiting(1)
        first.close()
        assert second.collect().value() == pid

    def test_session_mode_takes_a_server_at_the_first_query_only(self, make_pooler):
        pooler = make_pooler(settings={"pool_mode": "session", "default_pool_size": 1})
        pooler.wire().close()
        idle = pooler.wire()
        assert pooler.wire().value("SELECT 'served'") == "served"
        idle.close()

    def test_session_mode_resets_the_server_between_clients(self, make_pooler):
        pooler = make_pooler(settings={"pool_mode": "session", "default_pool_size": 1})
        with pooler.wire() as first:
            pid = first.value(PID)
            first.query("SET statement_timeout = '77s'; CREATE TEMP TABLE mine ()")
        second = pooler.wire()
        assert second.value("SHOW statement_timeout") == "0"
        assert second.value("SELECT to_regclass('mine')") is None
        assert second.value(PID) == pid

    def test_custom_reset_query_always(self, make_pooler, cluster):
        cluster.ask("CREATE SEQUENCE IF NOT EXISTS unused")
        pooler = make_pooler(settings={"default_pool_size": 1, "server_reset_query": "SET work_mem = '5MB'",
                                       "server_reset_query_always": 1})
        pooler.wire().value("SELECT 1")
        assert pooler.wire().value("SHOW work_mem") == "5MB"

    @pytest.mark.smoke
    def test_statement_mode_refuses_transaction_blocks(self, make_pooler):
        pooler = make_pooler(settings={"pool_mode": "statement"})
        client = pooler.wire()
        assert client.value("SELECT 1") == "1"
        client.send(query("BEGIN"))
        client.expect_fatal("transaction blocks not allowed in statement pooling mode", "08P01")

    def test_pool_mode_of_the_database_overrides_the_global_one(self, make_pooler):
        pooler = make_pooler(databases={"app": "dbname=app pool_mode=session pool_size=1"})
        holder = pooler.wire()
        holder.value("SELECT 1")
        waiter = pooler.wire()
        waiter.send(query("SELECT 1"))
        pooler.wait_waiting(1)
        assert pooler.pool()["pool_mode"] == "session"
        holder.close()
        assert waiter.collect().value() == "1"

    @pytest.mark.pgweir
    def test_pool_mode_of_the_user_overrides_that_of_the_database(self, make_pooler):
        pooler = make_pooler(databases={"app": "dbname=app pool_mode=session"}, users={"alice": "pool_mode=statement"})
        client = pooler.wire("alice")
        client.send(query("BEGIN"))
        client.expect_fatal("transaction blocks not allowed in statement pooling mode")

    def test_each_user_and_database_has_its_own_pool(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1})
        pids = {pooler.wire(user, database).value(PID)
                for user in ("postgres", "alice") for database in ("app", "other")}
        assert len(pids) == 4

    def test_forced_user_makes_one_pool_for_all(self, make_pooler):
        pooler = make_pooler(databases={"app": "dbname=app user=bob pool_size=1"})
        results = {tuple(pooler.wire(user).query("SELECT current_user, pg_backend_pid()").rows[0])
                   for user in ("postgres", "alice")}
        assert len(results) == 1
        assert results.pop()[0] == "bob"

    def test_fallback_database_entry_serves_any_name(self, make_pooler):
        pooler = make_pooler(databases={"*": "user=postgres"})
        assert pooler.wire(database="other").value("SELECT current_database()") == "other"


class TestLimits:
    @pytest.mark.smoke
    def test_fifty_clients_never_use_more_than_the_pool_of_nine(self, make_pooler, cluster):
        pooler = make_pooler(settings={"default_pool_size": 9, "max_client_conn": 200})

        def work(number):
            with psycopg.connect(**pooler.dsn(), autocommit=True, prepare_threshold=None) as connection:
                for turn in range(20):
                    token = f"{number}/{turn}"
                    with connection.transaction():
                        assert connection.execute("SELECT %s::text", (token,)).fetchone() == (token,)
                        connection.execute("SELECT pg_sleep(0.001)")

        with Sampler(cluster) as sampler:
            in_threads(50, work)
        assert sampler.most == 9
        wait_until(lambda: pooler.pool()["sv_idle"] == 9, what="all nine servers are idle again")

    def test_limit_holds_while_servers_are_closed_all_the_time(self, make_pooler, cluster):
        pooler = make_pooler(settings={"default_pool_size": 4, "max_client_conn": 200})

        def work(number):
            for _ in range(6):
                client = pooler.wire(timeout=30)
                client.query("BEGIN")
                if number % 2:
                    client.abort()  # costs the server connection
                else:
                    client.query("COMMIT")
                    client.close()

        with Sampler(cluster) as sampler:
            in_threads(16, work)
        # A backend that is ending still has its row for a moment after it has closed its socket.
        assert sampler.most <= 5
        assert sorted(sampler.seen)[int(len(sampler.seen) * 0.9)] <= 4
        assert pooler.wire().value("SELECT 1") == "1"

    def test_pool_size_of_the_database_overrides_the_default(self, make_pooler):
        pooler = make_pooler(databases={"app": "dbname=app pool_size=2"})
        holders = [pooler.wire() for _ in range(2)]
        for holder in holders:
            holder.query("BEGIN")
        waiter = pooler.wire()
        waiter.send(query("SELECT 'at last'"))
        pooler.wait_waiting(1)
        holders[0].query("COMMIT")
        assert waiter.collect().value() == "at last"

    def test_reserve_pool_opens_after_its_timeout(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1, "reserve_pool_size": 1, "reserve_pool_timeout": 1})
        holder, waiter = pooler.wire(), pooler.wire()
        holder.query("BEGIN")
        began = time.monotonic()
        assert waiter.query("BEGIN").status == "T"
        assert time.monotonic() - began > 0.9
        assert "taking connection from reserve_pool" in pooler.log()
        third = pooler.wire()
        third.send(query("SELECT 1"))
        pooler.wait_waiting(1)
        assert third.quiet_for(1.5), "the reserve is larger than configured"

    def test_max_db_connections_holds_over_all_users_and_evicts_idle_servers(self, make_pooler, cluster):
        pooler = make_pooler(settings={"max_db_connections": 2})
        holder, other, third = pooler.wire("postgres"), pooler.wire("alice"), None
        holder.query("BEGIN")
        other.value("SELECT 1")
        third = pooler.wire("bob")  # evicts alice's idle server
        third.query("BEGIN")
        assert len(cluster.backends()) <= 2
        other.send(query("SELECT 'freed'"))
        pooler.wait_waiting(1, user="alice")
        holder.query("COMMIT")
        assert other.collect().value() == "freed"
        third.query("COMMIT")

    def test_max_user_connections_holds_over_all_databases(self, make_pooler):
        pooler = make_pooler(settings={"max_user_connections": 1})
        holder = pooler.wire("alice", "app")
        holder.query("BEGIN")
        other = Wire(pooler.port)
        other.send(wire.startup_packet({"user": "alice", "database": "other"}))
        pooler.wait_waiting(1, "other", "alice")
        holder.query("COMMIT")
        other.finish_login("alice")
        assert other.value("SELECT 'turn'") == "turn"

    def test_max_client_conn_text(self, make_pooler):
        pooler = make_pooler(settings={"max_client_conn": 2})
        clients = [pooler.wire(), pooler.wire()]
        with pytest.raises(WireError) as refused:
            pooler.wire()
        assert (refused.value.code, refused.value.text) == ("08P01", "no more connections allowed (max_client_conn)")
        assert pooler.admin("SHOW VERSION"), "the console is exempt"
        clients[0].close()
        wait_until(lambda: len(pooler.clients()) == 1)
        pooler.wire()

    @pytest.mark.pgweir
    @pytest.mark.parametrize("setting", ["max_db_client_connections", "max_user_client_connections"])
    def test_client_limits_of_database_and_user(self, make_pooler, setting):
        pooler = make_pooler(settings={setting: 1})
        first = pooler.wire()
        with pytest.raises(WireError) as refused:
            pooler.wire()
        assert refused.value.text == f"client connections exceeded ({setting})"
        first.close()
        wait_until(lambda: not pooler.clients())
        pooler.wire()

    def test_waiters_are_served_first_come_first_served(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1}, pgweir={"worker_threads": 2})
        holder = pooler.wire()
        holder.query("BEGIN")
        waiters = [pooler.wire() for _ in range(8)]
        for position, waiter in enumerate(waiters):
            waiter.send(query("INSERT INTO served DEFAULT VALUES RETURNING id"))
            pooler.wait_waiting(position + 1)
            # Order is promised among clients that come more than a millisecond apart.
            queued = time.monotonic()
            wait_until(lambda: time.monotonic() > queued + 0.005, 1, "the next client is clearly later")
        holder.query("CREATE TABLE served (id serial)")
        holder.query("COMMIT")
        try:
            assert [waiter.collect().value() for waiter in waiters] == [str(n) for n in range(1, 9)]
        finally:
            holder.query("DROP TABLE served")

    @pytest.mark.pgweir
    def test_waiting_client_that_leaves_gives_up_its_place(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1})
        holder, leaver, waiter = pooler.wire(), pooler.wire(), pooler.wire()
        holder.query("BEGIN")
        leaver.send(query("SELECT 'never'"))
        pooler.wait_waiting(1)
        waiter.send(query("SELECT 'mine'"))
        pooler.wait_waiting(2)
        leaver.abort()
        pooler.wait_waiting(1)
        holder.query("COMMIT")
        assert waiter.collect().value() == "mine"

    def test_round_robin_uses_all_servers_and_lifo_the_newest(self, make_pooler):
        for round_robin, expected in ((1, 3), (0, 1)):
            pooler = make_pooler(settings={"server_round_robin": round_robin, "default_pool_size": 3},
                                 pgweir={"worker_threads": 1})
            clients = [pooler.wire() for _ in range(3)]
            for client in clients:
                client.query("BEGIN")
            for client in clients:
                client.query("COMMIT")
            assert len({clients[0].value(PID) for _ in range(6)}) == expected

    def test_min_pool_size_is_kept_while_there_is_a_client(self, make_pooler, cluster):
        pooler = make_pooler(settings={"min_pool_size": 3})
        client = pooler.wire()
        wait_until(lambda: len(cluster.backends()) == 3, what="three servers")
        client.close()

    @pytest.mark.pgweir
    def test_min_pool_size_of_a_forced_user_needs_no_client(self, make_pooler, cluster):
        make_pooler(databases={"app": "dbname=app user=bob min_pool_size=2"})
        wait_until(lambda: len(cluster.backends(usename="bob")) == 2, what="two servers")


class TestTimeouts:
    def refused(self, client, text):
        fields = client.expect_fatal(text, "08P01")
        assert fields["S"] == "FATAL"

    @pytest.mark.smoke
    def test_query_wait_timeout(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1, "query_wait_timeout": 1})
        holder, waiter = pooler.wire(), pooler.wire()
        holder.query("BEGIN")
        began = time.monotonic()
        waiter.send(query("SELECT 1"))
        self.refused(waiter, "query_wait_timeout")
        assert 0.9 < time.monotonic() - began < 3 * PATIENCE
        assert holder.query("COMMIT").status == "I"

    @pytest.mark.pgweir
    def test_query_wait_notify_tells_the_client_once(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1, "query_wait_notify": 1})
        holder, waiter = pooler.wire(), pooler.wire()
        holder.query("BEGIN")
        waiter.send(query("SELECT 1"))
        notice = waiter.read_type("N").fields()
        assert notice["S"] == "NOTICE" and notice["C"] == "00000"
        assert notice["M"] == "No server connection available in postgres backend, client being queued"
        assert waiter.quiet_for(1.5)
        holder.query("COMMIT")
        assert waiter.collect().types == "TDCZ"

    def test_query_timeout_of_a_running_query(self, make_pooler, cluster):
        pooler = make_pooler(settings={"query_timeout": 1})
        client = pooler.wire()
        client.send(query("SELECT pg_sleep(20)"))
        self.refused(client, "query timeout")
        assert pooler.wire().value("SELECT 1") == "1"

    def test_query_timeout_of_a_waiting_query(self, make_pooler):
        pooler = make_pooler(settings={"query_timeout": 1, "default_pool_size": 1})
        holder, waiter = pooler.wire(), pooler.wire()
        holder.query("BEGIN")
        waiter.send(query("SELECT 1"))
        self.refused(waiter, "query_timeout")

    @pytest.mark.pgweir
    def test_query_timeout_of_a_login_that_waits_for_a_server(self, make_pooler):
        nobody = f"host=127.0.0.1 port={harness.free_port()} dbname=app"
        pooler = make_pooler(settings={"query_timeout": 1}, databases={"app": nobody})
        with pytest.raises(WireError) as refused:
            pooler.wire()
        assert refused.value.text == "query_timeout"

    def test_idle_transaction_timeout(self, make_pooler, cluster):
        pooler = make_pooler(settings={"idle_transaction_timeout": 1, "default_pool_size": 1})
        client = pooler.wire()
        client.query("BEGIN")
        pid = client.value(PID)
        self.refused(client, "idle transaction timeout")
        assert pooler.wire().value(PID) != pid

    @pytest.mark.pgweir
    def test_transaction_timeout_counts_from_the_begin(self, make_pooler):
        pooler = make_pooler(settings={"transaction_timeout": 1})
        client = pooler.wire()
        client.query("BEGIN")
        client.send(*[query("SELECT pg_sleep(0.2)")] * 20)
        self.refused(client, "transaction timeout")

    @pytest.mark.pgweir
    def test_timeouts_of_a_user_override_the_global_ones(self, make_pooler):
        pooler = make_pooler(settings={"query_timeout": 30}, users={"alice": "query_timeout=1"})
        client = pooler.wire("alice")
        client.send(query("SELECT pg_sleep(20)"))
        self.refused(client, "query timeout")

    def test_client_idle_timeout(self, make_pooler):
        pooler = make_pooler(settings={"client_idle_timeout": 1})
        client = pooler.wire()
        self.refused(client, "client_idle_timeout")

    def test_client_idle_timeout_spares_open_transactions(self, make_pooler):
        pooler = make_pooler(settings={"client_idle_timeout": 1})
        client = pooler.wire()
        client.query("BEGIN")
        assert client.quiet_for(1.7)
        assert client.query("COMMIT").status == "I"

    def test_client_login_timeout(self, make_pooler):
        pooler = make_pooler(settings={"client_login_timeout": 1})
        client = Wire(pooler.port)
        client.send(wire.request_packet(wire.SSL_REQUEST))
        assert client.read_bytes(1) == b"N"
        self.refused(client, "client_login_timeout")

    def test_login_against_a_dead_server_ends_with_server_down(self, make_pooler):
        pooler = make_pooler(settings={"client_login_timeout": 1},
                             databases={"app": "host=127.0.0.1 port=1 dbname=app"})
        with pytest.raises(WireError) as refused:
            pooler.wire()
        assert refused.value.text == "client_login_timeout (server down)"

    def test_server_idle_timeout_closes_idle_servers(self, make_pooler, cluster):
        pooler = make_pooler(settings={"server_idle_timeout": 1})
        pooler.wire().value("SELECT 1")
        wait_until(lambda: not cluster.backends(), 6, "the idle server is closed")

    def test_server_lifetime_replaces_old_servers(self, make_pooler, cluster):
        pooler = make_pooler(settings={"server_lifetime": 1, "default_pool_size": 1})
        client = pooler.wire()
        pid = client.value(PID)
        wait_until(lambda: client.value(PID) != pid, 6, "a fresh server")

    def test_server_lifetime_zero_uses_each_server_once(self, make_pooler):
        pooler = make_pooler(settings={"server_lifetime": 0})
        client = pooler.wire()
        assert len({client.value(PID) for _ in range(4)}) == 4

    def test_server_check_query_runs_before_reuse(self, make_pooler, cluster):
        cluster_table = "checks_of_servers"
        with cluster.connect() as direct:
            direct.execute(f"CREATE TABLE IF NOT EXISTS {cluster_table} (pid int)")
            pooler = make_pooler(settings={
                "server_check_delay": 0, "default_pool_size": 1,
                "server_check_query": f"INSERT INTO {cluster_table} VALUES (pg_backend_pid())"})
            client = pooler.wire()
            pid = client.value(PID)
            assert client.value(PID) == pid
            assert client.value(PID) == pid
            assert direct.execute(f"SELECT count(*) FROM {cluster_table}").fetchone()[0] >= 2
            direct.execute(f"DROP TABLE {cluster_table}")

    def test_server_that_died_while_idle_is_not_given_to_a_client(self, make_pooler, cluster):
        pooler = make_pooler(settings={"default_pool_size": 1})
        client = pooler.wire()
        pid = int(client.value(PID))
        cluster.ask("SELECT pg_terminate_backend(%s)", pid)
        wait_until(lambda: pid not in cluster.backends())
        wait_until(lambda: not pooler.servers(), what="the pooler has noticed")
        assert client.value(PID) != str(pid)

    def test_server_that_dies_under_a_query_reports_it(self, make_pooler, cluster):
        pooler = make_pooler()
        client = pooler.wire()
        client.query("BEGIN")
        pid = int(client.value(PID))
        cluster.ask("SELECT pg_terminate_backend(%s)", pid)
        errors = [got.fields() for got in client.expect_closed() if got.type == "E"]
        assert errors[0]["C"] == "57P01"
        assert errors[-1]["M"] in ("server conn crashed?", errors[0]["M"])

    def test_connect_query_runs_after_each_server_login(self, make_pooler):
        pooler = make_pooler(databases={"app": "dbname=app connect_query='SET work_mem TO ''7MB'''"})
        assert pooler.wire().value("SHOW work_mem") == "7MB"


class TestLeaving:
    """A client that goes away at a bad moment leaves nothing behind for the next one on the same pool."""

    @pytest.fixture
    def small(self, make_pooler):
        return make_pooler(settings={"default_pool_size": 1})

    def check_next(self, pooler):
        client = pooler.wire(timeout=20)
        result = client.query("SELECT 'clean'")
        assert result.rows == [["clean"]] and result.status == "I" and result.types == "TDCZ"
        client.send(parse("", "SELECT 'again'"), bind(), execute(), SYNC)
        assert client.collect().rows == [["again"]]

    @pytest.mark.smoke
    @pytest.mark.parametrize("goodbye", ["close", "abort"])
    def test_in_a_transaction(self, small, cluster, table, goodbye):
        client = small.wire()
        client.query(f"BEGIN; INSERT INTO {table} VALUES (1)")
        getattr(client, goodbye)()
        self.check_next(small)
        assert small.wire().value(f"SELECT count(*) FROM {table}") == "0"

    def test_in_a_query(self, small):
        client = small.wire()
        client.send(query("SELECT generate_series(1, 1000000), pg_sleep(0)"))
        client.read_type("T")
        client.abort()
        self.check_next(small)

    def test_in_a_query_that_has_not_answered_yet(self, small):
        client = small.wire()
        client.send(query("SELECT pg_sleep(1)"))
        wait_until(lambda: small.pool()["sv_active"] == 1)
        client.abort()
        self.check_next(small)

    def test_in_copy_in(self, small, table):
        client = small.wire()
        client.send(query(f"COPY {table} FROM STDIN"))
        client.read_type("G")
        client.send(copy_data(b"1\thalf a li"))
        client.abort()
        self.check_next(small)
        assert small.wire().value(f"SELECT count(*) FROM {table}") == "0"

    def test_in_copy_out(self, small):
        client = small.wire()
        client.send(query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT"))
        client.read_type("H")
        client.abort()
        self.check_next(small)

    def test_in_a_pipeline_without_sync(self, small):
        client = small.wire()
        client.send(parse("", "SELECT 1"), bind(), execute(), wire.FLUSH)
        assert client.read_type("1")
        client.abort()
        self.check_next(small)

    def test_in_the_middle_of_a_message(self, small):
        client = small.wire()
        client.send(query("SELECT 'cut off'")[:9])
        client.abort()
        self.check_next(small)

    def test_a_storm_of_leaving_clients_never_mixes_answers(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 3, "max_client_conn": 200})

        def work(number):
            for turn in range(15):
                client = pooler.wire(timeout=30)
                token = f"{number}-{turn}"
                if number % 3 == 0:
                    client.send(query(f"SELECT '{token}', pg_sleep(0.002)"))
                    client.abort()
                else:
                    assert client.value(f"SELECT '{token}'") == token
                    client.close()

        in_threads(12, work)
        self.check_next(pooler)
