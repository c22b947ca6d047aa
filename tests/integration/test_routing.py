"""Where transactions go: reads to the standby, everything else to the primary, over every way in which a client can say
what it wants. The hosts are a real primary and its real standby; host_port() tells which of them answered.

The facts behind it (which statement is a read at all) are those of test_router_facts.py and the unit tests.
"""

import contextlib
import random

import psycopg
import pytest

import routing
from harness import wait_until
from routing import counted, routes
from wire import COPY_DONE, FLUSH, SYNC, bind, copy_data, describe, execute, parse, query

pytestmark = pytest.mark.pgweir

READ_ONLY = "25006"
CONFLICT = "40001"


@pytest.fixture(scope="module", autouse=True)
def strict_standby(pair):
    """It cancels at once what stands in the way of replay."""
    pair.standby.set(max_standby_streaming_delay="0")


def wait_on(client, port):
    """Waits until a client that has written is back where reads go."""
    wait_until(lambda: client.value("SELECT host_port()") == port, 5, f"reads are answered by {port}")


def connect(pooler, database="app", **more):
    return psycopg.connect(**pooler.dsn(database=database), **{"autocommit": True, **more})


READS = [
    "SELECT host_port()",
    "select host_port() as p;",
    "SELECT host_port();;",
    "-- a comment\n/* and /* another */ */ SELECT host_port() -- and one",
    "(SELECT host_port())",
    "VALUES (host_port())",
    "WITH x AS (SELECT host_port() AS p) SELECT p FROM x",
    "SELECT host_port() FROM (SELECT count(*) FROM notes) AS s",
    "SELECT max(p) FROM (SELECT host_port() UNION ALL SELECT host_port()) AS s(p)",
    "SELECT host_port(), now(), random(), gen_random_uuid(), clock_timestamp()",
    "SELECT host_port(), 'INSERT INTO notes', $$DELETE$$, E'a\\'b', U&'\\0041', \"n\" FROM (SELECT 1 AS n) AS s",
    "SELECT host_port(), pg_sleep(0)",
    "SELECT host_port() FROM shadow WHERE n = ANY ('{1}') OR true LIMIT 1",
    "SELECT host_port(), 'ä€😀'",
    "SELECT inet_server_port()",
    "SELECT host_port(), pg_is_in_recovery()",
]

WRITES = [
    "INSERT INTO notes VALUES (1, 'x') RETURNING host_port()",
    "UPDATE shadow SET n = n RETURNING host_port()",
    "WITH gone AS (DELETE FROM notes WHERE n = 1 RETURNING n) SELECT host_port()",
    "WITH made AS (INSERT INTO notes VALUES (1, 'cte') RETURNING n) SELECT host_port() FROM made",
    "SELECT host_port() FROM shadow FOR UPDATE",
    "SELECT host_port() FROM (SELECT n FROM shadow FOR NO KEY UPDATE) AS s",
    "SELECT host_port() FROM shadow FOR KEY SHARE",
    "SELECT host_port(), nextval('counter')",
    "SELECT take_note('x')",
    "SELECT host_port(), pg_current_wal_insert_lsn()",
    "SELECT host_port(), txid_current()",
    "SELECT host_port(), pg_notify('a', 'b')",
    "SELECT host_port(), pg_try_advisory_xact_lock(1)",
    "SELECT host_port(), lo_create(0)",
]


