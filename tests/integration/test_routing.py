"""Where transactions go: reads to the standby, everything else to the primary, over every way in which a client can say
what it wants. The hosts are a real primary and its real standby; host_port() tells which of them answered.

The facts behind it (which statement is a read at all) are those of test_router_facts.py and the unit tests.
"""

import contextlib
import os
import random
import subprocess

import psycopg
import pytest

import routing
from harness import PATIENCE, wait_until
from pooler import Pooler
from replicas import Replicas
from routing import counted, routes, wait_routed
from wire import COPY_DONE, FLUSH, SYNC, Closed, bind, copy_data, describe, execute, parse, query

pytestmark = pytest.mark.pgweir

READ_ONLY = "25006"
CONFLICT = "40001"


@pytest.fixture(scope="module")
def pair(template):
    """A primary and a standby that cancels at once what stands in the way of replay."""
    one = Replicas(template)
    one.standby.set(max_standby_streaming_delay="0")
    yield one
    one.close()


@pytest.fixture(scope="module")
def shared(base, pair):
    one = Pooler(base, pair.primary, **routing.options(pair))
    try:
        wait_routed(one, pair)
        yield one
    finally:
        one.stop()


@pytest.fixture
def routed(request, shared):
    """A pooler for all tests of this file that leave nothing behind in it."""
    request.node.poolers = [shared]
    return shared


@pytest.fixture
def client(routed):
    with routed.wire() as one:
        yield one


@pytest.fixture
def primary(pair):
    return str(pair.primary.port)


@pytest.fixture
def standby(pair):
    return str(pair.standby.port)


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
    def test_temporary_tables_are_found(self, make_pooler, pair):
        pooler = wait_routed(make_pooler(**routing.options(pair, settings={"default_pool_size": 1})), pair)
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


class TestPrepared:
    """A statement is prepared once by its client and used on whichever host its transaction goes to."""

    @pytest.mark.smoke
    def test_statements_follow_to_either_host(self, client, primary, standby):
        client.extended(parse("s", "SELECT host_port(), $1::int"))
        for turn in range(6):
            wish, expected = (("auto", standby), ("primary", primary))[turn % 2]
            client.query(f"SET pgweir.route = '{wish}'")
            assert client.extended(bind("s", [turn]), execute()).rows == [[expected, str(turn)]]

    def test_describe_alone_then_use(self, client, standby):
        described = client.extended(parse("d", "SELECT host_port() AS port"), describe("S", "d"))
        assert described.columns == ["port"]
        assert client.extended(bind("d"), execute()).value() == standby

    def test_prepared_writes_between_prepared_reads(self, client, primary):
        client.extended(parse("r", "SELECT count(*) FROM notes WHERE n = $1"))
        client.extended(parse("w", "INSERT INTO notes VALUES ($1, 'p') RETURNING host_port()"))
        mark = random.Random(os.getpid()).randrange(1 << 30)
        for turn in range(1, 6):
            assert client.extended(bind("w", [mark]), execute()).value() == primary
            assert client.extended(bind("r", [mark]), execute()).value() == str(turn)

    def test_sql_prepare_and_execute(self, make_pooler, pair):
        pooler = wait_routed(make_pooler(**routing.options(pair, settings={"default_pool_size": 1})), pair)
        with pooler.wire() as client:
            client.query("PREPARE s (int) AS SELECT host_port(), $1")
            assert client.query("EXECUTE s (7)").rows[0][1] == "7"

    def test_one_text_of_many_clients(self, routed, primary, standby):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(routed.wire()) for _ in range(20)]
            for number, one in enumerate(clients):
                one.query(f"SET pgweir.route = '{'primary' if number % 2 else 'auto'}'")
                one.extended(parse(f"mine{number}", "SELECT host_port(), $1::text"))
            for turn in range(3):
                for number, one in enumerate(clients):
                    one.send(bind(f"mine{number}", [f"{number}/{turn}"]), execute(), SYNC)
                for number, one in enumerate(clients):
                    assert one.collect().rows == [[primary if number % 2 else standby, f"{number}/{turn}"]]


