"""The traps of PgBouncer's behaviour that tests/compat cannot show, because PgBouncer 1.18 lacks what they are about or
falls into them itself. The table of all of them is in tests/README.md."""

import subprocess

import pytest

import harness
import wire
from harness import wait_until
from wire import SYNC, Wire, WireError, bind, close, execute, parse, query

pytestmark = pytest.mark.pgweir

FINDER = {"finder": "finder secret"}


def check(pooler):
    """Output of --check for the pooler's files."""
    pooler.write_config()
    done = subprocess.run([str(pooler.binary), "--check", str(pooler.ini)], capture_output=True, text=True, timeout=20,
                          cwd=pooler.home, check=False, **harness.as_run_user())
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("section, line, reason", [
    ("pgbouncer", "query_timeout = 5s", "query_timeout"),
    ("pgbouncer", "server_lifetime = 5 ; seconds", "server_lifetime"),
    ("pgbouncer", "log_connections = maybe", "log_connections"),
    ("databases", "bad = dbname=app query_wait_timeout=1.5", "query_wait_timeout"),
    ("users", "bob = query_timeout=5s", "query_timeout"),
])
def test_trap_04_times_without_unit_and_no_comment_behind_a_value(make_pooler, section, line, reason):
    """A line that PgBouncer refuses or reads as another number is refused with its place; only [pgweir] has units."""
    pooler = make_pooler(start=False, users={"alice": "query_timeout=5"}, pgweir={"role_check_interval": "500ms"})
    assert check(pooler) == (0, "configuration is valid\n")
    pooler.ini_text = lambda text=pooler.ini_text(): text.replace(f"[{section}]\n", f"[{section}]\n{line}\n", 1)
    number = pooler.ini_text().splitlines().index(line) + 1
    code, said = check(pooler)
    assert code == 1 and f"pooler.ini:{number}: " in said and reason in said


def test_trap_05_zero_and_less_inherit_but_no_time_to_wait_means_for_ever(make_pooler):
    pooler = make_pooler(settings={"query_wait_timeout": "0.4", "default_pool_size": "1", "max_db_connections": "3"},
                         databases={"app": "dbname=app query_wait_timeout=0", "other": "dbname=other",
                                    "zero": "dbname=app max_db_connections=0 server_lifetime=0"})
    rows = {row["name"]: row for row in pooler.admin("SHOW DATABASES")}
    assert rows["zero"]["max_connections"] == "3" and rows["zero"]["server_lifetime"] == "3600"
    clients = {name: [pooler.wire(database=name) for _ in range(2)] for name in ("app", "other")}
    for first, second in clients.values():
        first.query("BEGIN")
        second.send(query("SELECT 'served'"))
    clients["other"][1].expect_fatal("query_wait_timeout", "08P01")
    # By now the other one has waited as long.
    assert pooler.pool("app")["cl_waiting"] == 1
    clients["app"][0].query("COMMIT")
    assert clients["app"][1].collect().rows == [["served"]]


def test_trap_06_sizes_of_users_are_padded_text(make_pooler):
    pooler = make_pooler(users={"alice": "pool_size=7 reserve_pool_size=12"})
    rows = {row["name"]: row for row in pooler.admin("SHOW USERS")}
    assert [rows["alice"]["pool_size"], rows["alice"]["reserve_pool_size"]] == ["        7", "       12"]
    assert [rows["bob"]["pool_size"], rows["bob"]["reserve_pool_size"]] == ["", ""]


def test_trap_09_protocol_3_2_gets_3_0_with_a_short_key(pooler):
    for version, options in ((wire.PROTOCOL_3_2, {}), (wire.PROTOCOL_3_0, {"_pq_.x": "1"})):
        with Wire(pooler.port) as client:
            client.login("postgres", "app", version=version, **options)
            assert client.negotiated == (wire.PROTOCOL_3_0, list(options))
            assert len(client.key) == 8


def test_trap_10_logins_need_a_server_only_until_its_parameters_are_known(make_pooler, cluster):
    pooler = make_pooler(settings={"default_pool_size": "1"})
    first = pooler.wire()
    first.query("BEGIN")
    with cluster.frozen(), pooler.wire() as late:
        assert late.parameters["server_version"] == first.parameters["server_version"]