class TestStatements:
    @pytest.mark.smoke
    @pytest.mark.parametrize("sql", READS)
    def test_reads_go_to_the_standby(self, client, standby, sql):
        assert client.value(sql) == standby

    @pytest.mark.parametrize("sql", READS)
    def test_prepared_reads_go_to_the_standby(self, client, standby, sql):
        if ";;" not in sql:
            result = client.extended(parse("", sql), bind(), describe("P"), execute())
            assert result.value() == standby

    @pytest.mark.smoke
    @pytest.mark.parametrize("sql", WRITES)
    def test_all_else_goes_to_the_primary(self, client, primary, sql):
        assert client.value(sql) == primary

    @pytest.mark.parametrize("sql", WRITES)
    def test_all_else_prepared_goes_to_the_primary(self, client, primary, sql):
        assert client.extended(parse("s", sql), bind("s"), describe("P"), execute()).value() == primary

    def test_each_way_is_counted(self, routed, client):
        before = routes(routed)
        for _ in range(3):
            client.query("SELECT host_port()")
        assert counted(routed, before) == {"reads_standby": 3}
        client.query("INSERT INTO notes VALUES (1, 'x')")
        assert counted(routed, before) == {"reads_standby": 3, "writes": 1}

    def test_several_statements_are_a_read_if_each_is(self, client, primary, standby, pair):
        reads = client.query("SELECT host_port(); SELECT host_port(), count(*) FROM notes; VALUES (host_port())")
        assert [row[0] for row in reads.rows] == [standby] * 3
        mixed = client.query("SELECT host_port(); INSERT INTO notes VALUES (3, 'several'); SELECT host_port()")
        assert [row[0] for row in mixed.rows] == [primary] * 2 and not mixed.errors
        failed = client.query("SELECT host_port(); INSERT INTO notes VALUES (4, 'undone'); SELECT 1/0")
        assert failed.error["C"] == "22012"
        with pair.primary.connect() as direct:
            assert direct.execute("SELECT n FROM notes WHERE n IN (3, 4)").fetchall() == [(3,)]

    def test_an_empty_query_costs_nothing(self, client):
        for sql in ("", ";", "-- nothing", "/* nothing */ ;"):
            assert client.query(sql).types == "IZ"

    def test_reads_of_many_clients_at_once(self, routed, standby):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(routed.wire()) for _ in range(40)]
            for turn in range(5):
                for one in clients:
                    one.send(query(f"SELECT host_port(), {turn}"))
                assert {tuple(one.collect().rows[0]) for one in clients} == {(standby, str(turn))}


class TestBlocks:
    def test_begin_goes_to_the_primary(self, client, primary):
        for begin in ("BEGIN", "START TRANSACTION", "BEGIN READ WRITE", "BEGIN ISOLATION LEVEL REPEATABLE READ"):
            client.query(begin)
            assert [client.value("SELECT host_port()") for _ in range(2)] == [primary] * 2
            assert client.query("INSERT INTO notes VALUES (5, 'block')").tags == ["INSERT 0 1"]
            assert client.query("ROLLBACK").status == "I"

    @pytest.mark.smoke
    def test_a_read_only_block_goes_to_the_standby(self, client, standby):
        for begin in ("BEGIN READ ONLY", "START TRANSACTION READ ONLY", "BEGIN TRANSACTION READ ONLY, ISOLATION LEVEL"
                      " REPEATABLE READ"):
            assert client.query(begin).tags[0] in ("BEGIN", "START TRANSACTION")
            assert client.value("SELECT host_port()") == standby
            assert client.value("SELECT pg_is_in_recovery()") == "t"
            assert client.query("COMMIT").status == "I"

    def test_a_read_only_block_refuses_writes_as_ever(self, routed, client):
        before = routes(routed)
        client.query("BEGIN READ ONLY")
        assert client.query("INSERT INTO notes VALUES (6, 'never')").error["C"] == READ_ONLY
        assert client.query("SELECT 1").error["C"] == "25P02"
        assert client.query("COMMIT").tags == ["ROLLBACK"]
        assert {"retries", "learned"}.isdisjoint(counted(routed, before))

    def test_serializable_read_only_works(self, client):
        client.query("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY")
        assert not client.query("SELECT host_port()").errors
        assert client.query("COMMIT").tags == ["COMMIT"]

    def test_set_transaction_comes_too_late_to_move(self, client, primary):
        client.query("BEGIN")
        client.query("SET TRANSACTION READ ONLY")
        assert client.value("SELECT host_port()") == primary
        assert client.query("INSERT INTO notes VALUES (6, 'never')").error["C"] == READ_ONLY
        client.query("ROLLBACK")

    def test_begin_and_more_in_one_message(self, client, primary, standby):
        assert client.query("BEGIN; SELECT host_port()").rows == [[primary]]
        assert client.query("INSERT INTO notes VALUES (5, 'block')").tags == ["INSERT 0 1"]
        client.query("ROLLBACK")
        result = client.query("BEGIN READ ONLY; SELECT host_port(); COMMIT")
        assert not result.errors and result.rows[0][0] in (primary, standby) and result.status == "I"
        mixed = client.query("BEGIN READ ONLY; SELECT host_port(); COMMIT; INSERT INTO notes VALUES (7, 'after')")
        assert not mixed.errors

    def test_a_client_that_asked_for_read_only_transactions(self, routed):
        with connect(routed, options="-c default_transaction_read_only=on") as connection:
            for _ in range(3):
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                    connection.execute("INSERT INTO notes VALUES (6, 'never')")
            assert connection.execute("SELECT count(*) FROM shadow").fetchone() == (1,)
        with connect(routed) as connection:
            connection.execute("INSERT INTO notes VALUES (7, 'allowed')")

    def test_cursors(self, client, primary, standby):
        for begin, expected in (("BEGIN READ ONLY", standby), ("BEGIN", primary)):
            client.query(begin)
            client.query("DECLARE c CURSOR FOR SELECT n, host_port() FROM generate_series(1, 10) AS n")
            assert client.query("FETCH 2 FROM c").rows == [["1", expected], ["2", expected]]
            assert client.query("FETCH 1 FROM c").rows == [["3", expected]]
            client.query("COMMIT")

    def test_portals_that_are_read_in_parts(self, client):
        client.send(parse("", "SELECT n, host_port() FROM generate_series(1, 5) AS n"), bind(), execute("", 2), FLUSH)
        first = client.collect("s").rows
        client.send(execute("", 0), SYNC)
        rows = first + client.collect().rows
        assert [row[0] for row in rows] == list("12345") and len({row[1] for row in rows}) == 1


