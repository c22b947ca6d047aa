"""Routing over every way of speaking: prepared statements, pipelines, what no parser can read, and real drivers.

The hosts are a real primary and its real standby; host_port() tells which of them answered.
"""

import asyncio
import contextlib
import os
import random
import shutil
import subprocess

import asyncpg
import psycopg
import pytest

from harness import PATIENCE, VAR, wait_until
from test_drivers import DRIVERS, run_program
from wire import COPY_DONE, FLUSH, SYNC, Closed, bind, copy_data, describe, execute, parse, query

pytestmark = pytest.mark.pgweir

WRITE = "INSERT INTO notes VALUES (1, 'p') RETURNING host_port()"


def wait_on(client, port):
    """Waits until a client that has written is back where reads go."""
    wait_until(lambda: client.value("SELECT host_port()") == port, 5, f"reads are answered by {port}")


def connect(pooler, database="app", **more):
    return psycopg.connect(**pooler.dsn(database=database), **{"autocommit": True, **more})


class TestPrepared:
    """A statement is prepared once by its client and used on whichever host its transaction goes to."""

    @pytest.mark.smoke
    def test_statements_follow_to_either_host(self, client, primary, standby):
        client.extended(parse("s", "SELECT host_port(), $1::int"))
        for turn in range(6):
            wish, expected = (("auto", standby), ("primary", primary))[turn % 2]
            client.query(f"SET pgweir.route = '{wish}'")
            assert client.extended(bind("s", [turn]), execute()).rows == [[expected, str(turn)]]

    @pytest.mark.parametrize("more", [b"", describe("S", "")])
    def test_what_follows_a_flush_at_once_is_looked_at(self, client, primary, more):
        for turn in range(2):
            client.send(parse("", "SELECT count(*) FROM notes"), describe("S", ""), FLUSH, more,
                        parse(f"w{turn}", WRITE), bind(f"w{turn}"), execute(), SYNC)
            result = client.collect()
            assert result.errors == [] and result.types == ("1tT" + ("tT" if more else "") + "12DCZ")
            assert result.rows == [[primary]]

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

    def test_sql_prepare_and_execute(self, make_routed):
        pooler = make_routed(settings={"default_pool_size": 1})
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
                                 parse("", WRITE), bind(), execute())
        assert not result.errors and result.rows == [[primary], [primary]]

    def test_a_write_after_a_read_in_two_segments(self, client, primary):
        client.send(parse("", "SELECT host_port()"), bind(), execute())
        assert client.quiet_for(0.1)
        client.send(parse("", WRITE), bind(), execute(), SYNC)
        result = client.collect()
        assert not result.errors and result.rows == [[primary], [primary]]

    def test_descriptions_before_a_sync(self, client, standby):
        """As asyncpg prepares: it flushes a description and sends Sync only with what it executes."""
        client.send(parse("s", "SELECT host_port(), $1::int"), describe("S", "s"), FLUSH)
        assert client.collect("T").types == "1tT"
        client.send(bind("s", [1]), execute(), SYNC)
        assert client.collect().rows[0][1] == "1"
        assert client.extended(bind("s", [2]), execute()).rows[0][1] == "2"

    def test_copy_after_a_description_without_a_sync(self, client):
        """As asyncpg copies: it prepares a read of the table, and goes on with a simple query."""
        client.send(parse("s", "SELECT * FROM notes LIMIT 1"), describe("S", "s"), FLUSH)
        assert client.collect("T").types == "1tT"
        client.send(query("COPY notes FROM STDIN"))
        client.read_type("G")
        client.send(copy_data(b"8\tcopied\n" * 3), COPY_DONE)
        assert client.collect().tags == ["COPY 3"]

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


class TestStrangeTexts:
    def test_what_the_parser_cannot_read(self, client, pair):
        before = pair.primary.logged("syntax error"), pair.standby.logged("syntax error")
        for sql in ("SELEKT 1", "SELECT", "SELECT 'open", "SELECT $$open", "/* open", "SELECT (((", "\x01\x02",
                    "SELECT 1 1"):
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


    def test_texts_that_never_come_again_cost_little_memory(self, make_routed, pair):
        """What is remembered of statements has a bound; one that many clients use is known all the while."""
        pooler = make_routed(pgweir={"worker_threads": 1})

        def ask(client, first):
            texts = [f"SELECT host_port() AS {'a' * 40}{number}" for number in range(first, first + 200)]
            client.send(*(query(text) for text in texts))
            for _ in texts:
                assert client.collect().rows == [[str(pair.standby.port)]]
        with pooler.wire(timeout=30) as attacker, pooler.wire() as client:
            for first in range(0, 12000, 200):  # more than are kept
                ask(attacker, first)
            before = pooler.memory_kib()
            for first in range(12000, 24000, 200):
                ask(attacker, first)
                assert client.value("SELECT host_port()") == str(pair.standby.port)
            assert pooler.memory_kib() - before < 4096


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
        asyncio.run(asyncio.wait_for(self.asyncpg_script(routed.port, pair), 20 * PATIENCE))

    async def asyncpg_script(self, port, pair):
        connection = await asyncpg.connect(host="127.0.0.1", port=port, user="postgres", database="app", ssl=False)
        for n in range(10):
            row = await connection.fetchrow("SELECT host_port(), $1::int", n)
            assert tuple(row) == (pair.standby.port, n)
        async with connection.transaction(readonly=True):
            assert await connection.fetchval("SELECT host_port()") == pair.standby.port
            rows = [row[0] async for row in connection.cursor("SELECT generate_series(1, 10)", prefetch=3)]
            assert rows == list(range(1, 11))
        async with connection.transaction():
            assert await connection.fetchval("SELECT host_port()") == pair.primary.port
        assert await connection.fetchval(WRITE) == pair.primary.port
        await connection.executemany("INSERT INTO notes VALUES ($1, $2)", [(n, "many") for n in range(50)])
        await connection.copy_records_to_table("notes", records=[(n, "copy") for n in range(50)])
        await connection.close()

    @pytest.mark.skipif(not shutil.which("node") or not (VAR / "node/node_modules/pg").exists(),
                        reason="no node-postgres")
    def test_node_postgres(self, routed, pair):
        run_program("node", DRIVERS / "node/routing_test.js", routed.port, pair.primary.port, pair.standby.port,
                    PGWEIR_NODE_MODULES=str(VAR / "node/node_modules"))

    def test_pgbench(self, routed, pair):
        """Simple and prepared, reads and writes, at once."""
        pgbench = pair.primary.bin / "pgbench"
        script = routed.home / "mixed.sql"
        script.write_text("SELECT count(*) FROM shadow;\nINSERT INTO notes VALUES (10, 'pgbench');\n"
                          "BEGIN;\nSELECT 1 FROM shadow;\nUPDATE shadow SET n = n;\nEND;\n")
        for mode in ("simple", "extended", "prepared"):
            done = subprocess.run([pgbench, "-n", "-h", "127.0.0.1", "-p", str(routed.port), "-U", "postgres", "-c", "8",
                                   "-j", "8", "-t", "25", "-M", mode, "-f", script, "app"], capture_output=True,
                                  text=True, timeout=60 * PATIENCE, check=False)
            assert done.returncode == 0 and "processed: 200/200" in done.stdout, done.stdout + done.stderr
            assert "number of failed transactions: 0" in done.stdout
