"""Cancel peering: a cancel request that reaches the wrong process is passed on to the right one, and to nobody else."""

import random
import signal
import socket
import struct
import threading

import psycopg
import pytest

import harness
from harness import PATIENCE, free_port, listening, wait_until
from test_cancel import cancel_storm, running
from wire import CANCEL_REQUEST, Wire, query, request_packet, send_cancel

pytestmark = pytest.mark.pgweir

SLEEP = query("SELECT pg_sleep(30)")


def peer_of(key):
    return struct.unpack("<H", key[1:3])[0]


def hops_of(key):
    return key[7] & 3


def foreign_key(peer, hops=3):
    """A key that might be one of the process with this id."""
    return b"\x11" + struct.pack("<H", peer) + b"abcd" + bytes([0x40 | hops])


class Ring:
    """Processes that know each other."""

    def __init__(self, make_pooler, count, transport, **settings):
        self.poolers = [make_pooler(start=False, settings={"peer_id": number + 1, **settings})
                        for number in range(count)]
        entries = {pooler.settings["peer_id"]: f"host=127.0.0.1 port={pooler.port}" if transport == "tcp"
                   else f"host={pooler.home} port={pooler.port}" for pooler in self.poolers}
        for pooler in self.poolers:
            pooler.peers = dict(entries)
            pooler.start()

    def __getitem__(self, number):
        return self.poolers[number]


