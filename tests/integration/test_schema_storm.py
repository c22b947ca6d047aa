"""A table changes all the time under clients that remember what they were told of their statements' results, as
asyncpg does: it reads binary values by the types it remembers. Every value says of which row, and which type, it is."""

import asyncio
import random
import time

import asyncpg
import pytest

pytestmark = pytest.mark.pgweir

SECONDS = 5
TYPES = {"int4": "id", "int8": "id + 5000000000", "text": "'t' || id", "float8": "id + 0.5"}
QUERIES = (
    "SELECT * FROM storm WHERE id = $1",
    "SELECT id, a FROM storm WHERE id = $1",
    "SELECT b, id FROM storm WHERE id = $1",
    "SELECT s.* FROM storm s WHERE id >= $1",
)


class Storm:
    def __init__(self, pooler, seconds):
        self.pooler = pooler
        self.end = time.monotonic() + seconds
        self.wrong = []
        self.answers = self.refusals = self.changes = 0

    def goes_on(self):
        return time.monotonic() < self.end and not self.wrong

    def connect(self, **options):
        return asyncpg.connect(
            host="127.0.0.1", port=self.pooler.port, user="postgres", database="app", timeout=30, **options
        )

    def check(self, rows):
        for row in rows:
            n = row["id"]
            right = {int: (n, n + 5_000_000_000), str: (f"t{n}",), float: (n + 0.5,)}
            self.wrong += [row for name, value in row.items() if name != "id" and value not in right[type(value)]]

    async def client(self, number):
        chance = random.Random(number)
        connection = await self.connect(statement_cache_size=20)
        while self.goes_on():
            query = chance.choice(QUERIES)
            try:
                if chance.random() < 0.3:
                    async with connection.transaction():
                        for _ in range(2):
                            self.check(await connection.fetch(query, chance.randint(1, 10)))
                else:
                    self.check(await connection.fetch(query, chance.randint(1, 10)))
                self.answers += 1
            except asyncpg.InvalidCachedStatementError:  # in a transaction it cannot prepare again
                self.refusals += 1
        await connection.close()

    async def change(self):
        chance = random.Random(0)
        connection = await self.connect(statement_cache_size=0)
        while self.goes_on():
            await asyncio.sleep(chance.uniform(0, 0.1))
            kind = chance.choice(list(TYPES))
            value = f"({TYPES[kind]})::{kind}"
            which = chance.random()
            if which < 0.6:
                column = chance.choice("ab")
                await connection.execute(f"ALTER TABLE storm ALTER {column} TYPE {kind} USING {value}")
            elif which < 0.8:
                await connection.execute(
                    "BEGIN; ALTER TABLE storm DROP COLUMN IF EXISTS c;"
                    f"ALTER TABLE storm ADD COLUMN c {kind}; UPDATE storm SET c = {value}; COMMIT"
                )
            elif which < 0.9:
                await connection.execute("ALTER TABLE storm DROP COLUMN IF EXISTS c")
            else:
                await asyncio.to_thread(self.pooler.admin, "RECONNECT app")
            self.changes += 1
        await connection.close()

    async def run(self, clients):
        await asyncio.gather(self.change(), *(self.client(number) for number in range(1, clients + 1)))


@pytest.mark.parametrize("seconds", (SECONDS, pytest.param(12 * SECONDS, marks=pytest.mark.soak)))
def test_nobody_reads_by_types_that_have_passed(make_pooler, seconds):
    settings = {"default_pool_size": 6, "max_prepared_statements": 50}
    pooler = make_pooler(settings=settings, pgweir={"worker_threads": 2})
    with pooler.wire() as admin:
        admin.query("DROP TABLE IF EXISTS storm; CREATE TABLE storm (id int, a int4, b text)")
        admin.query("INSERT INTO storm SELECT n, n, 't' || n FROM generate_series(1, 10) n")
        storm = Storm(pooler, seconds)
        asyncio.run(storm.run(clients=24))
        admin.query("DROP TABLE storm")
    assert storm.wrong == []
    assert storm.changes > 10 and storm.answers > 100
