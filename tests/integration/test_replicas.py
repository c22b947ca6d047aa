"""That the hosts and the forwarder of the tests of routing and failover do what their names say, without a pooler."""

import contextlib
import socket
import time

import psycopg
import pytest

from forwarder import Forwarder
from harness import PATIENCE, wait_until
from ledger import Ledger
from wire import Wire, query


def asks(port, **options):
    return psycopg.connect(host="127.0.0.1", port=port, dbname="app", user="postgres", autocommit=True,
                           connect_timeout=5, **options)


def logged_in(port):
    client = Wire(port)
    client.login("postgres", "app")
    return client


def test_a_standby_takes_over_and_the_old_primary_comes_back(make_replicas):
    pair = make_replicas()
    old, new = pair.hosts
    assert (old.is_standby(), new.is_standby()) == (False, True)
    with old.connect() as connection:
        connection.execute("INSERT INTO notes VALUES (1, 'before')")
    pair.catch_up()
    pair.set_synchronous()
    old.kill()
    assert not old.is_running()
    pair.promote()
    with new.connect() as connection:
        assert connection.execute("SELECT note FROM all_notes").fetchall() == [("before",)]
        connection.execute("INSERT INTO notes VALUES (2, 'after')")
    for how in ("rewind", "backup"):
        pair.rejoin(old, how)
        pair.catch_up()
        with old.connect() as connection:
            assert connection.execute("SELECT on_standby(), count(*) FROM notes").fetchone() == (True, 2)
        old.stop("immediate")


def test_a_host_may_return_on_its_old_timeline(make_replicas):
    pair = make_replicas()
    old, new = pair.hosts
    old.stop("immediate")
    pair.promote()
    old.start()
    assert (old.is_standby(), new.is_standby()) == (False, False)
    name = "SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)"
    assert (old.value(name), new.value(name)) == ("00000001", "00000002")


def test_replay_pauses_and_is_delayed(make_replicas):
    pair = make_replicas(standbys=2)
    first, second = pair.standbys
    first.pause_replay()
    with pair.primary.connect() as connection:
        connection.execute("INSERT INTO notes VALUES (1, 'x')")
    second.catch_up(pair.primary)
    with first.connect() as connection:
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (0,)
    first.resume_replay()
    first.catch_up(pair.primary)
    first.set(recovery_min_apply_delay="700ms")
    began = time.monotonic()
    with pair.primary.connect() as connection:
        connection.execute("INSERT INTO notes VALUES (2, 'y')")
    first.catch_up(pair.primary)
    assert time.monotonic() - began > 0.5


def test_a_frozen_host_takes_connects_and_answers_nothing(make_replicas):
    host = make_replicas(standbys=0).primary
    with logged_in(host.port) as client:
        host.freeze()
        with socket.create_connection(("127.0.0.1", host.port), 5):
            pass
        client.send(query("SELECT 1"))
        assert client.quiet_for(0.05)
        host.thaw()
        assert client.collect().rows == [["1"]]


def test_the_ledger_finds_what_is_missing_and_what_is_too_much(make_replicas):
    pair = make_replicas()
    with Ledger(pair.primary, pair) as ledger:
        ledger.wait_for(60, port=pair.primary.port)
    ledger.reconcile()
    ledger.check_failures(began_before=0)
    with pair.primary.connect() as direct:
        for damage, words in (("INSERT INTO transfers SELECT * FROM transfers LIMIT 1", "more than once"),
                              ("DELETE FROM transfers WHERE ctid = '(0,1)'", "1 acknowledged transfers are lost"),
                              ("INSERT INTO transfers VALUES ('0/0', 0, 1)", "nobody sent them"),
                              ("UPDATE accounts SET balance = balance + 1 WHERE id = 2", "account 2")):
            with direct.transaction(force_rollback=True):
                direct.execute(damage)
                found = pytest.raises(AssertionError, ledger.compare, direct)
            assert words in str(found.value)


class TestForwarder:
    @pytest.fixture
    def forwarder(self, cluster):
        one = Forwarder(cluster.port)
        yield one
        one.close()

    def test_passes(self, forwarder):
        with asks(forwarder.port) as connection:
            assert len(connection.execute("SELECT repeat('x', 1000000)").fetchone()[0]) == 1000000

    def test_frozen(self, forwarder):
        with logged_in(forwarder.port) as client:
            forwarder.freeze()
            client.send(query("SELECT 1"))
            with socket.create_connection(("127.0.0.1", forwarder.port), 5) as other:
                other.settimeout(0.1)
                other.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")
                with pytest.raises(TimeoutError):
                    other.recv(1)
            assert client.quiet_for(0.05)
            forwarder.passing()
            assert client.collect().rows == [["1"]]

    def test_dropping(self, forwarder):
        with asks(forwarder.port) as connection:
            forwarder.drop()
            with contextlib.closing(socket.socket()) as other:
                other.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    other.connect(("127.0.0.1", forwarder.port))
            forwarder.passing()
            assert connection.execute("SELECT 1").fetchone() == (1,)
        with asks(forwarder.port) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)

    def test_refusing(self, forwarder):
        connection = asks(forwarder.port)
        forwarder.refuse()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", forwarder.port), 5 * PATIENCE)
        forwarder.passing()
        asks(forwarder.port).close()

    def test_cut(self, forwarder):
        connection = asks(forwarder.port)
        forwarder.cut()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        asks(forwarder.port).close()

    def test_ends_with_its_peers(self, forwarder, cluster):
        connection = asks(forwarder.port, application_name="through")
        wait_until(lambda: cluster.backends(application_name="through"), 5, "the connection is there")
        connection.close()
        wait_until(lambda: not cluster.backends(application_name="through"), 5, "the connection is gone")
