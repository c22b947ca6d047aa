"""PostgreSQL 18 behind the pooler: its newest protocol on the server's side changes nothing for a client."""

import psycopg
import pytest

import wire
from wire import bind, execute, parse

pytestmark = pytest.mark.postgres18


@pytest.fixture
def pooler18(make_pooler, cluster18):
    return make_pooler(cluster18, settings={"default_pool_size": 2})


def test_queries_errors_and_parameters(pooler18):
    client = pooler18.wire(TimeZone="Asia/Tokyo")
    assert client.value("SHOW server_version_num").startswith("18")
    assert client.value("SHOW TimeZone") == "Asia/Tokyo"
    assert client.extended(parse("", "SELECT $1::int", [23]), bind(values=[5]), execute()).rows == [["5"]]
    assert client.query("SELECT 1/0").error["C"] == "22012"


@pytest.mark.pgweir
def test_client_that_asks_for_protocol_3_2(pooler18):
    client = wire.Wire(pooler18.port)
    client.login("postgres", "app", version=wire.PROTOCOL_3_2)
    assert client.negotiated == (wire.PROTOCOL_3_0, [])
    assert len(client.key) == 8


@pytest.mark.pgweir
def test_prepared_statements_and_savepoints_by_libpq(pooler18):
    with psycopg.connect(**pooler18.dsn(), autocommit=True, prepare_threshold=0) as connection:
        for n in range(10):
            assert connection.execute("SELECT %s::int", (n,)).fetchone() == (n,)
        with connection.transaction():
            connection.execute("SET LOCAL statement_timeout = 100")
            with pytest.raises(psycopg.errors.QueryCanceled), connection.transaction():
                connection.execute("SELECT pg_sleep(30)")
        assert connection.execute("SELECT 'after'").fetchone() == ("after",)


def test_scram_towards_the_server(make_pooler, cluster18):
    pooler = make_pooler(cluster18, settings={"auth_type": "scram-sha-256"}, userlist={"scram_user": "scram secret"})
    assert pooler.wire("scram_user", password="scram secret").value("SELECT current_user") == "scram_user"
