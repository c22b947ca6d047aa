"""Logins by client certificate: auth_type = cert, and cert and clientcert in auth_hba_file, with real clients."""

import os
import ssl
import subprocess

import psycopg
import pytest

import harness
import wire
from certs import Authority
from harness import make_dir
from wire import Wire, WireError

PASSWORD = "correct horse"
REFUSED = "certificate authentication failed"
# A client certificate that is refused ends the handshake; the client may hear of it only when it reads.
BROKEN = (ssl.SSLError, wire.Closed, ConnectionError)


@pytest.fixture(scope="module")
def pooler_certificate(authority):
    return authority.issue("cert_pooler", "localhost")


@pytest.fixture(scope="module")
def stranger(base):
    """A CA that the pooler does not know."""
    return Authority(make_dir(base, "str"), "user1")


@pytest.fixture(scope="module")
def user1(authority):
    return authority.issue("user1", "user1", "DNS:user1.example")


@pytest.fixture
def tls(make_pooler, authority, pooler_certificate):
    """Makes poolers that trust `authority`; the server's side is a forced user that PostgreSQL trusts."""
    cert, key = pooler_certificate

    def make(sslmode="verify-full", **options):
        settings = {"auth_type": "cert", "client_tls_sslmode": sslmode, "client_tls_cert_file": cert,
                    "client_tls_key_file": key, "client_tls_ca_file": authority.cert, **options.pop("settings", {})}
        return make_pooler(settings=settings, databases={"app": "dbname=app user=bob"},
                           userlist={"user1": "", "user2": PASSWORD}, **options)
    return make


@pytest.fixture
def hba(tls):
    """Makes poolers with the rules and maps given, TLS being offered."""
    def make(rules, maps="", sslmode="prefer", **settings):
        pooler = tls(sslmode, settings={"auth_type": "hba", **settings}, start=False)
        for key, text in {"auth_hba_file": rules + "\nhost pgbouncer admin 127.0.0.1/32 trust\n",
                          "auth_ident_file": maps}.items():
            path = pooler.home / key
            path.write_text(text)
            pooler.settings[key] = path
        return pooler.start()
    return make


@pytest.fixture
def connect(authority):
    """A raw client over TLS with a certificate, or without one."""
    def client(pooler, certificate=None, user="user1", database="app", password=None):
        context = ssl.create_default_context(cafile=str(authority.cert))
        if certificate:
            context.load_cert_chain(*map(str, certificate))
        one = Wire(pooler.port).start_tls(context)
        one.login(user, database, password)
        return one
    return client


def libpq(certificate=None, **options):
    """Connection parameters of libpq; without a certificate it must not find one in the home folder either."""
    cert, key = certificate or ("/nonexistent", "/nonexistent")
    return {"sslmode": "require", "sslcert": str(cert), "sslkey": str(key), **options}


def refused(action, text=REFUSED):
    with pytest.raises(WireError) as failure:
        action()
    assert failure.value.fields["S"] == "FATAL"
    assert (failure.value.code, failure.value.text) == ("08P01", text)


