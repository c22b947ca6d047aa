"""Moving over with a large file: 200 databases, 500 users, rules, TLS, auth_query. Both programs start from the same
files, show the same of them, and let the same people in."""

import hashlib
import re
import ssl
import subprocess

import harness
from both import both, newer_settings, readable
from certs import Authority
from harness import wait_until, write_file
from test_auth import PASSWORD, attempt, scram_secret
from wire import Wire, query

# Attributes of databases by number; each fits some of the 200.
OPTIONS = (
    "",
    "user=bob",
    "user=bob pool_size=7 reserve_pool=2",
    "user=alice password='alice secret' pool_mode=session",
    "user=bob connect_query='SET search_path TO public, ''$user'''",
    "user=bob max_db_connections=11 min_pool_size=0",
    "auth_user=finder pool_mode=statement",
    "user=bob client_encoding=LATIN1 datestyle=German timezone=Europe/Berlin",
    "pool_size=3",
    "user=bob password=''",  # refused: left out below
)
RULES = """
# the machines of the company
local    all              all                             md5
host     all              locked,u499        127.0.0.1/32 reject
host     "db017",db018    all                127.0.0.1/32 scram-sha-256
hostssl  secure           all                127.0.0.1/32 md5
host     secure           all                0.0.0.0/0    reject
host     sameuser         all                127.0.0.1/32 trust
host     pgbouncer        admin,stats        127.0.0.1/32 trust
host     open             all                127.0.0.1 255.255.255.255 trust
host     all              @staff             127.0.0.1/32 password
host     all              all                10.0.0.0/8   md5
host     all              all                127.0.0.0/8  md5
host     all              all                ::1/128      md5
"""


def secret_of(number):
    """The users have secrets of all three kinds."""
    name = f"u{number:03}"
    if number % 3 == 0:
        return PASSWORD
    if number % 3 == 1:
        return "md5" + hashlib.md5((PASSWORD + name).encode()).hexdigest()
    return scram_secret(PASSWORD)


def large(pooler):
    """Writes the files and changes the pooler's configuration to them."""
    folder = pooler.home / "ca"
    folder.mkdir()
    authority = Authority(folder)
    certificate, key = authority.issue("pooler", "localhost")
    write_file(pooler.home / "hba", RULES)
    write_file(pooler.home / "staff", "u003 u006\nu009\n")
    pooler.userlist = {f"u{number:03}": secret_of(number) for number in range(498)}
    pooler.userlist.update({"locked": PASSWORD, "u499": PASSWORD, "admin": "", "stats": "", "finder": "finder secret"})
    pooler.users = {f"u{number:03}": f"pool_mode={'session' if number % 2 else 'transaction'}" for number in range(40)}
    pooler.users["u100"] = "max_user_connections=4"
    pooler.databases = {f"db{number:03}": f"dbname=app {OPTIONS[number % 9]}" for number in range(197)}
    pooler.databases.update({name: "dbname=app user=bob" for name in ("db017", "secure", "open", "u042")})
    pooler.settings.update(
        auth_type="hba", auth_hba_file=pooler.home / "hba", auth_user="finder",
        auth_query="SELECT usename, passwd FROM pg_catalog.pg_shadow WHERE usename = $1",
        client_tls_sslmode="prefer", client_tls_cert_file=certificate, client_tls_key_file=key,
        max_client_conn=1000, default_pool_size=20, reserve_pool_size=5, reserve_pool_timeout=3,
        max_db_connections=50, max_user_connections=60, server_idle_timeout=300, server_lifetime=1800,
        ignore_startup_parameters="extra_float_digits,search_path", application_name_add_host=1,
        tcp_keepalive=1, tcp_keepidle=60, tcp_keepintvl=10, tcp_keepcnt=5, listen_backlog=511, verbose=0)


def start_large(pooler):
    large(pooler)
    pooler.start()


