"""What is closed or forgotten because nobody uses it or nobody should: pools, automatic databases, old servers."""

import pytest

from harness import wait_until
from test_cancel import running
from wire import Closed, WireError, query, send_cancel

pytestmark = pytest.mark.pgweir

AUTO = {"app": "dbname=app", "*": ""}


def names(rows, column="name"):
    return {row[column] for row in rows}


class TestServerFastClose:
    def session(self, make_pooler, **settings):
        return make_pooler(settings={"pool_mode": "session", "server_fast_close": 1, **settings})

    def test_session_ends_at_reconnect(self, make_pooler):
        pooler = self.session(make_pooler)
        client = pooler.wire()
        client.value("SELECT 1")
        pooler.admin("RECONNECT")
        client.expect_fatal("database configuration changed", "08P01")
        wait_until(lambda: pooler.servers() == [], what="the old server has ended")
        assert pooler.wire().value("SELECT 1") == "1"

    def test_transaction_is_completed_first(self, make_pooler, table):
        pooler = self.session(make_pooler)
        client = pooler.wire()
        client.query("BEGIN")
        client.query(f"INSERT INTO {table} VALUES (1, 'kept')")
        pooler.admin("RECONNECT")
        with pooler.console() as console:
            console.send(query("WAIT_CLOSE"))
            assert client.value("SELECT 'still here'") == "still here"
            assert console.quiet_for(0.05)
            assert client.query("COMMIT").tags == ["COMMIT"]
            client.expect_fatal("database configuration changed")
            assert console.collect().tags == ["WAIT_CLOSE"]
        assert pooler.wire().value(f"SELECT token FROM {table}") == "kept"

    def test_changed_entry_ends_sessions_and_new_ones_see_it(self, make_pooler):
        pooler = self.session(make_pooler)
        client, other = pooler.wire(), pooler.wire(database="other")
        client.value("SELECT 1"), other.value("SELECT 1")
        pooler.databases["app"] = "dbname=other"
        pooler.write_config()
        assert pooler.console().query("RELOAD").tags == ["RELOAD"]
        client.expect_fatal("database configuration changed")
        assert pooler.wire().value("SELECT current_database()") == "other"
        assert other.value("SELECT 'not changed'") == "not changed"

    def test_the_setting_may_come_later(self, make_pooler):
        pooler = self.session(make_pooler, server_fast_close=0)
        client = pooler.wire()
        client.value("SELECT 1")
        pooler.admin("RECONNECT")
        assert client.value("SELECT 'kept without the setting'")
        pooler.admin("SET server_fast_close = 1")
        client.expect_fatal("database configuration changed")

    def test_transaction_mode_changes_servers_without_a_word(self, make_pooler):
        pooler = self.session(make_pooler, pool_mode="transaction")
        client = pooler.wire()
        pid = client.value("SELECT pg_backend_pid()")
        pooler.admin("RECONNECT")
        assert client.value("SELECT pg_backend_pid()") != pid


class TestAutomaticDatabases:
    def test_forgotten_after_autodb_idle_timeout(self, make_pooler):
        pooler = make_pooler(databases=AUTO, settings={"autodb_idle_timeout": "0.5", "server_idle_timeout": "0.2"})
        client = pooler.wire(database="other")
        assert client.value("SELECT current_database()") == "other"
        assert "registered new auto-database: other" in pooler.log()
        wait_until(lambda: pooler.servers("other") == [])
        assert client.quiet_for(0.8)
        assert "other" in names(pooler.admin("SHOW DATABASES"))
        assert client.value("SELECT current_database()") == "other"
        client.close()
        wait_until(lambda: "other" not in names(pooler.admin("SHOW DATABASES")), what="it is forgotten")
        assert "other" not in names(pooler.admin("SHOW POOLS"), "database")
        assert "other" not in names(pooler.admin("SHOW STATS"), "database")
        assert "app" in names(pooler.admin("SHOW DATABASES"))
        assert pooler.wire(database="other").value("SELECT 1") == "1"
        assert pooler.log().count("registered new auto-database: other") == 2

    @pytest.mark.parametrize("command, undo", [("PAUSE other", "RESUME other"), ("DISABLE other", "ENABLE other")])
    def test_what_an_operator_said_is_not_forgotten(self, make_pooler, command, undo):
        pooler = make_pooler(databases=AUTO, settings={"autodb_idle_timeout": "0.2"})
        pooler.admin(command)
        with pooler.console() as console:
            assert console.quiet_for(0.6)
        assert "other" in names(pooler.admin("SHOW DATABASES"))
        pooler.admin(undo)
        wait_until(lambda: "other" not in names(pooler.admin("SHOW DATABASES")))

    def test_names_of_refused_logins_do_not_pile_up(self, make_pooler):
        pooler = make_pooler(databases=AUTO, settings={"autodb_idle_timeout": "0.3", "server_login_retry": "0.1"})
        for number in range(20):
            with pytest.raises((WireError, Closed)):
                pooler.wire(database=f"none{number}")
        wait_until(lambda: names(pooler.admin("SHOW DATABASES")) == {"app", "pgbouncer"}, 10)

    def test_clients_that_come_and_go_while_it_is_forgotten_are_all_served(self, make_pooler):
        pooler = make_pooler(databases=AUTO, pgweir={"worker_threads": 4},
                             settings={"autodb_idle_timeout": "0.001", "pool_idle_timeout": "0.001",
                                       "server_idle_timeout": "0.001", "log_connections": 0,
                                       "log_disconnections": 0})
        for number in range(200):
            with pooler.wire(database="other") as client:
                assert client.value(f"SELECT '{number}'") == str(number)
        wait_until(lambda: names(pooler.admin("SHOW DATABASES")) == {"app", "pgbouncer"}, 10)


class TestPoolIdleTimeout:
    def test_pool_and_its_statistics_are_forgotten(self, make_pooler):
        pooler = make_pooler(settings={"pool_idle_timeout": "0.5", "server_idle_timeout": "0.2"})
        client = pooler.wire()
        client.value("SELECT 1")
        wait_until(lambda: pooler.servers() == [])
        assert client.quiet_for(0.8)
        assert pooler.pool() is not None, "a pool with a client stays"
        client.close()
        wait_until(lambda: pooler.pool() is None, what="the pool is forgotten")
        assert "app" not in names(pooler.admin("SHOW STATS"), "database")
        assert "app" in names(pooler.admin("SHOW DATABASES"))
        again = pooler.wire()
        assert again.value("SELECT 1") == "1"
        (row,) = [row for row in pooler.admin("SHOW STATS_TOTALS") if row["database"] == "app"]
        assert (row["client_login_count"], row["query_count"]) == ("1", "1")

    def test_off_by_default(self, make_pooler):
        pooler = make_pooler(settings={"server_idle_timeout": "0.1"})
        pooler.wire().close()
        wait_until(lambda: pooler.servers() == [])
        with pooler.console() as console:
            assert console.quiet_for(0.5)
        assert pooler.pool() is not None


class TestCancelWaitTimeout:
    def test_off_means_without_a_limit(self, make_pooler):
        pooler = make_pooler(settings={"cancel_wait_timeout": 0})
        client = pooler.wire()
        client.send(query("SELECT pg_sleep(30)"))
        running(pooler)
        send_cancel(pooler.port, client.key)
        assert client.collect().error["C"] == "57014"
