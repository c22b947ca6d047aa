"""Each driver runs the same script: prepared statements, pipelines, cursors, COPY, errors, savepoints, parameters,
notices, cancel, and twenty connections at once that must each see only their own tokens.

Every script also runs against PostgreSQL itself: that shows what it proves about the pooler.
"""

import asyncio
import io
import os
import shutil
import subprocess
import threading

import asyncpg
import pg8000.dbapi
import pg8000.exceptions
import psycopg
import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest

import routing
from harness import ROOT, VAR

DRIVERS = ROOT / "tests/integration/drivers"
ZONES = ("Europe/Prague", "Asia/Tokyo", "America/Lima")


@pytest.fixture(params=["postgresql", *(pytest.param(name, marks=pytest.mark.pgweir) for name in ("pooler", "routed"))])
def port(request, cluster, make_pooler):
    """The port of PostgreSQL itself, then that of a pooler with only four server connections, and of one that divides reads
    and writes between a primary and its standby, with four to each."""
    settings = {"default_pool_size": 4, "max_client_conn": 200}
    if request.param == "postgresql":
        return cluster.port
    if request.param == "pooler":
        return make_pooler(settings=settings).port
    pair = request.getfixturevalue("pair")
    return routing.wait_routed(make_pooler(**routing.options(pair, settings=settings)), pair).port


def dsn(port, **options):
    return {"host": "127.0.0.1", "port": port, "user": "postgres", "dbname": "app", **options}


def at_once(count, work):
    """Runs work(n) in threads of their own and re-raises the first failure."""
    failures = []

    def guarded(number):
        try:
            work(number)
        except BaseException as failure:  # re-raised below
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a connection is stuck"
    if failures:
        raise failures[0]


class TestPsycopg:
    def test_script(self, port):
        notices = []
        with psycopg.connect(**dsn(port), prepare_threshold=0, autocommit=True) as connection:
            connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
            for n in range(20):
                assert connection.execute(f"SELECT %s::int + {n % 4}", (n,)).fetchone() == (n + n % 4,)
            with connection.pipeline():
                cursors = [connection.execute("SELECT %s::int", (n,)) for n in range(50)]
            assert [cursor.fetchone()[0] for cursor in cursors] == list(range(50))
            self.failing_pipeline(connection)
            self.transaction(connection)
            connection.execute("DO $$ BEGIN RAISE NOTICE 'look'; END $$")
            assert notices == ["look"]
            timer = threading.Timer(0.3, connection.cancel_safe)
            timer.start()
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute("SELECT pg_sleep(30)")
            timer.join()
            assert connection.execute("SELECT 1").fetchone() == (1,)

    def failing_pipeline(self, connection):
        with pytest.raises(psycopg.errors.DivisionByZero):
            with connection.pipeline():
                connection.execute("SELECT %s::int", (1,))
                connection.execute("SELECT 1/%s::int", (0,))
                connection.execute("SELECT %s::int", (3,))
        assert connection.execute("SELECT %s::int", (4,)).fetchone() == (4,)

    def transaction(self, connection):
        with connection.transaction():
            connection.execute("CREATE TEMP TABLE t (n int, s text) ON COMMIT DROP")
            with pytest.raises(psycopg.errors.DivisionByZero), connection.transaction():
                connection.execute("SELECT 1/%s::int", (0,))
            with connection.cursor() as cursor, cursor.copy("COPY t FROM STDIN") as copy:
                for n in range(1000):
                    copy.write_row((n, "x" * (n % 50)))
            assert connection.execute("SELECT sum(n) FROM t").fetchone() == (499500,)
            with connection.cursor("named") as cursor:
                cursor.itersize = 7
                assert [row[0] for row in cursor.execute("SELECT n FROM t ORDER BY n")] == list(range(1000))
            with connection.cursor() as cursor, cursor.copy("COPY (SELECT n FROM t WHERE n < 3) TO STDOUT") as copy:
                assert b"".join(copy) == b"0\n1\n2\n"
            with connection.cursor(binary=True) as cursor:
                assert cursor.execute("SELECT %b::bytea", (b"\0\1\2",)).fetchone() == (b"\0\1\2",)

    def test_parameters_and_tokens_of_twenty_connections(self, port):
        def work(number):
            zone = ZONES[number % 3]
            with psycopg.connect(**dsn(port, options=f"-c TimeZone={zone}", application_name=str(number)),
                                 prepare_threshold=0, autocommit=True) as connection:
                for turn in range(25):
                    token = f"{number}/{turn}"
                    row = connection.execute(
                        "SELECT %s::text, current_setting('TimeZone'), current_setting('application_name')",
                        (token,)).fetchone()
                    assert row == (token, zone, str(number))
        at_once(20, work)


