"""The hosts of a database: what the console says of them, limits per host, lag, several standbys, and what the
configuration or the hosts themselves have wrong."""

import contextlib
import shutil
import subprocess

import pytest

import harness
import routing
from harness import PATIENCE, as_run_user, free_port, wait_until
from postgres import Standby
from replicas import Host
from routing import counted, hosts, pools, routes, wait_routed, where
from wire import WireError, query

pytestmark = pytest.mark.pgweir

WRITE = "INSERT INTO notes VALUES (1, 'x') RETURNING host_port()"


def check(pooler):
    """What --check says of the configuration: exit code and text."""
    pooler.write_config()
    done = subprocess.run([str(harness.BINARY), "--check", str(pooler.ini)], capture_output=True, text=True,
                          timeout=20 * PATIENCE, check=False, **as_run_user())
    return done.returncode, done.stdout + done.stderr


class TestConsole:
    @pytest.mark.smoke
    def test_show_hosts(self, make_routed, pair):
        pooler = make_routed()
        with pooler.console() as console:
            shown = console.query("SHOW HOSTS")
        assert shown.columns == ["hosts", "host", "port", "role", "timeline", "state", "lag_bytes", "lag_ms",
                                 "replay_lsn", "last_probe_ms", "reason"]
        assert len(shown.rows) == 2
        known = hosts(pooler)
        primary, standby = known[pair.primary.port], known[pair.standby.port]
        assert (primary["host"], primary["role"], primary["timeline"]) == ("127.0.0.1", "primary", 1)
        assert (standby["host"], standby["role"], standby["timeline"]) == ("127.0.0.1", "standby", 1)
        assert primary["state"] == standby["state"] == "up"
        assert standby["lag_ms"] < 5000 and "/" in standby["replay_lsn"]
        assert max(primary["last_probe_ms"], standby["last_probe_ms"]) < 5000

    def test_show_routes(self, make_routed):
        pooler = make_routed()
        with pooler.console() as console:
            shown = console.query("SHOW ROUTES")
        assert shown.columns == ["database", "reads_standby", "reads_primary_no_standby",
                                 "reads_primary_read_your_writes", "reads_primary_other", "writes", "retries", "learned"]
        assert "app" in {row[0] for row in shown.rows}

    def test_pools_and_servers_are_told_apart_by_host(self, make_routed, pair):
        pooler = make_routed()
        with pooler.wire() as writer, pooler.wire() as reader:
            writer.query("BEGIN")
            writer.query("SELECT 1")
            reader.query("BEGIN READ ONLY")
            reader.query("SELECT 1")
            with pooler.console() as console:
                assert console.query("SHOW POOLS").columns[-3:] == ["host", "port", "role"]
                assert console.query("SHOW SERVERS").columns[-2:] == ["host", "role"]
            shown = pools(pooler)
            for host, role in ((pair.primary, "primary"), (pair.standby, "standby")):
                row = shown[host.port]
                assert (row["host"], row["role"], row["sv_active"]) == ("127.0.0.1", role, 1)
            active = {(int(row["port"]), row["role"]) for row in pooler.servers() if row["state"] == "active"}
            assert active == {(pair.primary.port, "primary"), (pair.standby.port, "standby")}

    def test_latency_is_kept_by_role(self, make_routed):
        pooler = make_routed()
        with pooler.wire() as client:
            client.query("SELECT 1")
            client.query("INSERT INTO notes VALUES (1, 'x')")
        wait_until(lambda: {row["role"] for row in pooler.admin("SHOW LATENCY") if row["database"] == "app"} >=
                   {"primary", "standby"}, 5, "both roles have latencies")

    def test_reload_keeps_what_is_known(self, make_routed, pair):
        pooler = make_routed()
        with pooler.wire() as client:
            client.value("SELECT host_port()")
            pooler.settings["default_pool_size"] = 7
            pooler.write_config()
            pooler.admin("RELOAD")
            assert client.value("SELECT host_port()") == str(pair.standby.port)


