"""The hosts behind a database, watched: roles, failures, catalogues, as the log tells them."""

import contextlib
import datetime
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

from certs import Authority
from fake_patroni import FakePatroni
from harness import PG15_BIN, as_run_user, free_port, make_dir, run, wait_until, write_file
from name_server import ADDRESS
from postgres import Cluster, Standby
from wire import Closed, WireError

pytestmark = pytest.mark.pgweir

# A probe every 100 ms: tests wait for several.
FAST = {"role_check_interval": "100ms", "role_check_timeout": "500ms", "role_check_user": "postgres"}


class Pair:
    """A primary and its standby, with means to change what they are."""

    def __init__(self, base, authority):
        self.primary = Cluster(base, PG15_BIN, authority)
        self.standby = Standby(base, self.primary)

    def entry(self, more="read_write_split=1"):
        return (f"host=127.0.0.1,127.0.0.1 port={self.primary.port},{self.standby.port} dbname=app {more}")

    def name(self, cluster):
        return f"127.0.0.1:{cluster.port}"

    def stop(self):
        for cluster in (self.standby, self.primary):
            cluster.stop("immediate")
            # There are many of them: left to the end of the session they would be more than one teardown can remove.
            shutil.rmtree(cluster.home, ignore_errors=True)


def processes_of(cluster):
    """The postmaster and all its children."""
    postmaster = int((cluster.data / "postmaster.pid").read_text().split()[0])
    children = pathlib.Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return [postmaster, *map(int, children)]


@contextlib.contextmanager
def stopped(cluster):
    """Nothing of the server answers, as if the network were cut."""
    pids = processes_of(cluster)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def pair(base, authority):
    """For tests that leave the roles as they are."""
    one = Pair(base, authority)
    yield one
    one.stop()


@pytest.fixture
def own_pair(base, authority):
    """For tests that do not."""
    one = Pair(base, authority)
    yield one
    one.stop()


def wait_log(pooler, text, seconds=10):
    wait_until(lambda: text in pooler.log(), seconds, f"{text!r} in the log:\n{pooler.log()}")


def watch(make_pooler, pair, *, entry=None, **options):
    options["pgweir"] = {**FAST, **options.get("pgweir", {})}
    return make_pooler(pair.primary, databases={"app": entry or pair.entry()}, **options)


def wait_roles(pooler, pair):
    wait_log(pooler, f"app: primary is {pair.name(pair.primary)} (timeline 1)")
    wait_log(pooler, f"app: {pair.name(pair.standby)}: reads on")


def probing(cluster):
    """Process ids of the monitor's connections that probe; those that read a catalogue come and go."""
    return [row[0] for row in cluster.ask("SELECT pid FROM pg_stat_activity WHERE application_name = 'pgweir monitor'"
                                          " AND query LIKE '%pg_stat_wal_receiver%'")]


def probe_of(cluster, user="postgres", but=None):
    """The process id of the one connection that probes, as soon as that is another one than `but`, and of this user."""
    def one():
        pids = probing(cluster)
        if len(pids) != 1 or pids[0] == but:
            return None
        found = cluster.ask("SELECT usename FROM pg_stat_activity WHERE pid = %s", pids[0])
        return pids[0] if found == [(user,)] else None
    return wait_until(one, 5, f"one connection of {user} that probes")


def wait_probes(cluster, pid):
    """Waits until the connection `pid` has probed again."""
    query = f"SELECT query_start FROM pg_stat_activity WHERE pid = {pid}"
    began = cluster.value(query)
    wait_until(lambda: cluster.value(query) > began, 5, "another probe")


def promote(cluster):
    run(PG15_BIN / "pg_ctl", "promote", "-D", cluster.data, "-w", "-t", "30")


def log_time(pooler, text):
    """Seconds since 1970 of the first line of the log with this text."""
    line = next(line for line in pooler.log().splitlines() if text in line)
    moment, zone = line[:23], line[24:27]
    assert zone == "UTC", line
    return datetime.datetime.strptime(moment, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=datetime.timezone.utc).timestamp()


