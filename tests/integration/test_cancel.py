"""Cancel requests: they stop the query they were meant for, on whatever worker, and nothing else."""

import os
import random
import threading

import psycopg
import pytest

import harness
import wire
from harness import wait_until
from wire import SYNC, Wire, bind, execute, parse, query, request_packet, send_cancel


def running(pooler, count=1):
    """Waits until so many backends sleep in a query: a cancel that comes before its query is lost, by design."""
    wait_until(lambda: len(pooler.cluster.backends(state="active", wait_event="PgSleep")) == count,
               what=f"{count} queries run")


@pytest.mark.smoke
def test_running_query_is_cancelled(pooler):
    client = pooler.wire()
    client.send(query("SELECT pg_sleep(30)"))
    running(pooler)
    send_cancel(pooler.port, client.key)
    result = client.collect()
    assert result.error["C"] == "57014" and result.status == "I"
    assert client.value("SELECT 'goes on'") == "goes on"


@pytest.mark.smoke
def test_each_of_many_clients_on_all_workers_is_cancelled(make_pooler):
    pooler = make_pooler(settings={"default_pool_size": 8}, pgweir={"worker_threads": 4})
    clients = [pooler.wire() for _ in range(8)]
    for client in clients:
        client.send(query("SELECT pg_sleep(30)"))
    running(pooler, 8)
    for number, client in enumerate(clients):
        send_cancel(pooler.port, client.key)
        assert client.collect().error["C"] == "57014"
        wait_until(lambda: pooler.pool()["sv_active"] == 7 - number)


def test_cancel_in_a_transaction_keeps_the_server(pooler):
    client = pooler.wire()
    client.query("BEGIN")
    pid = client.value("SELECT pg_backend_pid()")
    client.query("SAVEPOINT s")
    client.send(query("SELECT pg_sleep(30)"))
    running(pooler)
    send_cancel(pooler.port, client.key)
    assert client.collect().status == "E"
    client.query("ROLLBACK TO s")
    assert client.value("SELECT pg_backend_pid()") == pid


def test_extended_query_is_cancelled(pooler):
    client = pooler.wire()
    client.send(parse("", "SELECT pg_sleep(30)"), bind(), execute(), SYNC)
    running(pooler)
    send_cancel(pooler.port, client.key)
    assert client.collect().error["C"] == "57014"


def test_copy_in_is_cancelled(pooler, table):
    client = pooler.wire()
    client.send(query(f"COPY {table} FROM STDIN"))
    client.read_type("G")
    send_cancel(pooler.port, client.key)
    client.send(wire.copy_data(b"1\tx\n"), wire.COPY_DONE)
    error = client.collect().error
    assert (error["C"], error["M"]) == ("57014", "canceling statement due to user request")


def test_idle_client_is_not_disturbed_by_a_cancel(make_pooler):
    pooler = make_pooler(settings={"default_pool_size": 1})
    idle, busy = pooler.wire(), pooler.wire()
    idle.value("SELECT 1")
    busy.send(query("SELECT pg_sleep(0.3), 'mine'"))
    running(pooler)
    send_cancel(pooler.port, idle.key)
    assert busy.collect().rows == [["", "mine"]]
    assert idle.value("SELECT 'fine'") == "fine"


def test_cancel_of_a_queued_client_does_not_hit_the_one_that_runs(make_pooler):
    pooler = make_pooler(settings={"default_pool_size": 1})
    runner, queued = pooler.wire(), pooler.wire()
    runner.send(query("SELECT pg_sleep(0.5), 'runner'"))
    running(pooler)
    queued.send(query("SELECT 'queued'"))
    pooler.wait_waiting(1)
    send_cancel(pooler.port, queued.key)
    assert runner.collect().rows == [["", "runner"]]
    answer = queued.collect()
    assert answer.rows == [["queued"]] or answer.error["C"] == "57014"
    assert queued.value("SELECT 'next'") == "next"


