"""Servers that do harm: a stand-in ends or spoils the login and the replies, or hangs.

A client waits through what may pass, is told what will not, and never gets an answer that was meant for another.
"""

import contextlib
import random
import re
import socket
import struct
import threading
import time

import pytest

import wire
from bystander import Bystander, Footprint
from fake_server import (ALL_PARAMETERS, AUTH_OK, KEY_DATA, ROW_DESCRIPTION, FakeServer, complete, data_row, error,
                         login, parameter_status, ready, scram, serve)
from harness import PATIENCE, free_port, wait_until
from wire import Closed, WireError, message, query

PASSWORD = "the secret"
JUNK = random.Random(7).randbytes(64)
MD5_REQUEST = message("R", struct.pack("!I", 5) + b"salt")
SASL_REQUEST = message("R", struct.pack("!I", 10) + b"SCRAM-SHA-256\0\0")


@pytest.fixture
def faulty(make_pooler):
    """faulty(scripts) starts a stand-in and a pooler before it: database `fake` with two servers, user postgres."""
    with contextlib.ExitStack() as stack:
        def make(scripts, size=2, **settings):
            fake = stack.enter_context(FakeServer(scripts))
            pooler = make_pooler(
                settings={"server_login_retry": 1, "server_connect_timeout": 5, "default_pool_size": size, **settings},
                databases={"app": "dbname=app", "fake": f"{fake.address} user=postgres password='{PASSWORD}'"})
            return fake, pooler
        yield make


@contextlib.contextmanager
def undisturbed(pooler):
    with Bystander(pooler):
        footprint = Footprint(pooler)
        yield
        footprint.returns()


def server_line(pooler, fake, text):
    """The WARNING or LOG line with this text about a connection to the stand-in; waits for it."""
    pattern = re.compile(rf"^.* (?:WARNING|LOG) S[^ ]*: fake/postgres@127\.0\.0\.1:{fake.port} .*{text}.*$", re.M)
    return wait_until(lambda: pattern.search(pooler.log()), what=f"a log line: {text}").group()


def script(*parts, read=True):
    """Sends these bytes after reading the start-up packet, then ends the connection."""
    def run(peer):
        if read:
            peer.startup()
        peer.send(*parts)
    return run


def after_answer(first, *parts):
    """Ends the connection after it got an answer to `first`."""
    def run(peer):
        peer.startup()
        peer.send(first)
        peer.read()
        peer.send(*parts)
    return run


ENDS = {
    "after accept": lambda peer: None,
    "after the SSL request": lambda peer: peer.read_bytes(8),
    "after the SSL answer": lambda peer: (peer.read_bytes(8), peer.send(b"N")),
    "in the TLS handshake": lambda peer: (peer.read_bytes(8), peer.send(b"S"), peer.read_bytes(100)),
    "after the startup packet": script(),
    "in the MD5 request": script(MD5_REQUEST[:7]),
    "after the MD5 answer": after_answer(MD5_REQUEST),
    "in the SASL request": script(SASL_REQUEST[:-4]),
    "after the SASL answer": after_answer(SASL_REQUEST),
    "in SASLContinue": after_answer(SASL_REQUEST, message("R", struct.pack("!I", 11) + b"r=abc")[:-3]),
    "after AuthenticationOk": script(AUTH_OK),
    "after some ParameterStatus": script(AUTH_OK, ALL_PARAMETERS[:100]),
    "after BackendKeyData": script(AUTH_OK, ALL_PARAMETERS, KEY_DATA),
    "in ReadyForQuery": script(AUTH_OK, ALL_PARAMETERS, KEY_DATA, ready()[:3]),
}