class TestRoles:
    def test_primary_and_standby_are_told_once(self, make_pooler, pair):
        pooler = watch(make_pooler, pair)
        wait_roles(pooler, pair)
        for cluster in (pair.primary, pair.standby):
            pid = probe_of(cluster)
            wait_probes(cluster, pid)
            wait_probes(cluster, pid)
            assert probing(cluster) == [pid]
        assert len(re.findall(r"primary is|reads on|is up", pooler.log())) == 4
        assert "WARNING app" not in pooler.log()

    def test_promotion_and_the_old_primary_that_returns(self, make_pooler, own_pair):
        """With the default interval; the positions of the log are compared with the end of the promotion."""
        pair = own_pair
        pooler = watch(make_pooler, pair, pgweir={"role_check_interval": "500ms", "role_check_timeout": "1s"})
        wait_roles(pooler, pair)
        pair.primary.stop("immediate")
        wait_log(pooler, f"app: primary {pair.name(pair.primary)} is lost: ", 2)
        wait_log(pooler, f"app: {pair.name(pair.primary)} is down: ", 2)
        promote(pair.standby)
        promoted = time.time()
        wait_log(pooler, f"app: primary is {pair.name(pair.standby)} (timeline 2)", 5)
        assert log_time(pooler, "(timeline 2)") - promoted < 0.5
        pair.primary.start()
        wait_log(pooler, f"app: {pair.name(pair.primary)} is fenced: says primary on timeline 1, "
                         "but timeline 2 has taken writes")
        assert pooler.log().count("primary is") == 2

    def test_promotion_of_a_standby_whose_primary_lives(self, make_pooler, own_pair):
        pair = own_pair
        pooler = watch(make_pooler, pair)
        wait_roles(pooler, pair)
        promote(pair.standby)
        wait_log(pooler, f"app: primary is {pair.name(pair.standby)} (timeline 2)", 5)
        wait_log(pooler, f"app: {pair.name(pair.primary)} is fenced: says primary on timeline 1", 5)

    def test_a_host_of_another_cluster_is_fenced(self, make_pooler, pair, cluster):
        entry = (f"host=127.0.0.1,127.0.0.1,127.0.0.1 port={pair.primary.port},{pair.standby.port},{cluster.port} "
                 "dbname=app target_session_attrs=standby")
        pooler = watch(make_pooler, pair, entry=entry)
        wait_log(pooler, "says primary on timeline 1, and so do others: nobody takes writes")
        assert "primary is" not in pooler.log()


