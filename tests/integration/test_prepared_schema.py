"""Prepared statements and a schema that changes through the pooler: who prepares a text afterwards meets nothing of what
servers have kept of it before, and who prepared before never gets another result than he was told of."""

import asyncio

import asyncpg
import pytest

from harness import wait_until
from wire import SYNC, Wire, bind, close, describe, execute, parse, query

pytestmark = pytest.mark.pgweir


@pytest.fixture
def pooler(make_pooler):
    return make_pooler(settings={"default_pool_size": 1})


@pytest.fixture
def admin(pooler):
    """A client that has made a table t of two rows, which goes with it."""
    client = pooler.wire()
    client.query("DROP TABLE IF EXISTS schema_t; CREATE TABLE schema_t (a int, b int)")
    client.query("INSERT INTO schema_t VALUES (1, 10), (2, 20)")
    yield client
    client.query("DROP TABLE schema_t")


@pytest.fixture
def direct(cluster):
    """A connection past the pooler."""
    with Wire(cluster.port) as client:
        client.login("postgres", "app")
        yield client


LOCKS_WAITED_FOR = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"


def parameter_types(result):
    """The OIDs of a ParameterDescription."""
    body = next(message.body for message in result.messages if message.type == "t")
    return [int.from_bytes(body[at:at + 4], "big") for at in range(2, len(body), 4)]


def prepared(client, name, sql):
    """What Describe says of a statement that is prepared now."""
    result = client.extended(parse(name, sql), describe("S", name))
    assert result.errors == []
    return result


ALL = "SELECT * FROM schema_t WHERE a = $1"


class TestWhoPreparesAfterwards:
    @pytest.mark.parametrize("block", (False, True))
    def test_gets_the_new_columns(self, pooler, admin, block):
        assert prepared(pooler.wire(), "q", ALL).columns == ["a", "b"]
        if block:
            admin.query("BEGIN")
        admin.query("ALTER TABLE schema_t ADD COLUMN c int DEFAULT 7")
        if block:
            admin.query("COMMIT")
        client = pooler.wire()
        client.query("BEGIN")
        assert prepared(client, "q", ALL).columns == ["a", "b", "c"]
        assert client.extended(bind("q", ["1"]), execute()).rows == [["1", "10", "7"]]
        client.query("COMMIT")

    @pytest.mark.parametrize("kind, oid, value", (("bigint", 20, "5000000000"), ("text", 25, "five")))
    def test_gets_the_new_types_of_parameters(self, pooler, admin, kind, oid, value):
        sql = "INSERT INTO schema_t (a) VALUES ($1) RETURNING a"
        assert parameter_types(prepared(pooler.wire(), "q", sql)) == [23]
        admin.query(f"ALTER TABLE schema_t ALTER a TYPE {kind}")
        client = pooler.wire()
        assert parameter_types(prepared(client, "q", sql)) == [oid]
        assert client.extended(bind("q", [value]), execute()).rows == [[value]]

    def test_may_be_the_transaction_that_changes_it(self, pooler, admin):
        assert prepared(pooler.wire(), "q", ALL).columns == ["a", "b"]
        admin.query("BEGIN")
        admin.query("ALTER TABLE schema_t DROP COLUMN b")
        assert prepared(admin, "mine", ALL).columns == ["a"]
        admin.query("ROLLBACK")
        assert prepared(pooler.wire(), "q", ALL).columns == ["a", "b"]

    def test_may_be_on_another_worker(self, make_pooler, admin):
        pooler = make_pooler(settings={"default_pool_size": 1}, pgweir={"worker_threads": 4})
        admin.query("SELECT 1")
        clients = [pooler.wire() for _ in range(12)]
        for client in clients:
            assert prepared(client, "old", ALL).columns == ["a", "b"]
        clients[0].query("ALTER TABLE schema_t ADD COLUMN c int")
        for client in clients:
            assert prepared(client, "new", ALL).columns == ["a", "b", "c"]

    def test_shares_what_others_have_prepared_since(self, pooler, admin):
        admin.query("ALTER TABLE schema_t ADD COLUMN c int")
        count = "SELECT count(*) FROM pg_prepared_statements WHERE statement = '" + ALL + "'"
        clients = [pooler.wire() for _ in range(3)]
        for client in clients:
            prepared(client, "q", ALL)
        assert admin.value(count) == "1"


    def test_may_prepare_again_under_the_name_when_servers_were_found_out_of_date(self, pooler, admin, direct):
        prepared(pooler.wire(), "q", ALL)
        direct.query("ALTER TABLE schema_t ADD COLUMN c int")
        client, other = pooler.wire(), pooler.wire()
        assert client.extended(parse("q", ALL), describe("S", "q")).error["C"] == "0A000"
        assert prepared(client, "q", ALL).columns == ["a", "b", "c"]
        assert other.extended(parse("q", ALL), bind("q", ["1"]), describe("P"), execute()).rows == [["1", "10", None]]


