"""Who may log in: the methods of clients and servers, secrets in all forms, auth_query, HBA, and TLS on both sides."""

import hashlib
import os
import ssl
import subprocess

import psycopg
import pytest

import wire
from certs import Authority
from harness import as_run_user, make_dir, wait_until
from wire import Wire, WireError, query

PASSWORD = "correct horse"
CLIENT_METHODS = {"plain": [3, 0], "md5": [5, 0], "scram-sha-256": [10, 11, 12, 0]}


def md5_secret(user, password=PASSWORD):
    return "md5" + hashlib.md5((password + user).encode()).hexdigest()


def psql_and_psycopg_log_in(pooler, cluster, user, password, becomes, refusal):
    """Real clients get in with the password, as the server's user `becomes`, and not with a wrong one."""
    with psycopg.connect(**pooler.dsn(user, password=password)) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (becomes,)
    with pytest.raises(psycopg.OperationalError, match=refusal):
        psycopg.connect(**pooler.dsn(user, password="wrong"))
    done = subprocess.run([cluster.bin / "psql", "-h", "127.0.0.1", "-p", str(pooler.port), "-U", user, "-d", "app",
                           "-XAtc", "SELECT current_user"], capture_output=True, text=True, timeout=30, check=False,
                          env={"PGPASSWORD": password, "HOME": "/"}, **as_run_user())
    assert (done.stdout, done.stderr) == (f"{becomes}\n", "")