class TestAuthTypeCert:
    @pytest.mark.smoke
    def test_common_name_is_the_user(self, tls, connect, user1, authority):
        pooler = tls()
        client = connect(pooler, user1)
        assert client.authentication == [0]
        assert client.value("SELECT current_user") == "bob"
        refused(lambda: connect(pooler, user1, "user2"))
        refused(lambda: connect(pooler, authority.issue("u2", "user2"), "user1"))
        assert client.value("SELECT 1") == "1"

    def test_dns_name_is_the_user(self, tls, connect, authority):
        pooler = tls()
        assert connect(pooler, authority.issue("dns", "somebody", "DNS:host.example,DNS:user1")).value("SELECT 1") == "1"
        refused(lambda: connect(pooler, authority.issue("ip", "somebody", "email:user1,URI:user1")))

    @pytest.mark.pgweir
    @pytest.mark.parametrize("common_name", ["User1", "user1.example", "user1/CN=user1", "user2/CN=user1", "*", " user1",
                                             "user1 "])
    def test_names_that_only_look_alike(self, tls, connect, authority, common_name):
        certificate = authority.issue("alike", common_name, "DNS:*,DNS:*.user1,DNS:USER1")
        refused(lambda: connect(tls(), certificate))

    def test_psql(self, tls, user1, authority):
        pooler = tls()

        def psql(certificate):
            options = libpq(certificate, host="localhost", port=pooler.port, dbname="app", user="user1",
                            sslmode="verify-full", sslrootcert=authority.cert)
            text = " ".join(f"{key}='{value}'" for key, value in options.items())
            return subprocess.run(["psql", "-X", "-At", "-d", text, "-c", "SELECT current_user"], capture_output=True,
                                  text=True, timeout=20, check=False, env={"PATH": os.environ["PATH"]})
        done = psql(user1)
        assert (done.returncode, done.stdout.strip()) == (0, "bob"), done.stderr
        done = psql(authority.issue("u2", "user2"))
        assert done.returncode == 2
        assert f"FATAL:  {REFUSED}" in done.stderr

    def test_psycopg(self, tls, user1, authority):
        pooler = tls()
        with psycopg.connect(**pooler.dsn("user1", **libpq(user1))) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError, match=REFUSED):
            psycopg.connect(**pooler.dsn("user2", **libpq(user1)))

    def test_no_certificate(self, tls, connect):
        pooler = tls()
        with pytest.raises(BROKEN):
            connect(pooler)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(**pooler.dsn("user1", **libpq()))
        refused(lambda: pooler.wire("user1"), "SSL required")

    @pytest.mark.parametrize("kind", ["expired", "of another CA", "self-signed", "for servers"])
    def test_certificate_that_is_not_valid(self, tls, connect, authority, stranger, user1, kind):
        certificate = {"expired": lambda: authority.issue("old", "user1", days=-1),
                       "of another CA": lambda: stranger.issue("user1", "user1"),
                       "self-signed": lambda: (stranger.cert, stranger.key),
                       "for servers": lambda: authority.issue("server", "user1",
                                                              "DNS:user1\nextendedKeyUsage=serverAuth")}[kind]()
        pooler = tls()
        with pytest.raises(BROKEN):
            connect(pooler, certificate)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(**pooler.dsn("user1", **libpq(certificate)))
        assert connect(pooler, user1).value("SELECT 1") == "1"

    def test_unknown_user_and_unknown_database(self, tls, connect, authority, user1):
        pooler = tls()
        refused(lambda: connect(pooler, authority.issue("nobody", "nobody"), "nobody"))
        refused(lambda: connect(pooler, authority.issue("nobody", "nobody"), "nobody", "missing"))
        refused(lambda: connect(pooler, user1, database="missing"), "no such database: missing")

    def test_unix_socket(self, tls):
        pooler = tls()
        refused(lambda: Wire(pooler.port, path=pooler.home).login("user1", "app"))
        assert "TLS connection required" in pooler.log()

    def test_console(self, tls, connect, authority, user1):
        pooler = tls()
        admin = connect(pooler, authority.issue("admin", "admin"), "admin", "pgbouncer")
        assert admin.query("SHOW VERSION").errors == []
        refused(lambda: connect(pooler, user1, "admin", "pgbouncer"))
        refused(lambda: connect(pooler, user1, "user1", "pgbouncer"), "not allowed")

    @pytest.mark.pgweir
    def test_auth_query(self, tls, connect, authority, cluster):
        pooler = tls(settings={"auth_user": "postgres", "auth_query": "SELECT rolname, rolpassword FROM pg_authid "
                               "WHERE rolname = lower($1) AND rolcanlogin"})
        scram_user = authority.issue("scram_user", "scram_user")
        assert connect(pooler, scram_user, "scram_user").value("SELECT 1") == "1"
        # The name that the query returns is the one that counts.
        assert connect(pooler, scram_user, "SCRAM_User").value("SELECT 1") == "1"
        refused(lambda: connect(pooler, authority.issue("upper", "SCRAM_User"), "SCRAM_User"))
        refused(lambda: connect(pooler, authority.issue("ghost", "ghost"), "ghost"), "no such user")
        # bob has no password, and a certificate asks for none.
        assert connect(pooler, authority.issue("bob", "bob"), "bob").value("SELECT 1") == "1"

    def test_reload_of_the_ca_counts_for_new_connections(self, tls, connect, authority, stranger, user1):
        pooler = tls()
        before = connect(pooler, user1)
        pooler.settings["client_tls_ca_file"] = stranger.cert
        pooler.write_config()
        admin = connect(pooler, authority.issue("admin", "admin"), "admin", "pgbouncer")
        assert admin.query("RELOAD").errors == []
        with pytest.raises(BROKEN):
            connect(pooler, user1)
        assert connect(pooler, stranger.issue("user1", "user1")).value("SELECT 1") == "1"
        assert before.value("SELECT 1") == "1"

    @pytest.mark.pgweir
    @pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
    def test_sessions_are_not_resumed(self, tls, authority, user1, version):
        pooler = tls()
        context = ssl.create_default_context(cafile=str(authority.cert))
        context.load_cert_chain(*map(str, user1))
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        first = Wire(pooler.port).start_tls(context)
        first.login("user1", "app")
        again = Wire(pooler.port)
        again.send(wire.request_packet(wire.SSL_REQUEST))
        assert again.read_bytes(1) == b"S"
        again.socket = context.wrap_socket(again.socket, server_hostname="localhost", session=first.socket.session)
        assert not again.socket.session_reused
        again.login("user1", "app")


