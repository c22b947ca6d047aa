"""A long mixed load: everything at once, for as long as PGWEIR_SOAK_SECONDS says, and nothing may leak or mix."""

import os
import random
import threading
import time

import psycopg
import pytest

from harness import wait_until
from wire import copy_data, query, send_cancel

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200), pytest.mark.pgweir]
SECONDS = float(os.environ.get("PGWEIR_SOAK_SECONDS", "20"))


def polite(pooler, chance, token):
    with psycopg.connect(**pooler.dsn(), autocommit=True, prepare_threshold=1) as connection:
        for turn in range(chance.randint(1, 40)):
            mine = f"{token}/{turn}"
            with connection.transaction():
                assert connection.execute("SELECT %s::text", (mine,)).fetchone() == (mine,)


def leaver(pooler, chance, token):
    client = pooler.wire(timeout=60)
    client.query("BEGIN")
    client.send(query(f"SELECT '{token}', pg_sleep({chance.random() / 50})"))
    client.abort()


def cancelled(pooler, chance, token):
    with pooler.wire(timeout=60) as client:
        client.send(query(f"SELECT '{token}', pg_sleep({chance.random() / 20})"))
        send_cancel(pooler.port, client.key)
        answer = client.collect()
        assert answer.rows == [[token, ""]] or answer.error["C"] == "57014"


def copier(pooler, chance, token):
    with pooler.wire(timeout=60) as client:
        client.query("BEGIN; CREATE TEMP TABLE t (x text) ON COMMIT DROP")
        client.send(query("COPY t FROM STDIN"))
        client.read_type("G")
        client.send(copy_data(f"{token}\n".encode() * chance.randint(1, 2000)), b"c\0\0\0\4")
        client.collect()
        assert client.query("SELECT DISTINCT x FROM t").rows == [[token]]
        client.query("COMMIT")


def settings(pooler, chance, token):
    with pooler.wire(timeout=60, application_name=token) as client:
        for _ in range(chance.randint(1, 20)):
            assert client.value("SHOW application_name") == token


def test_mixed_load_leaks_nothing(make_pooler, cluster):
    pooler = make_pooler(settings={"default_pool_size": 6, "max_client_conn": 500, "server_lifetime": 5,
                                   "query_wait_timeout": 120})
    over = time.monotonic() + SECONDS
    failures = []

    def work(number):
        chance = random.Random(number)
        turn = 0
        while time.monotonic() < over and not failures:
            turn += 1
            action = chance.choice([polite, polite, leaver, cancelled, copier, settings])
            try:
                action(pooler, chance, f"{number}-{turn}")
            except Exception as failure:  # reported by the test's own thread
                failures.append(f"{action.__name__} {number}-{turn}: {failure!r}")

    def run(count):
        threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS + 120)
        assert not any(thread.is_alive() for thread in threads), "a client is stuck"

    memory = pooler.memory_kib()
    run(16)
    assert failures == []
    wait_until(lambda: not pooler.clients(), 10, "all clients are gone")
    wait_until(lambda: pooler.pool()["sv_active"] == 0, 10, "all servers are free")
    assert len(cluster.backends()) <= 6
    assert pooler.memory_kib() - memory < 16 * 1024