class TestFailures:
    def test_a_standby_that_stands_still(self, make_pooler, pair):
        pooler = watch(make_pooler, pair)
        wait_roles(pooler, pair)
        with stopped(pair.standby):
            wait_log(pooler, f"app: {pair.name(pair.standby)} is down: no answer within 500ms")
        wait_until(lambda: pooler.log().count(f"app: {pair.name(pair.standby)}: reads on") == 2, 10, "reads on again")
        assert pooler.log().count("is down") == 1

    def test_a_primary_that_stands_still(self, make_pooler, own_pair):
        pair = own_pair
        pooler = watch(make_pooler, pair)
        wait_roles(pooler, pair)
        with stopped(pair.primary):
            wait_log(pooler, f"app: primary {pair.name(pair.primary)} is lost: no answer within 500ms")
        wait_until(lambda: pooler.log().count("app: primary is") == 2, 10, "the primary again")

    def test_a_restart_is_noticed_at_once(self, make_pooler, own_pair):
        """Not after an interval of one hour: the probing connection breaks."""
        pair = own_pair
        pooler = watch(make_pooler, pair, pgweir={"role_check_interval": "1h"})
        wait_roles(pooler, pair)
        pair.standby.stop("fast")
        wait_log(pooler, f"app: {pair.name(pair.standby)} is down: ", 5)

    def test_a_probing_connection_that_is_killed_is_replaced(self, make_pooler, pair):
        pooler = watch(make_pooler, pair)
        wait_roles(pooler, pair)
        pid = None
        for _ in range(5):
            pid = probe_of(pair.standby, but=pid)
            pair.standby.ask(f"SELECT pg_terminate_backend({pid})")
        probe_of(pair.standby, but=pid)
        assert "is down" not in pooler.log()

    def test_no_connection_left_for_the_prober(self, make_pooler, own_pair):
        """The host is what it was: its clients are not to suffer for it."""
        pair = own_pair
        pooler = watch(make_pooler, pair, pgweir={"role_check_user": "alice"})
        wait_roles(pooler, pair)
        pair.primary.ask("ALTER ROLE alice CONNECTION LIMIT 0")
        pair.primary.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'alice'")
        refused = 'too many connections for role "alice"'
        wait_until(lambda: pair.primary.log.read_text().count(refused) >= 5, 10, "refused probes")
        assert "is down" not in pooler.log() and "is lost" not in pooler.log()
        pair.primary.ask("ALTER ROLE alice CONNECTION LIMIT -1")
        wait_until(lambda: probing(pair.primary), 10, "a probe")

    def test_nobody_listens_there(self, make_pooler, pair):
        port = free_port()
        pooler = watch(make_pooler, pair, entry=f"host=127.0.0.1 port={port} dbname=app read_write_split=1")
        wait_log(pooler, f"app: 127.0.0.1:{port} cannot be asked: ")
        assert "Connection refused" in pooler.log()
        wait_until(lambda: pooler.admin("SHOW VERSION"), 5, "an answer")
        assert pooler.log().count("cannot be asked") == 1

    @pytest.mark.skipif(os.geteuid() != 0, reason="port 53 needs root")
    def test_a_name_that_does_not_resolve(self, make_pooler, pair, names):
        """Others are watched all the same."""
        pooler = self.watch_by_name(make_pooler, pair)
        wait_log(pooler, f"app: db.example:{pair.standby.port} cannot be asked: DNS lookup failed: ")
        wait_log(pooler, f"app: primary is {pair.name(pair.primary)} (timeline 1)")
        names.addresses["db.example"] = ["127.0.0.1"]
        wait_log(pooler, f"app: db.example:{pair.standby.port}: reads on")

    @pytest.mark.skipif(os.geteuid() != 0, reason="port 53 needs root")
    def test_a_name_server_that_is_silent(self, make_pooler, pair, names):
        names.silent = True
        pooler = self.watch_by_name(make_pooler, pair)
        wait_log(pooler, f"app: db.example:{pair.standby.port} cannot be asked: no answer within 500ms")
        pid = probe_of(pair.primary)
        wait_probes(pair.primary, pid)
        pooler.signal(signal.SIGTERM)
        pooler.wait_exit(5)

    @pytest.mark.skipif(os.geteuid() != 0, reason="port 53 needs root")
    def test_a_name_that_moves_to_another_host(self, make_pooler, pair, names):
        """Noticed when a server connection has the name looked up again, as for the connections themselves."""
        names.addresses["db.example"] = ["127.0.0.1"]
        pooler = watch(make_pooler, pair, start=False,
                       entry=f"host=db.example port={pair.primary.port} dbname=app read_write_split=1")
        pooler.settings.update(resolv_conf=write_file(pooler.home / "resolv.conf", f"nameserver {ADDRESS}\n"),
                               dns_max_ttl=0, server_login_retry=0, query_wait_timeout=1)
        pooler.start()
        wait_log(pooler, f"app: primary is db.example:{pair.primary.port} (timeline 1)")
        assert pooler.wire().value("SELECT 1") == "1"
        names.addresses["db.example"] = ["127.0.0.2"]
        pooler.admin("RECONNECT")
        with pytest.raises((WireError, Closed)):  # in its login, or behind one that needed no server yet
            pooler.wire().value("SELECT 1")
        wait_log(pooler, f"app: primary db.example:{pair.primary.port} is lost: ")

    def watch_by_name(self, make_pooler, pair):
        entry = f"host=127.0.0.1,db.example port={pair.primary.port},{pair.standby.port} dbname=app read_write_split=1"
        pooler = watch(make_pooler, pair, entry=entry, start=False)
        pooler.settings["resolv_conf"] = write_file(pooler.home / "resolv.conf", f"nameserver {ADDRESS}\n")
        pooler.settings["dns_nxdomain_ttl"] = 0
        return pooler.start()


