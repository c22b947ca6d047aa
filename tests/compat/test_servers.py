"""Timeouts, servers that go away or refuse, limits of pools: what the client sees, and what the next client sees."""

import pytest

from both import both, conversation, readable, until_ready
from fake_server import (
    ALL_PARAMETERS,
    AUTH_OK,
    KEY_DATA,
    ROW_DESCRIPTION,
    WELCOME,
    FakeServer,
    data_row,
    error,
    login,
    ready,
    serve,
)
from harness import wait_until
from wire import CANCEL_REQUEST, Wire, query, request_packet, startup_packet

LOGIN = startup_packet({"user": "postgres", "database": "app"})


def rest(client):
    """Everything up to ReadyForQuery or the end, without parameters and keys."""
    return [readable(one) for one in until_ready(client) if one.type not in "SK"]


# name: (settings, what the client does before it waits for its end)
TIMEOUTS = {
    "query_timeout": ({"query_timeout": "0.7"}, ["SELECT pg_sleep(20)"]),
    "idle_transaction_timeout": ({"idle_transaction_timeout": "0.7"}, ["BEGIN"]),
    "idle_transaction_timeout in a failed one": ({"idle_transaction_timeout": "0.7"}, ["BEGIN", "SELECT 1/0"]),
    "client_idle_timeout": ({"client_idle_timeout": "0.7"}, ["SELECT 1"]),
    "client_idle_timeout without a query": ({"client_idle_timeout": "0.7"}, []),
}


@pytest.mark.parametrize("name", TIMEOUTS)
def test_timeouts(compare, name):
    settings, statements = TIMEOUTS[name]

    def scenario(pooler, seen):
        client = pooler.wire()
        for statement in statements:
            client.send(query(statement))
            if "sleep" not in statement:
                client.collect()
        seen("the client", rest(client))
        seen.log("log", f"^C-.*(closing because|pooler error).*{name.split()[0][:12].replace('_', '.')}")
        with pooler.wire() as other:
            seen.answer("the next client", other, query("SELECT 1"))

    compare(scenario, {"settings": settings}, True)


@both(fresh=True, settings={"default_pool_size": "1", "query_wait_timeout": "0.7"})
def test_query_wait_timeout(pooler, seen):
    first, second = pooler.wire(), pooler.wire()
    first.query("BEGIN")
    second.send(query("SELECT 1"))
    seen("the one that waits", rest(second))
    seen.log("log", "query_wait_timeout", count=2)
    seen.answer("the other", first, query("COMMIT"))
    first.close()


@both(fresh=True, settings={"default_pool_size": "1", "query_timeout": "0.7", "query_wait_timeout": "0"})
def test_trap_02_two_texts_of_query_timeout(pooler, seen):
    first, second = pooler.wire(), pooler.wire()
    first.query("BEGIN")
    second.send(query("SELECT 1"))
    seen("waiting", rest(second))
    first.send(query("SELECT pg_sleep(20)"))
    seen("running", rest(first))


@both(fresh=True, settings={"client_login_timeout": "0.7"})
def test_client_login_timeout(pooler, seen):
    with Wire(pooler.port) as client:
        seen("nothing sent", rest(client))
    seen.log("log", "client_login_timeout", count=2)


@pytest.mark.parametrize("setting, value", [("server_lifetime", "1"), ("server_idle_timeout", "1")])
def test_servers_are_closed(compare, setting, value):
    def scenario(pooler, seen):
        with pooler.wire() as client:
            client.query("SELECT 1")
            wait_until(lambda: not pooler.cluster.backends(), 8, "the server is closed")
            seen.log("log", "^S-.*closing because")
            seen.answer("then", client, query("SELECT 1"))

    compare(scenario, {"settings": {setting: value}}, True)


@pytest.mark.parametrize("mode", ["session", "transaction"])
@pytest.mark.parametrize("moment", ["idle", "in a transaction", "in a query"])
def test_backend_is_terminated(compare, mode, moment):
    def scenario(pooler, seen):
        client = pooler.wire()
        client.query("SELECT 1")
        if moment != "idle":
            client.query("BEGIN")
        if moment == "in a query":
            client.send(query("SELECT pg_sleep(20)"))
            wait_until(lambda: pooler.cluster.backends(state="active"), what="the query runs")
        start = len(pooler.log())
        pooler.cluster.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'app'"
            " AND application_name <> 'monitor'"
        )
        wait_until(lambda: not pooler.cluster.backends(), what="the backend is gone")
        if moment == "idle" and mode == "transaction":
            wait_until(lambda: not pooler.servers(), what="the pooler has noticed")
            seen.answer("the client", client, query("SELECT 1"))
        else:
            # Whether the description of a row still came is chance.
            seen("the client", [one.partition(" F=")[0] for one in rest(client) if one[0] != "T"])
        seen.log(
            "log of the client", "^C-(?!.*/admin@).*(closing because|pooler error)", start, 0 if moment == "idle" else 2
        )
        with pooler.wire() as other:
            seen.answer("the next client", other, query("SELECT 1"))

    compare(scenario, {"settings": {"pool_mode": mode}}, True)


