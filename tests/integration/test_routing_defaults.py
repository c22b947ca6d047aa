"""What the server gives to a session by itself: default_transaction_isolation and default_transaction_read_only of a
role, of a database or of the whole server. A hot standby refuses serializable transactions (0A000), so where they are
the default nothing is read from it; read only is as good on either host."""

import contextlib

import pytest

from harness import wait_until
from routing import counted, hosts, options, routes

pytestmark = pytest.mark.pgweir

READ_ONLY = "25006"
ISOLATION = "default_transaction_isolation"


@pytest.fixture
def given(pair):
    """given("ROLE alice", "SET ...") until the end of the test, and replayed when it returns."""
    with contextlib.ExitStack() as undo:
        def give(whom, setting):
            name = setting.split()[1]
            undo.callback(pair.primary.ask, f"ALTER {whom} RESET {name}")
            pair.primary.ask(f"ALTER {whom} {setting}")
            pair.catch_up()
        yield give
    pair.catch_up()


def serializable(value="serializable"):
    return f"SET {ISOLATION} = '{value}'"


def ports(pooler, **login):
    """Who answers a read by itself and one in a read-only block, of a new client."""
    with pooler.wire(**login) as client:
        alone = client.query("SELECT host_port()")
        assert not alone.errors
        client.query("BEGIN READ ONLY")
        inside = client.query("SELECT host_port()")
        assert not inside.errors
        assert client.query("COMMIT").tags == ["COMMIT"]
        return alone.value(), inside.value()


def forget(host, user):
    """Ends the idle server connections of the user, whose successors see what was given since."""
    host.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'app' AND usename = %s"
             " AND pid <> pg_backend_pid()", user)


class TestSerializable:
    @pytest.mark.smoke
    def test_of_a_role(self, given, make_routed, primary, standby):
        given("ROLE alice", serializable())
        pooler = make_routed()
        before = routes(pooler)
        for _ in range(3):
            assert ports(pooler, user="alice") == (primary, primary)
            assert ports(pooler) == (standby, standby)
        assert "retries" not in counted(pooler, before)
        with pooler.wire(user="alice") as client:
            assert client.value("/* pgweir: standby */ SELECT host_port()") == primary

    def test_of_a_database_and_a_role_that_does_without(self, given, make_routed, pair, primary, standby):
        given("ROLE alice", serializable("read committed"))
        pooler = make_routed()
        with pooler.wire() as client:
            assert client.query(f"ALTER DATABASE app {serializable()}").tags == ["ALTER DATABASE"]
        try:
            # The catalogue is read again, and until then a block may be refused.
            wait_until(lambda: self.value(pooler, "postgres") == primary, 10, "reads of the database are on the primary")
            assert ports(pooler) == (primary, primary)
            assert ports(pooler, user="alice") == (standby, standby)
        finally:
            pair.primary.ask(f"ALTER DATABASE app RESET {ISOLATION}")
            pair.catch_up()

    @staticmethod
    def value(pooler, user, sql="SELECT host_port()", **login):
        with pooler.wire(user=user, **login) as client:
            result = client.query(sql)
            assert not result.errors
            return result.value()

    def test_our_own_questions(self, given, make_pooler, pair, primary):
        """Neither the prober nor who reads the catalogue minds what the database gives them."""
        given("DATABASE app", serializable())
        pooler = make_pooler(**options(pair))
        wait_until(lambda: hosts(pooler).get(pair.standby.address, {}).get("role") == "standby", 10, "it is probed")
        wait_until(lambda: self.value(pooler, "postgres") == primary, 10, "reads are on the primary")
        assert ports(pooler) == (primary, primary)

    def test_what_nobody_has_told_is_learned_unseen(self, given, make_routed, pair, primary, standby):
        pooler = make_routed()
        assert ports(pooler, user="alice") == (standby, standby)
        before = routes(pooler)
        given("ROLE alice", serializable())
        forget(pair.standby, "alice")
        with pooler.wire(user="alice") as client:
            wait_until(lambda: client.value("SELECT host_port()") == primary, 10, "a new server connection is refused")
            assert client.value("SELECT host_port()") == primary
        assert ports(pooler, user="alice") == (primary, primary)
        assert counted(pooler, before)["retries"] >= 1
        assert "learned" not in counted(pooler, before)
        assert ports(pooler) == (standby, standby)

    def test_parameters_that_the_standby_will_not_set(self, given, make_routed, pair, primary):
        """They need a SELECT, which is refused; the client is served by the primary."""
        pooler = make_routed()
        given("ROLE alice", serializable())
        assert self.value(pooler, "alice", options="-c work_mem=5MB", sql="SHOW work_mem") == "5MB"
        forget(pair.standby, "alice")
        assert self.value(pooler, "alice", options="-c work_mem=6MB", sql="SHOW work_mem") == "6MB"
        assert ports(pooler, user="alice", options="-c work_mem=7MB") == (primary, primary)

    def test_a_client_that_asked_for_it(self, make_routed, primary):
        pooler = make_routed()
        assert ports(pooler, options=f"-c {ISOLATION}=serializable") == (primary, primary)


class TestReadOnly:
    def test_of_a_role(self, given, make_routed, primary, standby):
        """Reads are where they always are; what writes is refused by the primary, as it would be without us."""
        given("ROLE alice", "SET default_transaction_read_only = 'on'")
        pooler = make_routed()
        before = routes(pooler)
        assert ports(pooler, user="alice") == (standby, standby)
        with pooler.wire(user="alice") as client:
            assert client.query("INSERT INTO notes VALUES (9, 'never')").error["C"] == READ_ONLY
            assert client.query("BEGIN").tags == ["BEGIN"]
            assert client.value("SELECT host_port()") == primary
            assert client.query("INSERT INTO notes VALUES (9, 'never')").error["C"] == READ_ONLY
            client.query("ROLLBACK")
            client.query("BEGIN READ WRITE")
            assert client.query("INSERT INTO notes VALUES (9, 'allowed')").tags == ["INSERT 0 1"]
            client.query("ROLLBACK")
        assert {"retries", "learned"}.isdisjoint(counted(pooler, before))
