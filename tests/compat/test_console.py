"""The admin console: what SHOW answers, what commands do and say, and who may give them."""

import contextlib

import pytest

import wire
from both import both, conversation, newer_columns, probe
from harness import wait_until
from wire import Wire, query, row_types, startup_packet

SHOWS = """HELP VERSION STATE DATABASES POOLS USERS CLIENTS SERVERS SOCKETS ACTIVE_SOCKETS STATS STATS_TOTALS
STATS_AVERAGES TOTALS LISTS MEM DNS_HOSTS DNS_ZONES CONFIG FDS PEERS PEER_POOLS LATENCY""".split()
DATABASES = {
    "app": "dbname=app pool_size=3",
    "other": "dbname=other user=bob pool_mode=session max_db_connections=7",
    "empty": "dbname=app reserve_pool=2 min_pool_size=0",
    "off": "dbname=app",
}
WORK = {
    "databases": DATABASES,
    "settings": {"default_pool_size": "4", "stats_period": "3600"},
    "users": {"alice": "pool_mode=statement max_user_connections=9"},
}


@pytest.mark.parametrize("what", SHOWS)
@both()
def test_show_columns(pooler, seen, what):
    with pooler.console() as console:
        result = console.query(f"SHOW {what}")
    seen("columns", [list(one) for m in result.messages if m.type == "T" for one in row_types(m.body)])
    seen("tag", result.tags)
    seen("errors", result.errors)


@both()
def test_show_help(pooler, seen):
    with pooler.console() as console:
        seen.answer("answer", console, query("SHOW HELP"))


@both()
def test_show_state(pooler, seen):
    with pooler.console() as console:
        seen("rows", console.query("SHOW STATE").rows)


@both()
def test_show_version(pooler, seen):
    with pooler.console() as console:
        seen("rows", console.query("SHOW VERSION").rows)


@pytest.mark.parametrize(
    "name",
    [
        "client_encoding",
        "default_transaction_isolation",
        "standard_conforming_strings",
        "datestyle",
        "timezone",
        "DateStyle",
        "server_version",
    ],
)
@both()
def test_show_of_drivers(pooler, seen, name):
    with pooler.console("stats") as console:
        seen.answer("show", console, query(f"SHOW {name}"))
        seen.answer("set", console, query(f"SET {name} = 'x'"))
        seen.answer("set to", console, query(f"SET {name} TO x;"))


def work(pooler):
    """The same work for both: three databases, four users, two clients that stay."""
    for user, database, count in (("postgres", "app", 5), ("alice", "app", 2), ("bob", "other", 3)):
        with pooler.wire(user, database) as client:
            for _ in range(count):
                client.query("SELECT 'some text'")
    staying = [pooler.wire("postgres", "app"), pooler.wire("postgres", "empty")]
    staying[0].query("BEGIN; SELECT 1")
    staying[1].extended(wire.parse("", "SELECT 1"), wire.bind(), wire.execute())
    # The counters of those that have gone are complete when they are.
    wait_until(lambda: len([row for row in pooler.admin("SHOW CLIENTS") if row["database"] != "pgbouncer"]) == 2)
    wait_until(lambda: not [row for row in pooler.servers("other") if row["state"] != "idle"])
    return staying


def times_left_out(row):
    return {name: value for name, value in row.items() if not name.endswith("_time") and not name.startswith("avg_")}


@contextlib.contextmanager
def lone_console(pooler):
    """A console that is the only one: those before it, and connections that were only opened, have gone."""
    with pooler.console() as console:

        def alone():
            consoles = [row for row in console.rows("SHOW CLIENTS") if row["database"] == "pgbouncer"]
            logins = [row["items"] for row in console.rows("SHOW LISTS") if row["list"] == "login_clients"]
            return (len(consoles), logins) == (1, ["0"])

        wait_until(alone, what="the consoles before this one have gone")
        yield console


def close_all(clients):
    for client in clients:
        client.close()


# One fresh pooler each, so that the counters are those of this work.


