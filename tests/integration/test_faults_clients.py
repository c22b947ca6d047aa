"""Clients that do harm, by mistake or on purpose: strangers, slow ones, impossible lengths, floods.

Each is told what is wrong and named in the log; nobody else notices; nothing of it stays.
"""

import contextlib
import random
import re
import resource
import socket
import ssl
import struct
import threading
import time

import pytest

import wire
from bystander import Bystander, Footprint
from harness import PATIENCE, wait_until
from wire import SYNC, Closed, Wire, bind, execute, message, parse, query, request_packet, startup_packet

LOGIN = {"user": "postgres", "database": "app"}
PACKET = startup_packet(LOGIN)
HTTP = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: scanner\r\n\r\n"
SSH = b"SSH-2.0-OpenSSH_9.6\r\n"


def client_hello():
    """The first bytes of a TLS client."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


@contextlib.contextmanager
def undisturbed(pooler, connect=None):
    """Around the harm: another client is served all the time, and everything is given back afterwards."""
    with Bystander(pooler, connect) as other:
        footprint = Footprint(pooler)
        yield other
        footprint.returns()


def line_about(pooler, client_port, text):
    """The log line with this text about the client of this port; waits for it."""
    pattern = re.compile(rf"^.*@127\.0\.0\.1:{client_port} .*{re.escape(text)}.*$", re.M)
    return wait_until(lambda: pattern.search(pooler.log()), what=f"a log line about port {client_port}: {text}").group()


def told(pooler, client, text, code="08P01"):
    """The client gets this FATAL, and so does the log."""
    port = client.socket.getsockname()[1]
    fields = client.expect_fatal(code=code)
    assert fields["M"].startswith(text), fields
    assert "WARNING" in line_about(pooler, port, f"pooler error: {fields['M']}")
    return fields


class TestStrangers:
    @pytest.mark.smoke
    @pytest.mark.parametrize("first", [HTTP, SSH, b"\r\n\r\n\r\n", b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\1\0\x08\0\3\0\0\0"],
                             ids=["http", "ssh", "blank", "rdp"])
    def test_other_protocols_are_told_and_logged(self, pooler, first):
        with undisturbed(pooler):
            client = Wire(pooler.port)
            client.send(first)
            told(pooler, client, f"bad packet header: '{first.hex()[:8]}")

    def test_connects_and_closes_leave_nothing_and_no_line(self, pooler):
        with undisturbed(pooler):
            before = pooler.log()
            for _ in range(200):
                Wire(pooler.port).socket.close()
                Wire(pooler.port).abort()
        assert "WARNING" not in pooler.log() and "ERROR" not in pooler.log()
        assert not [line for line in pooler.log()[len(before):].splitlines() if "(nodb)" in line]

    def test_random_bytes(self, pooler):
        randomness = random.Random(20240229)
        with undisturbed(pooler):
            for _ in range(200):
                client = Wire(pooler.port)
                junk = randomness.randbytes(randomness.choice([8, 9, 64, 5000]))
                client.send(junk)
                fields = told(pooler, client, "bad packet header: '")
                assert fields["M"] == f"bad packet header: '{junk[:8].hex()}'"

    def test_random_bytes_after_the_login(self, pooler):
        randomness = random.Random(20240301)
        with undisturbed(pooler):
            for _ in range(100):
                client = pooler.wire()
                client.send(b"\xff" + randomness.randbytes(200))
                client.expect_fatal(code="08P01")

    @pytest.mark.smoke
    def test_client_hello_to_a_pooler_without_tls(self, pooler):
        with undisturbed(pooler):
            client = Wire(pooler.port)
            client.send(client_hello())
            told(pooler, client, "bad packet header: '1603")

    def test_tls_client_of_a_pooler_without_tls_fails_at_once(self, pooler):
        context = ssl.create_default_context()
        with undisturbed(pooler), socket.create_connection(("127.0.0.1", pooler.port), 5 * PATIENCE) as plain:
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                context.wrap_socket(plain, server_hostname="localhost")

    @pytest.mark.smoke
    def test_plain_startup_where_tls_is_required(self, make_pooler, authority):
        cert, key = authority.issue("strict", "localhost")
        pooler = make_pooler(settings={"client_tls_sslmode": "require", "client_tls_cert_file": cert,
                                       "client_tls_key_file": key})

        def local():
            client = Wire(pooler.port, path=pooler.home)
            client.login(**LOGIN)
            return client

        with Bystander(pooler, local):
            client = Wire(pooler.port)
            client.send(PACKET)
            told(pooler, client, "SSL required", None)
            stranger = Wire(pooler.port)
            stranger.send(HTTP)
            told(pooler, stranger, "bad packet header: '4745")

    def test_port_scan_of_a_pooler_with_tls(self, make_pooler, authority):
        cert, key = authority.issue("scanned", "localhost")
        pooler = make_pooler(settings={"client_tls_sslmode": "allow", "client_tls_cert_file": cert,
                                       "client_tls_key_file": key})
        hello = client_hello()
        with undisturbed(pooler):
            for first in (hello[:1], hello[:40], hello, hello[:40] + b"\xff" * 400, request_packet(wire.SSL_REQUEST)):
                for leave in (Wire.abort, lambda client: client.socket.close()):
                    client = Wire(pooler.port)
                    client.send(first)
                    if len(first) == 8:
                        assert client.read_bytes(1) == b"S"
                        client.send(b"not a handshake")
                    leave(client)


class TestSlowLogins:
    TIMEOUT = 1.0

    def timed_out(self, pooler, client, began):
        told(pooler, client, "client_login_timeout", None)
        took = time.monotonic() - began
        assert self.TIMEOUT - 0.05 <= took < self.TIMEOUT + 2 * PATIENCE

    @pytest.mark.parametrize("first", [PACKET[:1], PACKET[:8], PACKET[:len(PACKET) // 2], PACKET[:-1]])
    def test_part_of_a_startup_packet(self, make_pooler, first):
        pooler = make_pooler(settings={"client_login_timeout": self.TIMEOUT})
        with undisturbed(pooler):
            began = time.monotonic()
            client = Wire(pooler.port)
            client.send(first)
            self.timed_out(pooler, client, began)

    def test_silence(self, make_pooler):
        pooler = make_pooler(settings={"client_login_timeout": self.TIMEOUT})
        with undisturbed(pooler):
            began = time.monotonic()
            self.timed_out(pooler, Wire(pooler.port), began)

    def test_password_that_does_not_come(self, make_pooler):
        pooler = make_pooler(settings={"client_login_timeout": self.TIMEOUT, "auth_type": "scram-sha-256"},
                             userlist={"postgres": "known"})
        with Bystander(pooler, lambda: pooler.wire(password="known")):
            began = time.monotonic()
            client = Wire(pooler.port)
            client.send(PACKET)
            client.read_type("R")
            client.send(message("p", b"x" * 50)[:20])
            self.timed_out(pooler, client, began)

    def test_one_byte_now_and_then_gains_no_time(self, make_pooler):
        pooler = make_pooler(settings={"client_login_timeout": self.TIMEOUT})
        with undisturbed(pooler):
            began = time.monotonic()
            client = Wire(pooler.port)
            for byte in PACKET:
                client.send(bytes([byte]))
                if not client.quiet_for(0.1):
                    break
            else:
                raise AssertionError("the login went on for longer than client_login_timeout")
            self.timed_out(pooler, client, began)

    @pytest.mark.heavy
    def test_thousands_of_silent_connections(self, make_pooler):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        try:
            self.silent(make_pooler, min(5000, hard - 500))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def silent(self, make_pooler, count):
        timeout = 15 * PATIENCE
        # With a full backlog, or deferred until data comes, the last ones would be accepted after the first have ended.
        pooler = make_pooler(settings={"client_login_timeout": timeout, "max_client_conn": count + 100,
                                       "listen_backlog": 4096, "tcp_defer_accept": 0})
        with undisturbed(pooler) as other, contextlib.ExitStack() as stack, pooler.console() as console:
            before = pooler.memory_kib()
            began = time.monotonic()
            silent = [stack.enter_context(socket.create_connection(("127.0.0.1", pooler.port))) for _ in range(count)]
            wait_until(lambda: login_clients(console) >= count, timeout, "all are accepted")
            other.goes_on()
            with pooler.wire() as client:
                assert client.value("SELECT 'served'") == "served"
            per_connection = (pooler.memory_kib() - before) / count
            assert per_connection < 4, f"{per_connection:.1f} KiB per silent connection"
            # A connect that found the queue full counts from the moment it was accepted.
            over = began + timeout + 30 * PATIENCE
            for number, connection in enumerate(silent):
                got = b""
                connection.settimeout(max(0.1, over - time.monotonic()))
                while data := connection.recv(4096):
                    got += data
                assert b"client_login_timeout\0" in got, (number, got)
                assert time.monotonic() - began >= timeout - 0.05
            wait_until(lambda: login_clients(console) < 10)
        assert pooler.log().count("pooler error: client_login_timeout") == count
        assert pooler.memory_kib() - before < count * 4


def login_clients(console):
    return next(int(row["items"]) for row in console.rows("SHOW LISTS") if row["list"] == "login_clients")


class TestLengths:
    GROWTH_KIB = 1024

    @pytest.mark.parametrize("length", [0, 1, 7, 65536, 0x10000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFB, 0xFFFFFFFF])
    def test_startup_packet(self, pooler, length):
        with undisturbed(pooler):
            before = pooler.memory_kib()
            client = Wire(pooler.port)
            client.send(struct.pack("!II", length, wire.PROTOCOL_3_0) + b"user\0postgres\0")
            told(pooler, client, f"bad packet header: '{length:08x}")
            assert pooler.memory_kib() - before < self.GROWTH_KIB

    @pytest.mark.parametrize("kind", list("QPBEDCSHFdcfX"))
    @pytest.mark.parametrize("length", [0, 3, 0x80000000, 0xFFFFFFFF])
    def test_negative_and_too_small(self, pooler, kind, length):
        with undisturbed(pooler):
            client = pooler.wire()
            client.send(query("BEGIN"))
            client.collect()
            client.send(kind.encode() + struct.pack("!I", length) + b"x" * 10)
            told(pooler, client, f"bad packet header: '{ord(kind):02x}{length:08x}")

    @pytest.mark.parametrize("kind", list("QPBEDCSHF"))
    def test_two_gigabytes_announced(self, pooler, kind):
        """What is passed on in pieces is refused by PostgreSQL, what must be looked at whole by the pooler."""
        with undisturbed(pooler):
            before = pooler.memory_kib()
            client = pooler.wire()
            client.query("BEGIN")
            with contextlib.suppress(ConnectionError):
                client.send(kind.encode() + struct.pack("!I", 0x7FFFFFFF), b"x" * 200000)
            client.expect_fatal()
            assert pooler.memory_kib() - before < self.GROWTH_KIB

    @pytest.mark.parametrize("kind", list("dcf"))
    def test_two_gigabytes_announced_within_copy(self, pooler, table, kind):
        with undisturbed(pooler):
            client = pooler.wire()
            client.send(query(f"COPY {table} FROM STDIN"))
            client.read_type("G")
            with contextlib.suppress(ConnectionError):
                client.send(kind.encode() + struct.pack("!I", 0x7FFFFFFF), b"x" * 200000)
            client.expect_fatal()

    def test_client_that_leaves_within_two_gigabytes(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1})
        with undisturbed(pooler):
            client = pooler.wire()
            client.send(b"Q" + struct.pack("!I", 0x3FFFFFFF), b"SELECT 1;" * 20000)
            client.abort()
            assert pooler.wire().value("SELECT 'next'") == "next"

    def test_password_of_two_gigabytes(self, make_pooler):
        pooler = make_pooler(settings={"auth_type": "md5"}, userlist={"postgres": "known"})
        before = pooler.memory_kib()
        client = Wire(pooler.port)
        client.send(PACKET)
        client.read_type("R")
        with contextlib.suppress(ConnectionError):
            client.send(b"p" + struct.pack("!I", 0x7FFFFFFF), b"x" * 200000)
        with contextlib.suppress(Closed):
            while True:
                assert client.read().type == "E"
        assert pooler.memory_kib() - before < self.GROWTH_KIB
        assert pooler.wire(password="known").value("SELECT 1") == "1"


@pytest.mark.heavy
class TestSlowReaders:
    """300 MB that nobody reads."""

    GROWTH_KIB = 2048
    BIG = "SELECT n, repeat(md5(n::text), 3125) FROM generate_series(1, 3000) n"

    def warm_up(self, pooler):
        for _ in range(3):
            with pooler.wire() as client:
                client.query("SELECT repeat('x', 1000000)")

    def stalled(self, cluster):
        return cluster.ask("SELECT pid FROM pg_stat_activity WHERE datname = 'app' AND state = 'active'"
                           " AND wait_event = 'ClientWrite'")

    @pytest.mark.parametrize("leave", [Wire.close, Wire.abort], ids=["goodbye", "reset"])
    def test_result_that_is_never_read(self, make_pooler, cluster, leave):
        pooler = make_pooler(settings={"default_pool_size": 2})
        self.warm_up(pooler)
        with undisturbed(pooler) as other:
            before = pooler.memory_kib("VmHWM")
            slow = pooler.wire(timeout=60)
            slow.send(query(self.BIG))
            ((pid,),) = wait_until(lambda: self.stalled(cluster), what="PostgreSQL waits for its reader")
            other.goes_on(200)
            assert pooler.memory_kib("VmHWM") - before < self.GROWTH_KIB
            leave(slow)
            wait_until(lambda: pid not in cluster.backends(state="active"), 10, "the query is over")
            assert pooler.memory_kib("VmHWM") - before < self.GROWTH_KIB

    def test_place_of_a_slow_reader_goes_to_the_next(self, make_pooler, cluster):
        pooler = make_pooler(settings={"default_pool_size": 1})
        self.warm_up(pooler)
        footprint = Footprint(pooler)
        slow, next_client = pooler.wire(timeout=60), pooler.wire(timeout=30)
        slow.send(query(self.BIG))
        wait_until(lambda: self.stalled(cluster), what="PostgreSQL waits for its reader")
        next_client.send(query("SELECT 'mine'"))
        pooler.wait_waiting(1)
        slow.abort()
        assert next_client.collect().value() == "mine"
        next_client.close()
        footprint.returns()

    def test_late_reader_gets_it_all(self, pooler, cluster):
        self.warm_up(pooler)
        slow = pooler.wire(timeout=100)
        before = pooler.memory_kib("VmHWM")
        slow.send(query(self.BIG))
        wait_until(lambda: self.stalled(cluster), what="PostgreSQL waits for its reader")
        with Bystander(pooler):
            slow.read_type("T")
            for row in range(1, 3001):
                kind, length = slow.skip_body()
                assert (kind, length) == ("D", 2 + 4 + len(str(row)) + 4 + 100000)
            assert slow.collect().tags == ["SELECT 3000"]
        assert pooler.memory_kib("VmHWM") - before < self.GROWTH_KIB


class Sender:
    """Sends in a thread what the peer may not take at once."""

    def __init__(self, client, pieces):
        self.client, self.pieces = client, pieces
        self.sent = 0
        self.failure = None
        client.socket.settimeout(None)
        self.thread = threading.Thread(target=self._send, daemon=True)
        self.thread.start()

    def _send(self):
        try:
            other = self.client.socket.dup()
            other.settimeout(100 * PATIENCE)
            with other:
                for piece in self.pieces:
                    other.sendall(piece)
                    self.sent += 1
        except BaseException as failure:  # handed to the test's own thread
            self.failure = failure

    def stuck_or_done(self):
        """Waits until nothing more is taken for half a second."""
        seen, since = -1, time.monotonic()

        def still():
            nonlocal seen, since
            if self.sent != seen:
                seen, since = self.sent, time.monotonic()
            return not self.thread.is_alive() or time.monotonic() - since > 0.5
        wait_until(still, 60, "the flood comes to a halt")

    def join(self):
        self.thread.join(60 * PATIENCE)
        assert not self.thread.is_alive(), "the flood is not taken"
        assert self.failure is None, self.failure


@pytest.mark.heavy
class TestFloods:
    GROWTH_KIB = 2048
    COUNT = 100_000

    def test_single_bytes(self, pooler):
        with undisturbed(pooler) as other:
            before = pooler.memory_kib()
            client = pooler.wire(timeout=60)
            stream = b"".join(query(f"SELECT {n}") for n in range(3000))
            sender = Sender(client, [bytes([byte]) for byte in stream])
            for n in range(3000):
                assert client.collect().value() == str(n)
            sender.join()
            other.goes_on()
            assert pooler.memory_kib() - before < self.GROWTH_KIB
            client.close()

    @pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
    def test_pipeline_of_a_hundred_thousand(self, make_pooler, extended):
        pooler = make_pooler(settings={"default_pool_size": 2})
        with undisturbed(pooler) as other:
            before = pooler.memory_kib()
            client = pooler.wire(timeout=60)
            one = (lambda n: parse("", f"SELECT {n}") + bind() + execute() + SYNC) if extended else (
                lambda n: query(f"SELECT {n}"))
            stream = b"".join(map(one, range(self.COUNT)))
            sender = Sender(client, [stream[at:at + 4096] for at in range(0, len(stream), 4096)])
            sender.stuck_or_done()
            other.goes_on()
            assert pooler.memory_kib() - before < self.GROWTH_KIB
            for n in range(self.COUNT):
                result = client.collect()
                assert (result.rows, result.errors) == ([[str(n)]], [])
            sender.join()
            assert pooler.memory_kib() - before < self.GROWTH_KIB
            assert client.value("SELECT 'after'") == "after"
            client.close()

    def test_queries_without_an_end_while_waiting_for_a_server(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1})
        with Bystander(pooler, lambda: pooler.wire(database="other")) as other:
            footprint = Footprint(pooler)
            holder = pooler.wire()
            holder.query("BEGIN")
            client = pooler.wire(timeout=60)
            before = pooler.memory_kib()
            stream = b"".join(query(f"SELECT {n}") for n in range(self.COUNT))
            sender = Sender(client, [stream[at:at + 4096] for at in range(0, len(stream), 4096)])
            pooler.wait_waiting(1)
            sender.stuck_or_done()
            other.goes_on()
            assert pooler.memory_kib() - before < self.GROWTH_KIB
            holder.close()
            for n in range(self.COUNT):
                assert client.collect().rows == [[str(n)]]
            sender.join()
            client.close()
            footprint.returns()