def hang_up(peer):
    peer.startup()


def hang_up_after_authentication(peer):
    peer.startup()
    peer.send(AUTH_OK)


def refuse(sqlstate, text):
    def script(peer):
        peer.startup()
        peer.send(error(sqlstate, text))

    return script


def hang_up_at_the_query(peer):
    login(peer)
    peer.query()


def half_an_answer(peer):
    login(peer)
    peer.query()
    peer.send(ROW_DESCRIPTION + data_row("one"))


def error_and_end(peer):
    login(peer)
    peer.query()
    peer.send(error("57P01", "terminating connection due to administrator command"))


def garbage(peer):
    login(peer)
    peer.query()
    peer.send(b"\xff\xff\xff\xff\xff\xff")


def wrong_length(peer):
    login(peer)
    peer.query()
    peer.send(b"T\0\0\0\3")


def unknown_authentication(peer):
    peer.startup()
    peer.send(b"R\0\0\0\x08\0\0\0\x63")


def broken_parameter(peer):
    peer.startup()
    peer.send(AUTH_OK, b"S\0\0\0\x06ab", KEY_DATA, ready())


def unknown_message_at_login(peer):
    peer.startup()
    peer.send(AUTH_OK, b"y\0\0\0\4", ALL_PARAMETERS, KEY_DATA, ready())


def notice_at_login(peer):
    peer.startup()
    peer.send(AUTH_OK, error("00000", "hello", "NOTICE").replace(b"E", b"N", 1), WELCOME[len(AUTH_OK) :])
    while True:
        peer.send(peer.answer(peer.query()))


SCRIPTS = {
    "hangs up": hang_up,
    "hangs up after authentication": hang_up_after_authentication,
    "too many connections": refuse("53300", "sorry, too many clients already"),
    "starting up": refuse("57P03", "the database system is starting up"),
    "wrong password": refuse("28P01", 'password authentication failed for user "x"'),
    "no database": refuse("3D000", 'database "x" does not exist'),
    "hangs up at the query": hang_up_at_the_query,
    "half an answer": half_an_answer,
    "error and end": error_and_end,
    "garbage": garbage,
    "wrong length": wrong_length,
    "unknown authentication": unknown_authentication,
    "broken parameter": broken_parameter,
    "unknown message at login": unknown_message_at_login,
    "notice at login": notice_at_login,
}


@pytest.mark.parametrize("name", SCRIPTS)
@both(
    fresh=True,
    start=False,
    settings={"server_login_retry": "0.3", "query_wait_timeout": "2", "client_login_timeout": "2"},
)
def test_server_that_misbehaves(pooler, seen, name):
    """Once, and is well again afterwards."""
    with FakeServer([SCRIPTS[name], serve]) as fake:
        pooler.databases = {"app": fake.address}
        pooler.start()
        with Wire(pooler.port) as client:
            client.send(LOGIN)
            told = rest(client)
            if told[-1] == "Z 'I'":
                told += rest_of_a_query(client)
            seen("first client", told)
        with Wire(pooler.port) as client:
            client.send(LOGIN)
            told = rest(client)
            seen("next client", told + (rest_of_a_query(client) if told[-1] == "Z 'I'" else []))
        seen.log("log", "auth method|closing because: failed to answer", count=0)
        pooler.stop()


@both(fresh=True, start=False, settings={"server_login_retry": "0.3", "query_wait_timeout": "1"})
def test_server_that_never_asks_for_a_known_method(pooler, seen):
    """It is tried again and again, and who comes later hears why."""
    with FakeServer([serve] + [unknown_authentication] * 20) as fake:
        pooler.databases = {"app": fake.address}
        pooler.start()
        with pooler.wire() as client:
            client.query("SELECT 1")
            pooler.admin("RECONNECT")
            wait_until(lambda: not pooler.servers(), what="the good one is gone")
            client.send(query("SELECT 1"))
            seen("the one that waits", rest(client))
        pooler.stop()


def rest_of_a_query(client):
    """The answers name the connection of the server, which is not the same where logins are tried again."""
    return ["D ..." if one.startswith("D ") else one for one in map(readable, conversation(client, query("SELECT 1")))]


@pytest.mark.parametrize("limit", ["query_wait_timeout", "client_login_timeout"])
@pytest.mark.parametrize("name", ["nobody listens", "unreachable socket"])
@both(fresh=True, start=False, settings={"server_login_retry": "0.3"})
def test_server_that_is_not_there(pooler, seen, name, limit):
    pooler.settings[limit] = "1"
    pooler.databases = {
        "app": {"nobody listens": "host=127.0.0.1 port=1 dbname=app", "unreachable socket": "host=/no/such dbname=app"}[
            name
        ]
    }
    pooler.start()
    for which in ("first", "second"):
        with Wire(pooler.port) as client:
            client.send(LOGIN)
            seen(f"{which} client", rest(client))
    seen.log("log", "^C-.*(closing because|pooler error)", count=4)