class TestConfiguration:
    def check(self, pooler):
        pooler.write_config()
        done = subprocess.run([str(harness.BINARY), "--check", str(pooler.ini)], capture_output=True, text=True,
                              timeout=20, check=False, **harness.as_run_user())
        return done.returncode, done.stdout + done.stderr

    def place(self, pooler, key):
        return next(f"{pooler.ini}:{n}: {key}: " for n, line in enumerate(pooler.ini_text().splitlines(), 1)
                    if line.startswith(key + " "))

    @pytest.mark.pgweir
    @pytest.mark.parametrize("sslmode", ["disable", "require", "verify-ca"])
    def test_auth_type_cert_needs_verify_full(self, tls, sslmode):
        pooler = tls(sslmode, start=False)
        code, text = self.check(pooler)
        assert code == 1
        assert self.place(pooler, "auth_type") + "cert expects client_tls_sslmode = verify-full" in text

    @pytest.mark.pgweir
    def test_auth_type_cert_needs_a_ca(self, tls):
        pooler = tls(settings={"client_tls_ca_file": ""}, start=False)
        code, text = self.check(pooler)
        assert code == 1
        assert self.place(pooler, "client_tls_ca_file") + "expected a file of CA certificates" in text

    @pytest.mark.pgweir
    def test_set_keeps_what_cert_needs(self, tls, connect, authority, user1):
        pooler = tls()
        admin = connect(pooler, authority.issue("admin", "admin"), "admin", "pgbouncer")
        for change in ("client_tls_sslmode = 'require'", "client_tls_sslmode = 'disable'", "client_tls_ca_file = ''"):
            assert [error["M"] for error in admin.query(f"SET {change}").errors] == ["SET failed"]
        with pytest.raises(BROKEN):
            connect(pooler)
        assert connect(pooler, user1).value("SELECT 1") == "1"

    @pytest.mark.pgweir
    def test_rules_without_a_ca_let_nobody_in(self, hba, connect, user1):
        pooler = hba("hostssl app user1 all cert\nhost app all all trust", client_tls_ca_file="")
        refused(lambda: connect(pooler, user1))
        assert pooler.wire("user2").value("SELECT 1") == "1"
        assert "auth_hba_file:1: lets nobody in: client certificates need client_tls_ca_file" in pooler.log()