@both(fresh=True, **WORK)
def test_counters(pooler, seen):
    staying = work(pooler)
    for what in ("STATS", "STATS_TOTALS"):
        for row in pooler.admin(f"SHOW {what}"):
            # The console's own row counts the very questions that the scenario asks.
            if row["database"] != "pgbouncer":
                seen.row(f"{what} {row['database']}", times_left_out(row), what)
    totals = {row["name"]: row["value"] for row in pooler.admin("SHOW TOTALS")}
    seen("names in TOTALS", list(totals))
    close_all(staying)


def bytes_of(pooler):
    row = next(row for row in pooler.admin("SHOW STATS") if row["database"] == "app")
    return [row["total_received"], row["total_sent"]]


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_bytes(compare, mode):
    """Each message counts once and with its header, hidden ones of the server too; not Terminate."""

    def scenario(pooler, seen):
        client = pooler.wire()
        steps = {
            "a query": lambda: client.query("SELECT 1"),
            "an error": lambda: client.query("SELECT 1/0"),
            "a pipeline": lambda: client.extended(wire.parse("", "SELECT 1"), wire.bind(), wire.execute()),
            "a large row": lambda: client.query("SELECT repeat('x', 100000)"),
            "many rows": lambda: client.query("SELECT * FROM generate_series(1, 20000)"),
            "a notice": lambda: client.query("DO $$ BEGIN RAISE NOTICE 'x'; END $$"),
            "a parameter": lambda: client.query("SET client_encoding = 'LATIN1'"),
            "copy in": lambda: copy_in(client),
            "late data of a copy": lambda: client.send(wire.copy_data(b"x" * 1000), query("SELECT 2")) or client.collect(),
            "a large query": lambda: client.query("SELECT '" + "x" * 100000 + "'"),
            "in pieces": lambda: in_pieces(client, query("SELECT 'some text', repeat('y', 20)")),
        }
        for name, step in steps.items():
            step()
            seen(name, bytes_of(pooler))
        client.close()
        # In session mode the reset query is answered meanwhile.
        wait_until(lambda: [row["state"] for row in pooler.servers()] in (["idle"], ["used"]), what="it is free")
        seen("end", bytes_of(pooler))
        with pooler.wire() as other:
            other.query("SELECT 1")
            seen("another client", bytes_of(pooler))

    compare(scenario, {"settings": {"pool_mode": mode, "default_pool_size": "1"}}, True)


def copy_in(client):
    client.query("CREATE TEMP TABLE IF NOT EXISTS copied (t text)")
    client.send(query("COPY copied FROM STDIN"))
    client.send(wire.copy_data(b"one\n"), wire.copy_data(b"two\n"), wire.message("c"))
    client.collect()


def in_pieces(client, request):
    for at in range(0, len(request), 7):
        client.send(request[at : at + 7])
    client.collect()


@both(fresh=True, **{**WORK, "settings": {"stats_period": "1"}})
def test_averages(pooler, seen):
    """Only that there are some, and when: how much falls into one period is chance."""
    staying = work(pooler)

    def sums(what):
        (row,) = [row for row in pooler.admin(f"SHOW {what}") if row["database"] == "app"]
        return {
            name: int(value) for name, value in row.items() if name != "database" and name not in newer_columns(what)
        }

    for what, names in (
        ("STATS", ("avg_recv", "avg_sent", "avg_query_time")),
        ("STATS_AVERAGES", ("bytes_received", "query_time")),
    ):
        for name in names:
            staying[0].query("SELECT 'some text'")
            wait_until(
                lambda what=what, name=name: sums(what)[name] > 0 or staying[0].query("SELECT 1") is None, 5, name
            )
            seen(f"{what} {name} was there", True)
    wait_until(lambda: sums("STATS")["avg_query_count"] == 0, 5, "the averages fall")
    seen("all averages after a period without work", {k: v for k, v in sums("STATS").items() if k.startswith("avg")})
    close_all(staying)


@both(fresh=True, **WORK)
def test_pools(pooler, seen):
    staying = work(pooler)
    with lone_console(pooler) as console:
        for row in console.rows("SHOW POOLS"):
            seen.row(f"{row['database']} {row['user']}", row, "POOLS")
    close_all(staying)


