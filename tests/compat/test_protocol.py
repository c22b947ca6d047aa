"""The wire before and after the login, byte for byte: broken packets, start-up parameters, pipelines, COPY, cancel."""

import struct

import pytest

import wire
from both import End, both, conversation, probe, readable, rest_after, until_ready
from harness import wait_until
from wire import (
    CANCEL_REQUEST,
    GSSENC_REQUEST,
    SSL_REQUEST,
    SYNC,
    TERMINATE,
    Closed,
    Wire,
    bind,
    close,
    copy_data,
    copy_fail,
    cstring,
    describe,
    execute,
    message,
    parse,
    query,
    request_packet,
    send_cancel,
    startup_packet,
)

LOGIN = {"user": "postgres", "database": "app"}


def raw(code, body=b"", length=None):
    return struct.pack("!II", 8 + len(body) if length is None else length, code) + body


def parameters(**more):
    return startup_packet({**LOGIN, **more})


FIRST = {
    "nothing": b"",
    "one byte": b"\0",
    "four bytes": b"\0\0\0\x08",
    "length 0": raw(196608, b"", 0),
    "length 7": raw(196608, b"", 7),
    "length 8": raw(196608),
    "huge length": raw(196608, b"", 0x7FFFFFFF),
    "negative length": raw(196608, b"", 0xFFFFFFFF),
    "second byte": b"\1\0\0\x08\0\3\0\0",
    "http": b"GET / HTTP/1.0\r\n\r\n",
    "tls hello": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    "query first": query("SELECT 1"),
    "password first": message("p", b"x\0"),
    "terminate first": TERMINATE,
    "version 1": raw(1 << 16, b"\0"),
    "version 2": raw(2 << 16, b"\0" * 284),
    "version 4": raw(4 << 16, b"user\0postgres\0\0"),
    "unknown code": raw(80877101),
    "code after cancel": raw(80877105),
    "cancel of nobody": request_packet(CANCEL_REQUEST, b"x" * 8),
    "cancel short": request_packet(CANCEL_REQUEST, b"x" * 4),
    "cancel empty": request_packet(CANCEL_REQUEST),
    "cancel long": request_packet(CANCEL_REQUEST, b"x" * 12),
    "no terminator": raw(196608, b"user\0postgres\0"),
    "text behind": raw(196608, b"user\0postgres\0\0more"),
    "key without value": raw(196608, b"user\0postgres\0database\0"),
    "no parameters": raw(196608, b"\0"),
    "empty user": raw(196608, b"user\0\0\0"),
    "no user": raw(196608, b"database\0app\0\0"),
    "empty key": raw(196608, b"\0x\0\0"),
    "user twice": raw(196608, b"user\0alice\0user\0postgres\0database\0app\0\0"),
    "long user": startup_packet({"user": "u" * 127, "database": "app"}),
    "too long user": startup_packet({"user": "u" * 128, "database": "app"}),
    "very long user": startup_packet({"user": "u" * 3000, "database": "app"}),
    "long database": startup_packet({"user": "postgres", "database": "d" * 63}),
    "too long database": startup_packet({"user": "postgres", "database": "d" * 64}),
    "very long database": startup_packet({"user": "postgres", "database": "d" * 200}),
    "database is user": startup_packet({"user": "postgres"}),
    "empty database": startup_packet({"user": "postgres", "database": ""}),
    "other case": parameters(DATESTYLE="ISO"),
    "replication false": parameters(replication="false"),
    "options unknown": parameters(options="-x"),
    "options with long value": parameters(options="-c " + "x" * 300 + "=1"),
    "ssl": request_packet(SSL_REQUEST),
    "gss": request_packet(GSSENC_REQUEST),
    "ssl twice": request_packet(SSL_REQUEST) * 2,
    "gss then startup": request_packet(GSSENC_REQUEST) + parameters(),
    "ssl with data": request_packet(SSL_REQUEST, b"xx"),
    "gss with data": request_packet(GSSENC_REQUEST, b"xx"),
    "large": startup_packet({"user": "postgres", "database": "app", "application_name": "x" * 60000}),
}