@both(fresh=True, start=False)
def test_large_file_is_shown_alike(pooler, seen):
    start_large(pooler)
    assert len(pooler.databases) == 200 and len(pooler.userlist) >= 500
    if not pooler.is_pgbouncer:
        # The same as on the page: it starts nothing and has nothing to say.
        done = subprocess.run([str(pooler.binary), "--check", str(pooler.ini)], capture_output=True, text=True,
                              timeout=20, cwd=pooler.home, check=False, **harness.as_run_user())
        assert (done.returncode, done.stdout, done.stderr) == (0, "configuration is valid\n", "")
    for row in pooler.admin("SHOW CONFIG"):
        if row["key"] not in newer_settings():
            seen(f"setting {row['key']}", [row["value"], row["default"], row["changeable"]])
    for row in pooler.admin("SHOW DATABASES"):
        seen.row(f"database {row['name']}", row, "DATABASES")
    seen("users", [[row["name"], row["pool_mode"]] for row in pooler.admin("SHOW USERS")])
    seen("complaints", [line for line in pooler.log().splitlines() if re.search("WARNING|ERROR|FATAL", line)])


@both(fresh=True, start=False)
def test_large_file_lets_the_same_people_in(pooler, seen):
    start_large(pooler)
    for user, password, database in (
        ("u000", PASSWORD, "db001"),  # plain text in the file
        ("u001", PASSWORD, "db001"),  # MD5
        ("u002", PASSWORD, "db001"),  # SCRAM
        ("u002", "wrong", "db001"),
        ("u004", PASSWORD, "db002"),
        ("u007", PASSWORD, "db003"),
        ("u000", PASSWORD, "db004"),
        ("u000", PASSWORD, "db007"),
        ("u003", PASSWORD, "db001"),  # clear text by @staff
        ("u001", PASSWORD, "db017"),  # an MD5 secret where SCRAM is asked for
        ("u002", PASSWORD, "db017"),
        ("alice", "alice secret", "db006"),  # by auth_query
        ("alice", "wrong", "db006"),
        ("nobody", PASSWORD, "db001"),
        ("locked", PASSWORD, "db001"),
        ("u499", PASSWORD, "db001"),
        ("u042", None, "u042"),  # sameuser
        ("u005", None, "open"),
        ("u005", PASSWORD, "secure"),  # without TLS
        ("u000", PASSWORD, "nowhere"),
        ("u100", PASSWORD, "db196"),
    ):
        seen.messages(f"{user} with {password} to {database}", attempt(pooler, user, password, database))
    with Wire(pooler.port) as client:
        client.start_tls(ssl._create_unverified_context())
        client.login("u006", "secure", PASSWORD)
        seen.answer("over TLS", client, query("SELECT current_database(), current_user"))
    for number, expected in ((3, "alice"), (4, "bob"), (7, "bob")):
        with pooler.wire("u000", f"db{number:03}", PASSWORD) as client:
            seen(f"user in db{number:03}", client.query("SELECT current_user").rows)
            assert client.value("SELECT current_user") == expected


@both(fresh=True, start=False)
def test_large_file_is_reloaded_under_clients(pooler, seen):
    """Nothing has changed, so that nobody notices; then a database, a user and a rule go."""
    start_large(pooler)
    stays, goes = pooler.wire("u000", "db001", PASSWORD), pooler.wire("u000", "db004", PASSWORD)
    for client in (stays, goes):
        client.query("BEGIN")
    pids = [client.value("SELECT pg_backend_pid()") for client in (stays, goes)]
    seen("unchanged", pooler.admin("RELOAD"))
    assert [client.value("SELECT pg_backend_pid()") for client in (stays, goes)] == pids
    del pooler.databases["db004"]
    pooler.userlist["u000"] = "another"
    pooler.write_config()
    seen("changed", pooler.admin("RELOAD"))
    seen("closed", [readable(one) for one in goes.expect_closed()])
    assert stays.value("SELECT pg_backend_pid()") == pids[0]
    wait_until(lambda: len(pooler.admin("SHOW DATABASES")) == 200, what="199 databases and the console")
    seen.messages("old password", attempt(pooler, "u000", PASSWORD, "db001"))
    seen.messages("new password", attempt(pooler, "u000", "another", "db001"))