class TestPoolSize:
    def test_each_host_has_a_pool_of_the_full_size(self, make_routed, pair):
        pooler = make_routed(settings={"default_pool_size": 2})
        with contextlib.ExitStack() as stack:
            def begun(begin):
                client = stack.enter_context(pooler.wire())
                assert client.query(begin).status == "T"
                return client

            def waiting(begin):
                client = stack.enter_context(pooler.wire())
                client.send(query(begin))
                return client

            writers = [begun("BEGIN") for _ in range(2)]
            readers = [begun("BEGIN READ ONLY") for _ in range(2)]
            late = [waiting("BEGIN"), waiting("BEGIN READ ONLY")]
            for host in pair.hosts:
                wait_until(lambda host=host: pools(pooler)[host.port]["cl_waiting"] == 1, 5, "one waits for the host")
                assert pools(pooler)[host.port]["sv_active"] == 2
                own = [pid for pid in host.backends("app") if pid not in host.backends("app", usename="watcher")]
                assert len(own) == 2
            for one, next_one in ((writers[0], late[0]), (readers[0], late[1])):
                one.query("COMMIT")
                assert next_one.collect().status == "T"

    def test_a_full_primary_does_not_hold_up_reads(self, make_routed, pair):
        pooler = make_routed(settings={"default_pool_size": 1})
        with pooler.wire() as writer, pooler.wire() as waiter, pooler.wire() as reader:
            writer.query("BEGIN")
            waiter.send(query("INSERT INTO notes VALUES (1, 'x')"))
            wait_until(lambda: pools(pooler)[pair.primary.port]["cl_waiting"] == 1, 5, "a write waits")
            assert reader.value("SELECT host_port()") == str(pair.standby.port)
            writer.query("COMMIT")
            assert waiter.collect().tags == ["INSERT 0 1"]

    def test_pool_size_of_the_entry(self, make_routed, pair):
        pooler = make_routed(database_options="pool_size=3")
        clients = [pooler.wire() for _ in range(12)]
        for client in clients:
            client.send(query("SELECT pg_sleep(0.05)"))
        for client in clients:
            assert not client.collect().errors
        # The last ones are free just after their clients have the answer.
        wait_until(lambda: pools(pooler)[pair.standby.port]["sv_idle"] == 3, 5, "all servers are idle")


class TestLag:
    def write(self, pair, kilobytes=1):
        with pair.primary.connect() as direct:
            direct.execute("INSERT INTO notes SELECT n, repeat('x', 1000) FROM generate_series(1, %s) AS n",
                           (kilobytes,))

    @pytest.mark.parametrize("limits", [{"max_replica_lag_bytes": 100000}, {"max_replica_lag_ms": "300ms"}],
                             ids=["bytes", "time"])
    def test_reads_leave_a_late_standby_and_come_back(self, make_routed, pair, limits):
        pooler = make_routed(pgweir=limits)
        before = routes(pooler)
        pair.standby.pause_replay()
        try:
            self.write(pair, 500 if "max_replica_lag_bytes" in limits else 1)
            wait_until(lambda: where(pooler) == pair.primary.port, 5, "reads have left the standby")
            row = hosts(pooler)[pair.standby.port]
            assert row["lag_bytes"] > (100000 if "max_replica_lag_bytes" in limits else 0)
            assert "lag" in row["reason"].lower()
            assert counted(pooler, before)["reads_primary_no_standby"] >= 1
            with pooler.wire(database="app_ro") as client:
                assert client.value("SELECT host_port()") == str(pair.primary.port)
        finally:
            pair.standby.resume_replay()
        wait_until(lambda: where(pooler) == pair.standby.port, 5, "reads are back on the standby")

    def test_within_the_limits_reads_stay(self, make_routed, pair):
        pooler = make_routed()
        pair.standby.pause_replay()
        try:
            self.write(pair, 500)
            wait_until(lambda: hosts(pooler)[pair.standby.port]["lag_bytes"] > 400000, 5, "the lag is seen")
            assert where(pooler) == pair.standby.port
        finally:
            pair.standby.resume_replay()

    def test_an_idle_primary_makes_no_lag(self, make_routed, pair):
        pair.catch_up()
        pooler = make_routed(pgweir={"max_replica_lag_ms": "200ms"})
        for _ in range(20):
            assert hosts(pooler)[pair.standby.port]["lag_ms"] <= 200
            assert where(pooler) == pair.standby.port

    def test_a_switch_of_the_log_file_makes_no_lag(self, make_routed, pair):
        """After it the insert position lies behind a page header that replay has not passed."""
        pooler = make_routed()
        with pooler.wire() as client:
            client.query("INSERT INTO notes VALUES (1, 'x')")
            pair.primary.ask("SELECT pg_switch_wal()")
            wait_until(lambda: client.value("SELECT host_port()") == str(pair.standby.port), 5, "reads are back")
        wait_until(lambda: hosts(pooler)[pair.standby.port]["lag_bytes"] == 0, 5, "no lag is shown")