class Ear:
    """A peer that only listens: it takes requests and keeps their connections until told otherwise."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections, self.packets = [], []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
                connection.settimeout(10 * PATIENCE)
                packet = connection.recv(16, socket.MSG_WAITALL)
            except OSError:
                return
            self.connections.append(connection)
            self.packets.append(packet)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            connection.close()

    @property
    def address(self):
        return f"host=127.0.0.1 port={self.port}"

    @property
    def open(self):
        """How many of the connections the other side has not closed."""
        count = 0
        for connection in self.connections:
            connection.setblocking(False)
            try:
                count += 1 if connection.fileno() >= 0 and connection.recv(1) else 0
            except BlockingIOError:
                count += 1
            except OSError:
                pass
        return count


def asks(pooler, key):
    """A connection that has sent a cancel request and does not wait for its end."""
    wire = Wire(pooler.port)
    wire.send(request_packet(CANCEL_REQUEST, key))
    return wire


def peer_pool(pooler, peer):
    for row in pooler.admin("SHOW PEER_POOLS"):
        if row["peer_id"] == str(peer):
            return {name: int(value) for name, value in row.items()}
    return None


IDLE = {"cl_active_cancel_req": 0, "cl_waiting_cancel_req": 0, "sv_active_cancel": 0, "sv_login": 0}


def test_key_says_whose_it_is(make_pooler):
    pooler = make_pooler(settings={"peer_id": 0x1234})
    keys = [pooler.wire().key for _ in range(5)]
    for key in keys:
        assert len(key) == 8 and key[0] < 0x80
        assert (key[1], key[2]) == (0x34, 0x12) and hops_of(key) == 3
    assert len({key[3:7] for key in keys}) == len(keys), "the rest is random"


@pytest.mark.smoke
@pytest.mark.parametrize("transport", ["tcp", "unix"])
@pytest.mark.parametrize("count", [2, 3])
def test_cancel_sent_to_the_wrong_process_hits_the_right_query(make_pooler, count, transport):
    ring = Ring(make_pooler, count, transport)
    clients = [pooler.wire() for pooler in ring]
    for client in clients:
        client.send(SLEEP)
    running(ring[0], count)
    for number, client in enumerate(clients):
        send_cancel(ring[(number + 1) % count].port, client.key)
        assert client.collect().error["C"] == "57014"
        running(ring[0], count - number - 1)
    for number, pooler in enumerate(ring):
        following = ring[(number - 1) % count].settings["peer_id"]
        assert peer_pool(pooler, following) == {"peer_id": following, **IDLE}
        assert len(pooler.admin("SHOW PEERS")) == count


def test_cancel_for_the_process_itself_is_not_passed_on(make_pooler):
    ring = Ring(make_pooler, 2, "tcp")
    client = ring[0].wire()
    client.send(SLEEP)
    running(ring[0])
    send_cancel(ring[0].port, client.key)
    assert client.collect().error["C"] == "57014"
    assert ring[0].admin("SHOW PEER_POOLS") == []


def test_cancel_of_a_console_command_is_passed_on(make_pooler):
    ring = Ring(make_pooler, 2, "unix")
    client, console = ring[0].wire(), ring[0].console()
    client.query("BEGIN")
    console.send(query("PAUSE"))
    wait_until(lambda: {"key": "paused", "value": "yes"} in ring[0].admin("SHOW STATE"))
    send_cancel(ring[1].port, console.key)
    assert console.collect().error["M"] == "canceled"
    assert {"key": "paused", "value": "no"} in ring[0].admin("SHOW STATE")


@pytest.mark.parametrize("key", [foreign_key(3), foreign_key(2, 0), foreign_key(1), foreign_key(0), b"\0" * 8,
                                 foreign_key(2) + bytes(24)])
def test_what_nobody_is_to_have_is_closed_without_an_answer(make_pooler, key):
    with Ear() as ear:
        pooler = make_pooler(settings={"peer_id": 1}, peers={1: "host=127.0.0.1 port=1", 2: ear.address})
        assert [got for got in asks(pooler, key).expect_closed() if got.type != "E"] == []
        assert ear.packets == []


def test_request_is_passed_on_as_it_came_with_one_hop_less(make_pooler):
    with Ear() as ear:
        pooler = make_pooler(settings={"peer_id": 1}, peers={2: ear.address})
        for hops in (3, 2, 1):
            asking = asks(pooler, foreign_key(2, hops))
            wait_until(lambda: len(ear.packets) == 4 - hops)
            assert ear.packets[-1] == request_packet(CANCEL_REQUEST, foreign_key(2, hops - 1))
            assert asking.quiet_for(0.05), "the close tells the client that the request has ended"
            assert peer_pool(pooler, 2)["cl_active_cancel_req"] == 1
            ear.connections[-1].close()
            assert asking.expect_closed() == []
        assert peer_pool(pooler, 2) == {"peer_id": 2, **IDLE}


def test_processes_that_take_each_other_for_a_third_do_not_go_round_for_ever(make_pooler):
    """1 and 2 send the requests for 3 to each other: three times, then the request is dropped."""
    first, second = [make_pooler(start=False, settings={"peer_id": number}) for number in (1, 2)]
    first.peers = {3: f"host=127.0.0.1 port={second.port}"}
    second.peers = {3: f"host=127.0.0.1 port={first.port}"}
    for pooler in (first, second):
        pooler.start()
    for _ in range(5):
        assert asks(first, foreign_key(3)).expect_closed() == []
    for pooler in (first, second):
        assert peer_pool(pooler, 3) == {"peer_id": 3, **IDLE}
        assert pooler.wire().value("SELECT 1") == "1"


def test_peer_that_is_down(make_pooler):
    pooler = make_pooler(settings={"peer_id": 1}, peers={2: f"host=127.0.0.1 port={free_port()}",
                                                         3: "host=/no/such/dir", 4: "host=no-such-host.invalid"})
    for peer in (2, 3, 4):
        assert asks(pooler, foreign_key(peer)).expect_closed() == []
        wait_until(lambda: peer_pool(pooler, peer) == {"peer_id": peer, **IDLE})
        assert f"peer-{peer}@" in pooler.log()
    assert pooler.wire().value("SELECT 1") == "1"


def test_peer_that_does_not_end_the_request(make_pooler):
    with Ear() as ear:
        pooler = make_pooler(settings={"peer_id": 1, "cancel_wait_timeout": "0.5"}, peers={2: ear.address})
        asking = asks(pooler, foreign_key(2))
        assert asking.expect_closed() == []
        assert peer_pool(pooler, 2) == {"peer_id": 2, **IDLE}
        wait_until(lambda: ear.open == 0, what="the connection to the peer is closed, too")


def test_requests_to_a_peer_are_limited_by_its_pool_size(make_pooler):
    with Ear() as ear:
        pooler = make_pooler(settings={"peer_id": 1}, peers={2: f"{ear.address} pool_size=2"})
        waiting = [asks(pooler, foreign_key(2)) for _ in range(5)]
        wait_until(lambda: peer_pool(pooler, 2) == {"peer_id": 2, "cl_active_cancel_req": 2, "cl_waiting_cancel_req": 3,
                                                    "sv_active_cancel": 2, "sv_login": 0})
        for ended in range(5):
            wait_until(lambda: len(ear.packets) == min(5, ended + 2))
            ear.connections[ended].close()
        for asking in waiting:
            assert asking.expect_closed() == []
        assert peer_pool(pooler, 2) == {"peer_id": 2, **IDLE}


def test_requests_that_wait_for_a_peer_end_after_cancel_wait_timeout(make_pooler):
    with Ear() as ear:
        pooler = make_pooler(settings={"peer_id": 1, "cancel_wait_timeout": 0},
                             peers={2: f"{ear.address} pool_size=1"})
        under_way = asks(pooler, foreign_key(2))
        wait_until(lambda: len(ear.packets) == 1)
        pooler.admin("SET cancel_wait_timeout = '0.5'")
        for asking in [asks(pooler, foreign_key(2)) for _ in range(3)]:
            assert asking.expect_closed() == []
        assert len(ear.packets) == 1
        assert under_way.quiet_for(0.05)


class TestReload:
    def reload(self, pooler):
        pooler.write_config()
        with pooler.console() as console:
            return console.query("RELOAD")

    def test_peers_come_and_go(self, make_pooler):
        with Ear() as ear:
            pooler = make_pooler(settings={"peer_id": 1})
            assert asks(pooler, foreign_key(2)).expect_closed() == []
            pooler.peers = {2: f"{ear.address} pool_size=1"}
            assert self.reload(pooler).tags == ["RELOAD"]
            under_way = asks(pooler, foreign_key(2))
            wait_until(lambda: len(ear.packets) == 1)
            waits = asks(pooler, foreign_key(2))
            wait_until(lambda: peer_pool(pooler, 2)["cl_waiting_cancel_req"] == 1)
            pooler.peers = {}
            assert self.reload(pooler).tags == ["RELOAD"]
            assert waits.expect_closed() == []
            assert under_way.quiet_for(0.05), "what is under way goes on"
            assert asks(pooler, foreign_key(2)).expect_closed() == []
            ear.connections[0].close()
            assert under_way.expect_closed() == []
            assert len(ear.packets) == 1
            assert pooler.admin("SHOW PEER_POOLS") == []

    @pytest.mark.parametrize("mistake", ["2 = host=", "3 = port=6432", "0 = host=x", "x = host=x", "2 = hots=x"])
    def test_failed_reload_keeps_the_peers(self, make_pooler, mistake):
        with Ear() as ear:
            pooler = make_pooler(settings={"peer_id": 1}, peers={2: ear.address})
            pooler.write_config(pooler.ini_text() + f"\n[peers]\n{mistake}\n")
            with pooler.console() as console:
                assert console.query("RELOAD").error["C"] == "F0000"
            assert [row["peer_id"] for row in pooler.admin("SHOW PEERS")] == ["2"]
            asks(pooler, foreign_key(2))
            wait_until(lambda: len(ear.packets) == 1)

    def test_client_keeps_its_key_when_the_peer_id_changes(self, make_pooler):
        with Ear() as ear:
            pooler = make_pooler(settings={"peer_id": 2}, peers={1: ear.address, 2: ear.address})
            client = pooler.wire()
            client.send(SLEEP)
            running(pooler)
            pooler.settings["peer_id"] = 1
            assert self.reload(pooler).tags == ["RELOAD"]
            assert peer_of(pooler.wire().key) == 1
            send_cancel(pooler.port, client.key)
            assert client.collect().error["C"] == "57014"
            assert ear.packets == []

    def test_peering_can_be_switched_off(self, make_pooler):
        with Ear() as ear:
            pooler = make_pooler(settings={"peer_id": 1}, peers={2: ear.address})
            pooler.admin("SET peer_id = 0")
            assert asks(pooler, foreign_key(2)).expect_closed() == []
            assert ear.packets == []


class TestRollingRestart:
    """Several processes on one port, each with its own socket folder."""

    @pytest.fixture
    def shared(self, make_pooler):
        poolers = [make_pooler(start=False, settings={"peer_id": number, "so_reuseport": 1}) for number in (1, 2)]
        for pooler in poolers:
            pooler.port = poolers[0].port
            pooler.settings["listen_port"] = pooler.port
            pooler.peers = {one.settings["peer_id"]: f"host={one.home} port={pooler.port}" for one in poolers}
            pooler.spawn()
            wait_until(lambda one=pooler: "process up" in one.log(), 15)
        return poolers

    def test_libpq_cancels_hit_whichever_process_they_reach(self, shared):
        def passed_on():
            rows = []
            for pooler in shared:
                with Wire(pooler.port, path=pooler.home) as console:
                    console.login("admin", "pgbouncer")
                    rows += console.query("SHOW PEER_POOLS").rows
            return len(rows) > 0

        for _ in range(40):
            with psycopg.connect(**shared[0].dsn(), autocommit=True) as connection:
                timer = threading.Timer(0.1, connection.cancel)
                timer.start()
                with pytest.raises(psycopg.errors.QueryCanceled):
                    connection.execute("SELECT pg_sleep(30)")
                timer.join()
            if passed_on():
                return
        raise AssertionError("the kernel never chose the other process")

    def test_cancel_reaches_a_process_that_is_shutting_down(self, shared):
        old, new = shared
        client = Wire(old.port, path=old.home)
        client.login("postgres", "app")
        client.query("BEGIN")
        old.signal(signal.SIGTERM)
        wait_until(lambda: "shutting down, waiting for all clients" in old.log())
        wait_until(lambda: Wire(new.port).login("postgres", "app"))  # only the new one listens
        client.send(SLEEP)
        running(old)
        send_cancel(new.port, client.key)
        assert client.collect().error["C"] == "57014"
        client.close()
        old.wait_exit()
        assert listening(new.port)


@pytest.mark.smoke
def test_storm_of_cancels_across_processes_never_hits_another_client(make_pooler):
    ring = Ring(make_pooler, 3, "unix", default_pool_size=2, max_client_conn=500)
    victims = [ring[0].wire(timeout=30) for _ in range(3)]
    bystanders = [ring[0].wire(timeout=30) for _ in range(3)]
    cancel_storm(victims, bystanders, lambda chance, key: send_cancel(ring[chance.choice([1, 2])].port, key), 100)
    for pooler in ring.poolers[1:]:
        assert peer_pool(pooler, 1) == {"peer_id": 1, **IDLE}
