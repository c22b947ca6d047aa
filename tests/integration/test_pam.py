"""auth_type = pam and the method pam of HBA rules, with the system's PAM: the service asks a script of the test."""

import os
import pathlib
import time

import pytest

from bystander import Bystander
from harness import free_port, make_dir, wait_until, write_file
from test_auth import psql_and_psycopg_log_in, refused
from wire import Wire, cstring, message, startup_packet

SERVICES = pathlib.Path("/etc/pam.d")
pytestmark = [pytest.mark.pgweir,
              pytest.mark.skipif(os.geteuid() != 0 or not SERVICES.is_dir() or
                                 not list(pathlib.Path("/").glob("lib*/**/security/pam_exec.so")),
                                 reason="a service of PAM needs root and pam_exec")]

NO = "PAM authentication failed"
PASSWORDS = {"alice": "wonder land", "scram_user": "scram secret", "admin": "root secret"}

# What it was told besides the password is noted; a user `stuck` waits until the test opens the pipe.
SCRIPT = """#!/bin/sh
password=$(cat)
echo "$PAM_SERVICE $PAM_USER ${{PAM_RHOST-none}}" >>{home}/asked
[ "$PAM_USER" != stuck ] || cat {home}/pipe >/dev/null
case "$PAM_USER:$password" in
{cases}
esac
exit 1
"""


