"""What an operator does to a routed database while it runs: pause, reload, restart, cancel; and who the prober is, with
TLS and without a user of its own."""

import psycopg
import pytest

import routing
from harness import wait_until, write_file
from routing import counted, hosts, pools, routes, wait_routed, where
from wire import SYNC, Closed, bind, describe, execute, parse, query, send_cancel

pytestmark = pytest.mark.pgweir

WRITE = "INSERT INTO notes VALUES (1, 'x') RETURNING host_port()"


class TestPause:
    def test_both_hosts_wait_and_go_on(self, make_routed, pair):
        pooler = make_routed()
        with pooler.wire() as reader, pooler.wire() as writer, pooler.console() as console:
            reader.query("BEGIN READ ONLY")
            console.send(query("PAUSE app"))
            assert console.quiet_for(0.2)
            assert reader.query("COMMIT").tags == ["COMMIT"]
            assert console.collect().tags == ["PAUSE"]
            reader.send(query("SELECT host_port()"))
            writer.send(query(WRITE))
            assert reader.quiet_for(0.2) and writer.quiet_for(0.01)
            assert {row["sv_active"] + row["sv_idle"] for row in pools(pooler).values()} <= {0}
            assert console.query("RESUME app").tags == ["RESUME"]
            assert reader.collect().value() == str(pair.standby.port)
            assert writer.collect().value() == str(pair.primary.port)

    def test_reconnect_renews_the_connections_of_both_hosts(self, make_routed, pair):
        pooler = make_routed()
        with pooler.wire() as client:
            client.query("SELECT 1")
            client.query(WRITE)
            old = {row["id"] for row in pooler.servers()}
            assert {int(row["port"]) for row in pooler.servers()} == {host.port for host in pair.hosts}
            pooler.admin("RECONNECT app")
            wait_until(lambda: not old & {row["id"] for row in pooler.servers()}, 5, "the old connections are closed")
            assert client.query(WRITE).value() == str(pair.primary.port)

    def test_kill_leaves_no_connection_to_any_host(self, make_routed, pair):
        pooler = make_routed()
        with pooler.wire() as client:
            client.query("SELECT 1")
            client.query(WRITE)
            pooler.admin("KILL app")
            with pytest.raises(Closed):
                client.query("SELECT 1")
        wait_until(lambda: not pooler.servers(), 5, "no server connection is left")
        pooler.admin("RESUME app")
        assert where(pooler) in {host.port for host in pair.hosts}


class TestCancel:
    def test_a_read_on_the_standby(self, make_routed, pair):
        pooler = make_routed()
        before = routes(pooler)
        with pooler.wire() as client:
            client.send(query("SELECT pg_sleep(60)"))
            wait_until(pair.standby.sleepers, 5, "it runs on the standby")
            send_cancel(pooler.port, client.key)
            assert client.collect().error["C"] == "57014"
            assert client.value("SELECT 1") == "1"
        assert "retries" not in counted(pooler, before)

    def test_a_read_that_has_moved_to_the_primary(self, make_routed, pair):
        pooler = make_routed()
        with pooler.wire() as client:
            client.send(query("SELECT pg_sleep(60)"))
            wait_until(pair.standby.sleepers, 5, "it runs on the standby")
            pair.standby.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
            wait_until(pair.primary.sleepers, 5, "it runs again, on the primary")
            send_cancel(pooler.port, client.key)
            assert client.collect().error["C"] == "57014"


def readers(client):
    return {client.value("SELECT host_port()") for _ in range(10)}