@both(fresh=True, **WORK)
def test_databases(pooler, seen):
    staying = work(pooler)
    pooler.admin("DISABLE off")
    pooler.admin("PAUSE empty")
    wait_until(lambda: not pooler.servers("empty"), what="PAUSE has closed the servers")
    rows = pooler.admin("SHOW DATABASES")
    seen("order", [row["name"] for row in rows])
    for row in rows:
        seen.row(row["name"], row, "DATABASES")
    close_all(staying)


@both(fresh=True, **WORK)
def test_users(pooler, seen):
    staying = work(pooler)
    rows = pooler.admin("SHOW USERS")
    seen("order", [row["name"] for row in rows])
    for row in rows:
        seen.row(row["name"], row, "USERS")
    close_all(staying)


@both(fresh=True)
def test_mem(pooler, seen):
    with pooler.wire() as client, lone_console(pooler) as console:
        client.query("BEGIN")
        rows = {row["name"]: row for row in console.rows("SHOW MEM")}
        seen("names", list(rows))
        for name in ("pool_cache", "server_cache", "client_cache", "db_cache"):
            # PgBouncer counts the console as a pool.
            seen(name, int(rows[name]["used"]) - (pooler.is_pgbouncer and name == "pool_cache"))
        for row in rows.values():
            if pooler.is_pgbouncer or row["name"] != "iobuf_cache":
                assert int(row["memtotal"]) == int(row["size"]) * (int(row["used"]) + int(row["free"])), row


@both(fresh=True, **WORK)
def test_lists(pooler, seen):
    staying = work(pooler)
    with lone_console(pooler) as console:
        rows = console.rows("SHOW LISTS")
    seen("order", [row["list"] for row in rows])
    for row in rows:
        if not row["list"].startswith(("peer", "free_")):
            seen(row["list"], row["items"])
    close_all(staying)


@both(fresh=True, **WORK)
def test_clients_and_servers(pooler, seen):
    staying = work(pooler)
    unsteady = (
        "connect_time",
        "request_time",
        "wait_us",
        "id",
        "remote_pid",
        "recv_pos",
        "send_pos",
        "pkt_pos",
        "pkt_avail",
    )
    for what in ("CLIENTS", "SERVERS", "SOCKETS"):
        with lone_console(pooler) as console:
            rows = console.rows(f"SHOW {what}")
        rows.sort(key=lambda row: (row["type"], row["database"], row["user"], row["state"]))
        for index, row in enumerate(rows):
            steady = {name: value for name, value in row.items() if name not in unsteady}
            for name in ("port", "local_port"):
                steady[name] = "a port" if int(row[name]) > 1024 else row[name]
            seen.row(f"{what} {index} {row['type']} {row['database']}", steady, what)
    close_all(staying)


@both(fresh=True, settings={"pool_mode": "session"})
def test_session_clients_over_the_unix_socket(pooler, seen):
    with Wire(pooler.port, path=pooler.home) as client:
        client.login("postgres", "app", application_name="my program")
        client.query("SELECT 1")
        for what, kind in (("CLIENTS", "clients"), ("SERVERS", "servers")):
            (row,) = getattr(pooler, kind)()
            for name in (
                "type",
                "user",
                "database",
                "state",
                "addr",
                "port",
                "local_addr",
                "local_port",
                "close_needed",
                "tls",
                "application_name",
            ):
                seen(f"{what} {name}", row.get(name) if name != "local_port" or what == "CLIENTS" else "a port")
            seen(f"{what} remote_pid is one", int(row["remote_pid"]) > 0)


