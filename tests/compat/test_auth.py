"""Who may log in: methods, kinds of secrets, auth_query, HBA rules, and secrets for the server. Nothing that is random
or secret is compared, everything else byte for byte."""

import base64
import hashlib
import hmac

import pytest

from both import End, both, readable, rest_after
from harness import write_file
from wire import Closed, Wire, WireError, cstring, message, query, startup_packet

PASSWORD = "correct horse"
MD5 = "md5" + hashlib.md5((PASSWORD + "user1").encode()).hexdigest()


def scram_secret(password):
    salt = b"0123456789abcdef"
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 4096)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(one).decode() for one in (salt, stored, server)]
    return f"SCRAM-SHA-256$4096:{encoded[0]}${encoded[1]}:{encoded[2]}"


USERS = {
    "plain1": PASSWORD,
    "md51": "md5" + hashlib.md5((PASSWORD + "md51").encode()).hexdigest(),
    "scram1": scram_secret(PASSWORD),
    "none1": "",
    "upper1": "MD5" + "a" * 32,
    "broken1": "SCRAM-SHA-256$x:y$z:w",
}
FORCED = {"app": "dbname=app user=bob", "mine": "dbname=app"}
METHODS = ("trust", "plain", "md5", "scram-sha-256")


def attempt(pooler, user, password, database="app", path=None, **parameters):
    """The whole conversation of a login: what the pooler sent, and how it ended."""
    with Wire(pooler.port, path=path) as client:
        told = []
        original = client.read

        def read():
            told.append(original())
            return told[-1]

        client.read = read
        try:
            client.login(user, database, password, **parameters)
        except WireError:
            try:
                while True:
                    read()
            except Closed:
                told.append(End())
        except Closed:
            told.append(End())
        return [one for one in told if one.type != "S"]


@pytest.mark.parametrize("password", [PASSWORD, "wrong", ""])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("user", [*USERS, "unknown1"])
def test_methods(compare, method, user, password):
    def scenario(pooler, seen):
        seen.messages("login", attempt(pooler, user, password))

    compare(
        scenario,
        {"settings": {"auth_type": method, "log_connections": "0"}, "databases": FORCED, "userlist": USERS},
        False,
    )


@pytest.mark.parametrize("method", METHODS)
@both(fresh=True, databases=FORCED, userlist=USERS)
def test_log_of_a_failed_login(pooler, seen, method):
    pooler.admin(f"SET auth_type = '{method}'")
    for user in ("plain1", "unknown1"):
        start = len(pooler.log())
        attempt(pooler, user, "wrong")
        seen.log(
            f"log of {user}",
            r"^(?!.*/admin@).*(pooler error|closing because|no such user|password|SASL|login failed)",
            start,
            2,
        )


@pytest.mark.parametrize("database", ["app", "nowhere", "pgbouncer"])
@pytest.mark.parametrize("user, password", [("plain1", PASSWORD), ("plain1", "wrong"), ("unknown1", PASSWORD)])
def test_trap_03_unknown_database_is_told_after_the_login(compare, database, user, password):
    def scenario(pooler, seen):
        seen.messages("login", attempt(pooler, user, password, database))

    compare(scenario, {"settings": {"auth_type": "md5"}, "databases": FORCED, "userlist": USERS}, False)