def test_trap_11_parse_and_close_are_answered_here_and_in_order(make_pooler):
    pooler = make_pooler(settings={"default_pool_size": "1"})
    first, second = pooler.wire(), pooler.wire()
    first.extended(parse("mine", "SELECT 'known'"))
    result = second.extended(
        parse("a", "SELECT 'known'"), bind("a"), execute(), close("S", "a"), parse("a", "SELECT 'new'"), bind("a"),
        execute(), close("S", "a"), parse("b", "SELECT 'known'"), bind("b"), execute())
    assert result.types == "12DC3" + "12DC3" + "12DC" + "Z"
    assert result.rows == [["known"], ["new"], ["known"]]
    count = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT ''%'"
    assert first.value(count) == "2"


@pytest.mark.parametrize("command", ["DISCARD ALL", "DEALLOCATE ALL", "deallocate  all ; "])
def test_trap_12_both_caches_are_cleared(make_pooler, command):
    pooler = make_pooler(settings={"default_pool_size": "1"})
    first, second = pooler.wire(), pooler.wire()
    for client in (first, second):
        client.extended(parse("s", "SELECT 4711"))
    assert first.query(command).errors == []
    assert first.extended(bind("s"), execute()).error["C"] == "26000"
    # The server has forgotten it as well; for the other client it comes back unseen.
    assert second.extended(bind("s"), execute()).rows == [["4711"]]
    assert first.extended(parse("s", "SELECT 4711"), bind("s"), execute()).types == "12DCZ"


def test_trap_13_a_server_with_a_cancel_in_flight_is_parked(make_pooler, cluster):
    """The request cannot reach the server for now: whoever comes next must not get the one it is meant for."""
    pooler = make_pooler(settings={"default_pool_size": "2", "server_tls_sslmode": "disable"})
    client, other, request = pooler.wire(), pooler.wire(), Wire(pooler.port)
    pid = client.value("SELECT pg_backend_pid()")
    with cluster.connect() as direct:
        direct.execute("SELECT pg_advisory_lock(4711)")
        client.send(query("SELECT pg_advisory_xact_lock(4711)"))
        wait_until(lambda: cluster.backends(wait_event_type="Lock"), what="the query waits")
        with cluster.frozen():
            request.send(wire.request_packet(wire.CANCEL_REQUEST, client.key))
            wait_until(lambda: pooler.pool()["cl_active_cancel_req"] == 1, what="the request is on its way")
            direct.execute("SELECT pg_advisory_unlock(4711)")
            assert client.collect().errors == []
            assert pooler.pool()["sv_being_canceled"] == 1
            other.send(query("SELECT pg_backend_pid()"))
            assert other.quiet_for(0.2), "nobody may have this server"
    # Now the request goes out, into the void, and the server is as good as any other.
    assert request.expect_closed() == []
    assert other.collect().errors == [] and other.value("SELECT pg_backend_pid()") != ""
    wait_until(lambda: pooler.pool()["sv_being_canceled"] == 0, what="the server is back")
    # Which of the two came back last is not said: with one in a transaction, the second client gets the other.
    other.query("BEGIN")
    assert pid in [each.value("SELECT pg_backend_pid()") for each in (other, client)]


def test_trap_14_losing_the_suspending_console_resumes(pooler):
    client = pooler.wire()
    console = pooler.console()
    assert console.query("SUSPEND").tags == ["SUSPEND"]
    client.send(query("SELECT 'resumed'"))
    console.close()
    assert client.collect().rows == [["resumed"]]


PARAMETERS_SEEN = """SELECT $1::text, concat_ws(' ', current_setting('DateStyle'), current_setting('client_encoding'),
current_setting('application_name'), current_setting('search_path'), current_setting('statement_timeout'))"""