def scram_secret(cluster, password=PASSWORD):
    """A secret as PostgreSQL stores it."""
    cluster.ask("SET password_encryption = 'scram-sha-256'")
    cluster.ask("DO $$ BEGIN CREATE ROLE secret_maker; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    cluster.ask(f"ALTER ROLE secret_maker PASSWORD '{password}'")
    return cluster.secret("secret_maker")


@pytest.fixture
def secrets(cluster):
    return {"plain text": PASSWORD, "md5": md5_secret("user1"), "scram": scram_secret(cluster)}


def refused(action, text, code="08P01"):
    with pytest.raises(WireError) as failure:
        action()
    assert failure.value.fields["S"] == "FATAL"
    assert (failure.value.code, failure.value.text) == (code, text)


class TestClientMethods:
    """The server side is a forced user that PostgreSQL trusts, so that only the client's side is tested."""

    DATABASES = {"app": "dbname=app user=bob"}

    @pytest.mark.smoke
    @pytest.mark.parametrize("method", CLIENT_METHODS)
    @pytest.mark.parametrize("form", ["plain text", "md5", "scram"])
    def test_each_method_with_each_form_of_secret(self, make_pooler, secrets, method, form):
        pooler = make_pooler(settings={"auth_type": method}, databases=self.DATABASES,
                             userlist={"user1": secrets[form]})
        if (method, form) == ("scram-sha-256", "md5"):
            refused(lambda: pooler.wire("user1", password=PASSWORD), "SASL authentication failed")
            return
        client = pooler.wire("user1", password=PASSWORD)
        expected = CLIENT_METHODS["scram-sha-256" if (method, form) == ("md5", "scram") else method]
        assert client.authentication == expected
        assert client.value("SELECT current_user") == "bob"

    @pytest.mark.smoke
    @pytest.mark.parametrize("method,text", [
        ("plain", "password authentication failed"), ("md5", "password authentication failed"),
        ("scram-sha-256", "SASL authentication failed")])
    def test_wrong_password_and_unknown_user_look_alike(self, make_pooler, method, text):
        pooler = make_pooler(settings={"auth_type": method}, databases=self.DATABASES, userlist={"user1": PASSWORD})
        for user in ("user1", "nobody_knows"):
            client = Wire(pooler.port)
            refused(lambda: client.login(user, "app", "wrong"), text)
            assert client.authentication == [code for code in CLIENT_METHODS[method] if code not in (0, 12)]

    def test_trust_refuses_unknown_users(self, make_pooler):
        pooler = make_pooler(databases=self.DATABASES)
        refused(lambda: pooler.wire("stranger"), '"trust" authentication failed')

    def test_any_takes_everyone_where_the_user_is_forced(self, make_pooler):
        pooler = make_pooler(settings={"auth_type": "any"}, databases={"app": "dbname=app user=bob", "other": ""})
        assert pooler.wire("whoever").value("SELECT current_user") == "bob"
        refused(lambda: pooler.wire("whoever", "other"), "bouncer config error")

    def test_empty_password_is_refused(self, make_pooler):
        pooler = make_pooler(settings={"auth_type": "plain"}, databases=self.DATABASES, userlist={"user1": PASSWORD})
        with pytest.raises(WireError):
            pooler.wire("user1", password="")

    def test_user_without_a_secret_cannot_log_in(self, make_pooler):
        pooler = make_pooler(settings={"auth_type": "md5"}, databases=self.DATABASES, userlist={"user1": ""})
        refused(lambda: pooler.wire("user1", password=""), "password authentication failed")

    @pytest.mark.parametrize("method", ["md5", "scram-sha-256"])
    def test_existence_of_a_database_is_only_revealed_after_the_password(self, make_pooler, method):
        pooler = make_pooler(settings={"auth_type": method}, databases=self.DATABASES, userlist={"user1": PASSWORD})
        with pytest.raises(WireError) as failure:
            pooler.wire("user1", "missing", "wrong")
        assert "authentication failed" in failure.value.text
        with pytest.raises(WireError) as failure:
            pooler.wire("user1", "missing", PASSWORD)
        assert failure.value.text == "no such database: missing"

    def test_unknown_sasl_mechanism_is_refused(self, make_pooler):
        pooler = make_pooler(settings={"auth_type": "scram-sha-256"}, databases=self.DATABASES,
                             userlist={"user1": PASSWORD})
        client = Wire(pooler.port)
        client.send(wire.startup_packet({"user": "user1", "database": "app"}))
        client.read_type("R")
        client.send(wire.message("p", b"SCRAM-MD5\0\0\0\0\1n"))
        client.expect_fatal("client selected an invalid SASL authentication mechanism", "08P01")

    @pytest.mark.parametrize("answer", [b"", b"SCRAM-SHA-256\0\xff\xff\xff\xff", b"SCRAM-SHA-256\0\0\0\0\5n,,zz",
                                        b"SCRAM-SHA-256\0\0\0\0\x7fn,,n=,r=x", b"\0" * 50])
    @pytest.mark.pgweir
    def test_malformed_sasl_messages_are_refused(self, make_pooler, answer):
        pooler = make_pooler(settings={"auth_type": "scram-sha-256"}, databases=self.DATABASES,
                             userlist={"user1": PASSWORD})
        client = Wire(pooler.port)
        client.send(wire.startup_packet({"user": "user1", "database": "app"}))
        client.read_type("R")
        client.send(wire.message("p", answer))
        client.expect_fatal(code="08P01")

    def test_query_before_the_password_is_refused(self, make_pooler):
        pooler = make_pooler(settings={"auth_type": "md5"}, databases=self.DATABASES, userlist={"user1": PASSWORD})
        client = Wire(pooler.port)
        client.send(wire.startup_packet({"user": "user1", "database": "app"}), query("SELECT 1"))
        assert all(got.type in "RE" for got in client.expect_closed())

    def test_new_password_in_the_userlist_counts_after_reload(self, make_pooler):
        pooler = make_pooler(settings={"auth_type": "md5"}, databases=self.DATABASES,
                             userlist={"user1": PASSWORD, "admin": "admin secret"})
        pooler.userlist["user1"] = "a much newer one"
        pooler.write_config()
        with pooler.console_login("admin secret") as console:
            console.rows("RELOAD")
        assert pooler.wire("user1", password="a much newer one").value("SELECT 1") == "1"
        refused(lambda: pooler.wire("user1", password=PASSWORD), "password authentication failed")

    @pytest.mark.pgweir
    def test_native_sqlstates_let_drivers_classify(self, make_pooler):
        pooler = make_pooler(settings={"auth_type": "md5", "max_client_conn": 1}, databases=self.DATABASES,
                             userlist={"user1": PASSWORD}, pgweir={"native_sqlstate": 1})
        refused(lambda: pooler.wire("user1", password="wrong"), "password authentication failed", "28P01")
        refused(lambda: pooler.wire("user1", "missing", PASSWORD), "no such database: missing", "3D000")
        client = pooler.wire("user1", password=PASSWORD)
        refused(lambda: pooler.wire("user1", password=PASSWORD), "no more connections allowed (max_client_conn)",
                "53300")
        client.close()


class TestServerLogin:
    @pytest.mark.smoke
    @pytest.mark.parametrize("user", ["md5_user", "scram_user", "plain_user"])
    def test_plain_text_secret_serves_every_server_method(self, make_pooler, user):
        secret = user.replace("_user", " secret")
        pooler = make_pooler(settings={"auth_type": "scram-sha-256"}, userlist={user: secret})
        assert pooler.wire(user, password=secret).value("SELECT current_user") == user

    def test_md5_secret_serves_an_md5_server(self, make_pooler, cluster):
        pooler = make_pooler(settings={"auth_type": "md5"}, userlist={"md5_user": cluster.secret("md5_user")})
        assert pooler.wire("md5_user", password="md5 secret").value("SELECT 1") == "1"

    @pytest.mark.smoke
    def test_scram_secret_is_passed_through_after_a_client_login(self, make_pooler, cluster):
        pooler = make_pooler(settings={"auth_type": "scram-sha-256", "default_pool_size": 2},
                             userlist={"scram_user": cluster.secret("scram_user")})
        first = pooler.wire("scram_user", password="scram secret")
        assert first.value("SELECT current_user") == "scram_user"
        second = pooler.wire("scram_user", password="scram secret")
        first.query("BEGIN")
        assert second.value("SELECT 'second server'") == "second server"

    @pytest.mark.parametrize("user,secret", [("scram_user", md5_secret("scram_user", "scram secret"))])
    def test_secret_of_the_wrong_kind_is_reported(self, make_pooler, user, secret):
        pooler = make_pooler(settings={"auth_type": "md5"}, userlist={user: secret})
        with pytest.raises(WireError) as failure:
            pooler.wire(user, password="scram secret")
        assert failure.value.text == "server login failed: wrong password type"

    @pytest.mark.pgweir
    def test_wrong_server_password_brings_the_servers_own_message(self, make_pooler):
        pooler = make_pooler(databases={"app": "dbname=app user=scram_user password=wrong"})
        refused(lambda: pooler.wire(), 'password authentication failed for user "scram_user"', "28P01")

    @pytest.mark.parametrize("user,password", [("md5_user", "'md5 secret'"), ("scram_user", "'scram secret'")])
    def test_password_in_the_database_entry_serves_the_forced_user(self, make_pooler, user, password):
        pooler = make_pooler(databases={"app": f"dbname=app user={user} password={password}"})
        assert pooler.wire().value("SELECT current_user") == user

    def test_forced_user_without_a_password_takes_it_from_the_userlist(self, make_pooler):
        pooler = make_pooler(databases={"app": "dbname=app user=scram_user"}, userlist={"scram_user": "scram secret"})
        assert pooler.wire("alice").value("SELECT current_user") == "scram_user"

    @pytest.mark.pgweir
    def test_missing_server_database_brings_the_servers_own_message(self, make_pooler):
        pooler = make_pooler(databases={"app": "dbname=does_not_exist"})
        refused(lambda: pooler.wire(), 'database "does_not_exist" does not exist', "3D000")


class TestAuthQuery:
    SETTINGS = {"auth_type": "scram-sha-256", "auth_user": "finder"}
    USERS = {"finder": "finder secret"}

    @pytest.mark.smoke
    def test_default_query_finds_users_that_are_in_no_file(self, make_pooler):
        pooler = make_pooler(settings=self.SETTINGS, userlist=self.USERS | {"alice": ""})
        client = pooler.wire("scram_user", password="scram secret")
        assert client.value("SELECT current_user") == "scram_user"

    def test_wrong_password_of_a_found_user(self, make_pooler):
        pooler = make_pooler(settings=self.SETTINGS, userlist=self.USERS)
        refused(lambda: pooler.wire("scram_user", password="wrong"), "SASL authentication failed")

    def test_md5_users_are_found_as_well(self, make_pooler):
        pooler = make_pooler(settings=self.SETTINGS | {"auth_type": "md5"}, userlist=self.USERS)
        assert pooler.wire("md5_user", password="md5 secret").value("SELECT current_user") == "md5_user"

    @pytest.mark.pgweir
    def test_user_that_the_query_does_not_find(self, make_pooler):
        pooler = make_pooler(settings=self.SETTINGS, userlist=self.USERS)
        for name in ("ghost", "nologin_user"):
            refused(lambda: pooler.wire(name, password="x"), "no such user")

    @pytest.mark.pgweir
    def test_expired_user_can_not_log_in(self, make_pooler, cluster):
        cluster.ask("CREATE ROLE expired LOGIN PASSWORD 'expired secret' VALID UNTIL '2001-01-01'")
        try:
            pooler = make_pooler(settings=self.SETTINGS, userlist=self.USERS)
            refused(lambda: pooler.wire("expired", password="expired secret"), "SASL authentication failed")
        finally:
            cluster.ask("DROP ROLE expired")

    @pytest.mark.pgweir
    def test_broken_query_is_a_config_error(self, make_pooler):
        pooler = make_pooler(settings=self.SETTINGS | {"auth_query": "SELECT 1/0, $1"}, userlist=self.USERS)
        refused(lambda: pooler.wire("scram_user", password="scram secret"), "bouncer config error")

    @pytest.mark.pgweir
    def test_query_runs_in_auth_dbname(self, make_pooler, cluster):
        with cluster.connect("other") as direct:
            direct.execute("CREATE TABLE IF NOT EXISTS logins (name text, secret text)")
            direct.execute("TRUNCATE logins")
            direct.execute("INSERT INTO logins VALUES ('bob', 'from a table')")
        pooler = make_pooler(
            settings=self.SETTINGS | {"auth_dbname": "other",
                                      "auth_query": "SELECT name, secret FROM logins WHERE name = $1"},
            userlist={"finder": "finder secret", "bob": ""})
        assert pooler.wire("bob", password="from a table").value("SELECT current_user") == "bob"

    @pytest.mark.pgweir
    @pytest.mark.parametrize("where,line", [
        ("pgbouncer", 'cannot use the reserved "pgbouncer" database as an auth_dbname'),
        ("nowhere", 'authentication database "nowhere" is not configured')])
    def test_auth_dbname_that_can_not_be_asked(self, make_pooler, where, line):
        pooler = make_pooler(settings=self.SETTINGS, databases={"app": f"dbname=app auth_dbname={where}"},
                             userlist=self.USERS | {"bob": PASSWORD})
        assert pooler.wire("bob", password=PASSWORD).value("SELECT 1") == "1"
        refused(lambda: pooler.wire("scram_user", password="scram secret"), "bouncer config error")
        assert line in pooler.log()

    @pytest.mark.pgweir
    def test_console_can_not_be_its_own_auth_dbname(self, make_pooler):
        pooler = make_pooler(settings=self.SETTINGS | {"stats_users": "scram_user"}, userlist=self.USERS)
        refused(lambda: pooler.wire("scram_user", "pgbouncer", "scram secret"), "bouncer config error")

    @pytest.mark.pgweir
    def test_auth_user_is_known_without_a_line_in_auth_file(self, make_pooler):
        databases = {"app": "dbname=app user=postgres"}
        pooler = make_pooler(settings={"auth_type": "trust", "auth_user": "whoever"}, databases=databases)
        assert pooler.wire("whoever").value("SELECT 1") == "1"
        pooler = make_pooler(settings={"auth_user": "whoever", "auth_type": "md5"}, databases=databases)
        refused(lambda: pooler.wire("whoever", password=""), "password authentication failed")

    @pytest.mark.pgweir
    def test_name_that_the_query_returns_becomes_the_login_name(self, make_pooler):
        pooler = make_pooler(settings=self.SETTINGS | {"auth_type": "plain",
                                                       "auth_query": "SELECT 'bob'::text, 'x'::text WHERE $1 <> ''"},
                             userlist={"finder": "finder secret"})
        assert pooler.wire("someone", password="x").value("SELECT current_user") == "bob"

    def test_pool_of_the_auth_user_is_visible(self, make_pooler):
        pooler = make_pooler(settings=self.SETTINGS | {"admin_users": "finder"}, userlist=self.USERS)
        pooler.wire("scram_user", password="scram secret")
        with pooler.console_login("finder secret", "finder") as console:
            assert ("app", "finder") in [(row["database"], row["user"]) for row in console.rows("SHOW POOLS")]

    def test_hostile_user_name_is_only_a_parameter(self, make_pooler, table):
        pooler = make_pooler(settings=self.SETTINGS, userlist=self.USERS)
        with pytest.raises(WireError):
            pooler.wire(f"x'; DROP TABLE {table}; --", password="x")
        assert pooler.wire("scram_user", password="scram secret").value(f"SELECT count(*) FROM {table}") == "0"


class TestHba:
    def make(self, make_pooler, text, **options):
        pooler = make_pooler(start=False, databases={"app": "dbname=app user=bob", "other": "dbname=other user=bob"},
                             userlist={"user1": PASSWORD, "user2": PASSWORD},
                             settings={"auth_type": "hba", **options})
        pooler.settings["auth_hba_file"] = pooler.home / "hba"
        (pooler.home / "hba").write_text(text + "\nhost pgbouncer admin 127.0.0.1/32 trust\n")
        return pooler.start()

    @pytest.mark.smoke
    def test_first_matching_rule_decides(self, make_pooler):
        pooler = self.make(make_pooler, "# rules\nhost app user1 127.0.0.1/32 scram-sha-256\n"
                                        "host app user2 127.0.0.0 255.255.255.0 md5\nhost other all all reject")
        assert pooler.wire("user1", password=PASSWORD).authentication == [10, 11, 12, 0]
        assert pooler.wire("user2", password=PASSWORD).authentication == [5, 0]
        refused(lambda: pooler.wire("user1", "other", PASSWORD), "login rejected")

    @pytest.mark.pgweir
    def test_no_matching_rule(self, make_pooler):
        pooler = self.make(make_pooler, "host app user2 127.0.0.1/32 trust\nhost all all 10.0.0.0/8 trust\n"
                                        "local all all trust\nhostssl all all 127.0.0.1/32 trust")
        refused(lambda: pooler.wire("user1", password=PASSWORD), "no authentication method is found")

    def test_unparsable_lines_are_skipped(self, make_pooler):
        pooler = self.make(make_pooler, "host all all 127.0.0.1/32 gss\nhost all all example.org trust\n"
                                        "host all user1 127.0.0.1/32 password")
        assert pooler.wire("user1", password=PASSWORD).authentication == [3, 0]

    def test_local_rules_match_unix_sockets(self, make_pooler):
        pooler = self.make(make_pooler, "local app user1 trust")
        client = Wire(pooler.port, path=pooler.home)
        client.login("user1", "app")
        assert client.value("SELECT 1") == "1"

    def test_peer_is_asked_of_the_kernel(self, make_pooler):
        pooler = self.make(make_pooler, "local app user1 peer map=owners\nlocal app user2 peer",
                           auth_ident_file="")
        client = Wire(pooler.port, path=pooler.home)
        client.send(wire.startup_packet({"user": "user2", "database": "app"}))
        client.expect_fatal("unix socket login rejected")

    @pytest.mark.pgweir
    def test_rules_change_with_a_reload_as_a_whole(self, make_pooler):
        pooler = self.make(make_pooler, "host app user1 127.0.0.1/32 trust\nhost all admin 127.0.0.1/32 trust")
        assert pooler.wire("user1").authentication == [0]
        hba = pooler.home / "hba"
        with pooler.console() as console:
            hba.write_text("host app user1 127.0.0.1/32 password\nhost all admin 127.0.0.1/32 trust\n")
            assert console.query("RELOAD").errors == []
            assert pooler.wire("user1", password=PASSWORD).authentication == [3, 0]
            hba.write_text("host app user1 127.0.0.1/32 trust\nhost all admin 127.0.0.1/33 trust\n")
            assert console.query("RELOAD").errors != []
            assert pooler.wire("user1", password=PASSWORD).authentication == [3, 0]
        assert f"{hba}:2:" in pooler.log()


class TestClientTls:
    @pytest.fixture
    def tls(self, make_pooler, authority):
        cert, key = authority.issue("pooler", "localhost")

        def make(sslmode, **settings):
            return make_pooler(settings={"client_tls_sslmode": sslmode, "client_tls_cert_file": cert,
                                         "client_tls_key_file": key, "client_tls_ca_file": authority.cert, **settings},
                               databases={"app": "dbname=app user=bob"}, userlist={"user1": PASSWORD})
        return make

    def context(self, authority, certificate=None):
        context = ssl.create_default_context(cafile=str(authority.cert))
        if certificate:
            context.load_cert_chain(*map(str, certificate))
        return context

    @pytest.mark.smoke
    @pytest.mark.parametrize("sslmode", ["allow", "prefer", "require"])
    def test_encrypted_login(self, tls, authority, sslmode):
        pooler = tls(sslmode)
        client = Wire(pooler.port).start_tls(self.context(authority))
        client.login("user1", "app")
        assert client.value("SELECT repeat('tls', 100000)") == "tls" * 100000
        if sslmode != "require":
            (row,) = pooler.clients()
            assert row["tls"].startswith("TLSv1.3/")

    @pytest.mark.parametrize("sslmode", ["allow", "prefer"])
    def test_plain_login_where_tls_is_optional(self, tls, sslmode):
        assert tls(sslmode).wire("user1").value("SELECT 1") == "1"

    @pytest.mark.smoke
    def test_plain_login_where_tls_is_required(self, tls):
        refused(lambda: tls("require").wire("user1"), "SSL required")

    def test_unix_sockets_are_exempt_from_required_tls(self, tls):
        pooler = tls("require")
        client = Wire(pooler.port, path=pooler.home)
        client.send(wire.request_packet(wire.SSL_REQUEST))
        assert client.read_bytes(1) == b"N"
        client.login("user1", "app")

    def test_psycopg_verifies_the_poolers_certificate(self, tls, authority):
        pooler = tls("require")
        with psycopg.connect(**pooler.dsn("user1", host="localhost", sslmode="verify-full",
                                          sslrootcert=str(authority.cert)) | {"host": "localhost"}) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)

    def test_verify_ca_demands_a_client_certificate(self, tls, authority):
        pooler = tls("verify-ca")
        with pytest.raises((ssl.SSLError, wire.Closed, ConnectionError)):
            Wire(pooler.port).start_tls(self.context(authority)).login("user1", "app")
        client = Wire(pooler.port).start_tls(self.context(authority, authority.issue("any", "anybody")))
        client.login("user1", "app")

    @pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
    def test_both_current_tls_versions(self, tls, authority, version):
        context = self.context(authority)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        client = Wire(tls("require").port).start_tls(context)
        client.login("user1", "app")
        assert client.socket.version() == version.replace("_", ".")

    def test_excluded_tls_version_is_refused(self, tls, authority):
        pooler = tls("require", client_tls_protocols="tlsv1.3")
        context = self.context(authority)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            Wire(pooler.port).start_tls(context)

    @pytest.mark.pgweir
    @pytest.mark.smoke
    def test_direct_tls_with_alpn(self, tls, authority):
        context = self.context(authority)
        context.set_alpn_protocols(["postgresql"])
        client = Wire(tls("require").port).start_tls(context, direct=True)
        assert client.socket.selected_alpn_protocol() == "postgresql"
        client.login("user1", "app")
        assert client.value("SELECT 1") == "1"

    @pytest.mark.pgweir
    def test_direct_tls_for_another_protocol_is_refused(self, tls, authority):
        context = self.context(authority)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with pytest.raises((ssl.SSLError, ConnectionError)):
            Wire(tls("require").port).start_tls(context, direct=True)

    @pytest.mark.pgweir
    def test_direct_tls_by_libpq(self, tls, authority):
        pooler = tls("require")
        with psycopg.connect(**pooler.dsn("user1", sslmode="require", sslnegotiation="direct")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)

    @pytest.mark.pgweir
    def test_channel_binding(self, tls):
        pooler = tls("require", auth_type="scram-sha-256")
        with psycopg.connect(**pooler.dsn("user1", password=PASSWORD, sslmode="require",
                                          channel_binding="require")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)

    @pytest.mark.pgweir
    def test_ssl_request_within_tls_closes_silently(self, tls, authority):
        client = Wire(tls("require").port).start_tls(self.context(authority))
        client.send(wire.request_packet(wire.SSL_REQUEST))
        assert client.expect_closed() == []

    @pytest.mark.pgweir
    def test_plaintext_behind_the_ssl_request_is_not_taken_for_encrypted_data(self, tls):
        client = Wire(tls("require").port)
        client.send(wire.request_packet(wire.SSL_REQUEST), wire.startup_packet({"user": "user1", "database": "app"}))
        assert client.read_bytes(1) == b"E"
        length = int.from_bytes(client.read_bytes(4), "big")
        assert b"received unencrypted data after SSL request" in client.read_bytes(length - 4)

    @pytest.mark.pgweir
    def test_broken_handshake_costs_only_its_connection(self, tls, authority):
        pooler = tls("prefer")
        client = Wire(pooler.port)
        client.send(wire.request_packet(wire.SSL_REQUEST))
        assert client.read_bytes(1) == b"S"
        client.send(b"this is not a client hello, is it?")
        with pytest.raises(wire.Closed):
            while True:
                client.read_bytes(1)
        assert pooler.wire("user1").value("SELECT 1") == "1"

    def test_new_certificate_is_used_after_reload(self, tls, authority, make_pooler):
        pooler = tls("prefer")
        before = Wire(pooler.port).start_tls(self.context(authority))
        before.login("user1", "app")
        old = before.socket.getpeercert()["serialNumber"]
        authority.issue("pooler", "localhost")
        pooler.admin("RELOAD")

        def serial():
            return Wire(pooler.port).start_tls(self.context(authority)).socket.getpeercert()["serialNumber"]

        wait_until(lambda: serial() != old, what="the new certificate is shown")
        assert before.value("SELECT 'still open'") == "still open"

    @pytest.mark.pgweir
    def test_cancel_over_tls(self, tls, authority):
        pooler = tls("prefer")
        client = Wire(pooler.port).start_tls(self.context(authority))
        client.login("user1", "app")
        client.send(query("SELECT pg_sleep(30)"))
        wait_until(lambda: pooler.cluster.backends(usename="bob", wait_event="PgSleep"), what="the query runs")
        canceller = Wire(pooler.port).start_tls(self.context(authority))
        canceller.send(wire.request_packet(wire.CANCEL_REQUEST, client.key))
        assert canceller.expect_closed() == []
        assert client.collect().error["C"] == "57014"