class TestSeveralStandbys:
    def test_reads_spread_and_leave_a_busy_one(self, make_replicas, make_pooler):
        three = make_replicas(standbys=2)
        pooler = wait_routed(make_pooler(**routing.options(three, settings={"default_pool_size": 20})), three)
        ports = {host.port for host in three.standbys}
        wait_until(lambda: {where(pooler) for _ in range(10)} == ports, 10, "both standbys take reads")
        with contextlib.ExitStack() as stack:
            busy = [stack.enter_context(pooler.wire()) for _ in range(20)]
            for client in busy:
                client.query("BEGIN READ ONLY")
            shares = [pools(pooler)[port]["sv_active"] for port in ports]
            assert sum(shares) == 20 and min(shares) >= 5
        seen = [where(pooler) for _ in range(200)]
        assert min(seen.count(port) for port in ports) >= 40
        one, other = three.standbys
        one.pause_replay()
        with three.primary.connect() as direct:
            direct.execute("INSERT INTO notes VALUES (1, 'x')")
        other.catch_up(three.primary)
        with pooler.wire() as client:
            client.query("INSERT INTO notes VALUES (2, 'mine')")
            wait_until(lambda: client.value("SELECT host_port()") == str(other.port), 5, "the standby that shows it")
            assert {client.value("SELECT host_port()") for _ in range(20)} == {str(other.port)}


class TestProber:
    def wait_reasons(self, pooler, words):
        wait_until(lambda: all(words in (row["reason"] or "") for row in hosts(pooler).values()), 5, f"{words} is shown")

    def test_a_user_without_rights_is_told_which_one_is_missing(self, make_replicas, make_pooler):
        pair = make_replicas()
        pair.primary.ask("REVOKE CONNECT ON DATABASE app FROM PUBLIC")
        pair.catch_up()
        pooler = make_pooler(**routing.options(pair))
        self.wait_reasons(pooler, "permission denied for database")
        assert "CONNECT" in pooler.log()
        pair.primary.ask("GRANT CONNECT ON DATABASE app TO watcher")
        wait_routed(pooler, pair)

    def test_a_function_without_rights_is_named(self, make_replicas, make_pooler):
        pair = make_replicas()
        with pair.primary.connect("app") as direct:
            direct.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC, pg_monitor")
        pair.catch_up()
        pooler = make_pooler(**routing.options(pair))
        self.wait_reasons(pooler, "pg_control_system")

    def test_a_wrong_password_is_said(self, make_replicas, make_pooler):
        pair = make_replicas()
        for host in pair.hosts:
            text = (host.data / "pg_hba.conf").read_text()
            harness.write_file(host.data / "pg_hba.conf", "host all watcher 127.0.0.1/32 scram-sha-256\n" + text)
            host.ask("SELECT pg_reload_conf()")
        options = routing.options(pair)
        pooler = make_pooler(**{**options, "userlist": {"watcher": "not it"}})
        self.wait_reasons(pooler, "password authentication failed")
        assert "not it" not in pooler.log()
        pooler.userlist["watcher"] = "watcher secret"
        pooler.write_config()
        pooler.admin("RELOAD")
        wait_routed(pooler, pair)

    def test_probes_are_not_starved_by_the_pool(self, make_routed, pair):
        pooler = make_routed(settings={"default_pool_size": 1, "max_db_connections": 2})
        with pooler.wire() as writer, pooler.wire() as reader:
            writer.query("BEGIN")
            reader.query("BEGIN READ ONLY")
            version = [row["last_probe_ms"] for row in hosts(pooler).values()]
            wait_until(lambda: [row["last_probe_ms"] for row in hosts(pooler).values()] != version, 5, "probes go on")
            assert {row["state"] for row in hosts(pooler).values()} == {"up"}

    def test_the_prober_holds_one_connection_per_host(self, make_routed, pair):
        make_routed()
        for host in pair.hosts:
            rows = host.ask("SELECT count(*) FROM pg_stat_activity WHERE usename = 'watcher'")
            assert 1 <= rows[0][0] <= 2