@pytest.mark.parametrize("name", FIRST)
@both()
def test_first_packet(pooler, seen, name):
    with Wire(pooler.port) as client:
        told = []
        try:
            client.send(FIRST[name])
            client.socket.shutdown(1)
            answer = b""
            while data := client.socket.recv(65536):
                answer += data
            # What SSLRequest and GSSENCRequest get is one byte and no message.
            while answer[:1] == b"N" and answer[1:3] != b"\0\0":
                told.append("N")
                answer = answer[1:]
            client.buffer = answer
            while True:
                told.append(readable(client.read()))
        except (Closed, OSError):
            told.append("end")
    seen("answer", [one for one in told if one[0] not in "SKRZ"])


@pytest.mark.parametrize("name", ["ssl", "gss", "ssl, gss", "gss, ssl", "ssl, ssl", "gss, gss", "ssl, gss, ssl"])
@both()
def test_requests_before_the_startup(pooler, seen, name):
    with Wire(pooler.port) as client:
        told = []
        for one in name.split(", "):
            client.send(request_packet(SSL_REQUEST if one == "ssl" else GSSENC_REQUEST))
            try:
                told.append(client.read_bytes(1).decode())
            except Closed:
                told.append("end")
                break
        else:
            client.send(parameters())
            told += [one for one in map(readable, until_ready(client)) if one[0] not in "SK"]
        seen("answers", told)


@pytest.mark.parametrize(
    "name", ["client_encoding", "DateStyle", "datestyle", "TimeZone", "standard_conforming_strings", "application_name"]
)
@both()
def test_tracked_parameters(pooler, seen, name):
    value = {
        "client_encoding": "LATIN1",
        "DateStyle": "German, DMY",
        "datestyle": "SQL, MDY",
        "TimeZone": "Europe/Paris",
        "standard_conforming_strings": "off",
        "application_name": "it's; \\x",
    }[name]
    with Wire(pooler.port) as client:
        client.send(parameters(**{name: value}))
        told = {m.cstrings()[0]: m.cstrings()[1] for m in until_ready(client) if m.type == "S"}
        seen("told", sorted(told.items()))
        seen.answer("in force", client, query(f"SHOW {name}"))
        seen.answer("a SET", client, query(f"SET {name} TO DEFAULT"))
        seen.answer("then", client, query(f"SHOW {name}"))


@both(settings={"application_name_add_host": "1"})
def test_application_name_add_host(pooler, seen):
    for name, more in (("given", {"application_name": "mine"}), ("none", {})):
        with pooler.wire(**more) as client:
            seen(name, client.query("SHOW application_name").rows)


@both()
def test_unknown_parameters(pooler, seen):
    for name, packet in {"one": parameters(nothing="1"), "two": parameters(nothing="1", more="2")}.items():
        with Wire(pooler.port) as client:
            client.send(packet)
            seen.messages(name, until_ready(client))


@both(settings={"ignore_startup_parameters": "extra_float_digits, options"})
def test_ignored_parameters(pooler, seen):
    for name, packet in {
        "listed": parameters(extra_float_digits="1"),
        "other case": parameters(Extra_float_digits="1"),
        "not listed": parameters(nothing="1"),
        "options": parameters(options="-c nothing=1"),
    }.items():
        with Wire(pooler.port) as client:
            client.send(packet)
            seen(name, [one for one in map(readable, until_ready(client)) if one[0] not in "SK"])


# -- after the login ----------------------------------------------------------------------------------------