class Service:
    """Files in /etc/pam.d that ask the script; what was there before comes back at the end."""

    def __init__(self, base):
        self.home = make_dir(base, "pam")
        cases = "\n".join(f"'{user}:{password}') exit 0;;" for user, password in PASSWORDS.items())
        self.script = write_file(self.home / "check", SCRIPT.format(home=self.home, cases=cases), 0o755)
        os.mkfifo(self.home / "pipe")
        os.chmod(self.home / "pipe", 0o666)
        self._before = {}

    def install(self, name, extra="", account="pam_permit.so"):
        file = SERVICES / name
        self._before.setdefault(file, file.read_bytes() if file.exists() else None)
        file.write_text(f"{extra}auth required pam_exec.so quiet expose_authtok {self.script}\naccount required {account}\n")

    def asked(self):
        file = self.home / "asked"
        return file.read_text().splitlines() if file.exists() else []

    def let_go(self):
        """Ends what waits at the pipe."""
        try:
            os.close(os.open(self.home / "pipe", os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            pass  # nobody waits

    def restore(self):
        self.let_go()
        for file, content in self._before.items():
            if content is None:
                file.unlink(missing_ok=True)
            else:
                file.write_bytes(content)


@pytest.fixture
def service(base):
    one = Service(base)
    one.install("pgbouncer")
    yield one
    one.restore()


def pooler_with(make_pooler, settings=None, **more):
    return make_pooler(settings={"auth_type": "pam", **(settings or {})},
                       databases={"app": "dbname=app user=bob", "own": "dbname=app"}, **more)


@pytest.mark.smoke
def test_a_password_that_is_right_and_others(make_pooler, service):
    pooler = pooler_with(make_pooler)
    client = pooler.wire("alice", password=PASSWORDS["alice"])
    assert client.authentication == [3, 0]
    assert client.value("SELECT current_user") == "bob"
    refused(lambda: pooler.wire("alice", password="wrong"), NO)
    refused(lambda: pooler.wire("bob", password="wrong"), NO)
    refused(lambda: pooler.wire("alice", password=""), "empty password returned by client")
    assert service.asked() == ["pgbouncer alice 127.0.0.1"] * 2 + ["pgbouncer bob 127.0.0.1"]
    assert "pam_authenticate: " in pooler.log()
    assert PASSWORDS["alice"] not in pooler.log()


def test_users_need_not_be_in_a_file(make_pooler, service):
    pooler = pooler_with(make_pooler, settings={"auth_file": None})
    assert pooler.wire("alice", password=PASSWORDS["alice"]).value("SELECT 1") == "1"


def test_an_account_that_is_closed(make_pooler, service):
    service.install("pgbouncer", account="pam_deny.so")
    pooler = pooler_with(make_pooler)
    refused(lambda: pooler.wire("alice", password=PASSWORDS["alice"]), NO)
    assert "pam_acct_mgmt: " in pooler.log()


def test_no_such_service(make_pooler, service):
    (SERVICES / "pgbouncer").unlink()
    service.install("other", account="pam_deny.so", extra="auth requisite pam_deny.so\n")
    pooler = pooler_with(make_pooler)
    refused(lambda: pooler.wire("alice", password=PASSWORDS["alice"]), NO)


def test_over_a_unix_socket_there_is_no_host(make_pooler, service):
    pooler = pooler_with(make_pooler)
    client = Wire(pooler.port, path=pooler.home)
    client.login("alice", "app", PASSWORDS["alice"])
    assert service.asked() == ["pgbouncer alice none"]


def test_the_password_is_good_for_the_server_too(make_pooler, service):
    pooler = pooler_with(make_pooler)
    assert pooler.wire("scram_user", "own", PASSWORDS["scram_user"]).value("SELECT current_user") == "scram_user"


def test_console(make_pooler, service):
    pooler = pooler_with(make_pooler)
    assert pooler.console_login(PASSWORDS["admin"]).rows("SHOW VERSION")
    refused(lambda: pooler.console_login("wrong"), NO)


def test_rules(make_pooler, service):
    name = f"pgweir_test_{free_port()}"
    service.install(name)
    pooler = pooler_with(make_pooler, start=False, settings={"auth_type": "hba"}, userlist={"user1": "pw"})
    pooler.settings["auth_hba_file"] = write_file(
        pooler.home / "hba", f"host app alice all pam pamservice={name} pam_use_hostname=1\nhost app user1 all md5\n"
                             "host own all all pam\n")
    pooler.start()
    assert pooler.wire("alice", password=PASSWORDS["alice"]).value("SELECT 1") == "1"
    assert pooler.wire("user1", password="pw").value("SELECT 1") == "1"
    assert pooler.wire("scram_user", "own", PASSWORDS["scram_user"]).value("SELECT 1") == "1"
    assert service.asked() == [f"{name} alice localhost", "pgbouncer scram_user 127.0.0.1"]


def test_psycopg_and_psql(make_pooler, service, cluster):
    pooler = pooler_with(make_pooler)
    psql_and_psycopg_log_in(pooler, cluster, "alice", PASSWORDS["alice"], "bob", NO)


def start_login(pooler, user, password="any"):
    client = Wire(pooler.port)
    client.send(startup_packet({"user": user, "database": "app"}))
    client.read_type("R")
    client.send(message("p", cstring(password)))
    return client


def test_the_pause_after_a_wrong_password_holds_up_nobody_else(make_pooler, service):
    # Each pause is half as long to half longer again.
    service.install("pgbouncer", extra="auth optional pam_faildelay.so delay=3000000\n")
    pooler = pooler_with(make_pooler)
    began = time.monotonic()
    wrong = [start_login(pooler, "alice", "wrong") for _ in range(8)]
    right = pooler.wire("alice", password=PASSWORDS["alice"])
    assert right.value("SELECT 1") == "1"
    assert all(not client.buffer and client.quiet_for(0.001) for client in wrong)
    for client in wrong:
        client.expect_fatal(NO, "08P01")
    assert time.monotonic() - began > 1.4


def test_a_module_that_hangs(make_pooler, service):
    pooler = pooler_with(make_pooler, settings={"client_login_timeout": 5})
    with Bystander(pooler, lambda: pooler.wire("alice", password=PASSWORDS["alice"]), slowest=2.0) as bystander:
        stuck = [start_login(pooler, "stuck") for _ in range(5)]
        wait_until(lambda: any("stuck" in line for line in service.asked()), what="one is being asked about")
        bystander.goes_on(50)
        for client in stuck:
            client.expect_fatal("client_login_timeout", "08P01")
        assert sum("stuck" in line for line in service.asked()) == 1
    # What is stuck keeps nobody from ending the process.
    pooler.stop()
    assert not pooler.pidfile.exists()