class TestReload:
    def test_a_standby_is_added_and_removed(self, make_replicas, make_pooler):
        three = make_replicas(standbys=2)
        primary, first, second = three.hosts
        addresses = f"host=127.0.0.1,127.0.0.1 port={primary.port},{first.port} dbname=app read_write_split=1"
        three.hosts = [primary, first]
        pooler = wait_routed(make_pooler(**routing.options(three, databases={"app": addresses})), three)
        three.hosts = [primary, first, second]
        with pooler.wire() as client:
            assert client.value("SELECT host_port()") == str(first.port)
            pooler.databases = {"app": f"{three.host_list} dbname=app read_write_split=1"}
            pooler.write_config()
            pooler.admin("RELOAD")
            wait_until(lambda: readers(client) == {str(first.port), str(second.port)}, 5, "both standbys take reads")
            pooler.databases = {"app": addresses.replace(str(first.port), str(second.port))}
            pooler.write_config()
            pooler.admin("RELOAD")
            wait_until(lambda: readers(client) == {str(second.port)}, 5, "the old one takes none")
            assert client.query(WRITE).value() == str(primary.port)
            wait_until(lambda: not first.backends("app"), 5, "its connections are closed")

    def test_routing_is_turned_on_and_off(self, make_pooler, pair):
        plain = {"app": f"host=127.0.0.1 port={pair.primary.port} dbname=app"}
        pooler = make_pooler(**routing.options(pair, databases=plain))
        with pooler.wire() as client:
            assert client.value("SELECT host_port()") == str(pair.primary.port)
            pooler.databases = pair.databases()
            pooler.write_config()
            pooler.admin("RELOAD")
            wait_until(lambda: client.value("SELECT host_port()") == str(pair.standby.port), 5, "reads are routed")
            assert client.query(WRITE).value() == str(pair.primary.port)
            pooler.databases = plain
            pooler.write_config()
            pooler.admin("RELOAD")
            wait_until(lambda: client.value("SELECT host_port()") == str(pair.primary.port), 5, "nothing is routed")
            assert client.query(WRITE).value() == str(pair.primary.port)

    def test_limits_of_lag_change(self, make_routed, pair):
        pooler = make_routed()
        pair.standby.pause_replay()
        try:
            with pair.primary.connect() as direct:
                direct.execute("INSERT INTO notes SELECT n, repeat('x', 1000) FROM generate_series(1, 300) AS n")
            wait_until(lambda: hosts(pooler)[pair.standby.port]["lag_bytes"] > 200000, 5, "the lag is seen")
            assert where(pooler) == pair.standby.port
            pooler.pgweir["max_replica_lag_bytes"] = 100000
            pooler.write_config()
            pooler.admin("RELOAD")
            wait_until(lambda: where(pooler) == pair.primary.port, 5, "reads have left the standby")
        finally:
            pair.standby.resume_replay()


class TestRestart:
    def test_open_work_on_both_hosts_goes_over(self, make_routed, pair):
        """The new process has to ask who is who before it routes; what is under way is where it is."""
        pooler = make_routed()
        with pooler.wire(timeout=30) as reader, pooler.wire(timeout=30) as writer, pooler.wire(timeout=30) as idle:
            reader.query("BEGIN READ ONLY")
            writer.query("BEGIN")
            writer.query(WRITE)
            idle.query("SET pgweir.route = 'primary'")
            idle.extended(parse("s", "SELECT host_port()"))
            pooler.restart_online()
            assert reader.value("SELECT host_port()") == str(pair.standby.port)
            assert writer.value("SELECT host_port()") == str(pair.primary.port)
            assert reader.query("COMMIT").tags == writer.query("COMMIT").tags == ["COMMIT"]
            assert idle.extended(bind("s"), execute()).value() == str(pair.primary.port)
            assert idle.value("SHOW pgweir.route") == "primary"
            wait_until(lambda: where(pooler) == pair.standby.port, 10, "reads are routed again")

    def test_a_read_under_way_is_run_again(self, make_replicas, make_pooler):
        """Its client has seen nothing of the answer yet, and the host is lost after the change of processes."""
        pair = make_replicas()
        pooler = routing.wait_routed(make_pooler(**routing.options(pair)), pair)
        with pooler.wire(timeout=30) as simple, pooler.wire(timeout=30) as extended:
            simple.send(query("SELECT hold_on_standby()"))
            extended.send(parse("s", "SELECT hold_on_standby()"), bind("s"), describe("P"), execute(), SYNC)
            wait_until(lambda: len(pair.standby.sleepers()) == 2, 5, "they run")
            pooler.restart_online()
            pair.standby.kill()
            for client in (simple, extended):
                result = client.collect("ZE")
                assert result.rows == [[str(pair.primary.port)]], result.errors
            assert extended.extended(bind("s"), execute()).rows == [[str(pair.primary.port)]]
        assert routes(pooler)["retries"] == 2

    def test_the_past_does_not_come_back(self, make_replicas, make_pooler):
        """The new primary is silent just when a new process takes over: the old one must not be taken for it."""
        pair = make_replicas(forwarded=True)
        old = pair.primary
        pooler = routing.wait_routed(make_pooler(**routing.options(pair)), pair)
        pair.promote()
        with pooler.wire(timeout=30) as client:
            wait_until(lambda: hosts(pooler)[old.address]["state"] == "fenced", 10, "the old primary is fenced")
            assert client.value(WRITE) == str(pair.primary.port)
            pair.primary.forwarder.freeze()
            pooler.restart_online()
            wait_until(lambda: hosts(pooler).get(old.address, {}).get("state") == "fenced", 10, "it still is")
            client.send(query(WRITE))
            wait_until(lambda: hosts(pooler)[pair.primary.address]["reason"], 10, "the new one has been asked in vain")
            assert client.quiet_for(0.3)
            pair.primary.forwarder.passing()
            assert client.collect().rows == [[str(pair.primary.port)]]

    def test_writes_of_before_are_seen_after(self, make_routed, pair):
        """The new process takes the age of what was replayed last for the lag, and that may have been long ago."""
        pooler = make_routed(pgweir={"max_replica_lag_ms": "1h"})
        pair.standby.pause_replay()
        try:
            with pooler.wire(timeout=30) as client:
                client.query("UPDATE shadow SET n = 77")
                pooler.restart_online()
                wait_until(lambda: where(pooler) == pair.standby.port, 10, "reads are routed again")
                assert client.value("SELECT n FROM shadow") == "77"
        finally:
            pair.standby.resume_replay()


