"""auth_type = ldap and the method ldap of HBA rules, with a real directory server and with one that takes its time."""

import os
import resource
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

import directory
import harness
from bystander import Bystander, Footprint
from directory import BASE, PASSWORDS, SEARCHER, SEARCHER_PASSWORD, SlowDirectory
from harness import wait_until, write_file
from test_auth import psql_and_psycopg_log_in, refused
from wire import Closed, Wire, WireError, cstring, message, startup_packet

needs_slapd = pytest.mark.skipif(not directory.INSTALLED, reason="slapd is not installed")
pytestmark = pytest.mark.pgweir

NO = "LDAP authentication failed"


@pytest.fixture(scope="module")
def slapd(base, authority):
    one = directory.Slapd(base, authority.issue("slapd", "localhost"))
    yield one
    one.stop()


@pytest.fixture
def slow():
    one = SlowDirectory()
    yield one
    one.close()


@pytest.fixture
def many_files():
    """Lets this process hold some thousand sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4000:
        pytest.skip("too few files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def binding(server):
    return f'ldapserver=127.0.0.1 ldapport={server.port} ldapprefix="uid=" ldapsuffix=",ou=people,{BASE}"'


def searching(server, more=""):
    return (f'ldapserver=127.0.0.1 ldapport={server.port} ldapbasedn="{BASE}" ldapbinddn="{SEARCHER}" '
            f'ldapbindpasswd="{SEARCHER_PASSWORD}" {more}')


def pooler_with(make_pooler, options, *, settings=None, **more):
    """Only what the directory says counts: the names of auth_file are not those of the tests."""
    settings = {"auth_type": "ldap", "auth_ldap_options": options, **(settings or {})}
    return make_pooler(settings=settings, databases={"app": "dbname=app user=bob", "own": "dbname=app"}, **more)


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start_login(pooler, user, password="any"):
    client = Wire(pooler.port)
    client.send(startup_packet({"user": user, "database": "app"}))
    assert client.read_type("R").body == b"\0\0\0\3"
    client.send(message("p", cstring(password)))
    return client


@needs_slapd
class TestSlapd:
    @pytest.mark.smoke
    def test_bind_with_the_name_of_the_user(self, make_pooler, slapd):
        pooler = pooler_with(make_pooler, binding(slapd))
        client = pooler.wire("alice", password=PASSWORDS["alice"])
        assert client.authentication == [3, 0]
        assert client.value("SELECT current_user") == "bob"
        refused(lambda: pooler.wire("alice", password="wrong"), NO)
        refused(lambda: pooler.wire("nobody_knows", password="wrong"), NO)
        refused(lambda: pooler.wire("alice", password=""), "empty password returned by client")
        assert "Invalid credentials" in pooler.log()
        assert PASSWORDS["alice"] not in pooler.log()

    @pytest.mark.parametrize("options", [
        lambda server: searching(server),
        lambda server: searching(server, "ldapsearchattribute=cn"),
        lambda server: searching(server, "ldapsearchfilter=(|(mail=$username@example.net)(uid=$username))"),
        lambda server: f'ldapurl="ldap://127.0.0.1:{server.port}/{BASE}?uid?sub" ldapbinddn="{SEARCHER}" '
                       f'ldapbindpasswd="{SEARCHER_PASSWORD}"',
        lambda server: f'ldapurl="ldap://127.0.0.1:{server.port}/ou=people,{BASE}??one?(uid=$username)" '
                       f'ldapbinddn="{SEARCHER}" ldapbindpasswd="{SEARCHER_PASSWORD}"',
    ], ids=["uid", "attribute", "filter", "url", "url with filter"])
    def test_search_and_bind(self, make_pooler, slapd, options):
        pooler = pooler_with(make_pooler, options(slapd))
        assert pooler.wire("alice", password=PASSWORDS["alice"]).value("SELECT current_user") == "bob"
        refused(lambda: pooler.wire("alice", password="wrong"), NO)
        refused(lambda: pooler.wire("nobody_knows", password="wrong"), NO)

    def test_a_name_for_two_is_nobody(self, make_pooler, slapd):
        pooler = pooler_with(make_pooler, searching(slapd, "ldapsearchattribute=employeeType"))
        refused(lambda: pooler.wire("twin", password="twin secret"), NO)
        assert "more than one entry" in pooler.log()

    @pytest.mark.parametrize("form", [binding, searching])
    def test_no_name_is_more_than_a_name(self, make_pooler, slapd, form):
        pooler = pooler_with(make_pooler, form(slapd))
        for name in ("*", "ali*", "alice)(cn=*", "alice,ou=people", "x)(|(uid=alice", "alice\\2a", "#alice", "alice+cn=alice"):
            refused(lambda: pooler.wire(name, password=PASSWORDS["alice"]), NO)
        assert pooler.wire("odd, name+x", password="odd secret").value("SELECT 1") == "1"

    def test_a_searcher_who_is_refused(self, make_pooler, slapd):
        pooler = pooler_with(make_pooler, searching(slapd).replace(SEARCHER_PASSWORD, "changed"))
        refused(lambda: pooler.wire("alice", password=PASSWORDS["alice"]), NO)
        assert f'bind as "{SEARCHER}": Invalid credentials' in pooler.log()

    def test_the_second_server_of_a_list(self, make_pooler, slapd):
        pooler = pooler_with(make_pooler, binding(slapd).replace("ldapserver=127.0.0.1", '"ldapserver=127.0.0.9 127.0.0.1"'))
        assert pooler.wire("alice", password=PASSWORDS["alice"]).value("SELECT 1") == "1"

    @pytest.mark.parametrize("way", ["StartTLS", "ldaps"])
    def test_encrypted(self, make_pooler, slapd, authority, monkeypatch, way):
        options = binding(slapd) + " ldaptls=1"
        if way == "ldaps":
            options = binding(slapd).replace(str(slapd.port), str(slapd.tls_port)) + " ldapscheme=ldaps"
        untrusting = pooler_with(make_pooler, options)
        refused(lambda: untrusting.wire("alice", password=PASSWORDS["alice"]), NO)
        monkeypatch.setenv("LDAPTLS_CACERT", str(authority.cert))
        trusting = pooler_with(make_pooler, options)
        assert trusting.wire("alice", password=PASSWORDS["alice"]).value("SELECT 1") == "1"
        refused(lambda: trusting.wire("alice", password="wrong"), NO)

    def test_the_server_of_ldap_conf(self, make_pooler, slapd, monkeypatch):
        monkeypatch.setenv("LDAPURI", f"ldap://127.0.0.1:{slapd.port}")
        pooler = pooler_with(make_pooler, f'ldapprefix="uid=" ldapsuffix=",ou=people,{BASE}"')
        assert pooler.wire("alice", password=PASSWORDS["alice"]).value("SELECT 1") == "1"
        refused(lambda: pooler.wire("alice", password="wrong"), NO)
        assert "the server of ldap.conf" in pooler.log()

    @pytest.mark.parametrize("user", ["scram_user", "plain_user"])
    def test_the_password_is_good_for_the_server_too(self, make_pooler, slapd, user):
        pooler = pooler_with(make_pooler, binding(slapd), userlist={user: "an old one"})
        refused(lambda: pooler.wire(user, "own", "wrong"), NO)
        assert pooler.wire(user, "own", PASSWORDS[user]).value("SELECT current_user") == user

    def test_console(self, make_pooler, slapd):
        pooler = pooler_with(make_pooler, binding(slapd))
        assert pooler.console_login(PASSWORDS["admin"]).rows("SHOW VERSION")
        refused(lambda: pooler.console_login("wrong"), NO)
        refused(lambda: pooler.console_login(PASSWORDS["alice"], "alice"), "not allowed")

    def test_rules(self, make_pooler, slapd):
        pooler = pooler_with(make_pooler, binding(slapd), start=False, userlist={"user1": "pw"},
                             settings={"auth_type": "hba", "auth_user": "finder"})
        pooler.settings["auth_hba_file"] = write_file(
            pooler.home / "hba", f"host app user1 all md5\nhost app alice all ldap {searching(slapd)}\n"
                                 "host own all all ldap\n")
        pooler.start()
        assert pooler.wire("user1", password="pw").value("SELECT 1") == "1"
        assert pooler.wire("alice", password=PASSWORDS["alice"]).value("SELECT 1") == "1"
        refused(lambda: pooler.wire("alice", password="wrong"), NO)
        assert pooler.wire("scram_user", "own", PASSWORDS["scram_user"]).value("SELECT current_user") == "scram_user"

    def test_psycopg_and_psql(self, make_pooler, slapd, cluster):
        pooler = pooler_with(make_pooler, binding(slapd))
        psql_and_psycopg_log_in(pooler, cluster, "alice", PASSWORDS["alice"], "bob", NO)

    def test_auth_user_excludes_it(self, make_pooler, slapd):
        pooler = pooler_with(make_pooler, binding(slapd), settings={"auth_user": "finder"})
        with pytest.raises(WireError) as failure:
            pooler.wire("alice", password=PASSWORDS["alice"])
        assert failure.value.text == "bouncer config error"


class TestTakesItsTime:
    @pytest.mark.smoke
    def test_fifty_logins_disturb_nobody(self, make_pooler, slow):
        pooler = pooler_with(make_pooler, binding(slow))
        slow.release()
        console = pooler.console_login("any")

        def waiting():
            return {row["list"]: int(row["items"]) for row in console.rows("SHOW LISTS")}["login_clients"]

        with Bystander(pooler, lambda: pooler.wire("calm", password="any"), slowest=2.0) as bystander, \
                ThreadPoolExecutor(50) as threads:
            slow.hold()
            asked = len(slow.binds)
            logins = [threads.submit(pooler.wire, f"user{n}", password="any", timeout=30) for n in range(50)]
            wait_until(lambda: waiting() == 50, 10, "fifty clients wait")
            wait_until(lambda: len(slow.binds) == asked + 4, what="four of them are being asked about")
            bystander.goes_on(50)
            assert len(slow.binds) == asked + 4
            slow.release()
            for n, login in enumerate(logins):
                assert login.result().value(f"SELECT {n}") == str(n)

    def test_a_client_that_leaves_is_not_asked_about(self, make_pooler, slow):
        pooler = pooler_with(make_pooler, binding(slow), settings={"auth_type": "hba"}, start=False)
        pooler.settings["auth_hba_file"] = write_file(pooler.home / "hba", "host pgbouncer all all trust\nhost all all all ldap\n")
        pooler.start()
        footprint = Footprint(pooler)
        clients = [start_login(pooler, f"user{n}") for n in range(4)]
        wait_until(lambda: len(slow.binds) == 4, what="four are being asked about")  # who is first is up to the workers
        clients += [start_login(pooler, f"user{n}") for n in range(4, 10)]
        clients[0].close()
        for client in clients[4:]:
            client.abort()
        wait_until(lambda: pooler.log().count("closing because: ") >= 7, what="those who left are noticed")
        slow.release()
        for client in clients[1:4]:
            client.finish_login("user")
            assert client.value("SELECT 1") == "1"
            client.close()
        footprint.returns()
        assert sorted(slow.binds) == sorted(f"uid=user{n},ou=people,{BASE}" for n in range(4))

    @pytest.mark.heavy
    def test_a_full_queue_refuses_at_once(self, make_pooler, slow, many_files):
        pooler = pooler_with(make_pooler, binding(slow), settings={"max_client_conn": 1300})
        slow.release()
        with Bystander(pooler, lambda: pooler.wire("calm", password="any"), slowest=2.0) as bystander:
            slow.hold()
            clients = []
            refusal = "too many passwords wait to be checked"
            while refusal not in pooler.log() and len(clients) < 1200:
                clients += [start_login(pooler, f"user{len(clients) + n}") for n in range(20)]
            assert 1000 < len(clients) < 1200
            bystander.goes_on()
            clients[-1].expect_fatal("bouncer resources exhaustion", "08P01")
            slow.release()
            for n in (0, 500, 999):
                clients[n].finish_login("user")
                assert clients[n].value("SELECT 1") == "1"

    def test_a_reload_meanwhile(self, make_pooler, slow):
        pooler = pooler_with(make_pooler, binding(slow), settings={"auth_type": "hba"}, start=False)
        hba = pooler.home / "hba"
        pooler.settings["auth_hba_file"] = write_file(hba, "host pgbouncer all all trust\nhost all all all ldap\n")
        pooler.start()
        console = pooler.console()
        client, queued = start_login(pooler, "alice"), [start_login(pooler, f"user{n}") for n in range(5)]
        wait_until(lambda: len(slow.binds) == 4, what="they are being asked about")
        write_file(hba, "host pgbouncer all all trust\nhost all all all reject\n")
        console.rows("RELOAD")
        refused(lambda: pooler.wire("alice", password="any"), "login rejected")
        slow.release()
        for one in (client, *queued):
            one.finish_login("user")
            assert one.value("SELECT 1") == "1"

    def test_client_login_timeout_counts(self, make_pooler, slow):
        pooler = pooler_with(make_pooler, binding(slow), settings={"client_login_timeout": 1})
        client = start_login(pooler, "alice")
        client.expect_fatal("client_login_timeout", "08P01")

    def test_the_process_ends_meanwhile(self, make_pooler, slow):
        pooler = pooler_with(make_pooler, binding(slow))
        clients = [start_login(pooler, f"user{n}") for n in range(6)]
        wait_until(lambda: len(slow.binds) == 4, what="they are being asked about")
        pooler.stop()
        assert not pooler.pidfile.exists()
        for client in clients:
            with pytest.raises((Closed, WireError)):
                client.read_type("R")

    @pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
    def test_a_directory_that_never_answers_holds_no_thread_for_ever(self, make_pooler, scheme):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            pooler = pooler_with(make_pooler, f"ldapserver=127.0.0.1 ldapport={silent.getsockname()[1]} ldapprefix=x "
                                              f"ldapscheme={scheme}")
            before = processor_seconds(pooler.pid)
            refused(lambda: pooler.wire("alice", password="any", timeout=25), NO)
            assert processor_seconds(pooler.pid) - before < 2, "waiting costs next to nothing"

    def test_a_directory_that_is_not_there(self, make_pooler):
        pooler = pooler_with(make_pooler, f"ldapserver=127.0.0.1 ldapport={harness.free_port()} ldapprefix=x")
        refused(lambda: pooler.wire("alice", password="any"), NO)
        assert "Can't contact LDAP server" in pooler.log()


def test_without_options(make_pooler):
    pooler = pooler_with(make_pooler, None)
    refused(lambda: pooler.wire("alice", password="any"), "auth_ldap_options is null")
    assert "lets nobody in" in pooler.log()