class TestLoginEnds:
    """The server ends the connection somewhere in the login: the client waits for the next try."""

    @pytest.mark.parametrize("where", ENDS)
    def test_one_failed_login_only_costs_time(self, faulty, where):
        fake, pooler = faulty([ENDS[where], serve])
        with undisturbed(pooler):
            with pooler.wire(database="fake") as client:
                assert client.value("SELECT 'late'") == "1: SELECT 'late'"
            server_line(pooler, fake, "server login failed: " if where == "in the TLS handshake"
                        else r"server login failed: server conn crashed\?")
            assert fake.logins == 2

    def test_server_that_never_works_before_the_first_login(self, faulty):
        fake, pooler = faulty([ENDS["after the startup packet"]], client_login_timeout=2)
        with undisturbed(pooler):
            with pytest.raises(WireError) as refused:
                pooler.wire(database="fake")
            assert refused.value.text == "client_login_timeout (server down)"
            assert 2 <= fake.logins <= 4

    def test_the_log_says_why_a_connect_failed(self, make_pooler):
        port = free_port()
        pooler = make_pooler(settings={"client_login_timeout": 1},
                             databases={"app": "dbname=app", "fake": f"host=127.0.0.1 port={port} dbname=fake"})
        with undisturbed(pooler):
            with pytest.raises(WireError) as refused:
                pooler.wire(database="fake")
            assert refused.value.text == "client_login_timeout (server down)"
            line = re.search(rf"WARNING S.*: fake/postgres@127\.0\.0\.1:{port} .*connect failed.*", pooler.log())
            assert line, "no line about the failed connect"
            assert "Connection refused" in line.group()

    def test_server_that_no_longer_works(self, faulty):
        fake, pooler = faulty([lambda peer: (login(peer), peer.send(peer.answer(peer.query()))),
                               ENDS["after BackendKeyData"]])
        with undisturbed(pooler):
            client, second = pooler.wire(database="fake"), pooler.wire(database="fake")
            assert client.value("SELECT 1") == "0: SELECT 1"
            wait_until(lambda: not pooler.servers("fake"), what="the server is gone")
            client.send(query("SELECT 2"))
            wait_until(lambda: fake.logins >= 2)
            server_line(pooler, fake, r"server login failed: server conn crashed\?")
            second.send(query("SELECT 3"))
            told = second.expect_fatal()
            assert told["M"] == ("server login has been failing, cached error: server conn crashed? "
                                 "(server_login_retry)")
            client.abort()


GARBAGE = {
    "random bytes": (JUNK, "(unexpected message|bad pkt header)"),
    "http": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "(unexpected message|bad pkt header)"),
    "length 0": (b"R" + struct.pack("!I", 0), "bad pkt header"),
    "length 3": (b"R" + struct.pack("!I", 3), "bad pkt header"),
    "length 2 GB": (b"R" + struct.pack("!I", 0x7FFFFFFF), "bad pkt header"),
    "negative length": (b"S" + struct.pack("!I", 0x80000000), "bad pkt header"),
    "unknown type": (message("?", b"what"), "unexpected message from server during login"),
    "DataRow": (data_row("early"), "unexpected message from server during login"),
    "CommandComplete": (AUTH_OK + complete(), "unexpected message from server during login"),
    "empty Authentication": (message("R"), "bad authentication request"),
    "ParameterStatus without end": (AUTH_OK + message("S", b"TimeZone"), "broken ParameterStatus packet"),
    "odd status": (AUTH_OK + ALL_PARAMETERS + KEY_DATA + ready("?"), ""),
    "ReadyForQuery without a status": (AUTH_OK + ALL_PARAMETERS + KEY_DATA + message("Z"), ""),
    "in a transaction": (AUTH_OK + ALL_PARAMETERS + KEY_DATA + ready("T"), ""),
    "no AuthenticationOk": (ALL_PARAMETERS + KEY_DATA + ready(), ""),
}


