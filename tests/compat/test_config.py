"""The configuration: what the grammar takes, what it refuses at the start, what a reload does to living connections."""

import pytest

import harness
from both import both, conversation, newer_settings, probe, readable
from harness import listening, wait_until, write_file
from wire import Wire, query, startup_packet

# -- the file at the start: what is added to a file that is right -------------------------------------------

# name: (lines of [databases], lines of [pgbouncer], text before everything, text after everything)
FILES = {
    "nothing special": (),
    "comments": ("; x\n# y\n  ; z\n\t# w", "  ; x = y\n#query_timeout = 3"),
    "trailing comment in an integer": ("", "default_pool_size = 7 ; seven"),
    "trailing comment in a text": ("", "server_reset_query = select 1 ; -- no"),
    "quoted value": ("", "default_pool_size = '7'"),
    "quoted text": ("", "server_reset_query = 'select 1'"),
    "blanks around": ("", "   default_pool_size   =   7   "),
    "tabs around": ("", "\tdefault_pool_size\t=\t7\t"),
    "no blanks": ("", "default_pool_size=7"),
    "no equals sign": ("", "default_pool_size 7"),
    "no value": ("", "server_reset_query ="),
    "no value for an integer": ("", "default_pool_size ="),
    "no key": ("", "= 7"),
    "carriage returns": ("", "default_pool_size = 7\r\nlog_connections = 0\r"),
    "unknown key": ("", "no_such_key = 1"),
    "key in upper case": ("", "DEFAULT_POOL_SIZE = 7"),
    "key twice": ("", "default_pool_size = 7\ndefault_pool_size = 8"),
    "hexadecimal": ("", "default_pool_size = 0x10"),
    "octal": ("", "default_pool_size = 010"),
    "negative": ("", "default_pool_size = -1"),
    "with sign": ("", "default_pool_size = +7"),
    "too large": ("", "default_pool_size = 99999999999999999999"),
    "text for an integer": ("", "default_pool_size = many"),
    "fraction for an integer": ("", "default_pool_size = 1.5"),
    "fraction of a second": ("", "query_timeout = 1.5"),
    "half a second": ("", "query_timeout = .5"),
    "exponent": ("", "query_timeout = 1e2"),
    "negative time": ("", "query_timeout = -1"),
    "time with unit": ("", "query_timeout = 1s"),
    "time in hexadecimal": ("", "query_timeout = 0x10"),
    "boolean 2": ("", "log_connections = 2"),
    "boolean yes": ("", "log_connections = yes"),
    "boolean maybe": ("", "log_connections = maybe"),
    "enum in upper case": ("", "pool_mode = TRANSACTION"),
    "enum unknown": ("", "pool_mode = fast"),
    "auth_type unknown": ("", "auth_type = kerberos"),
    "unix_socket_mode": ("", "unix_socket_mode = 0770"),
    "unix_socket_mode decimal": ("", "unix_socket_mode = 770"),
    "unix_socket_mode wrong": ("", "unix_socket_mode = 0789"),
    "syslog_facility unknown": ("", "syslog_facility = nothing"),
    "section unknown": ("", "", "", "[nothing]\nx = 1"),
    "section pgbouncer twice": ("", "default_pool_size = 7", "", "[pgbouncer]\n%(settings)sreserve_pool_size = 1"),
    "section databases twice": ("", "", "", "[databases]\nlate = dbname=app"),
    "section in upper case": ("", "", "", "[USERS]\n"),
    "section not closed": ("", "", "", "[users\nx = pool_mode=session"),
    "section with text behind": ("", "", "", "[users] x"),
    "section with blanks": ("", "", "", "[ users ]"),
    "empty section": ("", "", "", "[]"),
    "key before any section": ("", "", "x = 1"),
    "comment before any section": ("", "", "; x = 1"),
    "include missing": ("", "%include /no/such/file"),
    "include of a file": ("", "%include included.ini"),
    "include of itself": ("", "%include pooler.ini"),
    "include without a name": ("", "%include"),
    "directive unknown": ("", "%nothing x"),
    "key in single quotes": ("", "'default_pool_size' = 7"),
    "long line": ("", "server_reset_query = " + "x" * 5000),
    "tls without certificate": ("", "client_tls_sslmode = require"),
    "cert without tls": ("", "auth_type = cert"),
    "database with unknown key": ("bad = nothing=1",),
    "database with empty value": ("bad = dbname=",),
    "database with empty quotes": ("bad = dbname=''",),
    "database with quotes": ("good = dbname='a b' user='it''s' password='p w'",),
    "database with open quote": ("bad = dbname='a",),
    "database with text behind the quote": ("bad = dbname='a'user=b",),
    "database with tab": ("bad = dbname=a\tuser=b",),
    "database with blanks around =": ("good = dbname = a user = b",),
    "database without =": ("bad = dbname",),
    "database empty": ("good =",),
    "database name with dot and dash": ("a.b-c = dbname=app",),
    "database name quoted": ("'a b' = dbname=app",),
    "database name with quote": ("a'b = dbname=app",),
    "database name with dollar": ("a$b = dbname=app",),
    "database name of 63 bytes": ("x" * 63 + " = dbname=app",),
    "database name of 64 bytes": ("x" * 64 + " = dbname=app",),
    "database name of 200 bytes": ("x" * 200 + " = dbname=app",),
    "database pgbouncer": ("pgbouncer = dbname=app",),
    "database twice": ("a = dbname=x\na = dbname=y port=7",),
    "database port zero": ("bad = port=0",),
    "database port text": ("bad = port=x",),
    "database port large": ("bad = port=70000",),
    "database port negative": ("bad = port=-1",),
    "database pool_size": ("good = pool_size=7 min_pool_size=2 reserve_pool=3",),
    "database pool_size text": ("bad = pool_size=x",),
    "database pool_size zero": ("good = pool_size=0",),
    "database pool_size negative": ("good = pool_size=-1",),
    "database max_db_connections": ("good = max_db_connections=3",),
    "database max_db_connections negative": ("good = max_db_connections=-3",),
    "database pool_mode": ("good = pool_mode=Statement",),
    "database pool_mode unknown": ("bad = pool_mode=x",),
    "database key in upper case": ("bad = DBNAME=app",),
    "database sslrootcert of nobody": ("bad = hostaddr=127.0.0.1",),
    "database options": ("bad = options='-c x=y'",),
    "database host socket": ("good = host=/tmp",),
    "database host IPv6": ("good = host=::1",),
    "database host list": ("good = host=127.0.0.1,127.0.0.2",),
    "database host name": ("good = host=no-such-host.invalid",),
    "database auth_user": ("good = auth_user=alice",),
    "database connect_query": ("good = connect_query='SELECT 1; SELECT ''x'''",),
    "database client_encoding": ("good = client_encoding=latin1 datestyle=german timezone=utc",),
    "database star": ("* = dbname=app",),
    "database star without name": ("* =",),
    "users": ("", "", "", "[users]\nalice = pool_mode=statement max_user_connections=7"),
    "users empty value": ("", "", "", "[users]\nalice ="),
    "users unknown key": ("", "", "", "[users]\nalice = nothing=1"),
    "users wrong mode": ("", "", "", "[users]\nalice = pool_mode=fast"),
    "users number text": ("", "", "", "[users]\nalice = max_user_connections=x"),
    "users quoted": ("", "", "", "[users]\n'al ice' = pool_mode=statement"),
}
BEHIND = (
    "default_pool_size min_pool_size server_reset_query query_timeout log_connections pool_mode auth_type "
    "unix_socket_mode syslog_facility"
).split()