class TestCopy:
    def test_out(self, client, primary, standby):
        for sql, expected in (("COPY (SELECT host_port()) TO STDOUT", standby),
                              ("COPY (SELECT host_port(), nextval('counter')) TO STDOUT", primary)):
            data = [m.body for m in client.query(sql).messages if m.type == "d"]
            assert data[0].split()[0].decode() == expected

    def test_in(self, client, pair):
        client.send(query("COPY notes FROM STDIN"))
        client.read_type("G")
        client.send(copy_data(b"8\tcopied\n" * 3), COPY_DONE)
        assert client.collect().tags == ["COPY 3"]
        with pair.primary.connect() as direct:
            assert direct.execute("SELECT count(*) FROM notes WHERE note = 'copied'").fetchone() == (3,)

    def test_the_end_of_one_that_a_standby_has_refused(self, client):
        """What comes behind it at once is not held up by it."""
        client.query("BEGIN READ ONLY")
        client.send(query("COPY notes FROM STDIN"))
        assert client.collect().error["C"] == READ_ONLY
        client.send(copy_data(b"1\tlate\n"), COPY_DONE, query("COMMIT"))
        assert client.collect().tags == ["ROLLBACK"]

    def test_pgweir_route_behind_a_message_without_sync(self, client):
        client.send(parse("", "SELECT 1"), query("SET pgweir.route = 'primary'"))
        assert client.collect().tags == ["SET"]
        client.query("SET pgweir.route = 'auto'")