@both(fresh=True, settings={"server_login_retry": "5"})
def test_server_goes_away_under_known_pools(pooler, seen):
    """The pool has worked before: new queries fail fast with the cached error."""
    client = pooler.wire()
    client.query("SELECT 1")
    pooler.cluster.stop("immediate")
    try:
        wait_until(lambda: not pooler.servers(), what="the pooler has noticed")
        with Wire(pooler.port) as late:
            late.send(LOGIN)
            seen("a login", rest(late))
    finally:
        pooler.cluster.start()


@both(fresh=True, settings={"default_pool_size": "1", "reserve_pool_size": "1", "reserve_pool_timeout": "0.5"})
def test_reserve_pool(pooler, seen):
    first, second = pooler.wire(), pooler.wire()
    first.query("BEGIN")
    second.send(query("SELECT 1"))
    seen("the one that waited", rest(second))
    seen.log("log", "reserve_pool")
    first.close()
    second.close()


@both(
    fresh=True,
    databases={
        "app": "dbname=app connect_query='SET statement_timeout = 4711'",
        "bad": "dbname=app connect_query='SELEC'",
    },
)
def test_connect_query(pooler, seen):
    with pooler.wire() as client:
        seen("in force", client.query("SHOW statement_timeout").rows)
    with pooler.wire(database="bad") as client:
        seen.answer("a wrong one", client, query("SELECT 1"))


@both(fresh=True, databases={"app": "dbname=app min_pool_size=2 user=postgres"})
def test_min_pool_size(pooler, seen):
    client = pooler.wire()
    client.query("SELECT 1")
    wait_until(lambda: len(pooler.cluster.backends()) == 2, 8, "two servers for one client")
    seen("pool", {key: pooler.pool()[key] for key in ("cl_active", "sv_idle", "sv_used", "pool_mode")})
    client.close()


@both(fresh=True, settings={"server_check_delay": "0", "server_check_query": "SELECT 'checked'"})
def test_server_check(pooler, seen):
    with pooler.wire() as client:
        for number in range(3):
            seen.answer(f"query {number}", client, query("SELECT 1"))


@pytest.mark.parametrize("how", ["terminate", "vanish"])
@both(fresh=True)
def test_client_leaves_in_a_transaction(pooler, seen, how):
    """Whatever becomes of the server: the next client starts afresh."""
    client = pooler.wire()
    client.query("BEGIN; CREATE TEMP TABLE left_over (n int)")
    (client.close if how == "terminate" else client.abort)()
    seen.log("log of the client", "^C-.*closing because")
    with pooler.wire() as other:
        seen.answer("the next client", other, query("SELECT to_regclass('left_over')"))


@both(fresh=True, settings={"pool_mode": "session"})
def test_trap_10_session_mode_links_at_the_first_query(pooler, seen):
    with pooler.wire() as first:
        first.query("SELECT 1")
        with pooler.wire() as second:
            seen("before its query", [pooler.pool()["sv_active"], pooler.pool()["cl_active"]])
            second.query("SELECT 1")
            seen("after it", pooler.pool()["sv_active"])


@both(fresh=True)
def test_cancel_request_on_its_way(pooler, seen):
    """The server does not take the request for now; the query it is meant for goes on, and ends first."""
    cluster = pooler.cluster
    client, request, console = pooler.wire(), Wire(pooler.port), pooler.console()

    def show(moment):
        rows = [row for what in ("CLIENTS", "SERVERS") for row in console.rows(f"SHOW {what}")]
        names = {row["ptr"]: f"{row['type']} {row['state']}" for row in rows}
        seen(moment, sorted([row["type"], row["user"], row["database"], row["state"], row["addr"],
                             names.get(row["link"], "")] for row in rows if "cancel" in row["state"]))
        seen(moment + ", sockets", sorted(row["state"] for row in console.rows("SHOW SOCKETS")))

    with cluster.connect() as direct:
        direct.execute("SELECT pg_advisory_lock(4711)")
        client.send(query("SELECT pg_advisory_xact_lock(4711)"))
        wait_until(lambda: cluster.backends(wait_event_type="Lock"), what="the query waits")
        with cluster.frozen():
            request.send(request_packet(CANCEL_REQUEST, client.key))
            wait_until(lambda: pooler.pool()["cl_active_cancel_req"] == 1, what="the request is on its way")
            show("the query runs")
            direct.execute("SELECT pg_advisory_unlock(4711)")
            client.collect()
            show("the query is over")
    request.expect_closed()
    wait_until(lambda: len(console.rows("SHOW SERVERS")) == 1, what="the request is over")
    show("the request is over")


@both(fresh=True, settings={"pool_mode": "session", "server_reset_query": "DISCARD ALL"})
def test_reset_query(pooler, seen):
    with pooler.wire() as client:
        client.query("SET statement_timeout = 4711; CREATE TEMP TABLE left_over (n int)")
    with pooler.wire() as other:
        seen.answer("setting", other, query("SHOW statement_timeout"))
        seen.answer("table", other, query("SELECT to_regclass('left_over')"))