class TestLogin:
    def watch_as(self, make_pooler, pair, user, password=None, entry=None):
        userlist = {user: password} if password else None
        return watch(make_pooler, pair, entry=entry, pgweir={"role_check_user": user}, userlist=userlist)

    def test_a_password_of_auth_file(self, make_pooler, pair):
        wait_roles(self.watch_as(make_pooler, pair, "scram_user", "scram secret"), pair)

    def test_a_wrong_password_and_the_right_one(self, make_pooler, pair):
        pooler = self.watch_as(make_pooler, pair, "scram_user", "wrong")
        wait_log(pooler, 'password authentication failed for user "scram_user" (28P01)')
        pooler.userlist["scram_user"] = "scram secret"
        pooler.write_config()
        pooler.admin("RELOAD")
        wait_roles(pooler, pair)
        assert pooler.log().count("password authentication failed") == 2  # once for each host
        assert "wrong" not in pooler.log()

    def test_no_password_is_known(self, make_pooler, pair):
        pooler = self.watch_as(make_pooler, pair, "scram_user")
        wait_log(pooler, "no plain-text password of scram_user is known")

    def test_the_forced_user(self, make_pooler, pair):
        entry = pair.entry("read_write_split=1 user=plain_user password='plain secret'")
        pooler = watch(make_pooler, pair, entry=entry, pgweir={"role_check_user": None})
        wait_roles(pooler, pair)
        wait_until(lambda: pair.primary.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = "
                                              "'pgweir monitor' AND usename = 'plain_user'") >= 1, 5, "the user")

    def test_without_pg_monitor(self, make_pooler, pair):
        pooler = self.watch_as(make_pooler, pair, "alice")
        wait_roles(pooler, pair)
        wait_log(pooler, f"app: user alice is not a member of pg_monitor on {pair.name(pair.standby)}: ")
        assert pooler.log().count("pg_monitor") == 1

    def test_a_right_that_is_missing(self, make_pooler, own_pair):
        pair = own_pair
        pair.primary.ask("REVOKE CONNECT ON DATABASE app FROM PUBLIC")
        pair.standby.catch_up()
        pooler = self.watch_as(make_pooler, pair, "alice")
        wait_log(pooler, 'permission denied for database "app"; User does not have CONNECT privilege. (42501); user alice needs')
        pair.primary.ask("GRANT CONNECT ON DATABASE app TO alice")
        wait_log(pooler, f"app: primary is {pair.name(pair.primary)} (timeline 1)", 15)
        with pair.primary.connect("app") as connection:
            connection.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
        wait_log(pooler, "permission denied for function pg_control_system (42501); user alice needs CONNECT on database "
                         "app and EXECUTE on pg_control_system() and pg_control_checkpoint()", 15)
        with pair.primary.connect("app") as connection:
            connection.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO alice")
        wait_until(lambda: pooler.log().count("app: primary is") == 2, 15, f"the primary again:\n{pooler.log()}")

    def test_a_database_that_does_not_exist(self, make_pooler, pair):
        entry = pair.entry("read_write_split=1").replace("dbname=app", "dbname=nowhere")
        pooler = watch(make_pooler, pair, entry=entry)
        wait_log(pooler, 'database "nowhere" does not exist (3D000)')

    def test_no_user_is_refused(self, make_pooler, pair):
        pooler = watch(make_pooler, pair, pgweir={"role_check_user": None}, start=False)
        pooler.write_config()
        done = subprocess.run([pooler.binary, "--check", pooler.ini], capture_output=True, text=True, timeout=20,
                              check=False, **as_run_user())
        assert done.returncode == 1
        assert f"{pooler.ini}:2: app: read_write_split: expected role_check_user in [pgweir]" in done.stderr