AFTER = {
    "unknown type": message("y", b"x"),
    "password": message("p", b"x\0"),
    "length 3": b"Q\0\0\0\3",
    "length 0": b"Q\0\0\0\0",
    "negative length": b"Q\xff\xff\xff\xff",
    "second startup": startup_packet(LOGIN),
    "ssl request": request_packet(SSL_REQUEST),
    "empty query": query(""),
    "syntax error": query("SELEC"),
    "two statements": query("SELECT 1; SELECT 2"),
    "query without end": message("Q", b"SELECT 1"),
    "empty body": message("Q"),
    "sync": SYNC,
    "flush and sync": wire.FLUSH + SYNC,
    "copy data": copy_data(b"x") + SYNC,
    "copy done": wire.COPY_DONE + SYNC,
    "copy fail": copy_fail("x") + SYNC,
    "function call": wire.function_call(1317, b"abc"),
    "terminate": TERMINATE,
    "parse only": parse("", "SELECT 1") + SYNC,
    "error in a pipeline": parse("", "SELECT 1/0") + bind() + execute() + parse("", "SELECT 1") + SYNC,
    "execute without bind": execute() + SYNC,
    "describe portal": describe("P") + SYNC,
    "bind and describe": parse("", "SELECT 1") + bind() + describe("P") + execute() + SYNC,
    "close portal": close("P") + SYNC,
    "portal of two parts": parse("", "SELECT generate_series(1,3)") + bind() + execute(limit=2) + execute() + SYNC,
    "notices": query("DO $$ BEGIN RAISE NOTICE 'x'; END $$"),
    "broken bind": message("B", b"x") + SYNC,
    "broken close": message("C", b"") + SYNC,
    "broken execute": message("E", b"") + SYNC,
    "begin": query("BEGIN"),
    "failed transaction": query("BEGIN; SELECT 1/0"),
    "copy out": query("COPY (SELECT 1) TO STDOUT"),
    "listen": query("LISTEN x"),
    "set": query("SET application_name TO 'y'"),
    "discard": query("DISCARD PLANS"),
    "copy in": query("CREATE TEMP TABLE t (n int); COPY t FROM STDIN") + copy_data(b"1\n") + wire.COPY_DONE,
    "copy in failed": query("CREATE TEMP TABLE t2 (n int); COPY t2 FROM STDIN") + copy_fail("no"),
    "copy in with a query inside": query("CREATE TEMP TABLE t3 (n int); COPY t3 FROM STDIN") + query("SELECT 1"),
}


@pytest.mark.parametrize("mode", ["session", "transaction"])
@pytest.mark.parametrize("name", AFTER)
def test_message(compare, name, mode):
    def scenario(pooler, seen):
        with pooler.wire() as client:
            seen.messages("answer", conversation(client, AFTER[name]))
            told = conversation(client, query("SELECT 'next'")) if client.buffer == b"" else []
            seen("the connection afterwards", readable(told[-1]) if told else "more messages")
        with pooler.wire() as other:
            seen.messages("the next client", conversation(other, query("SELECT 'other'")))

    compare(scenario, {"settings": {"pool_mode": mode, "max_prepared_statements": None}}, False)


@both()
def test_trap_11_order_within_a_pipeline(pooler, seen):
    with pooler.wire() as client:
        client.send(
            query("SELECT 1"), parse("", "SELECT 2"), bind(), execute(), SYNC, query("SELECT 3; SELECT 4"), SYNC
        )
        seen("all", [readable(m) for _ in range(4) for m in client.collect().messages])


@both(settings={"default_pool_size": "1"})
def test_transactions_of_two_clients(pooler, seen):
    """One server, two clients: the second waits for the end of the transaction of the first."""
    first, second = pooler.wire(), pooler.wire()
    first.query("BEGIN")
    second.send(query("SELECT 'second'"))
    pooler.wait_waiting(1)
    seen.answer("first", first, query("SELECT 'first'"))
    seen.answer("commit", first, query("COMMIT"))
    seen("second", second.collect().rows)
    first.close()
    second.close()


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_cancel(compare, mode):
    def scenario(pooler, seen):
        with pooler.wire() as client:
            client.send(query("SELECT pg_sleep(60)"))
            wait_until(lambda: pooler.cluster.backends(state="active"), what="the query runs")
            send_cancel(pooler.port, client.key)
            seen("answer", [readable(m).partition(" F=")[0] for m in client.collect().messages])
            seen.answer("then", client, query("SELECT 1"))

    compare(scenario, {"settings": {"pool_mode": mode}}, False)


@both()
def test_trap_13_cancel_of_an_idle_client(pooler, seen):
    with pooler.wire() as client, pooler.wire() as other:
        other.query("BEGIN")
        send_cancel(pooler.port, client.key)
        send_cancel(pooler.port, other.key)
        seen.answer("another's transaction goes on", other, query("SELECT 1"))
        seen.answer("the idle one too", client, query("SELECT 1"))