class TestPsycopg2:
    def test_script(self, port):
        connection = psycopg2.connect(**dsn(port))
        cursor = connection.cursor()
        cursor.execute("CREATE TEMP TABLE t (n int, s text) ON COMMIT DROP; SAVEPOINT s")
        with pytest.raises(psycopg2.errors.DivisionByZero):
            cursor.execute("SELECT 1/0")
        cursor.execute("ROLLBACK TO s")
        cursor.copy_expert("COPY t FROM STDIN", io.StringIO("".join(f"{n}\tx\n" for n in range(1000))))
        psycopg2.extras.execute_values(cursor, "INSERT INTO t VALUES %s", [(n, "y") for n in range(1000, 1100)])
        named = connection.cursor("named")
        named.itersize = 9
        named.execute("SELECT n FROM t ORDER BY n")
        assert [row[0] for row in named] == list(range(1100))
        named.close()
        out = io.StringIO()
        cursor.copy_expert("COPY (SELECT n FROM t WHERE n < 3) TO STDOUT", out)
        assert out.getvalue() == "0\n1\n2\n"
        cursor.execute("DO $$ BEGIN RAISE NOTICE 'look'; END $$")
        assert connection.notices[-1] == "NOTICE:  look\n"
        connection.commit()
        connection.autocommit = True
        timer = threading.Timer(0.3, connection.cancel)
        timer.start()
        with pytest.raises(psycopg2.errors.QueryCanceled):
            cursor.execute("SELECT pg_sleep(30)")
        timer.join()
        cursor.execute("SELECT %s", ("after",))
        assert cursor.fetchone() == ("after",)
        connection.close()

    def test_parameters_and_tokens_of_twenty_connections(self, port):
        def work(number):
            connection = psycopg2.connect(**dsn(port, application_name=str(number)))
            connection.autocommit = True
            connection.set_client_encoding("LATIN1" if number % 2 else "UTF8")
            cursor = connection.cursor()
            for turn in range(25):
                cursor.execute("SELECT %s, current_setting('application_name'), 'ä'", (f"{number}/{turn}",))
                assert cursor.fetchone() == (f"{number}/{turn}", str(number), "ä")
            connection.close()
        at_once(20, work)


class TestAsyncpg:
    async def connect(self, port, **settings):
        return await asyncpg.connect(host="127.0.0.1", port=port, user="postgres", database="app", ssl=False,
                                     server_settings=settings or None)

    def test_script(self, port):
        asyncio.run(asyncio.wait_for(self.script(port), 60))

    async def script(self, port):
        connection = await self.connect(port)
        notices = []
        connection.add_log_listener(lambda _, message: notices.append(message.message))
        for n in range(20):
            assert await connection.fetchval(f"SELECT $1::int + {n % 4}", n) == n + n % 4
        async with connection.transaction():
            await connection.execute("CREATE TEMP TABLE t (n int, s text) ON COMMIT DROP")
            with pytest.raises(asyncpg.DivisionByZeroError):
                async with connection.transaction():
                    await connection.fetchval("SELECT 1/$1::int", 0)
            await connection.copy_records_to_table("t", records=[(n, "x" * (n % 50)) for n in range(1000)])
            await connection.executemany("INSERT INTO t VALUES ($1, $2)", [(n, "y") for n in range(1000, 1100)])
            fetched = [row[0] async for row in connection.cursor("SELECT n FROM t ORDER BY n", prefetch=7)]
            assert fetched == list(range(1100))
            out = io.BytesIO()
            await connection.copy_from_query("SELECT n FROM t WHERE n < 3", output=out)
            assert out.getvalue() == b"0\n1\n2\n"
        await connection.execute("DO $$ BEGIN RAISE NOTICE 'look'; END $$")
        assert notices == ["look"]
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await connection.fetch("SELEC $1::int", 1)
        with pytest.raises(asyncio.TimeoutError):
            await connection.fetchval("SELECT pg_sleep(30)", timeout=0.3)
        assert await connection.fetchval("SELECT 'after'") == "after"
        await connection.close()

    def test_parameters_and_tokens_of_twenty_connections(self, port):
        async def work(number):
            zone = ZONES[number % 3]
            connection = await self.connect(port, TimeZone=zone, application_name=str(number))
            for turn in range(25):
                row = await connection.fetchrow(
                    "SELECT $1::text, current_setting('TimeZone'), current_setting('application_name')",
                    f"{number}/{turn}")
                assert tuple(row) == (f"{number}/{turn}", zone, str(number))
            await connection.close()

        async def all_of_them():
            await asyncio.wait_for(asyncio.gather(*(work(number) for number in range(20))), 60)

        asyncio.run(all_of_them())

    def test_pool_gives_connections_back_as_they_began(self, port):
        """Its pool resets what its users have set by a query of several statements, of which the last is RESET ALL."""
        async def script():
            began = {"TimeZone": "Asia/Tokyo", "application_name": "mine", "statement_timeout": "55s"}
            pool = await asyncpg.create_pool(host="127.0.0.1", port=port, user="postgres", database="app", ssl=False,
                                             min_size=1, max_size=2, server_settings=began)

            async def user():
                for _ in range(10):
                    async with pool.acquire() as connection:
                        for name, value in began.items():
                            assert await connection.fetchval(f"SELECT current_setting('{name}')") == value
                        await connection.execute("SET TimeZone = 'UTC'; SET application_name = ''")
                        await connection.execute("SET statement_timeout = 0")

            await asyncio.gather(*(user() for _ in range(4)))
            await pool.close()

        asyncio.run(asyncio.wait_for(script(), 60))