COMMANDS = """
SHOW | SHOW NOTHING | SHOW POOLS extra | SHOW "POOLS" | show pools; | SHOW POOLS;; | SHOW POOLS; SHOW POOLS | ;
-- comment | /* c */ SHOW VERSION | SELECT 1 | SELECT version | SELECT state | BEGIN | NOTHING | NOTHING x
RELOAD x | RELOAD; | PAUSE nodb | PAUSE pgbouncer | PAUSE "no db" | PAUSE app x | RESUME | RESUME nodb | RESUME app
RESUME pgbouncer | KILL nodb | KILL pgbouncer | KILL app x | RECONNECT nodb | RECONNECT pgbouncer | RECONNECT
RECONNECT app | RECONNECT app x | WAIT_CLOSE nodb | WAIT_CLOSE pgbouncer | WAIT_CLOSE | WAIT_CLOSE app | DISABLE
DISABLE nodb | DISABLE pgbouncer | DISABLE app x | ENABLE | ENABLE nodb | ENABLE pgbouncer | ENABLE app | SHUTDOWN x
SHUTDOWN WAIT_FOR_x | SUSPEND x | KILL_CLIENT | KILL_CLIENT x | KILL_CLIENT 0x1 | SET | SET x | SET x = | SET x = 1
SET default_pool_size | SET default_pool_size = | SET default_pool_size = x | SET default_pool_size = 1.5
SET default_pool_size = '1.5' | SET default_pool_size = -1 | SET default_pool_size = '-1'
SET default_pool_size = "5" | SET default_pool_size TO 5 | SET default_pool_size=5; | SET DEFAULT_POOL_SIZE = 5
SET default_pool_size = 0x5 | SET default_pool_size = 010 | SET default_pool_size = 5 6 | SET default_pool_size == 5
SET listen_port = 1 | SET listen_port = x | SET pool_mode = 'bad' | SET pool_mode = 'TRANSACTION'
SET query_timeout = '1.5' | SET query_timeout = '0' | SET query_timeout = '-1' | SET query_timeout = '1s'
SET query_timeout = 1.5 | SET application_name_add_host = yes | SET application_name_add_host = 1
SET application_name_add_host = 0 | SET auth_type = nothing | SET auth_query = 'SELECT ''a'', $1'
SET server_reset_query = "DISCARD ALL" | SET syslog_facility = 'nothing' | SET unix_socket_mode = '9'
SET user = nobody | SET conffile = 'no/such/file' | RELOAD | SET max_packet_size = 'x'
SET server_tls_sslmode = bad | SET server_tls_protocols = bad | SET client_tls_sslmode = require
SET client_tls_sslmode = disable | SET client_tls_protocols = legacy | SET client_tls_dheparams = bad
SET server_check_query = '' | "SHOW" POOLS | SHOW "POOLS | SET pool_mode = 'session | SHOW 'POOLS' | SHOW pool-s
SHOW pool.s | 123 | $ | SHOW\tVERSION | PAUSE app; RESUME app | LISTEN x | ROLLBACK | SET SESSION x = 1
SET x.y = 1 | RESET x | DISCARD ALL
""".replace("\n", "|")
COMMANDS = [one.strip() for one in COMMANDS.split("|") if one.strip()]


# Whatever is wrong with a command, or nothing: the whole answer.


@both(fresh=True)
def test_command(pooler, seen):
    console = pooler.console()
    for number, command in enumerate(COMMANDS):
        got = conversation(console, query(command))
        # The columns of tables have their own test.
        if any(m.type == "T" for m in got) and command not in ("/* c */ SHOW VERSION",):
            got = [m for m in got if m.type not in "TD"]
        seen.messages(f"{number} {command}", got)
        if got[-1].type != "Z":
            console = pooler.console()


@both(fresh=True)
def test_command_as_stats_user(pooler, seen):
    with pooler.console("stats") as console:
        for command in (
            "RELOAD",
            "PAUSE",
            "RESUME",
            "SUSPEND",
            "KILL",
            "KILL app",
            "KILL_CLIENT 1",
            "RECONNECT",
            "SHUTDOWN",
            "WAIT_CLOSE",
            "DISABLE app",
            "ENABLE app",
            "SET default_pool_size = 1",
            "SET listen_port = 1",
            "SET x = 1",
            "SHOW FDS",
            "SHOW NOTHING",
            "NOTHING",
            "SET client_encoding = utf8",
            "SHOW STATE x",
            "PAUSE nodb",
            "RELOAD x",
            "SHUTDOWN WAIT_FOR_CLIENTS",
        ):
            seen.answer(command, console, query(command))