def file_text(pooler, databases="", settings="", before="", after=""):
    lines = "".join(f"{key} = {value}\n" for key, value in pooler.settings.items())
    return (
        f"{before}\n[databases]\napp = host=127.0.0.1 port={pooler.cluster.port} dbname=app\n{databases}\n"
        f"[pgbouncer]\n{lines}{settings}\n{after.replace('%(settings)s', lines)}\n"
    )


def start_with(pooler, text):
    """Starts with this file; the exit code, or None if it runs."""
    pooler.ini_text = lambda: text
    pooler.spawn()
    wait_until(lambda: pooler.process.poll() is not None or listening(pooler.port), 10, "the pooler runs or ends")
    code = pooler.process.poll()
    if code is not None:
        pooler.process = None
    return code


@pytest.mark.parametrize("name", FILES)
@both(fresh=True, start=False)
def test_file(pooler, seen, name):
    write_file(pooler.home / "included.ini", "default_pool_size = 9\n[databases]\nfrom_include = dbname=app\n")
    code = start_with(pooler, file_text(pooler, *FILES[name]))
    seen("exit code", code)
    if code is not None:
        seen.log("errors", "", count=0)
        return
    values = {row["key"]: row["value"] for row in pooler.admin("SHOW CONFIG")}
    for key in BEHIND:
        seen(key, values[key])
    for row in pooler.admin("SHOW DATABASES"):
        # The sockets of databases without a host are in a folder that a packager chose.
        seen.row(f"database {row['name']}", row, "DATABASES")
    seen("users", [[row["name"], row["pool_mode"]] for row in pooler.admin("SHOW USERS")])