class TestPoolModes:
    def test_statement_pooling(self, make_routed, pair):
        pooler = make_routed(settings={"pool_mode": "statement"})
        with pooler.wire() as client:
            assert client.value("SELECT host_port()") == str(pair.standby.port)
            assert client.query(WRITE).value() == str(pair.primary.port)

    def test_forced_user(self, make_pooler, pair):
        entries = pair.databases("user=alice")
        pooler = wait_routed(make_pooler(**routing.options(pair, databases=entries)), pair)
        with pooler.wire() as client:
            assert client.query("SELECT host_port(), current_user").rows == [[str(pair.standby.port), "alice"]]


class TestProbersLogin:
    def test_the_user_of_the_entry(self, make_pooler, pair):
        options = routing.options(pair, databases=pair.databases("user=alice"))
        del options["pgweir"]["role_check_user"]
        wait_routed(make_pooler(**{**options, "userlist": {"alice": "alice secret"}}), pair)
        assert pair.standby.ask("SELECT 1 FROM pg_stat_activity WHERE usename = 'alice'"
                                " AND application_name = 'pgweir monitor'")

    def test_the_auth_user(self, make_pooler, pair):
        options = routing.options(pair, settings={"auth_user": "watcher"})
        del options["pgweir"]["role_check_user"]
        wait_routed(make_pooler(**options), pair)

    def test_tls(self, make_replicas, make_pooler, authority):
        """Hosts that refuse what is not encrypted; each is known by its certificate."""
        pair = make_replicas()
        cert, key = authority.issue("replica", "localhost")
        for host in pair.hosts:
            host.set(ssl="on", ssl_cert_file=cert, ssl_key_file=key)
            text = (host.data / "pg_hba.conf").read_text()
            refusals = "".join(f"hostnossl app {user} 127.0.0.1/32 reject\n" for user in ("alice", "watcher"))
            write_file(host.data / "pg_hba.conf", refusals + text)
            host.ask("SELECT pg_reload_conf()")
            wait_until(lambda host=host: refuses(host), 5, "what is not encrypted is refused")
        entries = pair.databases(f"user=alice sslmode=verify-full sslrootcert={authority.cert}")
        pooler = wait_routed(make_pooler(**routing.options(pair, databases=entries)), pair)
        with pooler.wire() as client:
            assert client.query(WRITE).value() == str(pair.primary.port)
        for host in pair.hosts:
            rows = host.ask("SELECT usename, ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
                            " WHERE usename IN ('alice', 'watcher')")
            assert {"alice", "watcher"} <= {row[0] for row in rows} and all(row[1] for row in rows)


def refuses(host):
    try:
        host.connect("app", user="alice", sslmode="disable").close()
    except psycopg.OperationalError:
        return True
    return False


class TestLeavers:
    def test_clients_that_leave_while_they_wait_for_a_primary(self, make_replicas, make_pooler):
        pair = make_replicas()
        pooler = wait_routed(make_pooler(**routing.options(pair)), pair)
        pair.primary.kill()
        wait_until(lambda: hosts(pooler)[pair.hosts[0].port]["state"] == "down", 5, "the primary is known to be down")
        clients = [pooler.wire() for _ in range(4)]
        for client in clients:
            client.send(query(WRITE))
        wait_until(lambda: sum(row["state"] == "waiting" for row in pooler.clients()) == 4, 5, "all wait")
        send_cancel(pooler.port, clients[0].key)
        clients[1].close()
        clients[2].abort()
        wait_until(lambda: len(pooler.clients()) <= 2, 5, "they are gone")
        pair.promote()
        assert clients[3].collect().value() == str(pair.primary.port)
        with pair.primary.connect() as direct:
            assert direct.execute("SELECT count(*) FROM notes").fetchone() == (1,)

    def test_clients_that_leave_in_a_read_on_the_standby(self, make_routed, pair):
        pooler = make_routed()
        client = pooler.wire()
        client.send(query("SELECT pg_sleep(60)"))
        wait_until(pair.standby.sleepers, 5, "it runs on the standby")
        client.abort()
        wait_until(lambda: not pair.standby.sleepers(), 5, "it is cancelled")
        wait_until(lambda: pools(pooler)[pair.standby.port]["sv_active"] == 0, 5, "its connection is free")
        assert where(pooler) == pair.standby.port