class TestWhoPreparedBefore:
    def test_goes_on_where_nothing_of_his_has_changed(self, pooler, admin):
        client = pooler.wire()
        prepared(client, "q", ALL)
        admin.query("CREATE TABLE schema_u (); DROP TABLE schema_u")
        assert client.extended(bind("q", ["2"]), execute()).rows == [["2", "20"]]
        assert admin.value(f"SELECT count(*) FROM pg_prepared_statements WHERE statement = '{ALL}'") == "1"

    def test_is_told_that_the_result_is_another(self, pooler, admin):
        client = pooler.wire()
        prepared(client, "q", ALL)
        admin.query("ALTER TABLE schema_t ADD COLUMN c int")
        assert client.extended(bind("q", ["2"]), execute()).error["C"] == "0A000"

    def test_gets_no_other_result_from_a_server_that_lacks_it(self, pooler, admin):
        client = pooler.wire()
        prepared(client, "q", ALL)
        admin.query("ALTER TABLE schema_t ADD COLUMN c int")
        pooler.admin("RECONNECT app")
        for _ in range(2):
            error = client.extended(bind("q", ["2"]), execute()).error
            assert (error["C"], error["M"]) == ("0A000", "cached plan must not change result type")
            assert (error["S"], error["V"], error["R"]) == ("ERROR", "ERROR", "RevalidateCachedQuery")
        assert client.extended(describe("S", "q")).error["C"] == "0A000"
        client.extended(close("S", "q"))
        assert prepared(client, "q", ALL).columns == ["a", "b", "c"]
        assert client.extended(bind("q", ["2"]), execute()).rows == [["2", "20", None]]

    @pytest.mark.parametrize(
        "change",
        (
            "ALTER a TYPE bigint",
            "RENAME a TO x; ALTER TABLE schema_t RENAME b TO a; ALTER TABLE schema_t RENAME x TO b",
            "ALTER b TYPE varchar(7)",
        ),
    )
    def test_is_told_of_any_other_result(self, pooler, admin, change):
        client = pooler.wire()
        prepared(client, "q", "SELECT * FROM schema_t")
        admin.query(f"ALTER TABLE schema_t {change}")
        pooler.admin("RECONNECT app")
        assert client.extended(bind("q"), execute()).error["C"] == "0A000"

    def test_goes_on_elsewhere_where_nothing_of_his_has_changed(self, pooler, admin):
        client = pooler.wire()
        prepared(client, "q", ALL)
        prepared(client, "i", "INSERT INTO schema_t VALUES ($1, $2)")
        admin.query("CREATE INDEX schema_i ON schema_t (a)")
        pooler.admin("RECONNECT app")
        for _ in range(2):
            assert client.extended(bind("q", ["2"]), execute()).rows == [["2", "20"]]
            assert client.extended(bind("i", ["3", "30"]), execute()).tags == ["INSERT 0 1"]
            pooler.admin("RECONNECT app")
        assert admin.value("SELECT count(*) FROM schema_t") == "4"

    def test_goes_on_when_the_schema_is_what_it_was(self, pooler, admin):
        client = pooler.wire()
        prepared(client, "q", ALL)
        admin.query("ALTER TABLE schema_t ADD COLUMN c int")
        pooler.admin("RECONNECT app")
        assert client.extended(bind("q", ["2"]), execute()).error["C"] == "0A000"
        admin.query("ALTER TABLE schema_t DROP COLUMN c")
        assert client.extended(bind("q", ["2"]), execute()).rows == [["2", "20"]]

    def test_keeps_the_types_of_his_parameters(self, pooler, admin):
        """Binary values would be read as something else."""
        client = pooler.wire()
        sql = "SELECT b FROM schema_t WHERE a = $1"
        assert parameter_types(prepared(client, "q", sql)) == [23]
        admin.query("ALTER TABLE schema_t ALTER a TYPE bigint")
        pooler.admin("RECONNECT app")
        result = client.extended(bind("q", [b"\0\0\0\2"], formats=[1]), execute())
        assert result.errors == [] and result.rows == [["20"]]

    def test_may_know_the_result_of_the_portal_only(self, pooler, admin):
        """As JDBC's driver, which asks for it once."""
        client = pooler.wire()
        for portal in ("", "c1"):
            name = "q" + portal
            client.extended(parse(name, ALL), bind(name, ["1"], portal), describe("P", portal), execute(portal))
        client.extended(parse("n", ALL), bind("n", ["1"]), execute())  # he knows nothing
        admin.query("ALTER TABLE schema_t ADD COLUMN c int")
        pooler.admin("RECONNECT app")
        for name in ("q", "qc1"):
            assert client.extended(bind(name, ["2"]), execute()).error["C"] == "0A000", name
        assert client.extended(bind("n", ["2"]), execute()).rows == [["2", "20", None]]

    def test_who_has_been_told_nothing_gets_what_there_is(self, pooler, admin):
        client = pooler.wire()
        client.extended(parse("q", ALL))
        admin.query("ALTER TABLE schema_t ADD COLUMN c int")
        pooler.admin("RECONNECT app")
        assert client.extended(bind("q", ["2"]), execute()).rows == [["2", "20", None]]

    def test_loses_his_transaction_to_it(self, pooler, admin):
        client = pooler.wire()
        prepared(client, "q", ALL)
        admin.query("ALTER TABLE schema_t ADD COLUMN c int")
        pooler.admin("RECONNECT app")
        client.query("BEGIN; INSERT INTO schema_t VALUES (3)")
        result = client.extended(bind("q", ["3"]), execute(), bind("q", ["3"]), execute())
        assert [error["C"] for error in result.errors] == ["0A000"] and result.status == "E"
        assert client.extended(bind("q", ["3"]), execute()).error["C"] == "25P02"
        client.query("COMMIT")
        assert admin.value("SELECT count(*) FROM schema_t") == "2"

    def test_nothing_behind_it_in_the_pipeline_runs(self, pooler, admin):
        client = pooler.wire()
        prepared(client, "q", ALL)
        prepared(client, "i", "INSERT INTO schema_t VALUES (3) RETURNING a")
        admin.query("ALTER TABLE schema_t ADD COLUMN c int")
        pooler.admin("RECONNECT app")
        client.send(bind("i"), execute(), bind("q", ["2"]), execute(), bind("i"), execute(), SYNC)
        client.send(bind("i"), execute(), SYNC)
        assert [error["C"] for error in client.collect().errors] == ["0A000"]
        assert client.collect().rows == [["3"]]
        assert admin.value("SELECT count(*) FROM schema_t") == "3"

    def test_is_told_when_it_cannot_be_parsed_any_more(self, pooler, admin):
        client = pooler.wire()
        prepared(client, "q", "SELECT b FROM schema_t")
        admin.query("ALTER TABLE schema_t DROP COLUMN b")
        pooler.admin("RECONNECT app")
        for _ in range(2):
            assert client.extended(bind("q"), execute()).error["C"] == "42703"
        admin.query("ALTER TABLE schema_t ADD COLUMN b int DEFAULT 5")
        assert client.extended(bind("q"), execute()).rows == [["5"], ["5"]]

    def test_may_be_the_transaction_that_changes_it(self, pooler, admin):
        """What it sees is not what others are told."""
        client, third = pooler.wire(), pooler.wire()
        prepared(client, "q", ALL)
        pooler.admin("SET default_pool_size = 2")
        third.query("BEGIN")
        admin.query("BEGIN")
        third.query("COMMIT")
        pooler.admin("RECONNECT app")
        admin.query("ALTER TABLE schema_t ADD COLUMN c int DEFAULT 3")
        assert prepared(admin, "q", ALL).columns == ["a", "b", "c"]
        admin.query("ROLLBACK")
        assert client.extended(bind("q", ["2"]), execute()).rows == [["2", "20"]]
        assert admin.extended(bind("q", ["2"]), execute()).error["C"] == "0A000"

    def test_after_an_online_restart(self, pooler, admin):
        client = pooler.wire()
        prepared(client, "q", ALL)
        client.extended(parse("i", "SELECT count(*) FROM schema_t"))
        pooler.restart_online()
        admin.query("ALTER TABLE schema_t ADD COLUMN c int")
        pooler.admin("RECONNECT app")
        assert client.extended(bind("q", ["2"]), execute()).error["C"] == "0A000"
        assert client.extended(bind("i"), execute()).rows == [["2"]]

    @pytest.mark.parametrize("wait", (0.3, 2.5))
    def test_gets_no_other_result_when_the_change_waits_for_a_lock(self, make_pooler, admin, direct, wait):
        """Nor when nothing has changed before."""
        pooler = make_pooler(settings={"default_pool_size": 2})
        client, changing = pooler.wire(), pooler.wire()
        prepared(client, "q", ALL)
        pooler.admin("RECONNECT app")
        direct.query("BEGIN; SELECT * FROM schema_t")
        changing.send(query("ALTER TABLE schema_t ADD COLUMN c int"))
        wait_until(lambda: direct.value(LOCKS_WAITED_FOR) == "1")
        client.send(bind("q", ["2"]), execute(), SYNC)
        wait_until(lambda: direct.value(LOCKS_WAITED_FOR) == "2")
        assert client.quiet_for(wait)
        direct.query("COMMIT")
        assert changing.collect().errors == []
        assert client.collect().error["C"] == "0A000"
        for _ in range(3):
            assert client.extended(bind("q", ["2"]), execute()).error["C"] == "0A000"

    def test_parameters_keep_their_types_when_the_change_is_made_past_the_pooler(self, pooler, admin, direct):
        client = pooler.wire()
        assert parameter_types(prepared(client, "i", "INSERT INTO schema_t (a) VALUES ($1)")) == [23]
        direct.query("ALTER TABLE schema_t ALTER a TYPE float8")
        pooler.admin("RECONNECT app")
        assert client.extended(bind("i", [b"\0\0\0\x11"], formats=[1]), execute()).tags == ["INSERT 0 1"]
        assert admin.value("SELECT max(a) FROM schema_t") == "17"

    def test_unnamed_statement_keeps_its_types_and_its_result(self, pooler, admin):
        client = pooler.wire()
        insert = "INSERT INTO schema_t (a) VALUES ($1) RETURNING a::text"
        assert parameter_types(prepared(client, "", insert)) == [23]
        admin.query("ALTER TABLE schema_t ALTER a TYPE float8")
        admin.extended(parse("", "SELECT 1"), bind(), execute())
        result = client.extended(bind("", [b"\0\0\0\x11"], formats=[1]), execute())
        assert result.errors == [] and result.rows == [["17"]]
        prepared(client, "", "SELECT * FROM schema_t")
        admin.query("ALTER TABLE schema_t ADD COLUMN c int")
        admin.extended(parse("", "SELECT 1"), bind(), execute())
        for _ in range(2):
            assert client.extended(bind(), execute()).error["C"] == "0A000"
        admin.query("ALTER TABLE schema_t DROP COLUMN c")
        admin.extended(parse("", "SELECT 1"), bind(), execute())
        assert len(client.extended(bind(), execute()).rows) == 3

    def test_may_drop_what_cannot_be_parsed_any_more(self, pooler, admin, direct):
        client = pooler.wire()
        for name in ("q", "r", "s"):
            prepared(client, name, "SELECT b FROM schema_t")
        admin.query("ALTER TABLE schema_t DROP COLUMN b")
        pooler.admin("RECONNECT app")
        assert client.query("DEALLOCATE q").tags == ["DEALLOCATE"]
        assert client.query("BEGIN; DEALLOCATE r; SELECT 1").errors == []
        assert client.query("COMMIT").tags == ["COMMIT"]
        direct.query("BEGIN; LOCK TABLE schema_t")
        assert client.query("DEALLOCATE s").tags == ["DEALLOCATE"]  # without waiting for it
        direct.query("COMMIT")
        for name in ("q", "r", "s"):
            assert prepared(client, name, "SELECT a FROM schema_t").columns == ["a"]

    def test_asyncpg_prepares_again(self, pooler, admin):
        async def work():
            client = await asyncpg.connect(
                host="127.0.0.1", port=pooler.port, user="postgres", database="app", timeout=10
            )
            rows = await client.fetch(ALL, 2)
            assert [dict(row) for row in rows] == [{"a": 2, "b": 20}]
            for change in ("DROP b", "ADD b text DEFAULT 'x'"):
                await asyncio.to_thread(admin.query, f"ALTER TABLE schema_t {change}")
                await asyncio.to_thread(pooler.admin, "RECONNECT app")
                rows = await client.fetch(ALL, 2)
            assert [dict(row) for row in rows] == [{"a": 2, "b": "x"}]
            await client.close()

        asyncio.run(work())