class TestLoginGarbage:
    @pytest.mark.parametrize("what", GARBAGE)
    def test_server_that_speaks_something_else_is_left(self, faulty, what):
        garbage, text = GARBAGE[what]

        def spoil(peer):
            peer.startup()
            peer.send(garbage)
            peer.until_closed()

        fake, pooler = faulty([spoil, serve])
        with undisturbed(pooler):
            with pooler.wire(database="fake", timeout=4) as client:
                assert client.value("SELECT 1") == "1: SELECT 1"
            server_line(pooler, fake, "server login failed: " + text)

    def test_garbage_instead_of_the_ssl_answer(self, faulty):
        fake, pooler = faulty([script(b"?" + JUNK, read=False), serve])
        with undisturbed(pooler):
            with pooler.wire(database="fake") as client:
                assert client.value("SELECT 1") == "1: SELECT 1"
            server_line(pooler, fake, "server login failed: bad sslreq answer")

    @pytest.mark.parametrize("body,text,code", [
        (b"", "login failed", "08P01"), (b"\0", "login failed", None), (b"Mno code\0\0", "no code", None),
        (b"SFATAL\0C28000\0Mgo away\0\0", "go away", "28000")])
    def test_refusals_reach_the_client_at_once(self, faulty, body, text, code):
        fake, pooler = faulty([script(message("E", body)), serve])
        with undisturbed(pooler):
            with pytest.raises(WireError) as refused:
                pooler.wire(database="fake")
            assert fake.logins == 1
            assert refused.value.fields["S"] == "FATAL"
            assert refused.value.text == text
            assert code is None or refused.value.code == code
            severity = "FATAL " if body.startswith(b"SFATAL") else ""
            server_line(pooler, fake, f"server login failed: {severity}{text}")
            with pooler.wire(database="fake") as client:
                assert client.value("SELECT 1") == "1: SELECT 1"

    def test_scram_by_the_stand_in_works(self, faulty):
        _, pooler = faulty([lambda peer: (scram(peer, PASSWORD), peer.send(peer.answer(peer.query())))])
        assert pooler.wire(database="fake").value("SELECT 1") == "0: SELECT 1"

    @pytest.mark.parametrize("fault,text", [
        ({"signature": b"v=" + b"A" * 43 + b"="}, "invalid server signature"),
        ({"signature": b"v="}, "invalid server signature"),
        ({"signature": b""}, "invalid server signature"),
        ({"signature": b"e=other-error"}, "invalid server signature"),
        ({"nonce": "another nonce"}, "invalid server message"),
        ({"wrong": "r=,s=,i=0"}, "invalid server message"),
        ({"wrong": JUNK.hex()}, "invalid server message"),
    ], ids=str)
    def test_server_that_does_not_know_the_password(self, faulty, fault, text):
        fake, pooler = faulty([lambda peer: scram(peer, PASSWORD, **fault), serve])
        with undisturbed(pooler):
            with pytest.raises(WireError) as refused:
                pooler.wire(database="fake")
            assert refused.value.text == f"server login failed: {text}"
            server_line(pooler, fake, text)
            assert not pooler.servers("fake")

    @pytest.mark.heavy
    @pytest.mark.parametrize("iterations", [10_000_000, 0x7FFFFFFF])
    def test_iterations_without_end_do_not_hold_up_others(self, faulty, iterations):
        def demand(peer):
            peer.startup()
            peer.send(SASL_REQUEST)
            _, body = peer.read()
            nonce = body.decode().rpartition("r=")[2]
            peer.send(message("R", struct.pack("!I", 11) + f"r={nonce}server,s=c2FsdHNhbHQ=,i={iterations}".encode()))
            asked.set()
            peer.until_closed()

        asked = threading.Event()
        _, pooler = faulty([demand])
        # One bystander for each worker.
        with Bystander(pooler, slowest=1), Bystander(pooler, slowest=1) as other:
            client = fake_login(pooler)
            wait_until(lambda: asked.is_set(), what="the stand-in has asked for the iterations")
            other.goes_on()
            client.abort()