@both()
def test_command_over_the_unix_socket(pooler, seen):
    with Wire(pooler.port, path=pooler.home) as console:
        seen.messages("welcome", console.login("admin", "pgbouncer").messages)
        for command in ("SHOW NOTHING", "RELOAD", "ENABLE app"):
            seen.answer(command, console, query(command))


@both(fresh=True)
def test_suspend(pooler, seen):
    with pooler.console() as console:
        commands = ("SUSPEND", "SUSPEND", "PAUSE", "PAUSE app", "KILL app", "RESUME", "RESUME", "PAUSE", "SUSPEND",
                        "RESUME", "PAUSE app", "SUSPEND", "RESUME app", "SUSPEND", "RESUME")
        for number, command in enumerate(commands):
            seen.answer(f"{number} {command}", console, query(command))


@both(fresh=True)
def test_log_of_commands(pooler, seen):
    """Monitoring rules match these lines; commands that are refused early leave none."""
    with pooler.console("stats") as console:
        console.query("PAUSE")
    commands = (
        "PAUSE; PAUSE; PAUSE app; KILL app; RESUME; RESUME; PAUSE app; pause \"app\"; RESUME app; RESUME app; "
        "RESUME nothing; PAUSE nothing; PAUSE pgbouncer; KILL app; RESUME app; KILL nothing; KILL pgbouncer; "
        "DISABLE app; ENABLE app; DISABLE; ENABLE; DISABLE nothing; ENABLE nothing; DISABLE pgbouncer; RECONNECT; "
        "reconnect app; RECONNECT nothing; RECONNECT pgbouncer; WAIT_CLOSE; WAIT_CLOSE app; WAIT_CLOSE nothing; "
        "WAIT_CLOSE pgbouncer; SUSPEND; SUSPEND; RESUME; PAUSE app; SUSPEND; RESUME app; RELOAD; RELOAD x; "
        "SHOW VERSION; SET query_timeout = 1; KILL_CLIENT 99; SHUTDOWN x; NOTHING; SHUTDOWN"
    ).split("; ")
    console = pooler.console()
    for number, command in enumerate(commands[:-1]):
        start = len(pooler.log())
        console.query(command)
        seen.log(f"{number} {command}", "command issued", start, 0)
    start = len(pooler.log())
    console.send(query("SHUTDOWN"))
    pooler.wait_exit()
    seen.log("SHUTDOWN", "command issued", start)


@both(fresh=True)
def test_pause_and_resume(pooler, seen):
    with pooler.console() as console:
        for command in (
            "PAUSE",
            "PAUSE",
            "PAUSE app",
            "RESUME app",
            "KILL app",
            "SUSPEND x",
            "RESUME",
            "RESUME",
            "PAUSE app",
            "PAUSE app",
            "PAUSE",
            "RESUME",
            "RESUME app",
            "RESUME app",
            "KILL app",
            "KILL app",
            "RESUME app",
            "KILL",
            "KILL",
            "RESUME",
            "RESUME app",
            "RESUME other",
            "DISABLE app",
            "DISABLE app",
            "ENABLE app",
            "ENABLE app",
        ):
            seen.answer(f"{len(seen.values)} {command}", console, query(command))
        rows = pooler.admin("SHOW DATABASES")
        for row in rows:
            seen(f"flags of {row['name']}", [row["paused"], row["disabled"]])


@pytest.mark.parametrize("length", [14, 15, 16, 17, 62, 63, 64, 65, 254, 255, 256, 257, 400, 600, 5000])
@both()
def test_lengths(pooler, seen, length):
    word = "x" * length
    for command in (
        word,
        f"SHOW {word}",
        f"PAUSE {word}",
        f"SET x = {word}",
        f"SET {word} = 1",
        f"SET server_check_query = '{word}'",
        "SHOW " + " " * length + "x",
    ):
        console = pooler.console()
        seen.answer(command[:20], console, query(command))


@both()
def test_two_messages_at_once(pooler, seen):
    with pooler.console() as console:
        console.send(query("SHOW LISTS"), query("SHOW NOTHING"), query("SHOW VERSION;"))
        for number in range(3):
            seen(f"answer {number}", console.collect().types.replace("D", ""))


