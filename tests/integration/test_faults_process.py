"""The surroundings fail: files for a reload, the disk of the log, descriptors. The process serves on and says so."""

import contextlib
import os
import re
import resource
import signal
import socket
import time

import pytest

import harness
import wire
from bystander import Bystander, Footprint
from harness import PATIENCE, run, wait_until, write_file
from wire import Wire, query

REFUSED = "config file loading failed, the running configuration stays in force"


def state(console):
    """What a reload could have changed."""
    return ([console.rows(f"SHOW {what}") for what in ("CONFIG", "USERS")],
            [{key: row[key] for key in ("name", "host", "port", "database", "pool_size", "pool_mode")}
             for row in console.rows("SHOW DATABASES")])


class Reloaded:
    """A pooler with users that need passwords, and what it answers to reloads of spoiled files."""

    def __init__(self, pooler):
        self.pooler = pooler
        self.console = pooler.console_login("admin secret")

    def refused(self, how, *names):
        """Reloads; nothing may change, and one ERROR line must name all of `names`."""
        before, logged = state(self.console), len(self.pooler.log())
        if how == "command":
            result = self.console.query("RELOAD")
            assert (result.error["C"], result.error["M"]) == ("F0000", "RELOAD failed, see logs for additional details")
        else:
            self.pooler.signal(signal.SIGHUP)
        wait_until(lambda: REFUSED in self.pooler.log()[logged:], what="the reload is refused in the log")
        errors = [line for line in self.pooler.log()[logged:].splitlines() if " ERROR " in line]
        assert [line for line in errors if all(str(name) in line for name in names)], (names, errors)
        assert state(self.console) == before
        with self.pooler.wire("alice", password="alice secret") as client:
            assert client.value("SELECT current_user") == "alice"

    def accepted(self):
        """The files in order again: a reload works."""
        self.pooler.settings["query_wait_timeout"] = 29
        self.pooler.write_config()
        assert self.console.query("RELOAD").tags == ["RELOAD"]
        config = {row["key"]: row["value"] for row in self.console.rows("SHOW CONFIG")}
        assert config["query_wait_timeout"] == "29"


def descriptors(pooler):
    return len(os.listdir(f"/proc/{pooler.pid}/fd"))


def line_of(text, start):
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(start))