def fake_login(pooler):
    """A client of `fake` that has sent its start-up packet."""
    client = wire.Wire(pooler.port)
    client.send(wire.startup_packet({"user": "postgres", "database": "fake"}))
    return client


class TestHanging:
    @pytest.mark.parametrize("stage", ["accept", "startup", "password", "parameters"])
    def test_server_connect_timeout(self, faulty, stage):
        def hang(peer):
            if stage != "accept":
                peer.startup()
            if stage == "password":
                peer.send(MD5_REQUEST)
            if stage == "parameters":
                peer.send(AUTH_OK, ALL_PARAMETERS)
            peer.until_closed()

        fake, pooler = faulty([hang, serve], server_connect_timeout=1)
        with undisturbed(pooler):
            began = time.monotonic()
            with pooler.wire(database="fake") as client:
                assert client.value("SELECT 1") == "1: SELECT 1"
            took = time.monotonic() - began
            assert 0.95 <= took < 2 + 2 * PATIENCE
            server_line(pooler, fake, "server login failed: connect timeout")

    def test_server_that_is_never_done_gains_no_time(self, faulty):
        def chatter(peer):
            peer.startup()
            peer.send(AUTH_OK)
            while True:
                peer.send(parameter_status("TimeZone", "UTC"))
                peer.socket.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    if not peer.socket.recv(1):
                        return
                peer.socket.settimeout(10)

        fake, pooler = faulty([chatter, serve], server_connect_timeout=1)
        with undisturbed(pooler), pooler.wire(database="fake") as client:
            assert client.value("SELECT 1") == "1: SELECT 1"
            server_line(pooler, fake, "server login failed: connect timeout")
            client.close()

    def test_queued_clients_of_a_hanging_server_can_leave(self, faulty):
        fake, pooler = faulty([lambda peer: (peer.startup(), peer.until_closed())], server_connect_timeout=60)
        with undisturbed(pooler):
            clients = [fake_login(pooler) for _ in range(10)]
            wait_until(lambda: fake.logins >= 1)
            pooler.wait_waiting(10, "fake")
            for client in clients:
                client.abort()
            pooler.wait_waiting(0, "fake")
            for peer in fake.peers:
                peer.socket.shutdown(socket.SHUT_RDWR)


def in_turn(pooler, fake_gate, first, second):
    """Two queries for one server: the first has it when the second queues; then the stand-in may answer."""
    first.send(query("SELECT 1"))
    wait_until(lambda: (pooler.pool("fake") or {}).get("sv_active") == 1, what="the first query has the server")
    second.send(query("SELECT 2"))
    pooler.wait_waiting(1, "fake")
    fake_gate.set()