@pytest.mark.parametrize("without", ["[pgbouncer]", "[databases]"])
@both(fresh=True, start=False)
def test_file_without_section(pooler, seen, without):
    text = file_text(pooler)
    if without == "[databases]":
        text = text[text.index("[pgbouncer]") :]
    else:
        text = text[: text.index("[pgbouncer]")]
    seen("exit code", start_with(pooler, text))


@pytest.mark.parametrize("depth", [9, 10, 11, 12])
@both(fresh=True, start=False)
def test_nested_includes(pooler, seen, depth):
    for level in range(1, depth + 1):
        text = f"%include level{level + 1}\n" if level < depth else "default_pool_size = 9\n"
        write_file(pooler.home / f"level{level}", text)
    seen("exit code", start_with(pooler, file_text(pooler, settings="%include level1")))


USERLISTS = {
    "missing": None,
    "empty": "",
    "broken line": '"admin" ""\n"alice" "a"\nnothing\n"late" "b"\n',
    "comment": '; "x" "y"\n"admin" ""\n',
    "hash comment": '"admin" ""\n# x\n"late" "b"\n',
    "one field": '"admin" ""\n"alice"\n"late" "b"\n',
    "text behind": '"admin" "" and more\n"alice" "a" "b"\n',
    "doubled quotes": '"admin" ""\n"a""b" "c""d"\n',
    "leading blanks": '  "admin" ""\n\n\t"alice" "a"\n',
    "no blank between": '"admin" ""\n"alice""a"\n"late" "b"\n',
    "open quote": '"admin" ""\n"alice" "a\n"late" "b"\n',
    "long name": '"admin" ""\n"' + "x" * 127 + '" "y"\n',
    "too long name": '"admin" ""\n"' + "x" * 128 + '" "y"\n"late" "b"\n',
    "empty name": '"admin" ""\n"" "y"\n"late" "b"\n',
    "twice": '"admin" ""\n"alice" "a"\n"alice" "b"\n',
    "no newline at the end": '"admin" ""\n"alice" "a"',
    "carriage returns": '"admin" ""\r\n"alice" "a"\r\n',
    "single quotes": '"admin" ""\n\'alice\' \'a\'\n"late" "b"\n',
    "unquoted": '"admin" ""\nalice a\n"late" "b"\n',
}


@pytest.mark.parametrize("name", USERLISTS)
@both(fresh=True, start=False)
def test_userlist(pooler, seen, name):
    text = USERLISTS[name]
    pooler.write_config = lambda: write_userlist(pooler, text)
    pooler.spawn()
    wait_until(lambda: listening(pooler.port), 10, "the pooler runs")
    if text and '"admin"' in text:
        seen("users", [row["name"] for row in pooler.admin("SHOW USERS")])
    seen("login", login_of(pooler, "alice"))
    seen.log("log", "auth.?file|userlist", count=0)