def test_trap_15_auth_query_runs_without_the_parameters_of_clients(make_pooler):
    """The secret is what the query sees: neither those of who logs in count, nor of whoever had its server before."""
    settings = {"auth_type": "plain", "auth_user": "finder", "default_pool_size": "1",
                "auth_query": " ".join(PARAMETERS_SEEN.split())}
    pooler = make_pooler(settings=settings, userlist=FINDER)
    strange = {"DateStyle": "German", "client_encoding": "LATIN1", "application_name": "evil",
               "options": "-c search_path=evil -c statement_timeout=4711"}
    plain = 'ISO, MDY UTF8  "$user", public 0'
    client = Wire(pooler.port)
    client.login("bob", "app", plain, **strange)
    client.close()
    # finder's own sessions share the pool with the query.
    own = pooler.wire("finder", password="finder secret", **strange)
    assert own.value("SHOW search_path") == "evil"
    own.query("SET statement_timeout = 4712")
    client = Wire(pooler.port)
    client.login("alice", "app", plain)


def test_trap_16_a_rule_for_replication_lets_it_in(make_pooler):
    pooler = make_pooler(start=False, settings={"auth_type": "hba"}, databases={"*": "dbname=app"})
    pooler.settings["auth_hba_file"] = pooler.home / "hba"
    harness.write_file(pooler.home / "hba", "host replication all 127.0.0.1/32 trust\n")
    pooler.start()
    with Wire(pooler.port) as client:
        client.login("postgres", "app", replication="true")
        assert client.query("IDENTIFY_SYSTEM").errors == []
    for parameters in ({}, {"replication": "database"}):
        with Wire(pooler.port) as client, pytest.raises(WireError, match="no authentication method is found"):
            client.login("postgres", "app", **parameters)


class TestTrap17:
    """Bugs of PgBouncer that are not to be copied."""

    def test_trap_17_client_idle_timeout_of_one_user_spares_the_others(self, make_pooler):
        pooler = make_pooler(users={"alice": "client_idle_timeout=1"})
        idle, others = pooler.wire("alice"), pooler.wire("bob")
        idle.expect_fatal("client_idle_timeout", "08P01")
        assert others.value("SELECT 1") == "1"

    def test_trap_17_peers_stay_when_a_reload_fails(self, make_pooler):
        pooler = make_pooler(settings={"peer_id": "1"}, peers={"2": "host=127.0.0.1 port=7"})
        before = pooler.admin("SHOW PEERS")
        pooler.write_config(pooler.ini_text() + "\n[nothing]\n")
        with pytest.raises(WireError, match="RELOAD failed"):
            pooler.admin("RELOAD")
        assert pooler.admin("SHOW PEERS") == before != []

    @pytest.mark.parametrize("length", [127, 128, 300, 3000])
    def test_trap_17_long_values_are_set(self, make_pooler, length):
        pooler = make_pooler(settings={"default_pool_size": "1", "track_extra_parameters": "search_path"})
        value = "a" * (length - 2) + "'b"
        first, second = pooler.wire(DateStyle="German"), pooler.wire(options=f"-c pgweir_test.x={value}")
        assert first.value("SHOW DateStyle") == "German, DMY"
        assert second.value("SHOW pgweir_test.x") == value
        assert first.value("SELECT current_setting('pgweir_test.x', true)") in (None, "")

    def test_trap_17_long_errors_of_the_console_do_not_disconnect(self, pooler):
        with pooler.console() as console:
            for length in (400, 500, 4000, 60000):
                (error,) = console.query("SHOW" + " x" * (length // 2)).errors
                assert error["M"].startswith("invalid command 'SHOW x x")
            assert console.rows("SHOW VERSION")

    def test_trap_17_a_changed_stats_period_counts_at_once(self, make_pooler):
        pooler = make_pooler(settings={"stats_period": "3600", "log_stats": "1"})
        with pooler.wire() as client, pooler.console() as console:
            for _ in range(5):
                client.query("SELECT 1")
            console.query("SET stats_period = 1")
            # The period that was under way ends, then one of a second each.
            wait_until(lambda: pooler.log().count(" LOG stats: ") >= 3, 10, "three lines of statistics")
            for _ in range(200):
                client.query("SELECT 1")
            average = wait_until(lambda: [row for row in console.rows("SHOW STATS_AVERAGES")
                                          if row["database"] == "app" and row["query_count"] != "0"], 5, "an average")
            assert 1 <= int(average[0]["query_count"]) <= 200