class TestServerTls:
    IN_TLS = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"

    @pytest.mark.parametrize("sslmode,encrypted", [("disable", "f"), ("prefer", "t"), ("require", "t")])
    def test_sslmode_decides_about_encryption(self, make_pooler, sslmode, encrypted):
        pooler = make_pooler(settings={"server_tls_sslmode": sslmode})
        assert pooler.wire().value(self.IN_TLS) == encrypted

    @pytest.mark.parametrize("sslmode", ["verify-ca", "verify-full"])
    @pytest.mark.smoke
    def test_trusted_certificate_is_accepted(self, make_pooler, authority, cluster, sslmode):
        pooler = make_pooler(settings={"server_tls_sslmode": sslmode, "server_tls_ca_file": authority.cert},
                             databases={"app": f"host=localhost port={cluster.port} dbname=app"})
        client = pooler.wire()
        assert client.value(self.IN_TLS) == "t"
        assert client.value("SELECT md5(repeat('x', 1000000))") == hashlib.md5(b"x" * 1000000).hexdigest()

    @pytest.fixture(scope="class")
    def stranger(self, base):
        return Authority(make_dir(base, "ca"), "another root")

    @pytest.mark.parametrize("sslmode", ["verify-ca", "verify-full"])
    def test_certificate_of_a_stranger_is_refused(self, make_pooler, stranger, sslmode):
        pooler = make_pooler(settings={"server_tls_sslmode": sslmode, "server_tls_ca_file": stranger.cert,
                                       "client_login_timeout": 1})
        with pytest.raises(WireError):
            pooler.wire()

    @pytest.mark.pgweir
    def test_user_that_must_use_tls(self, make_pooler):
        databases = {"app": "dbname=app user=tls_user password='tls secret'"}
        assert make_pooler(databases=databases).wire().value("SELECT current_user") == "tls_user"
        with pytest.raises(WireError) as failure:
            make_pooler(settings={"server_tls_sslmode": "disable"}, databases=databases).wire()
        assert failure.value.code == "28000"

    def test_large_traffic_through_tls_on_both_sides(self, make_pooler, authority, table):
        cert, key = authority.issue("both", "localhost")
        pooler = make_pooler(settings={"server_tls_sslmode": "require", "client_tls_sslmode": "require",
                                       "client_tls_cert_file": cert, "client_tls_key_file": key})
        client = Wire(pooler.port, timeout=30).start_tls(ssl.create_default_context(cafile=str(authority.cert)))
        client.login("postgres", "app")
        client.send(query(f"COPY {table} FROM STDIN"))
        client.read_type("G")
        client.send(*[wire.copy_data(f"{n}\t{'t' * 100}\n".encode()) for n in range(50000)], wire.COPY_DONE)
        assert client.collect().tags == ["COPY 50000"]
        assert len(client.query(f"SELECT * FROM {table}").rows) == 50000


class TestConsoleLogin:
    def test_only_listed_users_may_use_the_console(self, make_pooler):
        pooler = make_pooler()
        refused(lambda: pooler.wire("alice", "pgbouncer"), "not allowed")

    def test_permission_is_checked_before_the_password(self, make_pooler):
        pooler = make_pooler(settings={"auth_type": "md5"}, userlist={"alice": PASSWORD})
        client = Wire(pooler.port)
        refused(lambda: client.login("alice", "pgbouncer", "wrong"), "not allowed")
        assert client.authentication == []

    def test_owner_of_the_process_is_admin_on_the_unix_socket(self, make_pooler):
        pooler = make_pooler()
        shown = subprocess.run(["psql", "-h", str(pooler.home), "-p", str(pooler.port), "-U", "pgbouncer", "-At", "-d",
                                "pgbouncer", "-c", "SHOW VERSION"], capture_output=True, text=True, timeout=20,
                               check=True, env={"PATH": os.environ["PATH"]}, cwd="/", **as_run_user())
        assert shown.stdout.strip()