class TestTransport:
    def test_a_unix_socket(self, make_pooler, pair):
        entry = f"host={pair.primary.home} port={pair.primary.port} dbname=app read_write_split=1 sslmode=verify-full"
        pooler = watch(make_pooler, pair, entry=entry)
        wait_log(pooler, f"app: primary is {pair.primary.home}:{pair.primary.port} (timeline 1)")

    def test_tls_with_a_verified_name(self, make_pooler, pair, authority):
        """The name is looked up by our own resolver, and checked by libpq."""
        entry = (f"host=localhost port={pair.primary.port} dbname=app read_write_split=1 sslmode=verify-full "
                 f"sslrootcert={authority.cert}")
        pooler = watch(make_pooler, pair, entry=entry)
        wait_log(pooler, f"app: primary is localhost:{pair.primary.port} (timeline 1)")
        pid = probe_of(pair.primary)
        assert pair.primary.value(f"SELECT ssl FROM pg_stat_ssl WHERE pid = {pid}")

    def test_tls_with_another_authority(self, make_pooler, pair, base):
        other = Authority(make_dir(base, "ca"))
        entry = (f"host=127.0.0.1 port={pair.primary.port} dbname=app read_write_split=1 sslmode=verify-ca "
                 f"sslrootcert={other.cert}")
        pooler = watch(make_pooler, pair, entry=entry)
        wait_log(pooler, f"app: 127.0.0.1:{pair.primary.port} cannot be asked: ")
        assert "certificate verify failed" in pooler.log()