class TestReload:
    @pytest.fixture
    def reloaded(self, make_pooler):
        pooler = make_pooler(settings={"auth_type": "md5"},
                             userlist={"admin": "admin secret", "alice": "alice secret", "postgres": "known"})
        with Bystander(pooler, lambda: pooler.wire(password="known")):
            one = Reloaded(pooler)
            yield one
            one.accepted()

    @pytest.mark.smoke
    @pytest.mark.parametrize("how", ["command", "signal"])
    def test_missing_file(self, reloaded, how):
        ini = reloaded.pooler.ini
        ini.rename(ini.with_suffix(".away"))
        reloaded.refused(how, ini, "No such file or directory")

    def test_unreadable_file(self, reloaded):
        reloaded.pooler.ini.chmod(0)
        reloaded.refused("command", reloaded.pooler.ini, "Permission denied")
        reloaded.pooler.ini.chmod(0o644)

    def test_folder_in_place_of_the_file(self, reloaded):
        ini = reloaded.pooler.ini
        ini.unlink()
        ini.mkdir()
        try:
            reloaded.refused("command", ini)
        finally:
            ini.rmdir()

    def test_empty_file(self, reloaded):
        write_file(reloaded.pooler.ini, "")
        reloaded.refused("command", reloaded.pooler.ini, "[pgbouncer]")

    @pytest.mark.parametrize("end", ["[datab", "[databases]\n", "app = host=127.0.0.1 port=", "[pgbounc", "\nauth_ty",
                                     "\nlisten_addr"])
    def test_half_written_file(self, reloaded, end):
        """Cut off within a section header, before the settings, within a value, or within a key."""
        pooler = reloaded.pooler
        whole = pooler.ini_text()
        half = whole[:whole.index(end) + len(end)]
        write_file(pooler.ini, half)
        number = half.count("\n") + 1
        reloaded.refused("command", pooler.ini if half.endswith("\n") else f"{pooler.ini}:{number}")

    @pytest.mark.parametrize("key,value", [
        ("query_wait_timeout", "soon"), ("pool_mode", "sessio"), ("max_client_conn", "1e3"), ("no_such_key", "1"),
        ("auth_type", "md")])
    def test_bad_value_names_file_line_and_key(self, reloaded, key, value):
        pooler = reloaded.pooler
        pooler.databases["fresh"] = "dbname=other"
        settings = dict(pooler.settings)
        pooler.settings.update({key: value, "default_pool_size": 17})
        text = pooler.ini_text()
        pooler.write_config()
        reloaded.refused("command", f"{pooler.ini}:{line_of(text, key)}", key)
        pooler.settings = settings

    def test_all_mistakes_are_told_at_once(self, reloaded):
        pooler = reloaded.pooler
        text = pooler.ini_text().replace("log_stats = 0", "log_stats = maybe\nserver_lifetme = 5")
        write_file(pooler.ini, text)
        pooler.auth_file.unlink()
        reloaded.refused("signal", f"{pooler.ini}:{line_of(text, 'log_stats')}", "log_stats")
        assert f"{pooler.ini}:{line_of(text, 'server_lifetme')}" in pooler.log()
        assert f"could not open auth_file {pooler.auth_file}" in pooler.log()

    def test_missing_include(self, reloaded):
        pooler = reloaded.pooler
        text = pooler.ini_text() + f"%include {pooler.home}/more.ini\n"
        write_file(pooler.ini, text)
        reloaded.refused("command", f"{pooler.ini}:{line_of(text, '%include')}", f"{pooler.home}/more.ini",
                         "No such file or directory")

    def test_mistake_in_an_included_file(self, reloaded):
        pooler = reloaded.pooler
        more = write_file(pooler.home / "more.ini", "; more\nquery_timeout = x\n")
        write_file(pooler.ini, pooler.ini_text().replace("[pgbouncer]", f"[pgbouncer]\n%include {more}"))
        reloaded.refused("command", f"{more}:2", "query_timeout")

    @pytest.mark.parametrize("spoil", ["missing", "unreadable", "folder"])
    def test_userlist_that_cannot_be_read(self, reloaded, spoil):
        pooler = reloaded.pooler
        pooler.settings["default_pool_size"] = 17
        pooler.write_config()
        if spoil == "unreadable":
            pooler.auth_file.chmod(0)
        else:
            pooler.auth_file.unlink()
        if spoil == "folder":
            pooler.auth_file.mkdir()
        try:
            reloaded.refused("command", pooler.auth_file)
        finally:
            if spoil == "folder":
                pooler.auth_file.rmdir()
            pooler.settings["default_pool_size"] = 5

    @pytest.mark.parametrize("end", ['"alice', '"alice"', '"alice" "', '"alice" "ali'])
    def test_half_written_userlist(self, reloaded, end):
        pooler = reloaded.pooler
        whole = pooler.auth_file.read_text()
        half = whole[:whole.index(end) + len(end)]
        write_file(pooler.auth_file, half, 0o600)
        reloaded.refused("signal", f"{pooler.auth_file}:{half.count(chr(10)) + 1}")

    def test_half_written_certificate(self, make_pooler, authority):
        cert, key = authority.issue("halved", "localhost")
        pooler = make_pooler(settings={"client_tls_sslmode": "allow", "client_tls_cert_file": cert,
                                       "client_tls_key_file": key})
        whole = cert.read_text()
        with Bystander(pooler), pooler.console() as console:
            before = state(console)
            pooler.settings["default_pool_size"] = 17
            pooler.write_config()
            write_file(cert, whole[:len(whole) // 2])
            assert console.query("RELOAD").error["C"] == "F0000"
            assert re.search(rf"ERROR .*{re.escape(str(cert))}", pooler.log())
            assert state(console) == before
            write_file(cert, whole)
            assert console.query("RELOAD").tags == ["RELOAD"]


class TestLog:
    def serves(self, pooler):
        with Bystander(pooler):
            for _ in range(50):
                with pooler.wire() as client:
                    assert client.value("SELECT 1") == "1"
                stranger = Wire(pooler.port)
                stranger.send(b"GET / HTTP/1.1\r\n\r\n")
                stranger.expect_fatal()
            with pooler.console() as console:
                assert console.query("RELOAD").tags == ["RELOAD"]

    @pytest.mark.smoke
    def test_full_disk_from_the_start(self, make_pooler):
        pooler = make_pooler(settings={"logfile": "/dev/full"})
        self.serves(pooler)

    def test_disk_that_fills_up(self, make_pooler):
        pooler = make_pooler()
        footprint = Footprint(pooler)
        pooler.log_file.unlink()
        pooler.log_file.symlink_to("/dev/full")
        log_file, pooler.log_file = pooler.log_file, pooler.home / "log.after"
        pooler.signal(signal.SIGHUP)
        wait_until(lambda: os.stat(f"/proc/{pooler.pid}/fd/{self.descriptor(pooler, '/dev/full')}"),
                   what="the log goes to the full disk")
        self.serves(pooler)
        # Room again: the log goes on.
        log_file.unlink()
        pooler.log_file = log_file
        pooler.signal(signal.SIGHUP)
        wait_until(log_file.exists)
        self.serves(pooler)
        assert "pooler error: bad packet header: '47455420" in pooler.log()
        footprint.returns()

    @staticmethod
    def descriptor(pooler, target):
        def find():
            for number in os.listdir(f"/proc/{pooler.pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pooler.pid}/fd/{number}") == target:
                        return number
            return None
        return wait_until(find, what=f"{target} is open")

    def test_log_that_cannot_be_reopened(self, make_pooler):
        pooler = make_pooler(start=False)
        folder = harness.make_dir(pooler.home, "logs")
        pooler.settings["logfile"] = pooler.log_file = folder / "log"
        pooler.start()
        moved = folder.rename(folder.with_name("moved"))
        pooler.log_file = moved / "log"
        with pooler.console() as console:
            assert console.query("RELOAD").error["C"] == "F0000"
            assert f"could not open log file '{folder / 'log'}'" in pooler.log()
            with Bystander(pooler):
                assert console.query("SHOW VERSION").tags == ["SHOW"]

    def test_file_size_limit_does_not_end_the_process(self, make_pooler):
        pooler = make_pooler()
        size = pooler.log_file.stat().st_size
        run("prlimit", f"--pid={pooler.pid}", f"--fsize={size + 200}:")
        self.serves(pooler)
        assert pooler.process.poll() is None


class TestDescriptors:
    SPARE = 12

    @staticmethod
    def cpu_seconds(pid):
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def limit(self, pooler, spare):
        """Leaves the running process only so many descriptors more."""
        held = max(int(number) for number in os.listdir(f"/proc/{pooler.pid}/fd")) + 1
        free = held - descriptors(pooler)
        run("prlimit", f"--pid={pooler.pid}", f"--nofile={held + spare - free}:")

    def exhausted(self, pooler):
        return "accept() failed: Too many open files" in pooler.log()

    def fill(self, pooler, stack):
        """Connects until the pooler has no descriptor left; returns the connections."""
        held = []
        for _ in range(self.SPARE + 8):
            held.append(stack.enter_context(socket.create_connection(("127.0.0.1", pooler.port), 5 * PATIENCE)))
        wait_until(lambda: self.exhausted(pooler), what="the log says that no descriptor is left")
        return held

    @pytest.mark.smoke
    def test_clients_go_on_and_new_ones_come_in_later(self, make_pooler):
        pooler = make_pooler(settings={"client_login_timeout": 0})
        with Bystander(pooler) as other, contextlib.ExitStack() as stack:
            footprint = Footprint(pooler)
            self.limit(pooler, self.SPARE)
            held = self.fill(pooler, stack)
            other.goes_on()
            assert footprint.console.query("SHOW LISTS").tags == ["SHOW"]
            late = Wire(pooler.port, timeout=15)
            late.send(wire.startup_packet({"user": "postgres", "database": "app"}))
            assert late.quiet_for(0.3)
            for connection in held:
                connection.close()
            late.finish_login("postgres")
            assert late.value("SELECT 'late'") == "late"
            late.close()
            footprint.returns()
        with pooler.wire() as client:
            assert client.value("SELECT 'new'") == "new"

    def test_it_does_not_spin(self, make_pooler):
        pooler = make_pooler(settings={"client_login_timeout": 0})
        client = pooler.wire()
        client.value("SELECT 1")
        with contextlib.ExitStack() as stack:
            self.limit(pooler, self.SPARE)
            self.fill(pooler, stack)
            lines = pooler.log().count("accept() failed")
            began, used = time.monotonic(), self.cpu_seconds(pooler.pid)
            wait_until(lambda: time.monotonic() - began >= 2, 3)
            assert self.cpu_seconds(pooler.pid) - used < 0.1
            assert pooler.log().count("accept() failed") - lines <= 1
            assert client.value("SELECT 2") == "2"

    def test_server_connection_without_a_descriptor(self, make_pooler):
        pooler = make_pooler(settings={"client_login_timeout": 0, "server_login_retry": 1})
        with Bystander(pooler) as other, contextlib.ExitStack() as stack:
            client = pooler.wire(database="other", timeout=15)
            client.value("SELECT 1")
            with pooler.console() as console:
                console.query("RECONNECT other")
            wait_until(lambda: not pooler.servers("other"), what="the server is closed")
            before = descriptors(pooler)
            self.limit(pooler, self.SPARE)
            held = self.fill(pooler, stack)
            client.send(query("SELECT 'patient'"))
            line = re.compile(r"WARNING S.*: other/postgres@.*closing because: connect failed")
            wait_until(lambda: line.search(pooler.log()), what="the log says that the connect failed")
            other.goes_on()
            for connection in held:
                connection.close()
            assert client.collect().value() == "patient"
            client.close()
            wait_until(lambda: descriptors(pooler) <= before, what="the descriptors are given back")

    def test_limit_below_the_expected_use_is_told_at_the_start(self, make_pooler):
        pooler = make_pooler(start=False, settings={"max_client_conn": 5000})
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        try:
            pooler.start()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        line = re.compile(r"kernel file descriptor limit: (\d+) \(hard: (\d+)\); max_client_conn: 5000, "
                          r"max expected fd use: (\d+)")
        found = wait_until(lambda: line.search(pooler.log()), what="the line about the limit")
        # The soft limit is raised as far as it is needed and allowed.
        assert int(found[1]) >= min(int(found[3]), hard)
        assert int(found[2]) == hard