@pytest.mark.parametrize("key", [os.urandom(8), b"\0" * 8, b"", b"1234", os.urandom(32), os.urandom(300)])
def test_unknown_or_malformed_key_is_closed_without_an_answer(pooler, key):
    client = pooler.wire()
    client.send(query("SELECT pg_sleep(0.2)"))
    canceller = Wire(pooler.port)
    canceller.send(request_packet(wire.CANCEL_REQUEST, key))
    assert [got for got in canceller.expect_closed() if got.type != "E"] == []
    assert client.collect().errors == []


def test_key_of_a_client_that_has_left_is_dead(make_pooler):
    pooler = make_pooler(settings={"default_pool_size": 1})
    left, busy = pooler.wire(), pooler.wire()
    left.value("SELECT 1")
    left.close()
    wait_until(lambda: len(pooler.clients()) == 1)
    busy.send(query("SELECT pg_sleep(0.3), 'mine'"))
    running(pooler)
    send_cancel(pooler.port, left.key)
    assert busy.collect().rows == [["", "mine"]]


def test_cancel_reaches_the_server_when_the_pool_is_full(make_pooler):
    pooler = make_pooler(settings={"default_pool_size": 1})
    client = pooler.wire()
    client.send(query("SELECT pg_sleep(30)"))
    running(pooler)
    send_cancel(pooler.port, client.key)
    assert client.collect().error["C"] == "57014"
    wait_until(lambda: pooler.pool()["sv_idle"] == 1, what="the server is free again")


def test_libpq_cancel(pooler):
    with psycopg.connect(**pooler.dsn(), autocommit=True) as connection:
        timer = threading.Timer(0.3, connection.cancel)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(30)")
        timer.join()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def cancel_storm(victims, bystanders, cancel_one, turns):
    """Victims are cancelled all the time at random moments, by `cancel_one(random, key)` from three threads; the
    bystanders must never notice."""
    over = threading.Event()
    failures, cancelled = [], []

    def victim(client):
        while not over.is_set():
            answer = client.query("SELECT pg_sleep(0.002)")
            if answer.error:
                cancelled.append(answer.error["C"])

    def bystander(client, number):
        for turn in range(turns):
            token = f"{number}:{turn}"
            answer = client.query(f"SELECT '{token}', pg_sleep(0.002)")
            if answer.rows != [[token, ""]]:
                failures.append(answer)

    def canceller(seed):
        chance = random.Random(seed)
        while not over.is_set():
            cancel_one(chance, chance.choice(victims).key)

    helpers = [threading.Thread(target=victim, args=(c,), daemon=True) for c in victims]
    helpers += [threading.Thread(target=canceller, args=(n,), daemon=True) for n in range(3)]
    watched = [threading.Thread(target=bystander, args=(c, n), daemon=True) for n, c in enumerate(bystanders)]
    for thread in helpers + watched:
        thread.start()
    for thread in watched:
        thread.join(60 * harness.PATIENCE)
    over.set()
    for thread in helpers:
        thread.join(30 * harness.PATIENCE)
    assert not any(thread.is_alive() for thread in helpers + watched), "a client is stuck"
    assert failures == []
    assert set(cancelled) == {"57014"}, "at least one cancel must have hit, and only by a cancel"


@pytest.mark.smoke
def test_storm_of_cancels_never_hits_another_client(make_pooler):
    pooler = make_pooler(settings={"default_pool_size": 3, "max_client_conn": 500})
    victims, bystanders = [pooler.wire(timeout=30) for _ in range(4)], [pooler.wire(timeout=30) for _ in range(4)]
    cancel_storm(victims, bystanders, lambda chance, key: send_cancel(pooler.port, key), 150)
    wait_until(lambda: pooler.pool()["sv_active"] == 0 and pooler.pool()["cl_waiting_cancel_req"] == 0)
    assert pooler.pool()["cl_active_cancel_req"] == 0