def login_of(pooler, user, database="app"):
    """What a login is answered, without the parameters of the server."""
    with Wire(pooler.port) as client:
        return [
            readable(m)
            for m in conversation(client, startup_packet({"user": user, "database": database}))
            if m.type != "S"
        ]


def write_userlist(pooler, text):
    write_file(pooler.ini, pooler.ini_text())
    if text is not None:
        write_file(pooler.auth_file, text, 0o600)


# -- SHOW CONFIG and SET ------------------------------------------------------------------------------------


@both(fresh=True)
def test_show_config(pooler, seen):
    rows = pooler.admin("SHOW CONFIG")
    seen("order", [row["key"] for row in rows])
    for row in rows:
        if row["key"] not in newer_settings():
            seen(row["key"], [row["value"], row["default"], row["changeable"]])


@both(fresh=True)
def test_set_of_each_key(pooler, seen):
    """Every key that PgBouncer 1.18 knows, with values of all kinds; the rest has to stay as it was."""
    keys = [row["key"] for row in pooler.admin("SHOW CONFIG")]
    with pooler.console() as console:
        for key in sorted(keys):
            if (
                key in newer_settings()
                or key
                in (
                    "conffile",
                    "auth_file",
                    "logfile",
                    "admin_users",
                    "stats_users",
                    "auth_hba_file",
                    "auth_type",
                    "suspend_timeout",
                    "max_client_conn",
                    "client_login_timeout",
                    "auth_query",
                    "job_name",
                    "client_idle_timeout",
                    "max_packet_size",
                    "syslog",
                    "log_connections",
                )
                or "tls" in key
            ):
                continue
            for value in ("0", "3", "", "x", "-1", "99999999999", "yes"):
                result = console.query(f"SET {key} = '{value}'")
                seen(f"{key} = {value!r}", [result.tags, [one["M"] for one in result.errors]])


# -- reload under living connections -----------------------------------------------------------------------


def reload(pooler, **changes):
    """Changes the configuration and waits for the answer of RELOAD."""
    for name, value in changes.items():
        setattr(pooler, name, value)
    pooler.write_config()
    with pooler.console() as console:
        return console.query("RELOAD")


@both(fresh=True)
def test_reload_removes_a_database(pooler, seen):
    gone, stays = pooler.wire(database="other"), pooler.wire(database="app")
    gone.query("BEGIN")
    stays.query("BEGIN")
    seen("tag", reload(pooler, databases={"app": "dbname=app"}).tags)
    seen.messages("its client", gone.expect_closed())
    seen.answer("another client", stays, query("SELECT 1"))
    seen.messages("new client", probe(pooler, startup_packet({"user": "postgres", "database": "other"})))
    seen.log("log", "database removed")
    seen("databases", [row["name"] for row in pooler.admin("SHOW DATABASES")])


@both(fresh=True)
def test_reload_adds_a_database(pooler, seen):
    packet = startup_packet({"user": "postgres", "database": "late"})
    seen.messages("before", probe(pooler, packet))
    seen("tag", reload(pooler, databases={**pooler.databases, "late": "dbname=app"}).tags)
    with pooler.wire(database="late") as client:
        seen("after", client.query("SELECT current_database()").rows)


@both(fresh=True)
def test_reload_changes_a_database(pooler, seen):
    """Clients inside a transaction keep their server, the next transaction goes to the other database."""
    client = pooler.wire(database="app")
    client.query("BEGIN")
    seen("tag", reload(pooler, databases={"app": "dbname=other", "other": "dbname=other"}).tags)
    seen("in the transaction", client.query("SELECT current_database()").rows)
    client.query("COMMIT")
    seen("after it", client.query("SELECT current_database()").rows)
    seen.log("log", "close_needed|database config|connect string", count=0)


@both(fresh=True, databases={"app": "dbname=app user=alice"})
def test_reload_removes_a_forced_user(pooler, seen):
    client = pooler.wire("bob", "app")
    seen("before", client.query("SELECT current_user").rows)
    seen("tag", reload(pooler, databases={"app": "dbname=app"}).tags)
    with pooler.wire("bob", "app") as late:
        seen("after", late.query("SELECT current_user").rows)
    seen.log("log", "forced|unsetting|changed|user", count=0)