@pytest.mark.parametrize(
    "packet",
    {
        "parse": wire.parse("", "SHOW LISTS") + wire.SYNC,
        "bind": wire.bind() + wire.SYNC,
        "sync": wire.SYNC,
        "flush": wire.FLUSH + wire.SYNC,
        "describe": wire.describe("S") + wire.SYNC,
        "execute": wire.execute() + wire.SYNC,
        "close": wire.close("S") + wire.SYNC,
        "function": wire.function_call(1),
        "copy data": wire.copy_data(b"x"),
        "copy done": wire.COPY_DONE,
        "copy fail": wire.copy_fail("x"),
        "unknown": wire.message("y"),
        "password": wire.message("p", b"x\0"),
        "empty body": wire.message("Q"),
        "no terminator": wire.message("Q", b"SHOW LISTS"),
        "terminate": wire.TERMINATE,
        "zero inside": wire.message("Q", b"SHOW\0LISTS\0"),
        "short length": b"Q\0\0\0\3",
        "empty query": query(""),
    }.items(),
    ids=lambda pair: pair[0],
)
@both()
def test_messages_that_are_not_queries(pooler, seen, packet):
    seen.messages(
        "answer",
        probe(pooler, startup_packet({"user": "admin", "database": "pgbouncer"}), packet[1], half_close=True)[9:],
    )


@both(fresh=True)
def test_kill_with_clients(pooler, seen):
    client, idle = pooler.wire(), pooler.wire()
    client.query("BEGIN")
    with pooler.console() as console:
        seen.answer("answer", console, query("KILL app"))
        seen.messages("client in a transaction", client.expect_closed())
        seen.messages("idle client", idle.expect_closed())
        seen.answer("resume", console, query("RESUME app"))
    with pooler.wire() as after:
        seen.answer("after", after, query("SELECT 1"))


@both(fresh=True)
def test_disabled_database(pooler, seen):
    stays = pooler.wire()
    pooler.admin("DISABLE app")
    seen.messages("new client", probe(pooler, startup_packet({"user": "postgres", "database": "app"})))
    seen.answer("old client", stays, query("SELECT 1"))
    seen.log("log", "disabled")
    pooler.admin("ENABLE app")
    with pooler.wire() as client:
        seen.answer("enabled again", client, query("SELECT 1"))


@pytest.mark.parametrize("command", ["SHUTDOWN", "SHUTDOWN;", "shutdown"])
@both(fresh=True)
def test_shutdown(pooler, seen, command):
    client = pooler.wire()
    client.query("SELECT 1")
    console = pooler.console()
    seen.answer("console", console, query(command))
    seen.messages("client", client.expect_closed())
    pooler.process.wait(5)
    seen("exit code", pooler.process.returncode)
    seen("pidfile", pooler.pidfile.exists())
    seen("socket", (pooler.home / f".s.PGSQL.{pooler.port}").exists())
    seen.log("log", "SHUTDOWN|shutting down|shutdown")


@pytest.mark.parametrize("user", ["admin", "stats", "alice", "nobody", "pgbouncer", "postgres"])
@both()
def test_who_may_log_in(pooler, seen, user):
    packet = startup_packet({"user": user, "database": "pgbouncer"})
    seen.messages("over TCP", probe(pooler, packet, wire.TERMINATE))
    seen.messages("over the Unix socket", probe(pooler, packet, wire.TERMINATE, path=pooler.home))


@both()
def test_welcome_with_parameters(pooler, seen):
    with Wire(pooler.port) as console:
        seen.messages(
            "welcome",
            console.login(
                "admin", "pgbouncer", application_name="a", client_encoding="LATIN1", datestyle="German"
            ).messages,
        )


@both()
def test_log_of_a_console(pooler, seen):
    start = len(pooler.log())
    with pooler.console() as console:
        console.query("SHOW NOTHING")
        console.query("RELOAD")
    seen.log("lines", "admin|RELOAD|invalid", start, 4)