class TestConfiguration:
    @pytest.mark.parametrize("entry, words", [
        ("host=127.0.0.1,127.0.0.1 port=5432,5433,5434", "one for each of the 2 hosts, got 3 ports"),
        ("host=127.0.0.1 port=5432,5433", "got 2 ports"),
        ("host=127.0.0.1,,127.0.0.1 port=5432", "expected names separated by commas"),
        ("host=127.0.0.1,127.0.0.1 port=5432,none", "port:"),
        ("host=127.0.0.1 target_session_attrs=master", "target_session_attrs"),
        ("host=127.0.0.1 read_write_split=perhaps", "read_write_split"),
    ])
    def test_bad_entries_are_named_with_their_line(self, make_pooler, entry, words):
        pooler = make_pooler(start=False, databases={"good": "dbname=app", "bad": entry + " dbname=app"})
        code, text = check(pooler)
        assert code == 1 and words in text and f"{pooler.ini}:3" in text

    def test_the_documented_entries_are_accepted(self, make_pooler):
        pooler = make_pooler(start=False, databases={
            "app": "host=127.0.0.1,127.0.0.1 port=5432,5433 dbname=app read_write_split=1",
            "app_rw": "host=127.0.0.1,127.0.0.1 port=5432,5433 dbname=app target_session_attrs=primary",
            "app_ro": "host=127.0.0.1,127.0.0.1 port=5432,5433 dbname=app target_session_attrs=prefer-standby"},
            pgweir={"role_check_user": "watcher"})
        code, text = check(pooler)
        assert code == 0, text

    def test_target_session_attrs(self, make_pooler, pair):
        primary, standby = str(pair.primary.port), str(pair.standby.port)
        expected = {"read-write": primary, "read-only": standby, "primary": primary, "standby": standby,
                    "prefer-standby": standby}
        entries = {word.replace("-", "_"): f"{pair.host_list} dbname=app target_session_attrs={word}"
                   for word in expected}
        pooler = make_pooler(**routing.options(pair, databases={**pair.databases(), **entries}))
        wait_routed(pooler, pair)
        for word, port in expected.items():
            with pooler.wire(database=word.replace("-", "_")) as client:
                assert client.value("SELECT host_port()") == port, word

    def test_a_host_that_does_not_resolve(self, make_pooler, pair):
        entry = f"host=127.0.0.1,no-such-host.invalid port={pair.primary.port},5432 dbname=app read_write_split=1"
        pooler = make_pooler(**routing.options(pair, databases={"app": entry}))
        with pooler.wire(timeout=20) as client:
            assert client.query("INSERT INTO notes VALUES (1, 'x')").tags == ["INSERT 0 1"]
            assert client.value("SELECT host_port()") == str(pair.primary.port)
        unknown = hosts(pooler)[5432]
        assert unknown["host"] == "no-such-host.invalid" and unknown["state"] != "up" and unknown["reason"]

    def test_one_host(self, make_pooler, pair):
        entry = f"host=127.0.0.1 port={pair.primary.port} dbname=app read_write_split=1"
        pooler = make_pooler(**routing.options(pair, databases={"app": entry}))
        with pooler.wire() as client:
            assert client.value("SELECT host_port()") == str(pair.primary.port)
            assert client.query("INSERT INTO notes VALUES (1, 'x')").tags == ["INSERT 0 1"]