class TestWishes:
    def test_hints(self, client, primary, standby):
        assert client.value("/* pgweir: primary */ SELECT host_port()") == primary
        assert client.value("/*pgweir:PRIMARY*/ SELECT host_port()") == primary
        assert client.value("/* pgweir: standby */ SELECT pg_is_in_recovery()") == "t"
        assert client.value("/* pgweir: auto */ SELECT host_port()") == standby
        assert client.value("SELECT host_port() /* pgweir: primary */") == standby
        assert client.extended(parse("h", "/* pgweir: primary */ SELECT host_port()"), bind("h"),
                               execute()).value() == primary

    def test_hint_for_a_block(self, client, primary, standby):
        for hint, expected in (("standby", standby), ("primary", primary)):
            client.query(f"/* pgweir: {hint} */ BEGIN")
            assert client.value("SELECT host_port()") == expected
            client.query("COMMIT")

    def test_a_write_that_is_hinted_to_the_standby_is_refused_there(self, routed, client, pair):
        before = routes(routed)
        result = client.query("/* pgweir: standby */ INSERT INTO notes VALUES (9, 'hinted')")
        assert result.error["C"] == READ_ONLY and result.status == "I"
        assert {"retries", "learned"}.isdisjoint(counted(routed, before))
        with pair.primary.connect() as direct:
            assert direct.execute("SELECT count(*) FROM notes WHERE n = 9").fetchone() == (0,)

    @pytest.mark.smoke
    def test_setting(self, client, primary, standby):
        assert client.value("SHOW pgweir.route") == "auto"
        for word, expected in (("primary", primary), ("standby", standby), ("auto", standby)):
            assert client.query(f"SET pgweir.route = '{word}'").tags == ["SET"]
            assert client.value("SHOW pgweir.route") == word
            assert client.value("SELECT host_port()") == expected
        client.query("SET pgweir.route TO primary")
        assert client.value("/* pgweir: standby */ SELECT host_port()") == standby
        assert client.query("RESET pgweir.route").tags == ["RESET"]
        assert client.value("SELECT host_port()") == standby

    def test_setting_to_nonsense(self, client, standby):
        result = client.query("SET pgweir.route = 'nowhere'")
        assert result.error["C"] == "22023" and result.status == "I"
        assert client.value("SELECT host_port()") == standby

    def test_setting_is_the_clients_own(self, routed, client, standby):
        client.query("SET pgweir.route = 'primary'")
        with routed.wire() as other:
            assert other.value("SELECT host_port()") == standby

    def test_setting_by_extended_protocol(self, client, primary):
        result = client.extended(parse("", "SET pgweir.route = 'primary'"), bind(), execute())
        assert result.tags == ["SET"] and not result.errors
        assert client.value("SELECT host_port()") == primary
        shown = client.extended(parse("", "SHOW pgweir.route"), bind(), describe("P"), execute())
        assert shown.rows == [["primary"]] and shown.columns == ["pgweir.route"]

    def test_setting_in_a_transaction(self, client, primary, standby):
        client.query("BEGIN")
        client.query("SET LOCAL pgweir.route = 'primary'")
        assert client.value("SELECT host_port()") == primary
        assert client.query("COMMIT").status == "I"
        assert client.value("SHOW pgweir.route") == "auto"
        wait_on(client, standby)


class TestEntries:
    """app_rw and app_ro: the two ports of old, on one address."""

    def test_the_primary(self, routed, primary):
        with routed.wire(database="app_rw") as client:
            assert client.value("SELECT host_port()") == primary
            assert client.query("BEGIN READ ONLY").status == "T"
            assert client.value("SELECT host_port()") == primary

    def test_the_standby(self, routed, standby):
        with routed.wire(database="app_ro") as client:
            assert client.value("SELECT inet_server_port()") == standby
            assert client.query("INSERT INTO notes VALUES (1, 'x')").error["C"] == READ_ONLY
            client.query("BEGIN")
            assert client.value("SELECT pg_is_in_recovery()") == "t"


