"""PostgreSQL backends that die under a pooler: killed, which restarts the whole server, or terminated."""

import contextlib
import os
import re
import signal
import struct
from pathlib import Path

import pytest

import harness
from bystander import Bystander, Footprint
from harness import PATIENCE, wait_until
from postgres import Cluster
from wire import Closed, bind, execute, message, parse, query


@pytest.fixture(scope="module")
def own_cluster(base):
    """A PostgreSQL of this module's own, because a killed backend makes it restart all the others."""
    one = Cluster(base, harness.PG15_BIN)
    yield one
    one.stop("immediate")


def is_zombie(pid):
    """Ended, but its parent has not been told or has not looked."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


@contextlib.contextmanager
def undisturbed(pooler, **options):
    with Bystander(pooler, lambda: pooler.wire(**options)):
        footprint = Footprint(pooler)
        yield
        footprint.returns()


class TestBackendsDie:
    @pytest.fixture
    def crashing(self, make_pooler, own_cluster, cluster):
        """A pooler before the cluster that crashes; the bystander uses the other cluster."""
        return make_pooler(settings={"server_login_retry": 1},
                           databases={"app": f"host=127.0.0.1 port={own_cluster.port} dbname=app",
                                      "safe": f"host=127.0.0.1 port={cluster.port} dbname=app"})

    def kill(self, own_cluster, pid, frozen=False):
        assert pid in own_cluster.backends(), "only a backend of the test's own cluster may be killed"
        own_cluster._monitor.close()
        os.kill(pid, signal.SIGKILL)
        # Before its parent has noticed, another backend could still be started that dies with the rest.
        wait_until(lambda: is_zombie(pid) if frozen else not Path(f"/proc/{pid}").exists(), 10, "the backend has ended")

    def recovered(self, pooler, client):
        """The idle client is still there, and is served when PostgreSQL is back."""
        # Until then a query could still be given to a backend that dies with the others, and would rightly be lost.
        wait_until(lambda: not pooler.servers(), 10, "the backends of the crashed server are gone")
        client.timeout = 30 * PATIENCE
        assert client.value("SELECT 'back'") == "back"
        with pooler.wire(timeout=30) as fresh:
            assert fresh.value("SELECT 'new'") == "new"
        client.close()

    def test_kill_in_a_transaction(self, crashing, own_cluster):
        with undisturbed(crashing, database="safe"):
            idle, client = crashing.wire(), crashing.wire()
            idle.value("SELECT 1")
            client.query("BEGIN")
            self.kill(own_cluster, int(client.value("SELECT pg_backend_pid()")))
            told = client.expect_fatal()
            assert told["M"] == "server conn crashed?"
            self.recovered(crashing, idle)
        assert "server conn crashed?" in crashing.log()

    @pytest.mark.heavy
    def test_kill_in_the_middle_of_a_result(self, crashing, own_cluster):
        with undisturbed(crashing, database="safe"):
            idle, client = crashing.wire(), crashing.wire(timeout=60)
            idle.value("SELECT 1")
            client.send(query("SELECT n, repeat('r', 10000) FROM generate_series(1, 20000) n"))
            client.read_type("T")
            first = client.read_type("D")
            (pid,) = wait_until(lambda: [p for p in own_cluster.backends(state="active", wait_event="ClientWrite")])
            self.kill(own_cluster, pid)
            rows, last = [first], None
            with contextlib.suppress(Closed):
                while True:
                    last = client.read()
                    rows.append(last)
            assert all(m.type in "DE" for m in rows), "no end of a result that has not ended"
            for number, row in enumerate((m for m in rows if m.type == "D"), 1):
                digits = str(number).encode()
                assert row.body[6:6 + len(digits) + 4] == digits + struct.pack("!i", 10000)
                assert row.body.endswith(b"r" * 10000)
            assert len(rows) < 20000
            if last.type == "E":
                assert last.fields()["M"] == "server conn crashed?"
            self.recovered(crashing, idle)

    def test_the_other_transactions_of_a_crashed_server(self, crashing, own_cluster):
        with undisturbed(crashing, database="safe"):
            idle, victim, other = crashing.wire(), crashing.wire(), crashing.wire()
            idle.value("SELECT 1")
            for client in (victim, other):
                client.query("BEGIN")
            pid = int(victim.value("SELECT pg_backend_pid()"))
            self.kill(own_cluster, pid)
            assert victim.expect_fatal()["M"] == "server conn crashed?"
            messages = other.expect_closed()
            assert {m.type for m in messages} <= {"N", "E"}
            assert messages[-1].fields()["S"] == "FATAL"
            self.recovered(crashing, idle)

    def test_clients_that_queue_while_postgresql_recovers(self, crashing, own_cluster):
        """All of them wait before PostgreSQL notices the crash: it is frozen meanwhile, so none is sent to a backend
        that is about to die, and none comes after the first refused login, which would fail it at once."""
        with undisturbed(crashing, database="safe"):
            clients = [crashing.wire(timeout=30) for _ in range(10)]
            victim = crashing.wire()
            victim.query("BEGIN")
            pid = int(victim.value("SELECT pg_backend_pid()"))
            wait_until(lambda: pid in own_cluster.backends(), what="the test's own connection for asking is open")
            with own_cluster.frozen():
                self.kill(own_cluster, pid, frozen=True)
                assert victim.expect_fatal()["M"] == "server conn crashed?"
                for number, client in enumerate(clients):
                    client.send(query(f"SELECT {number}"))
                crashing.wait_waiting(10)
            for number, client in enumerate(clients):
                assert client.collect().value() == str(number)
                client.close()
            with crashing.wire(timeout=30) as client:
                assert client.value("SELECT 1") == "1"
        assert "the database system is in recovery mode" in crashing.log()

    def test_terminate_in_a_transaction(self, pooler, cluster):
        with undisturbed(pooler):
            client = pooler.wire()
            client.query("BEGIN")
            pid = int(client.value("SELECT pg_backend_pid()"))
            cluster.ask("SELECT pg_terminate_backend(%s)", pid)
            errors = [m.fields() for m in client.expect_closed() if m.type == "E"]
            assert (errors[0]["S"], errors[0]["C"]) == ("FATAL", "57P01")
            wait_until(lambda: pid not in cluster.backends())
        assert re.search(r"S-.*closing because: server conn crashed\?", pooler.log())

    def test_terminate_in_a_query_and_in_a_pipeline(self, pooler, cluster):
        with undisturbed(pooler):
            for parts in ([query("SELECT pg_sleep(60)"), query("SELECT 2")],
                          [parse("", "SELECT pg_sleep(60)"), bind(), execute(), message("S")]):
                client = pooler.wire()
                client.send(*parts)
                (pid,) = wait_until(lambda: cluster.backends(state="active", wait_event="PgSleep"))
                cluster.ask("SELECT pg_terminate_backend(%s)", pid)
                got = client.expect_closed()
                assert {m.type for m in got} <= set("12TE"), "no row and no end of the query"
                assert [m.fields()["C"] for m in got if m.type == "E"][0] == "57P01"

    def test_terminate_while_idle_is_not_noticed(self, make_pooler, cluster):
        pooler = make_pooler(settings={"default_pool_size": 3})
        footprint = Footprint(pooler)
        clients = [pooler.wire() for _ in range(3)]
        for client in clients:
            client.query("BEGIN")
        pids = {client.value("SELECT pg_backend_pid()") for client in clients}
        for client in clients:
            client.query("COMMIT")
        for pid in pids:
            cluster.ask("SELECT pg_terminate_backend(%s)", int(pid))
        wait_until(lambda: not pooler.servers(), what="the pooler has noticed")
        for client in clients:
            assert client.value("SELECT pg_backend_pid()") not in pids
            client.close()
        assert "server closed an idle connection: terminating connection due to administrator command" in pooler.log()
        footprint.returns()