class TestPg8000:
    def connect(self, port, **options):
        return pg8000.dbapi.connect(host="127.0.0.1", port=port, user="postgres", database="app", **options)

    def test_script(self, port):
        connection = self.connect(port)
        cursor = connection.cursor()
        for n in range(10):
            cursor.execute(f"SELECT %s::int + {n % 4}", (n,))
            assert cursor.fetchone()[0] == n + n % 4
        cursor.execute("CREATE TEMP TABLE t (n int, s text) ON COMMIT DROP")
        cursor.execute("SAVEPOINT s")
        with pytest.raises(pg8000.exceptions.DatabaseError, match="22012"):
            cursor.execute("SELECT 1/%s::int", (0,))
        cursor.execute("ROLLBACK TO s")
        cursor.execute("COPY t FROM STDIN", stream=io.BytesIO(b"".join(b"%d\tx\n" % n for n in range(1000))))
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", [(n, "y") for n in range(1000, 1050)])
        cursor.execute("SELECT count(*), sum(n) FROM t")
        assert list(cursor.fetchone()) == [1050, sum(range(1050))]
        out = io.BytesIO()
        cursor.execute("COPY (SELECT n FROM t WHERE n < 3) TO STDOUT", stream=out)
        assert out.getvalue() == b"0\n1\n2\n"
        cursor.execute("DO $$ BEGIN RAISE NOTICE 'look'; END $$")
        assert connection.notices[-1][b"M"] == b"look"
        connection.commit()
        connection.close()

    def test_tokens_of_twenty_connections(self, port):
        def work(number):
            connection = self.connect(port, application_name=str(number))
            connection.autocommit = True
            cursor = connection.cursor()
            for turn in range(25):
                cursor.execute("SELECT %s::text, current_setting('application_name')", (f"{number}/{turn}",))
                assert list(cursor.fetchone()) == [f"{number}/{turn}", str(number)]
            connection.close()
        at_once(20, work)


def run_program(*command, **environment):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=90, check=False,
                          env={**os.environ, **environment})
    assert done.returncode == 0 and done.stdout.strip() == "ok", done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("node") or not (VAR / "node/node_modules/pg").exists(), reason="no node-postgres")
def test_node_postgres(port):
    run_program("node", DRIVERS / "node/driver_test.js", port, PGWEIR_NODE_MODULES=str(VAR / "node/node_modules"))


@pytest.mark.skipif(not shutil.which("node") or not (VAR / "node/node_modules/postgres").exists(), reason="no postgres.js")
def test_postgres_js(port):
    run_program("node", DRIVERS / "node/postgres_js_test.mjs", port,
                PGWEIR_NODE_MODULES=str(VAR / "node/node_modules"))


def runs(*command):
    """Whether an interpreter has the library that a test needs."""
    return bool(shutil.which(command[0])) and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not runs("php", "-r", "exit((int) !(extension_loaded('pgsql') && extension_loaded('pdo_pgsql')));"),
                    reason="no PHP with pgsql")
def test_php(port):
    run_program("php", DRIVERS / "php/driver_test.php", port)


@pytest.mark.skipif(not runs("perl", "-MDBD::Pg", "-e1"), reason="no DBD::Pg")
def test_perl(port):
    run_program("perl", DRIVERS / "perl/driver_test.pl", port)


@pytest.mark.skipif(not runs("ruby", "-rpg", "-ractive_record", "-e1"), reason="no Ruby with pg and ActiveRecord")
def test_ruby(port):
    run_program("ruby", DRIVERS / "ruby/driver_test.rb", port)


@pytest.mark.skipif(not (VAR / "go/driver_test").exists(), reason="no pgx test program")
def test_pgx(port):
    run_program(VAR / "go/driver_test", port)


@pytest.mark.skipif(not (VAR / "java/DriverTest.class").exists(), reason="no JDBC test program")
def test_jdbc(port):
    jars = ":".join(str(path) for path in [VAR / "java", *(VAR / "java").glob("postgresql-*.jar")])
    run_program("java", "-Xmx256m", "-cp", jars, "DriverTest", port)