class TestWrongHosts:
    WAIT = {"failover_wait_timeout": "1s"}

    def refused_after_wait(self, pooler, sql="INSERT INTO notes VALUES (1, 'never')"):
        """The client waits for a primary and gets the error when failover_wait_timeout is over."""
        with contextlib.suppress(WireError), pooler.wire() as client:
            client.send(query(sql))
            assert client.quiet_for(0.5)
            result = client.collect("ZE")
            assert result.error and not result.error["C"].startswith("08P"), result.error
            return
        # The server of a first login cannot be had either: that is an error of the login.

    def test_no_primary_at_start(self, make_replicas, make_pooler):
        pair = make_replicas()
        pair.primary.stop("immediate")
        pooler = make_pooler(**routing.options(pair, pgweir=self.WAIT))
        wait_until(lambda: where(pooler) == pair.standby.port, 10, "reads go to the standby")
        self.refused_after_wait(pooler)
        patient = make_pooler(**routing.options(pair))
        wait_until(lambda: where(patient) == pair.standby.port, 10, "reads go to the standby")
        with patient.wire() as client:
            client.send(query("INSERT INTO notes VALUES (1, 'late')"))
            assert client.quiet_for(0.2)
            pair.primary.start()
            assert client.collect().tags == ["INSERT 0 1"]

    def test_replication_goes_to_no_host_that_is_not_what_is_asked_for(self, make_replicas, make_pooler):
        pair = make_replicas()
        pair.primary.stop("immediate")
        pooler = make_pooler(**routing.options(pair))
        wait_until(lambda: where(pooler) == pair.standby.port, 10, "reads go to the standby")
        with pytest.raises(WireError) as refused:
            pooler.wire(replication="true")
        assert refused.value.text == "login failed"
        assert "app/postgres: no host of the list is known to be what is asked for" in pooler.log()
        pair.primary.start()
        wait_until(lambda: hosts(pooler)[pair.primary.port]["role"] == "primary", 10, "the primary is known")
        with pooler.wire(replication="database") as client:
            assert client.value("SELECT pg_is_in_recovery()") == "f"

    def test_no_host_at_start(self, template, make_pooler):
        pooler = make_pooler(userlist=routing.USERS, pgweir={**routing.FAST, **self.WAIT}, databases={
            "app": f"host=127.0.0.1,127.0.0.1 port={free_port()},{free_port()} dbname=app read_write_split=1"})
        wait_until(lambda: all(row["reason"] for row in hosts(pooler).values()), 5, "the console says why")
        with pytest.raises((WireError, AssertionError)):
            with pooler.wire() as client:
                result = client.query("SELECT 1")
                assert not result.errors, result.errors

    @pytest.mark.parametrize("lost", ["primary", "standby"])
    def test_a_firewalled_host_at_start(self, make_replicas, make_pooler, lost):
        """Connects to it get no answer at all. The other one is used as far as it goes, and both once it is reached."""
        pair = make_replicas(forwarded=True)
        host = getattr(pair, lost)
        host.forwarder.drop()
        pooler = make_pooler(**routing.options(pair, pgweir={"role_check_timeout": "300ms"}))
        with pooler.wire(timeout=20) as client:
            if lost == "standby":
                assert client.value(WRITE) == client.value("SELECT host_port()") == str(pair.primary.port)
            else:
                assert client.value("SELECT host_port()") == str(pair.standby.port)
                client.send(query(WRITE))
                assert client.quiet_for(0.3)
            row = hosts(pooler)[host.address]
            assert row["state"] != "up" and "no answer within 300ms" in row["reason"], row
            host.forwarder.passing()
            if lost == "primary":
                assert client.collect().rows == [[str(pair.primary.port)]]
        wait_routed(pooler, pair)

    def test_two_primaries_of_one_timeline(self, template, make_pooler):
        """Which of them is meant nobody can tell, so none is."""
        twins = [Host(template) for _ in range(2)]
        try:
            for host in twins:
                host.start()
            entry = f"host=127.0.0.1,127.0.0.1 port={twins[0].port},{twins[1].port} dbname=app read_write_split=1"
            pooler = make_pooler(userlist=routing.USERS, pgweir={**routing.FAST, **self.WAIT}, databases={"app": entry})
            wait_until(lambda: {row["state"] for row in hosts(pooler).values()} == {"fenced"}, 5, "both are fenced")
            assert all(row["reason"] for row in hosts(pooler).values())
            self.refused_after_wait(pooler)
            for host in twins:
                assert not host.backends("app", usename="postgres")
            twins[1].stop()
            with pooler.wire() as client:
                assert client.value(WRITE) == str(twins[0].port)
        finally:
            for host in twins:
                host.close()

    def test_two_primaries_the_higher_timeline_wins(self, make_replicas, make_pooler):
        pair = make_replicas()
        old = pair.primary
        pair.promote()
        pooler = make_pooler(**routing.options(pair))
        wait_until(lambda: hosts(pooler)[old.port]["state"] == "fenced", 5, "the older one is fenced")
        with pooler.wire() as client:
            for _ in range(5):
                assert client.value(WRITE) == str(pair.primary.port)
                assert client.value("SELECT host_port()") == str(pair.primary.port)
        assert not old.backends("app", usename="postgres")

    def test_a_standby_of_another_cluster(self, cluster, base, pair, make_pooler):
        stranger = Standby(base, cluster)
        try:
            entry = (f"host=127.0.0.1,127.0.0.1 port={pair.primary.port},{stranger.port} dbname=app read_write_split=1")
            options = routing.options(pair, databases={"app": entry})
            pooler = make_pooler(**{**options, "pgweir": {**options["pgweir"], "role_check_user": "postgres"}})
            wait_until(lambda: hosts(pooler)[stranger.port]["state"] == "fenced", 10, "the stranger is fenced")
            assert "system identifier" in hosts(pooler)[stranger.port]["reason"]
            assert "system identifier" in pooler.log()
            with pooler.wire() as client:
                assert {client.value("SELECT host_port()") for _ in range(10)} == {str(pair.primary.port)}
            assert set(pools(pooler)) == {pair.primary.port}
        finally:
            stranger.stop("immediate")
            shutil.rmtree(stranger.home)