class TestReplyGarbage:
    """A server that was logged in goes wrong: its client loses it, the next client gets another."""

    @pytest.mark.parametrize("garbage,text", [
        (JUNK, "unknown pkt|bad pkt header"), (message("?"), "unknown pkt"),
        (b"D" + struct.pack("!I", 0), "bad pkt header"),
        (b"D" + struct.pack("!I", 3), "bad pkt header"), (b"T" + struct.pack("!I", 0x80000000), "bad pkt header"),
        (complete() + ready("?"), "bad pkt header"), (complete() + message("Z"), "bad pkt header"),
        (complete() + message("Z", b"II"), "bad pkt header"),
        (b"Z" + struct.pack("!I", 100000) + b"I" * 1000, "bad pkt header"),
        (message("S", b"TimeZone"), "broken ParameterStatus packet"), (message("R", b"\0\0\0\0"), "unknown pkt"),
    ], ids=lambda value: value.hex()[:20] if isinstance(value, bytes) else None)
    def test_in_a_reply(self, faulty, garbage, text):
        def spoil(peer):
            login(peer)
            peer.query()
            gate.wait(20)
            peer.send(ROW_DESCRIPTION, data_row("right"), garbage)
            peer.until_closed()

        gate = threading.Event()
        fake, pooler = faulty([spoil, serve], size=1)
        with undisturbed(pooler):
            client, waiter = pooler.wire(database="fake"), pooler.wire(database="fake")
            in_turn(pooler, gate, client, waiter)
            client.read_type("T")
            got = [m for m in client.expect_closed() if m.type != "C"]
            assert [m.type for m in got] == ["D", "E"]
            assert got[1].fields()["S"] == "FATAL"
            assert got[1].fields()["M"] in ("unknown pkt", "bad pkt header", "broken ParameterStatus packet")
            assert waiter.collect().value() == "1: SELECT 2"
            server_line(pooler, fake, text)
            waiter.close()

    @pytest.mark.parametrize("garbage", [
        data_row("stray"), complete(), ready(), ready("?"), ROW_DESCRIPTION, message("E"), message("E", b"\0"),
        error("57P01", "terminating connection due to administrator command"), JUNK, message("?"), message("1"),
        b"D" + struct.pack("!I", 1), b"D" + struct.pack("!I", 0x7FFFFFFF) + b"x" * 1000],
        ids=lambda value: value.hex()[:20])
    def test_while_idle(self, faulty, garbage):
        def spoil(peer):
            login(peer)
            peer.send(peer.answer(peer.query()))
            answered.wait(20)
            peer.send(garbage)
            peer.until_closed()

        answered = threading.Event()
        fake, pooler = faulty([spoil, serve], size=1)
        with undisturbed(pooler):
            client, other = pooler.wire(database="fake"), pooler.wire(database="fake")
            assert client.value("SELECT 1") == "0: SELECT 1"
            answered.set()
            wait_until(lambda: not pooler.servers("fake"), what="the server is closed")
            server_line(pooler, fake, "closing because: ")
            result = other.query("SELECT 2")
            assert (result.types, result.rows) == ("TDCZ", [["1: SELECT 2"]])
            assert client.value("SELECT 3") == "1: SELECT 3"
            assert client.buffer == b""
            client.close()
            other.close()

    @pytest.mark.parametrize("extra", [
        complete(), data_row("stray"), ready(), message("1"), error("XX000", "stray", "ERROR")],
        ids=["CommandComplete", "DataRow", "ReadyForQuery", "ParseComplete", "ErrorResponse"])
    def test_server_that_says_more_than_it_was_asked_is_not_handed_on(self, faulty, extra):
        def spoil(peer):
            login(peer)
            answer = peer.answer(peer.query())
            gate.wait(20)
            peer.send(answer + extra)
            while True:
                peer.send(peer.answer(peer.query()))

        gate = threading.Event()
        _, pooler = faulty([spoil, serve], size=1)
        with undisturbed(pooler):
            client, waiter = pooler.wire(database="fake"), pooler.wire(database="fake")
            in_turn(pooler, gate, client, waiter)
            assert client.collect().value() == "0: SELECT 1"
            result = waiter.collect()
            assert (result.types, result.rows) == ("TDCZ", [["1: SELECT 2"]])
            assert waiter.query("SELECT 3").types == "TDCZ"
            waiter.close()
            client.close()