@pytest.mark.pgweir
class TestHbaRules:
    @pytest.mark.smoke
    def test_method_cert(self, hba, connect, user1, authority):
        pooler = hba("hostssl app user1 all cert\nhost app user1 all reject\nhost app user2 all scram-sha-256")
        assert connect(pooler, user1).value("SELECT 1") == "1"
        assert connect(pooler, authority.issue("dns", "x", "DNS:user1")).value("SELECT 1") == "1"
        refused(lambda: connect(pooler))
        refused(lambda: connect(pooler, authority.issue("u2", "user2")))
        refused(lambda: pooler.wire("user1"), "login rejected")
        # Nobody else needs one, and one for somebody else does no harm.
        assert connect(pooler, None, "user2", password=PASSWORD).value("SELECT 1") == "1"
        assert connect(pooler, user1, "user2", password=PASSWORD).value("SELECT 1") == "1"
        assert pooler.wire("user2", password=PASSWORD).value("SELECT 1") == "1"

    def test_host_rule_without_tls(self, hba, connect, user1):
        pooler = hba("host app user1 all cert")
        refused(lambda: pooler.wire("user1"))
        assert connect(pooler, user1).value("SELECT 1") == "1"

    @pytest.mark.parametrize("sslmode", ["allow", "prefer", "require", "verify-ca", "verify-full"])
    def test_each_sslmode(self, hba, connect, user1, stranger, sslmode):
        pooler = hba("hostssl app user1 all cert", sslmode=sslmode)
        assert connect(pooler, user1).value("SELECT 1") == "1"
        with pytest.raises(BROKEN):
            connect(pooler, stranger.issue("user1", "user1"))

    def test_map(self, hba, connect, user1, authority):
        pooler = hba("hostssl app user1 all cert map=hosts\nhostssl app user2 all cert map=people clientname=DN\n"
                     "hostssl app admin all cert map=missing",
                     'hosts /^(.*)\\.app\\.example$ \\1\nhosts build-machine user1\npeople "O=Org,CN=user1" user2\n')
        assert connect(pooler, authority.issue("host", "user1.app.example", "DNS:x")).value("SELECT 1") == "1"
        assert connect(pooler, authority.issue("san", "x", "DNS:y,DNS:user1.app.example")).value("SELECT 1") == "1"
        assert connect(pooler, authority.issue("build", "build-machine", "DNS:x")).value("SELECT 1") == "1"
        refused(lambda: connect(pooler, user1))
        refused(lambda: connect(pooler, authority.issue("host2", "user2.app.example")))
        refused(lambda: connect(pooler, authority.issue("wild", "x", "DNS:*.user1.app.example")))
        assert connect(pooler, authority.issue("dn", "user1/O=Org"), "user2").value("SELECT 1") == "1"
        refused(lambda: connect(pooler, user1, "user2"))
        refused(lambda: connect(pooler, authority.issue("admin", "admin"), "admin"))

    def test_clientcert_beside_a_password(self, hba, connect, user1, authority):
        pooler = hba("hostssl app user2 all scram-sha-256 clientcert=verify-ca")
        assert connect(pooler, user1, "user2", password=PASSWORD).authentication == [10, 11, 12, 0]
        refused(lambda: connect(pooler, user1, "user2", password="wrong"), "SASL authentication failed")
        refused(lambda: connect(pooler, None, "user2", password=PASSWORD))

    def test_clientcert_verify_full(self, hba, connect, user1, authority):
        pooler = hba("hostssl app user2 all scram-sha-256 clientcert=verify-full")
        user2 = authority.issue("u2", "user2")
        assert connect(pooler, user2, "user2", password=PASSWORD).authentication == [10, 11, 12, 0]
        refused(lambda: connect(pooler, user2, "user2", password="wrong"), "SASL authentication failed")
        refused(lambda: connect(pooler, user1, "user2", password=PASSWORD))
        refused(lambda: connect(pooler, authority.issue("dns2", "x", "DNS:user2"), "user2", password=PASSWORD))

    def test_rule_that_comes_with_a_reload(self, hba, connect, user1):
        pooler = hba("hostssl app user1 all trust")
        assert connect(pooler).value("SELECT 1") == "1"
        pooler.settings["auth_hba_file"].write_text("hostssl app user1 all trust clientcert=verify-full\n"
                                                    "host pgbouncer admin 127.0.0.1/32 trust\n")
        pooler.admin("RELOAD")
        refused(lambda: connect(pooler))
        assert connect(pooler, user1).value("SELECT 1") == "1"
