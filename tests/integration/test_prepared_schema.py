"""Prepared statements and a schema that changes through the pooler: who prepares a text afterwards meets nothing of what
servers have kept of it before."""

import pytest

from wire import bind, describe, execute, parse

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


class TestWhoPreparedBefore:
    def test_goes_on_where_nothing_of_his_has_changed(self, pooler, admin):
        client = pooler.wire()
        prepared(client, "q", ALL)
        admin.query("CREATE TABLE schema_u (); DROP TABLE schema_u")
        assert client.extended(bind("q", ["2"]), execute()).rows == [["2", "20"]]
        servers = "SELECT count(*) FROM pg_prepared_statements WHERE statement = '" + ALL + "'"
        assert admin.value(servers) == "1"

    def test_is_told_that_the_result_is_another(self, pooler, admin):
        client = pooler.wire()
        prepared(client, "q", ALL)
        admin.query("ALTER TABLE schema_t ADD COLUMN c int")
        assert client.extended(bind("q", ["2"]), execute()).error["C"] == "0A000"