class TestPatroni:
    @pytest.fixture
    def patroni(self):
        one = FakePatroni()
        yield one
        one.close()

    def test_what_it_says_has_the_hosts_asked_at_once(self, make_pooler, own_pair, patroni):
        pair = own_pair
        patroni.members = [patroni.member("a", pair.primary.port, "leader"),
                           patroni.member("b", pair.standby.port, "replica", "streaming")]
        pooler = watch(make_pooler, pair, pgweir={"patroni_urls": f"http://127.0.0.1:{free_port()}, {patroni.url}"})
        wait_roles(pooler, pair)
        wait_log(pooler, f"Patroni: a at {pair.name(pair.primary)} leads")
        patroni.members = [patroni.member("b", pair.standby.port, "leader")]
        wait_log(pooler, f"Patroni: b at {pair.name(pair.standby)} leads")
        # It is not believed: the hosts say what they are.
        pid = probe_of(pair.primary)
        wait_probes(pair.primary, pid)
        assert pooler.log().count("primary is") == 1
        patroni.members = [patroni.member("c", 1, "replica")]
        wait_log(pooler, "Patroni: c at 127.0.0.1:1 is a member of the cluster, but in the host list of no database")

    def test_hosts_by_patroni(self, make_pooler, own_pair, patroni):
        """The host in the file serves until Patroni has answered."""
        pair = own_pair
        patroni.members = [patroni.member("a", pair.primary.port, "leader")]
        entry = f"host=127.0.0.1 port={pair.standby.port} dbname=app read_write_split=1 host_source=patroni"
        pooler = watch(make_pooler, pair, entry=entry, pgweir={"patroni_urls": patroni.url})
        wait_log(pooler, f"hosts by Patroni: {pair.name(pair.primary)}")
        wait_log(pooler, f"app: primary is {pair.name(pair.primary)} (timeline 1)")
        wait_until(lambda: not probing(pair.standby), 5, "the host in the file is left alone")
        patroni.members = [patroni.member("a", pair.primary.port, "leader"),
                           patroni.member("b", pair.standby.port, "replica", "streaming")]
        wait_log(pooler, f"hosts by Patroni: {pair.name(pair.primary)}, {pair.name(pair.standby)}")
        wait_log(pooler, f"app: {pair.name(pair.standby)}: reads on")
        # A member that is down leaves the list, and is watched all the same; a reload forgets it.
        patroni.members = patroni.members[:1]
        asked = patroni.asked
        wait_until(lambda: patroni.asked > asked + 2, 5, "Patroni is asked")
        pid = probe_of(pair.standby)
        wait_probes(pair.standby, pid)
        pooler.admin("RELOAD")
        wait_until(lambda: not probing(pair.standby), 5, "it is forgotten")
        assert "in the host list of no database" not in pooler.log()

    @pytest.fixture
    def secure(self, authority):
        """make(names): a Patroni whose certificate, of the tests' authority, is for these names."""
        made = []

        def make(names="IP:127.0.0.1", signed_by=authority):
            made.append(FakePatroni(signed_by.issue(f"patroni{len(made)}", "patroni", names)))
            return made[-1]
        yield make
        for one in made:
            one.close()

    def test_by_tls(self, make_pooler, pair, secure, authority):
        patroni = secure()
        patroni.members = [patroni.member("a", pair.primary.port, "leader")]
        pooler = watch(make_pooler, pair, settings={"server_tls_ca_file": authority.cert},
                       pgweir={"patroni_urls": patroni.url})
        wait_log(pooler, f"Patroni: a at {pair.name(pair.primary)} leads")

    @pytest.mark.parametrize("wrong", ["authority", "name", "self_signed"])
    def test_a_certificate_that_proves_nothing(self, make_pooler, pair, secure, authority, base, wrong):
        """What such a one says is not even looked at; the hosts are asked as ever."""
        trusted = authority
        if wrong == "name":
            patroni = secure("DNS:patroni.example,IP:127.0.0.2")
        else:
            other = Authority(make_dir(base, "ca"), "another root")
            # The root itself has no name of a host: that it is not trusted comes first.
            patroni = FakePatroni((other.cert, other.key)) if wrong == "self_signed" else secure(signed_by=other)
        try:
            patroni.members = [patroni.member("a", pair.primary.port, "leader")]
            pooler = watch(make_pooler, pair, settings={"server_tls_ca_file": trusted.cert},
                           pgweir={"patroni_urls": patroni.url})
            wait_log(pooler, f"Patroni at {patroni.url}: ")
            wait_roles(pooler, pair)
            said = next(line for line in pooler.log().splitlines() if "Patroni at" in line)
            expected = {"authority": "unable to get local issuer certificate", "name": "IP address mismatch",
                        "self_signed": "self-signed certificate"}[wrong]
            assert expected in said, said
            assert patroni.asked == 0 and "leads" not in pooler.log()
        finally:
            if wrong == "self_signed":
                patroni.close()

    def test_tls_that_speaks_no_tls(self, make_pooler, pair, patroni, authority):
        url = patroni.url.replace("http:", "https:")
        pooler = watch(make_pooler, pair, settings={"server_tls_ca_file": authority.cert},
                       pgweir={"patroni_urls": url})
        wait_log(pooler, f"Patroni at {url}: ")
        wait_roles(pooler, pair)
        assert patroni.asked == 0

    def test_that_nobody_answers_is_told_once(self, make_pooler, pair):
        port = free_port()
        pooler = watch(make_pooler, pair, pgweir={"patroni_urls": f"http://127.0.0.1:{port}"})
        wait_log(pooler, f"Patroni at http://127.0.0.1:{port}: Connection refused")
        wait_roles(pooler, pair)
        pid = probe_of(pair.primary)
        wait_probes(pair.primary, pid)
        wait_probes(pair.primary, pid)
        assert pooler.log().count("Patroni at") == 1


def catalog_reads(cluster):
    return cluster.log.read_text(errors="replace").count("WITH RECURSIVE volatile_function")