@both(fresh=True)
def test_reload_removes_a_user(pooler, seen):
    stays = pooler.wire("bob")
    del pooler.userlist["bob"]
    seen("tag", reload(pooler).tags)
    seen.answer("its client", stays, query("SELECT 1"))
    seen("new client", login_of(pooler, "bob"))
    seen("users", [row["name"] for row in pooler.admin("SHOW USERS")])


@both(fresh=True)
def test_reload_adds_a_user(pooler, seen):
    packet = startup_packet({"user": "finder", "database": "app"})
    seen.messages("before", probe(pooler, packet))
    pooler.userlist["finder"] = "x"
    seen("tag", reload(pooler).tags)
    with pooler.wire("finder") as client:
        seen.answer("after", client, query("SELECT current_user"))


@both(fresh=True, settings={"query_timeout": "5", "pool_mode": "session", "auth_user": "alice", "listen_backlog": "7"})
def test_trap_07_deleted_lines_at_a_reload(pooler, seen):
    settings = dict(pooler.settings)
    for key in ("query_timeout", "pool_mode", "auth_user", "listen_backlog"):
        del settings[key]
    seen("tag", reload(pooler, settings=settings).tags)
    values = {row["key"]: row["value"] for row in pooler.admin("SHOW CONFIG")}
    for key in ("query_timeout", "pool_mode", "auth_user", "listen_backlog", "auth_file", "conffile"):
        seen(key, values[key])
    with pooler.console() as console:
        seen.answer("SET of a setting of the start", console, query("SET listen_backlog = 9"))
    seen("listen_backlog then", [row["value"] for row in pooler.admin("SHOW CONFIG") if row["key"] == "listen_backlog"])


@both(fresh=True, databases={"app": "dbname=app", "*": "dbname=other"})
def test_auto_databases(pooler, seen):
    start = len(pooler.log())
    with pooler.wire(database="anything") as client:
        seen("database", client.query("SELECT current_database()").rows)
        seen.log("log", "auto-database", start)
        seen("listed", [[row["name"], row["database"]] for row in pooler.admin("SHOW DATABASES")])
        with pooler.console() as console:
            for command in (
                "PAUSE of_a_pause",
                "RESUME of_a_resume",
                "KILL of_a_kill",
                "ENABLE of_an_enable",
                "DISABLE of_a_disable",
                "RECONNECT of_a_reconnect",
                "WAIT_CLOSE of_a_wait",
            ):
                seen.answer(command, console, query(command))
        seen("listed after commands", [row["name"] for row in pooler.admin("SHOW DATABASES")])
        seen("tag", reload(pooler, databases={"app": "dbname=app", "*": "dbname=app"}).tags)
        seen("database after the change", client.query("SELECT current_database()").rows)
        seen("tag of removing", reload(pooler, databases={"app": "dbname=app"}).tags)
        seen.answer("client after the removal", client, query("SELECT 1"))
        seen("the same name after the removal", login_of(pooler, "postgres", "anything"))
        seen("a new name after the removal", login_of(pooler, "postgres", "something"))
        seen("listed after the removal", [row["name"] for row in pooler.admin("SHOW DATABASES")])


@both(fresh=True, databases={"app": "dbname=app"}, settings={"auth_type": "any"})
def test_auth_type_any_without_forced_user(pooler, seen):
    seen.messages("client", probe(pooler, startup_packet({"user": "whoever", "database": "app"})))
    seen.log("log", "any|forced|bouncer config")


@both(fresh=True)
def test_reload_with_a_mistake(pooler, seen):
    """Whatever is answered: connections and databases stay."""
    client = pooler.wire()
    client.query("BEGIN")
    pooler.write_config(pooler.ini_text() + "\n[nothing]\nx = 1\n")
    pooler.admin("SHOW VERSION")
    with pooler.console() as console:
        seen.answer("RELOAD", console, query("RELOAD"))
    seen.answer("client", client, query("COMMIT"))
    assert harness.listening(pooler.port)