class TestReplyCutOff:
    ROWS = [data_row(f"row {n}") for n in range(3)]

    @pytest.mark.parametrize("sent,types", [
        (b"", ""), (ROW_DESCRIPTION, "T"), (ROW_DESCRIPTION + ROWS[0] + ROWS[1], "TDD"),
        (ROW_DESCRIPTION + ROWS[0] + complete(), "TDC")], ids=["nothing", "columns", "rows", "complete"])
    def test_between_messages(self, faulty, sent, types):
        gate = threading.Event()
        fake, pooler = faulty([lambda peer: (login(peer), peer.query(), gate.wait(20), peer.send(sent)), serve], size=1)
        with undisturbed(pooler):
            client, waiter = pooler.wire(database="fake"), pooler.wire(database="fake")
            in_turn(pooler, gate, client, waiter)
            got = client.expect_closed()
            assert "".join(m.type for m in got) == types + "E"
            assert (got[-1].fields()["S"], got[-1].fields()["M"]) == ("FATAL", "server conn crashed?")
            assert waiter.collect().value() == "1: SELECT 2"
            server_line(pooler, fake, r"closing because: server conn crashed\?")
            waiter.close()

    @pytest.mark.parametrize("cut", [1, 4, 5, 7, 10])
    def test_within_a_row(self, faulty, cut):
        """Nothing may be appended to half a message: the client would take it for the other half."""
        sent = ROW_DESCRIPTION + self.ROWS[0] + self.ROWS[1][:cut]
        gate = threading.Event()
        fake, pooler = faulty([lambda peer: (login(peer), peer.query(), gate.wait(20), peer.send(sent)), serve], size=1)
        with undisturbed(pooler):
            client, waiter = pooler.wire(database="fake"), pooler.wire(database="fake")
            in_turn(pooler, gate, client, waiter)
            client.read_type("T")
            assert client.read_type("D").body[6:] == b"row 0"
            rest = b""
            with contextlib.suppress(Closed):
                while True:
                    rest += client.read_bytes(1)
            half = self.ROWS[1][:cut]
            if rest.startswith(b"E"):
                assert cut < 5 and b"Mserver conn crashed?\0" in rest
            else:
                assert rest == half
            assert waiter.collect().value() == "1: SELECT 2"
            server_line(pooler, fake, r"server conn crashed\?")
            waiter.close()

    def test_within_a_large_row_and_a_pipeline(self, faulty):
        large = struct.pack("!cIHi", b"D", 4 + 2 + 4 + (1 << 20), 1, 1 << 20) + b"q" * 300000
        fake, pooler = faulty([lambda peer: (login(peer), peer.query(), peer.send(ROW_DESCRIPTION, large)), serve])
        with undisturbed(pooler):
            client = pooler.wire(database="fake")
            client.send(query("SELECT 1"), query("SELECT 2"), query("SELECT 3"))
            client.read_type("T")
            rest = b""
            with contextlib.suppress(Closed):
                while True:
                    rest += client.read_bytes(1) + client.buffer
                    client.buffer = b""
            assert large.startswith(rest)
            with pooler.wire(database="fake") as second:
                assert second.value("SELECT 4") == "1: SELECT 4"
            assert fake.logins == 2


def test_what_a_server_said_outlives_the_unread_input_of_its_client(make_pooler):
    """The client is closed because of the first of what one read has brought, and what it has sent is thrown away."""
    all_sent = threading.Event()
    tokyo = "SET TimeZone='Asia/Tokyo';"
    turns = []

    def script(peer):
        login(peer)
        while True:
            sql = peer.read()[1][:-1].decode()
            turns.extend([sql] if sql == tokyo else [])
            if sql == tokyo and len(turns) == 2:
                all_sent.wait(10 * PATIENCE)
                peer.send(error("22023", "no", "ERROR"), ready(), message("N", b"SNOTICE\0C00000\0Mby the way\0\0") * 100)
            elif sql.startswith("SET TimeZone="):
                peer.send(parameter_status("TimeZone", sql.split("'")[1]), complete("SET"), ready())
            else:
                peer.send(peer.answer(sql))

    with FakeServer([script]) as fake:
        pooler = make_pooler(settings={"default_pool_size": 1}, databases={"fake": f"{fake.address} user=postgres"},
                             pgweir={"worker_threads": 1})
        first, second = pooler.wire(database="fake"), pooler.wire(database="fake", TimeZone="Asia/Tokyo")
        assert first.query("one").rows == [["0: one"]]
        second.send(query("two") * 15000)
        all_sent.set()
        wait_until(lambda: len(pooler.clients("fake")) == 1, 5, "the other client is gone")
        assert first.query("three").rows == [["0: three"]]
        assert fake.logins == 1