@pytest.mark.parametrize(
    "name",
    [
        "plain text of the server",
        "secret of the wrong kind",
        "wrong",
        "secret of auth_file",
        "unknown role",
        "role without login",
        "unknown database",
    ],
)
@both(
    fresh=True,
    settings={"server_login_retry": "0.1"},
    userlist={
        "scram_user": "scram secret",
        "md5_user": "md5 secret",
        "plain_user": "plain secret",
        "alice": "wrong secret",
    },
    databases={
        "app": "dbname=app",
        "scram": "dbname=app user=scram_user password=wrong",
        "nowhere": "dbname=nowhere",
        "ghost": "dbname=app user=ghost",
        "nologin": "dbname=app user=nologin_user",
        "empty": "dbname=app user=md5_user",
        "kind": "dbname=app user=scram_user password=md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    },
)
def test_login_at_the_server(pooler, seen, name):
    user, database = {
        "plain text of the server": ("plain_user", "app"),
        "secret of the wrong kind": ("postgres", "kind"),
        "wrong": ("postgres", "scram"),
        "secret of auth_file": ("postgres", "empty"),
        "unknown role": ("postgres", "ghost"),
        "role without login": ("postgres", "nologin"),
        "unknown database": ("postgres", "nowhere"),
    }[name]
    start = len(pooler.log())
    packet = startup_packet({"user": user, "database": database})
    first = conversation_of_a_query(pooler, packet)
    seen("first client", first)
    seen("next client", conversation_of_a_query(pooler, packet))
    seen.log(
        "log", r"^S-.*closing because|WARNING.*server|server login|cannot|failed", start, 0 if "I" in first[-1] else 1
    )


def conversation_of_a_query(pooler, packet):
    """Logs in, asks one question, and tells messages apart from the parameters."""
    with Wire(pooler.port) as client:
        client.send(packet)
        told = []
        try:
            while not told or told[-1].type != "Z":
                told.append(client.read())
            client.send(query("SELECT current_user"))
            told.append(client.read())
            while told[-1].type != "Z":
                told.append(client.read())
        except Closed:
            told.append(End())
    return [readable(one) for one in told if one.type not in "SK"]


QUERIES = {
    "as usual": "SELECT usename, passwd FROM pg_shadow WHERE usename=$1",
    "no row": "SELECT usename, passwd FROM pg_shadow WHERE usename=$1 AND false",
    "null secret": "SELECT $1::text, NULL::text",
    "null name": "SELECT NULL::text, 'x'::text",
    "error": "SELECT usename, passwd FROM no_such_table WHERE usename=$1",
    "error at run time": "SELECT $1::text, (1/0)::text",
    "one column": "SELECT $1::text",
    "three columns": "SELECT $1::text, 'a'::text, 'b'::text",
    "two rows": f"SELECT name, secret FROM (VALUES ('user1', 'x'), ($1::text, '{PASSWORD}')) AS t (name, secret)",
    "another name": f"SELECT 'alice'::text, '{PASSWORD}'::text WHERE $1 <> ''",
    "no parameter": f"SELECT 'user1'::text, '{PASSWORD}'::text",
    "two statements": "SELECT $1::text, 'x'; SELECT 1",
    "empty secret": "SELECT $1::text, ''::text",
    "md5 secret": f"SELECT $1::text, '{MD5}'::text",
    "syntax error": "SELEC",
}


@pytest.mark.parametrize("method", ["md5", "scram-sha-256", "trust", "plain"])
@pytest.mark.parametrize("name", QUERIES)
def test_auth_query(compare, name, method):
    def scenario(pooler, seen):
        for password in (PASSWORD, "wrong"):
            seen.messages(f"login with {password}", attempt(pooler, "user1", password))

    compare(
        scenario,
        {
            "settings": {"auth_type": method, "auth_user": "finder", "auth_query": QUERIES[name]},
            "databases": {"app": "dbname=app"},
            "userlist": {"finder": "finder secret"},
        },
        False,
    )


RULES = {
    "trust": "host all all 127.0.0.1/32 trust",
    "reject": "host all all 127.0.0.1/32 reject",
    "md5": "host all all 127.0.0.1/32 md5",
    "scram": "host all all 127.0.0.1/32 scram-sha-256",
    "password": "host all all 127.0.0.1/32 password",
    "none": "",
    "other address": "host all all 10.0.0.0/8 trust",
    "mask": "host all all 127.0.0.0 255.0.0.0 trust",
    "address all": "host all all all trust",
    "local only": "local all all trust",
    "hostssl": "hostssl all all 0.0.0.0/0 trust",
    "hostnossl": "hostnossl all all 0.0.0.0/0 trust",
    "database": "host mine all 0.0.0.0/0 trust",
    "database list": "host x,app,y all 0.0.0.0/0 trust",
    "user": "host all md51 0.0.0.0/0 trust\nhost all all 0.0.0.0/0 reject",
    "user list": "host all x,plain1 0.0.0.0/0 trust",
    "quoted": 'host "app" "plain1" 0.0.0.0/0 trust',
    "quoted all": 'host "all" all 0.0.0.0/0 trust',
    "sameuser": "host sameuser all 0.0.0.0/0 trust",
    "comment": "# x\nhost all all 0.0.0.0/0 trust # y",
    "first wins": "host all plain1 0.0.0.0/0 reject\nhost all all 0.0.0.0/0 trust",
    "broken line": "nothing\nhost all all 0.0.0.0/0 trust",
    "unknown method": "host all all 0.0.0.0/0 kerberos\nhost all all 0.0.0.0/0 md5",
    "missing field": "host all all trust\nhost all all 0.0.0.0/0 md5",
    "at file": "host @dbs all 0.0.0.0/0 trust",
    "at file missing": "host @nothing all 0.0.0.0/0 trust",
    "case": "HOST ALL ALL 0.0.0.0/0 TRUST",
    "tabs": "host\tall\tall\t0.0.0.0/0\ttrust",
    "options": "host all all 0.0.0.0/0 md5 clientcert=1",
    "IPv6": "host all all ::1/128 trust",
    "bad mask": "host all all 127.0.0.1/99 trust",
    "replication": "host replication all 0.0.0.0/0 trust",
}


@pytest.mark.parametrize("name", RULES)
@both(fresh=True, start=False, databases=FORCED, userlist=USERS)
def test_hba(pooler, seen, name):
    write_file(pooler.home / "hba", RULES[name] + "\n")
    write_file(pooler.home / "dbs", "app\nother\n")
    pooler.settings.update(auth_type="hba", auth_hba_file=pooler.home / "hba")
    pooler.start()
    for user, password in (("plain1", PASSWORD), ("plain1", "wrong"), ("md51", PASSWORD), ("unknown1", "x")):
        seen.messages(f"{user} {password}", attempt(pooler, user, password))
    seen.messages("over the socket", attempt(pooler, "plain1", PASSWORD, path=pooler.home))
    seen.log("log", "hba|HBA", count=0)


@pytest.mark.parametrize(
    "packet",
    {
        "wrong type": message("Q", cstring("SELECT 1")),
        "empty": message("p"),
        "no terminator": message("p", b"x"),
        "empty text": message("p", b"\0"),
        "long": message("p", b"x" * 2000 + b"\0"),
        "second startup": startup_packet({"user": "x"}),
        "sync": message("S"),
        "terminate": message("X"),
        "unknown": message("y", b"x"),
    }.items(),
    ids=lambda pair: pair[0],
)
@pytest.mark.parametrize("method", ["plain", "md5", "scram-sha-256"])
def test_wrong_messages_during_authentication(compare, method, packet):
    def scenario(pooler, seen):
        with Wire(pooler.port) as client:
            client.send(startup_packet({"user": "plain1", "database": "app"}))
            client.read_type("R")
            seen.messages("answer", rest_after(client, packet[1]))

    compare(scenario, {"settings": {"auth_type": method}, "databases": FORCED, "userlist": USERS}, False)


def sasl(mechanism, data, length=None):
    body = cstring(mechanism) + (len(data) if length is None else length).to_bytes(4, "big", signed=True) + data
    return message("p", body)


@pytest.mark.parametrize(
    "packets",
    {
        "unknown mechanism": [sasl("X", b"n,,n=,r=abc")],
        "plus": [sasl("SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,n=,r=abc")],
        "binding claimed": [sasl("SCRAM-SHA-256", b"p=tls-server-end-point,,n=,r=abc")],
        "no nonce": [sasl("SCRAM-SHA-256", b"n,,n=")],
        "garbage": [sasl("SCRAM-SHA-256", b"\1\2\3")],
        "wrong length": [sasl("SCRAM-SHA-256", b"n,,n=,r=abc", 500)],
        "extension": [sasl("SCRAM-SHA-256", b"n,,m=x,n=,r=abc")],
        "authzid": [sasl("SCRAM-SHA-256", b"n,a=x,n=,r=abc")],
        "y flag": [sasl("SCRAM-SHA-256", b"y,,n=,r=abc")],
        "final garbage": [sasl("SCRAM-SHA-256", b"n,,n=,r=abc"), message("p", b"garbage")],
        "final empty": [sasl("SCRAM-SHA-256", b"n,,n=,r=abc"), message("p", b"")],
        "wrong nonce": [sasl("SCRAM-SHA-256", b"n,,n=,r=abc"), message("p", b"c=biws,r=xyz,p=AAAA")],
    }.items(),
    ids=lambda pair: pair[0],
)
@both(settings={"auth_type": "scram-sha-256"}, databases=FORCED, userlist=USERS)
def test_wrong_sasl(pooler, seen, packets):
    """Without a mechanism's data there is no case: that ends the process of PgBouncer 1.18."""
    with Wire(pooler.port) as client:
        client.send(startup_packet({"user": "plain1", "database": "app"}))
        client.read_type("R")
        seen.messages("answer", rest_after(client, *packets[1]))