class TestSessionState:
    def test_temporary_tables_are_found(self, make_routed):
        pooler = make_routed(settings={"default_pool_size": 1})
        with pooler.wire() as client:
            client.query("CREATE TEMP TABLE mine AS SELECT 42 AS n")
            assert client.value("SELECT n FROM mine") == "42"
            assert client.query("INSERT INTO mine VALUES (43)").tags == ["INSERT 0 1"]
            assert client.query("SELECT n FROM mine ORDER BY n").rows == [["42"], ["43"]]
            # It hides a table that the standby has, too.
            client.query("CREATE TEMP TABLE shadow AS SELECT 42 AS n")
            assert client.value("SELECT n FROM shadow") == "42"
            assert client.value("SELECT n FROM public.shadow") == "1"
            client.query("DISCARD ALL")
            assert client.value("SELECT n FROM shadow") == "1"

    def test_settings_follow_to_either_host(self, client, primary, standby):
        client.query("SET TimeZone = 'Asia/Tokyo'")
        wait_on(client, standby)
        for wish, expected in (("auto", standby), ("primary", primary), ("auto", standby)):
            client.query(f"SET pgweir.route = '{wish}'")
            row = client.query("SELECT host_port(), current_date - current_date, now()::text").rows[0]
            assert row[0] == expected and row[2].endswith("+09")

    def test_startup_parameters_follow_to_either_host(self, routed, primary, standby):
        with routed.wire(options="-c work_mem=7MB -c IntervalStyle=iso_8601") as client:
            for wish, expected in (("auto", standby), ("primary", primary), ("auto", standby)):
                client.query(f"SET pgweir.route = '{wish}'")
                assert client.query("SELECT host_port(), interval '1 day'").rows == [[expected, "P1D"]]
                assert client.value("SHOW work_mem") == "7MB"


class TestSessionPooling:
    def test_the_session_keeps_what_it_has_set(self, make_pooler, pair, primary):
        pooler = make_pooler(**routing.options(pair, settings={"pool_mode": "session"}))
        wait_until(lambda: {row["state"] for row in routing.hosts(pooler).values()} == {"up"}, 5, "hosts are known")
        with pooler.wire() as client:
            assert not client.query("SELECT host_port()").errors
            assert client.query("INSERT INTO notes VALUES (1, 'x') RETURNING host_port()").value() == primary
            client.query("CREATE TEMP TABLE shadow AS SELECT 42 AS n")
            assert client.value("SELECT n FROM shadow") == "42"
            client.query("SET work_mem = '7MB'")
            assert client.value("SHOW work_mem") == "7MB"
            client.query("PREPARE s AS SELECT 3")
            assert client.value("EXECUTE s") == "3"


class TestLearning:
    @pytest.mark.smoke
    def test_what_only_seems_to_read_runs_on_the_primary_and_is_remembered(self, make_routed, pair, primary):
        pooler = make_routed()
        before = routes(pooler)
        refused = pair.standby.logged("read-only transaction")
        with pooler.wire() as client:
            result = client.query("SELECT sneaky('first')")
            assert not result.errors and not result.notices and result.types == "TDCZ" and result.value() == primary
            assert counted(pooler, before)["retries"] == 1 and counted(pooler, before)["learned"] == 1
            for word in ("second", "third"):
                assert client.value(f"SELECT sneaky('{word}')") == primary
        with pooler.wire() as other:
            assert other.value("SELECT sneaky('fourth')") == primary
        assert counted(pooler, before)["retries"] == 1
        assert pair.standby.logged("read-only transaction") == refused + 1
        with pair.primary.connect() as direct:
            rows = direct.execute("SELECT note, count(*) FROM notes WHERE note = ANY (%s) GROUP BY note ORDER BY note",
                                  (["first", "second", "third", "fourth"],)).fetchall()
        assert rows == [("first", 1), ("fourth", 1), ("second", 1), ("third", 1)]

    def test_what_cannot_be_run_again_is_remembered_too(self, make_routed, pair, primary):
        """A part of the answer has been delivered when the standby refuses."""
        pooler = make_routed()
        for text in ("SELECT host_port(); SELECT sneaky('second')",
                     "SELECT CASE WHEN n > 1000 THEN sneaky('late') ELSE host_port() END"
                     " FROM generate_series(1, 1001) AS n"):
            with pooler.wire() as client:
                assert client.query(text).error["C"] == READ_ONLY
                result = client.query(text)
                assert not result.errors and result.rows[-1] == [primary]

    def test_prepared(self, make_routed, primary):
        pooler = make_routed()
        before = routes(pooler)
        with pooler.wire() as client:
            client.extended(parse("s", "SELECT sneaky($1)"))
            for turn in range(3):
                result = client.extended(bind("s", [f"p{turn}"]), execute())
                assert not result.errors and result.types == "2DCZ" and result.value() == primary
            assert client.extended(parse("", "SELECT sneaky($1)"), bind("", ["p3"]), execute()).value() == primary
        assert counted(pooler, before)["retries"] == 1

    def test_within_a_block_the_client_is_told(self, client):
        client.query("BEGIN READ ONLY")
        assert client.query("SELECT sneaky('never')").error["C"] == READ_ONLY
        assert client.query("ROLLBACK").status == "I"