class TestCatalog:
    @pytest.fixture
    def logging_pair(self, own_pair):
        own_pair.primary.ask("ALTER ROLE finder SET log_statement = 'all'")
        own_pair.standby.catch_up()
        return own_pair

    def test_is_read_once_and_from_the_primary_first(self, make_pooler, logging_pair):
        pair = logging_pair
        pooler = watch(make_pooler, pair, pgweir={"role_check_user": "finder"})
        wait_roles(pooler, pair)
        wait_until(lambda: catalog_reads(pair.primary) + catalog_reads(pair.standby) >= 1, 10, "the catalogue is read")
        assert catalog_reads(pair.primary) + catalog_reads(pair.standby) <= 2
        assert "catalogue" not in pooler.log()

    def test_failure_is_told_once(self, make_pooler, own_pair):
        pair = own_pair
        with pair.primary.connect("app") as connection:
            connection.execute("REVOKE SELECT ON pg_catalog.pg_policy FROM PUBLIC")
        pair.standby.catch_up()
        pooler = watch(make_pooler, pair, pgweir={"role_check_user": "alice"})
        wait_log(pooler, "app: cannot read the catalogue of database app: permission denied for table pg_policy")
        with pair.primary.connect("app") as connection:
            connection.execute("GRANT SELECT ON pg_catalog.pg_policy TO PUBLIC")
        wait_log(pooler, "app: the catalogue of database app has been read", 20)
        assert pooler.log().count("cannot read the catalogue") == 1


class TestLife:
    def test_reload_keeps_what_is_known_of_a_group_and_drops_another(self, make_pooler, pair):
        pooler = watch(make_pooler, pair)
        wait_roles(pooler, pair)
        pid = probe_of(pair.primary)
        pooler.databases["app_ro"] = pair.entry("target_session_attrs=prefer-standby")
        pooler.write_config()
        pooler.admin("RELOAD")
        wait_probes(pair.primary, pid)
        assert probing(pair.primary) == [pid] and pooler.log().count("primary is") == 1
        pooler.databases = {"app": "dbname=app"}
        pooler.write_config()
        pooler.admin("RELOAD")
        wait_until(lambda: not probing(pair.primary) and not probing(pair.standby), 5, "the connections have ended")
        pooler.databases = {"app": pair.entry()}
        pooler.write_config()
        pooler.admin("RELOAD")
        wait_until(lambda: pooler.log().count("primary is") == 2, 5, "watched again")

    def test_nothing_is_watched_without_need(self, make_pooler, pair):
        pooler = watch(make_pooler, pair, entry=pair.entry("target_session_attrs=any"))
        pooler.admin("SHOW VERSION")
        threads = len(os.listdir(f"/proc/{pooler.pid}/task"))
        pooler.databases = {"app": pair.entry()}
        pooler.write_config()
        pooler.admin("RELOAD")
        wait_roles(pooler, pair)
        assert len(os.listdir(f"/proc/{pooler.pid}/task")) == threads + 2

    def test_set_changes_the_interval_and_the_user(self, make_pooler, pair):
        pooler = watch(make_pooler, pair, pgweir={"role_check_interval": "1h"})
        wait_roles(pooler, pair)
        pid = probe_of(pair.primary)
        pooler.admin("SET role_check_user = 'finder'")
        probe_of(pair.primary, "finder")
        pooler.admin("SET role_check_interval = '50ms'")
        pooler.admin("SET role_check_user = 'postgres'")
        pid = probe_of(pair.primary)
        wait_probes(pair.primary, pid)
        with pytest.raises(WireError):
            pooler.admin("SET role_check_user = ''")
        assert pooler.log().count("primary is") == 1 and "is down" not in pooler.log()

    def test_online_restart(self, make_pooler, pair):
        pooler = watch(make_pooler, pair)
        wait_roles(pooler, pair)
        pooler.restart_online()
        wait_until(lambda: pooler.log().count("primary is") == 2, 5, "the new process watches")
        probe_of(pair.primary)

    def test_the_end_does_not_wait_for_a_host(self, make_pooler, pair):
        pooler = watch(make_pooler, pair, pgweir={"role_check_timeout": "1h"})
        wait_roles(pooler, pair)
        with stopped(pair.standby):
            wait_until(lambda: pooler.admin("SHOW VERSION"), 5, "an answer")
            pooler.signal(signal.SIGTERM)
            pooler.wait_exit(5)