class TestPipelines:
    def test_reads_each_with_a_sync(self, client, standby):
        client.send(*(parse("", f"SELECT host_port(), {n}") + bind() + execute() + SYNC for n in range(10)))
        assert [client.collect().rows for _ in range(10)] == [[[standby, str(n)]] for n in range(10)]

    def test_a_write_after_a_read_without_a_sync_between(self, client, primary):
        """They are one transaction, whose first statement alone would be a read."""
        result = client.extended(parse("", "SELECT host_port()"), bind(), execute(),
                                 parse("", "INSERT INTO notes VALUES (1, 'p') RETURNING host_port()"), bind(), execute())
        assert not result.errors and result.rows == [[primary], [primary]]

    def test_a_write_after_a_read_in_two_segments(self, client, primary):
        client.send(parse("", "SELECT host_port()"), bind(), execute())
        assert client.quiet_for(0.1)
        client.send(parse("", "INSERT INTO notes VALUES (1, 'p') RETURNING host_port()"), bind(), execute(), SYNC)
        result = client.collect()
        assert not result.errors and result.rows == [[primary], [primary]]

    def test_a_write_that_comes_later_in_the_same_transaction(self, client):
        """The read may have been answered before the write is seen: Flush asks for it, Sync is yet to come."""
        client.send(parse("", "SELECT host_port()"), bind(), execute(), FLUSH)
        client.collect("C")
        client.send(parse("", "INSERT INTO notes VALUES (1, 'p')"), bind(), execute(), SYNC)
        result = client.collect()
        assert not result.errors and result.tags == ["INSERT 0 1"]

    def test_reads_and_writes_each_with_a_sync(self, client):
        mark = random.Random(os.getpid() + 1).randrange(1 << 30)
        client.extended(parse("r", "SELECT count(*) FROM notes WHERE n = $1"))
        client.extended(parse("w", "INSERT INTO notes VALUES ($1, 'p')"))
        client.send(*(bind("w", [mark]) + execute() + SYNC + bind("r", [mark]) + execute() + SYNC for _ in range(5)))
        for turn in range(1, 6):
            assert client.collect().tags == ["INSERT 0 1"]
            assert client.collect().rows == [[str(turn)]]

    def test_libpq_pipeline_mode(self, routed):
        mark = random.Random(os.getpid() + 2).randrange(1 << 30)
        with connect(routed, prepare_threshold=0) as connection:
            for _ in range(3):
                with connection.pipeline():
                    first = connection.execute("SELECT count(*) FROM notes WHERE n = %s", (mark,))
                    connection.execute("INSERT INTO notes VALUES (%s, 'pipeline')", (mark,))
                    second = connection.execute("SELECT count(*) FROM notes WHERE n = %s", (mark,))
                assert second.fetchone()[0] == first.fetchone()[0] + 1


class TestLearning:
    @pytest.mark.smoke
    def test_what_only_seems_to_read_runs_on_the_primary_and_is_remembered(self, make_pooler, pair, primary):
        pooler = wait_routed(make_pooler(**routing.options(pair)), pair)
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
            rows = direct.execute("SELECT note, count(*) FROM notes WHERE note IN ('first', 'second', 'third', 'fourth')"
                                  " GROUP BY note ORDER BY note").fetchall()
        assert rows == [("first", 1), ("fourth", 1), ("second", 1), ("third", 1)]

    def test_prepared(self, make_pooler, pair, primary):
        pooler = wait_routed(make_pooler(**routing.options(pair)), pair)
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
        """A backend that was terminated makes it a suspect until the next probe, and what the test before has vacuumed is
        not to cancel the queries of this one."""
        pair.catch_up()
        wait_until(lambda: not self.held(pair), 5, "no query is left on the standby")
        wait_until(lambda: str(routing.where(routed)) == standby, 5, "reads go to the standby")

    def held(self, pair):
        return pair.standby.ask("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")

    def wait_held(self, pair):
        wait_until(lambda: self.held(pair), 10, "the query runs on the standby")

    def conflict(self, pair):
        """Makes replay cancel what holds an old snapshot. Any snapshot on the primary may keep the dead row alive, so it
        takes more than one vacuum now and then."""
        def cancelled():
            with pair.primary.connect() as direct:
                direct.execute("UPDATE shadow SET n = n")
                direct.execute("VACUUM shadow")
            pair.catch_up()
            return not self.held(pair)
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

    def test_retries_can_be_turned_off(self, make_pooler, pair):
        pooler = wait_routed(make_pooler(**routing.options(pair, pgweir={"retry_reads": 0})), pair)
        with pooler.wire() as client:
            client.send(query("SELECT hold_on_standby()"))
            self.wait_held(pair)
            self.conflict(pair)
            assert client.collect().error["C"] == CONFLICT