@both(settings={"default_pool_size": "1"})
def test_cancel_of_a_waiting_client(pooler, seen):
    first, second = pooler.wire(), pooler.wire()
    first.query("BEGIN")
    second.send(query("SELECT 'second'"))
    pooler.wait_waiting(1)
    send_cancel(pooler.port, second.key)
    seen.answer("the other", first, query("COMMIT"))
    seen.messages("the one that waited", until_ready(second))
    first.close()


def is_paused(pooler):
    """Whether the global PAUSE has begun: PgBouncer 1.18 shows that in its log only."""
    if pooler.is_pgbouncer:
        return "PAUSE command issued" in pooler.log()
    return {"key": "paused", "value": "yes"} in pooler.admin("SHOW STATE")


@both(fresh=True)
def test_trap_14_a_pending_pause_is_interrupted(pooler, seen):
    client, other = pooler.wire(), pooler.wire()
    client.query("BEGIN")
    console = pooler.console()
    console.send(query("PAUSE"))
    wait_until(lambda: is_paused(pooler), what="the PAUSE is pending")
    send_cancel(pooler.port, console.key)
    seen.answer("another client", other, query("SELECT 1"))
    seen.answer("client", client, query("COMMIT"))


@both(settings={"pool_mode": "statement"})
def test_statement_mode(pooler, seen):
    for name, request in {
        "begin": query("BEGIN"),
        "two statements": query("SELECT 1; SELECT 2"),
        "begin and commit": query("BEGIN; COMMIT"),
        "begin in a pipeline": parse("", "BEGIN") + bind() + execute() + SYNC,
    }.items():
        with pooler.wire() as client:
            seen.messages(
                name,
                (
                    rest_after(client, request, half_close=False)
                    if name.startswith("begin") and "commit" not in name
                    else conversation(client, request)
                ),
            )


@both(settings={"disable_pqexec": "1"})
def test_disable_pqexec(pooler, seen):
    with pooler.wire() as client:
        seen.messages("query", conversation(client, query("SELECT 1")))
    with pooler.wire() as client:
        seen.messages("extended", conversation(client, parse("", "SELECT 1") + bind() + execute() + SYNC))


@both(settings={"max_packet_size": "1000"})
def test_max_packet_size(pooler, seen):
    with pooler.wire() as client:
        seen.messages("small", conversation(client, query("SELECT '" + "x" * 900 + "'")))
        seen("large", [readable(m)[:60] for m in conversation(client, query("SELECT '" + "x" * 1000 + "'"))])


@pytest.mark.parametrize("limit", ["max_client_conn", "max_db_connections", "max_user_connections"])
def test_limits(compare, limit):
    def scenario(pooler, seen):
        first = pooler.wire()
        first.query("BEGIN")
        second = Wire(pooler.port)
        second.send(parameters())
        if limit == "max_client_conn":
            seen.messages("second", [*second.expect_closed(), End()])
        else:
            until_ready(second)
            second.send(query("SELECT 1"))
            pooler.wait_waiting(1)
            first.query("COMMIT")
            seen("second", second.collect().types)
        first.close()

    compare(scenario, {"settings": {limit: "1", "admin_users": "admin"}}, True)


@both()
def test_query_in_pieces(pooler, seen):
    with pooler.wire() as client:
        for byte in query("SELECT 'pieces'"):
            client.send(bytes([byte]))
        seen.messages("answer", until_ready(client))


@both()
def test_login_over_the_unix_socket(pooler, seen):
    for name, packet in {"right": parameters(), "ssl": request_packet(SSL_REQUEST), "wrong": raw(4 << 16)}.items():
        seen(
            name,
            [
                one
                for one in (readable(m) if name != "ssl" else m.type for m in socket_probe(pooler, packet))
                if one[0] not in "SK"
            ],
        )


def socket_probe(pooler, packet):
    with Wire(pooler.port, path=pooler.home) as client:
        client.send(packet)
        if packet[4:8] == struct.pack("!I", SSL_REQUEST):
            return [wire.Message(client.read_bytes(1).decode(), b"")]
        return until_ready(client)


@both()
def test_strange_password_of_trust(pooler, seen):
    """A password message that nobody asked for, together with the startup."""
    seen(
        "answer",
        [one for one in map(readable, probe(pooler, parameters(), message("p", cstring("x")))) if one[0] not in "SK"],
    )
