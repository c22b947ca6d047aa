"""Random conversations: what a pooler answers is, message by message, what PostgreSQL answers without one."""

import os
import random
import threading

import pytest

import conversation
from harness import wait_until

pytestmark = pytest.mark.pgweir

# First seed and number of seeds per pool size; more of both find more, in PostgreSQL 15 too, which dies at seed 49.
FIRST = int(os.environ.get("PGWEIR_TEST_SEED", "1"))
SEEDS = int(os.environ.get("PGWEIR_TEST_SEEDS", "10"))
CLIENTS = 6
STEPS = 20


@pytest.fixture
def fresh_tables(cluster):
    with cluster.connect() as connection:
        connection.execute("CREATE TABLE shared AS SELECT n, 's' || n AS s FROM generate_series(1, 6) n")

        def make():
            for number in range(CLIENTS):
                connection.execute(f"DROP TABLE IF EXISTS talk{number}")
                connection.execute(f"CREATE TABLE talk{number} (n int, s text)")
                connection.execute(f"INSERT INTO talk{number} VALUES (1, 'one'), (2, 'two')")

        yield make
        connection.execute("DROP TABLE shared")
        for number in range(CLIENTS):
            connection.execute(f"DROP TABLE IF EXISTS talk{number}")


def all_at_once(work):
    """The results of work(n) for each client."""
    results, failures = [None] * CLIENTS, []

    def guarded(number):
        try:
            results[number] = work(number)
        except BaseException as failure:  # re-raised below
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(number,), daemon=True) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a client is stuck"
    if failures:
        raise failures[0]
    return results


def one_round(seed, direct, pooled, fresh_tables):
    scripts = [conversation.make_script(f"{seed}/{n}", f"talk{n}", STEPS) for n in range(CLIENTS)]
    startup = [random.Random(f"{seed}/{n}/startup").choice(conversation.STARTUP) for n in range(CLIENTS)]
    # The last one vanishes in the middle, which nobody else may notice.
    leaves = [None] * (CLIENTS - 1) + [random.Random(seed).randrange(STEPS)]
    fresh_tables()
    expected = all_at_once(lambda n: conversation.ask_directly(direct, scripts[n], f"end {n}", startup[n]))
    fresh_tables()
    got = all_at_once(lambda n: conversation.ask_pooler(
        pooled, scripts[n], f"end {n}", startup[n], expected[n], f"{seed}/{n}/pieces", leaves[n]))
    for number in range(CLIENTS - 1):
        reference = expected[number][0]
        assert got[number].welcome == reference.welcome, f"seed {seed}, client {number}"
        different = conversation.difference(reference, got[number])
        assert different is None, (f"seed {seed}, client {number} {startup[number]}: {different}\n"
                                   f"{conversation.written(scripts[number])}")


@pytest.mark.parametrize("pool_size", [1, 2])
def test_replies_are_those_of_the_server(cluster, make_pooler, fresh_tables, pool_size):
    pooler = make_pooler(settings={"default_pool_size": pool_size})
    for seed in range(FIRST, FIRST + SEEDS):
        one_round(seed, cluster.port, pooler.port, fresh_tables)
    assert "unexpected message" not in pooler.log()
    wait_until(lambda: pooler.pool()["sv_active"] == 0, 5, "all servers are free")
    assert len(pooler.servers()) <= pool_size