class TestStrangeTexts:
    def test_what_the_parser_cannot_read(self, client, pair):
        before = pair.primary.logged("syntax error"), pair.standby.logged("syntax error")
        for sql in ("SELEKT 1", "SELECT", "SELECT 'open", "SELECT $$open", "/* open", "SELECT (((", "\x01\x02", "SELECT 1 1"):
            result = client.query(sql)
            assert result.status == "I" and (result.errors or sql == "SELECT")
        assert client.value("SELECT 1") == "1"
        assert pair.primary.logged("syntax error") > before[0]
        assert pair.standby.logged("syntax error") == before[1]

    def test_invalid_bytes(self, client, standby):
        for bad in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\xaf"):
            assert client.query(b"SELECT '" + bad + b"'").error["C"] == "22021"
            assert client.query(b"SELECT host_port() -- " + bad).status == "I"
            assert client.extended(parse("", b"SELECT '" + bad + b"'"), bind(), execute()).error["C"] == "22021"
        wait_on(client, standby)

    def test_other_encodings(self, routed, primary, standby):
        with routed.wire(client_encoding="LATIN1") as client:
            assert client.query(b"SELECT host_port(), '\xe4'").rows[0][0] in (primary, standby)
            assert client.query(b"INSERT INTO notes VALUES (1, '\xe4')").tags == ["INSERT 0 1"]

    def test_sixteen_megabytes(self, client, primary):
        text = "x" * (16 << 20)
        assert client.query(f"SELECT host_port(), length('{text}')").rows == [[primary, str(len(text))]]
        result = client.extended(parse("", f"SELECT host_port(), length('{text}')"), bind(), execute())
        assert result.rows == [[primary, str(len(text))]]

    def test_deep_nesting(self, client):
        for sql in ("SELECT " + "(" * 100000 + "1" + ")" * 100000, "SELECT 1" + "+1" * 50000):
            assert client.query(sql).status == "I"
        assert client.value("SELECT 1") == "1"

    def test_random_bytes(self, routed):
        chance = random.Random(11)
        for _ in range(20):
            client = routed.wire()
            with contextlib.suppress(Closed):
                sql = bytes(chance.randrange(1, 256) for _ in range(chance.randrange(1, 200)))
                client.query(sql)
                client.extended(parse("", sql), bind(), execute())
            client.close()
        assert routed.process.poll() is None


class TestDrivers:
    def test_psycopg(self, routed, pair):
        with connect(routed, prepare_threshold=0) as connection:
            for n in range(10):
                assert connection.execute("SELECT host_port(), %s::int", (n,)).fetchone() == (pair.standby.port, n)
            with connection.transaction():
                assert connection.execute("SELECT host_port()").fetchone() == (pair.primary.port,)
                with connection.cursor("named") as cursor:
                    cursor.itersize = 3
                    assert len(list(cursor.execute("SELECT generate_series(1, 10)"))) == 10
        with connect(routed, autocommit=False) as connection:
            connection.read_only = True
            assert connection.execute("SELECT host_port()").fetchone() == (pair.standby.port,)
            with connection.cursor("named") as cursor:
                assert cursor.execute("SELECT host_port()").fetchone() == (pair.standby.port,)
            with connection.cursor() as cursor, cursor.copy("COPY (SELECT host_port()) TO STDOUT") as copy:
                assert b"".join(copy).decode().strip() == str(pair.standby.port)

    def test_asyncpg(self, routed, pair):
        import asyncio
        asyncio.run(asyncio.wait_for(self.asyncpg_script(routed.port, pair), 60 * PATIENCE))

    async def asyncpg_script(self, port, pair):
        import asyncpg
        connection = await asyncpg.connect(host="127.0.0.1", port=port, user="postgres", database="app", ssl=False)
        for n in range(10):
            row = await connection.fetchrow("SELECT host_port(), $1::int", n)
            assert tuple(row) == (pair.standby.port, n)
        async with connection.transaction(readonly=True):
            assert await connection.fetchval("SELECT host_port()") == pair.standby.port
            assert [row[0] async for row in connection.cursor("SELECT generate_series(1, 10)", prefetch=3)] == list(range(1, 11))
        async with connection.transaction():
            assert await connection.fetchval("SELECT host_port()") == pair.primary.port
        assert await connection.fetchval("INSERT INTO notes VALUES ($1, 'a') RETURNING host_port()", 1) == pair.primary.port
        await connection.executemany("INSERT INTO notes VALUES ($1, $2)", [(n, "many") for n in range(50)])
        await connection.copy_records_to_table("notes", records=[(n, "copy") for n in range(50)])
        await connection.close()

    def test_node_postgres(self, routed, pair):
        from test_drivers import DRIVERS, VAR, run_program
        if not (VAR / "node/node_modules/pg").exists():
            pytest.skip("no node-postgres")
        run_program("node", DRIVERS / "node/routing_test.js", routed.port, pair.primary.port, pair.standby.port,
                    PGWEIR_NODE_MODULES=str(VAR / "node/node_modules"))

    def test_pgbench(self, routed, pair):
        """Simple and prepared, reads and writes, at once."""
        pgbench = pair.primary.bin / "pgbench"
        script = routed.home / "mixed.sql"
        script.write_text("SELECT count(*) FROM shadow;\nINSERT INTO notes VALUES (10, 'pgbench');\n"
                          "BEGIN;\nSELECT 1 FROM shadow;\nUPDATE shadow SET n = n;\nEND;\n")
        for mode in ("simple", "extended", "prepared"):
            done = subprocess.run([str(pgbench), "-n", "-h", "127.0.0.1", "-p", str(routed.port), "-U", "postgres", "-c", "8", "-j", "8",
                                   "-t", "25", "-M", mode, "-f", str(script), "app"], capture_output=True, text=True,
                                  timeout=60 * PATIENCE, check=False)
            assert done.returncode == 0 and "processed: 200/200" in done.stdout, done.stdout + done.stderr
            assert "number of failed transactions: 0" in done.stdout