class TestRecoveryConflicts:
    @pytest.fixture(autouse=True)
    def standby_is_trusted(self, routed, pair, standby):
        """A backend that was terminated makes it a suspect until the next probe, and what the test before has vacuumed
        is not to cancel the queries of this one."""
        pair.catch_up()
        wait_until(lambda: not pair.standby.sleepers(), 5, "no query is left on the standby")
        wait_until(lambda: str(routing.where(routed)) == standby, 5, "reads go to the standby")

    def wait_held(self, pair):
        wait_until(pair.standby.sleepers, 10, "the query runs on the standby")

    def conflict(self, pair):
        """Makes replay cancel what holds an old snapshot. Any snapshot on the primary may keep the dead row alive, so
        it takes more than one vacuum now and then."""
        def cancelled():
            with pair.primary.connect() as direct:
                direct.execute("UPDATE shadow SET n = n")
                direct.execute("VACUUM shadow")
            pair.catch_up()
            return not pair.standby.sleepers()
        wait_until(cancelled, 10, "the query is cancelled")

    def test_a_read_without_rows_is_run_again_on_the_primary(self, routed, client, pair, primary):
        before = routes(routed)
        client.send(query("SELECT hold_on_standby()"))
        self.wait_held(pair)
        self.conflict(pair)
        result = client.collect()
        assert not result.errors and result.types == "TDCZ" and result.value() == primary
        assert counted(routed, before)["retries"] == 1
        assert "learned" not in counted(routed, before)

    def test_a_backend_that_is_terminated(self, routed, client, pair):
        before = routes(routed)
        client.send(query("SELECT hold_on_standby()"))
        self.wait_held(pair)
        pair.standby.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        result = client.collect()
        assert not result.errors and len(result.rows) == 1
        assert counted(routed, before)["retries"] == 1

    def test_prepared(self, client, pair, primary):
        client.extended(parse("s", "SELECT hold_on_standby(), $1::text"))
        client.send(bind("s", ["again"]), execute(), SYNC)
        self.wait_held(pair)
        self.conflict(pair)
        assert client.collect().rows == [[primary, "again"]]

    def test_within_a_block_the_client_is_told(self, client, pair):
        client.query("BEGIN READ ONLY")
        client.query("SELECT 1")
        client.send(query("SELECT hold_on_standby()"))
        self.wait_held(pair)
        self.conflict(pair)
        assert client.collect().error["C"] == CONFLICT
        client.query("ROLLBACK")

    def test_after_a_row_the_client_is_told(self, client, pair):
        client.send(query("SELECT n, repeat('x', 50000), CASE WHEN n = 3 THEN hold_on_standby() END"
                          " FROM generate_series(1, 3) AS n"))
        client.read_type("T")
        self.wait_held(pair)
        self.conflict(pair)
        result = client.collect()
        assert result.error["C"] == CONFLICT and len(result.rows) <= 2

    def test_retries_can_be_turned_off(self, make_routed, pair):
        pooler = make_routed(pgweir={"retry_reads": 0})
        with pooler.wire() as client:
            client.send(query("SELECT hold_on_standby()"))
            self.wait_held(pair)
            self.conflict(pair)
            assert client.collect().error["C"] == CONFLICT


