"""Figures of routing, on a real primary and its standbys on this machine: `measure_routing.py [SECONDS]` (of each round).

    reads       of one host, of a standby beside its primary, of two standbys; and how they divided. Each read takes 5 ms in
                PostgreSQL and no processor, so that a host's capacity is that of its pool, as if it had a machine of its own
    lag         how long replay stands still until reads leave the standby, and until they are back
    writers     how many reads of clients that write with every eleventh statement go to the standby
    probing     processor time of pgweir and of a host while nobody does anything
"""

import contextlib
import os
import pathlib
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time

import harness
import routing
from harness import wait_until
from pooler import Pooler
from replicas import Replicas, Template
from routing import counted, routes, wait_routed, where

POOL = 4
CLIENTS = 24
READ = "SELECT host_port(), pg_sleep(0.005)"


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def in_threads(count, work):
    """Runs work(number) in that many threads; what one of them raises is raised here."""
    failures = []

    def guarded(number):
        try:
            work(number)
        except Exception as failure:  # told by the caller's thread
            failures.append(failure)
    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def read_rate(pooler, database, seconds):
    """Reads per second of CLIENTS clients, and how they divided by host."""
    by_host = {}
    lock = threading.Lock()
    over = time.monotonic() + seconds

    def work(_):
        own = {}
        with pooler.wire(database=database, timeout=30) as client:
            while time.monotonic() < over:
                port = client.query(READ).rows[0][0]
                own[port] = own.get(port, 0) + 1
        with lock:
            for port, count in own.items():
                by_host[port] = by_host.get(port, 0) + count
    in_threads(CLIENTS, work)
    return sum(by_host.values()) / seconds, by_host


def measure_reads(start, three, seconds):
    hosts = three.hosts
    names = {str(hosts[0].port): "primary", str(hosts[1].port): "first standby", str(hosts[2].port): "second standby"}

    def entry(*some, more="read_write_split=1"):
        return (f"host={','.join('127.0.0.1' for _ in some)} port={','.join(str(host.port) for host in some)}"
                f" dbname=app pool_size={POOL} {more}")
    databases = {"one": entry(hosts[0], more=""), "pair": entry(*hosts[:2]), "app": entry(*hosts)}
    pooler = start(three, databases=databases)
    wait_until(lambda: where(pooler, "pair") == hosts[1].port, 10, "the pair is routed")
    rates = {name: [] for name in databases}
    divided = {}
    for _ in range(3):
        for name, found in rates.items():
            rate, divided[name] = read_rate(pooler, name, seconds)
            found.append(rate)
    for name, found in rates.items():
        shares = ", ".join(f"{names[port]} {count}" for port, count in sorted(divided[name].items()))
        print(f"reads, {name}: median {statistics.median(found):.0f}/s of {[round(rate) for rate in found]}; last: {shares}")


def measure_lag(start, three, seconds):
    pooler = start(three, databases=three.databases(), pgweir={"max_replica_lag_ms": "5s"})
    standbys = {host.port for host in three.standbys}
    stop = threading.Event()

    def write(_):
        with pooler.wire(timeout=30) as client:
            while not stop.wait(0.02):
                client.query("INSERT INTO notes VALUES (1, 'x')")
    writer = threading.Thread(target=in_threads, args=(1, write))
    writer.start()
    try:
        for standby in three.standbys:
            standby.pause_replay()
        paused = time.monotonic()
        wait_until(lambda: where(pooler) not in standbys, 20, "reads leave")
        left = time.monotonic()
        for standby in three.standbys:
            standby.resume_replay()
        resumed = time.monotonic()
        wait_until(lambda: where(pooler) in standbys, 20, "reads come back")
        print(f"lag, limit 5 s: reads left {left - paused:.2f} s after replay stood still, and were back"
              f" {time.monotonic() - resumed:.2f} s after it went on")
    finally:
        stop.set()
        writer.join()
        for standby in three.standbys:
            standby.resume_replay()


def measure_writers(start, three, seconds):
    with three.primary.connect() as direct:
        direct.execute("CREATE TABLE IF NOT EXISTS counters AS SELECT n AS client, 0 AS value FROM generate_series(0, 5) AS n")
    pooler = start(three, databases=three.databases())
    for think in (0.05, 0.02, 0.005, 0.0):
        before = routes(pooler)
        began = cpu_seconds(pooler.process.pid)
        over = time.monotonic() + seconds

        def work(number):
            chance = random.Random(number)
            with pooler.wire(timeout=30) as client:
                while time.monotonic() < over:
                    client.query(f"UPDATE counters SET value = value + 1 WHERE client = {number}")
                    for _ in range(10):
                        time.sleep(chance.uniform(think / 2, think * 3 / 2))
                        client.query(f"SELECT value FROM counters WHERE client = {number}")
        in_threads(6, work)
        seen = counted(pooler, before)
        standby, primary = seen.get("reads_standby", 0), seen.get("reads_primary_read_your_writes", 0)
        print(f"writers that think {think * 1000:.0f} ms: {standby + primary} reads, {standby / (standby + primary):.0%} on a"
              f" standby; pgweir took {cpu_seconds(pooler.process.pid) - began:.2f} s of processor time in {seconds} s")


def measure_probing(start, three, seconds):
    idle = {}
    for name, databases in {"without routing": {"app": f"host=127.0.0.1 port={three.primary.port} dbname=app"},
                            "3 hosts probed": three.databases()}.items():
        pooler = start(three, databases=databases, routed=name != "without routing")
        asking = [pid for pid in three.primary.backends("app", usename="watcher")]
        began = cpu_seconds(pooler.process.pid), [cpu_seconds(pid) for pid in asking]
        time.sleep(4 * seconds)
        with contextlib.suppress(FileNotFoundError):  # who reads a catalogue comes and goes
            backend = sum(cpu_seconds(pid) for pid in asking) - sum(began[1])
            idle[name] = (cpu_seconds(pooler.process.pid) - began[0], backend)
    for name, (own, backend) in idle.items():
        print(f"probing, {name}: pgweir {own:.2f} s, its backends on the primary {backend:.2f} s of processor time in"
              f" {4 * seconds} s")


def main():
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    base = pathlib.Path(tempfile.mkdtemp(prefix="pgweir-", dir="/tmp"))
    base.chmod(0o755)
    harness.give_to_run_user(base)
    harness.BINARY = harness.executable_by_run_user(harness.BINARY, base)
    template = Template(base)
    three = Replicas(template, standbys=2)
    running = []

    def start(replicas, *, databases, pgweir=None, routed=True):
        while running:
            running.pop().stop()
        options = routing.options(replicas, databases=databases, pgweir=pgweir, interval=routing.DEFAULT_INTERVAL)
        running.append(Pooler(base, replicas.primary, **options))
        return wait_routed(running[0], replicas) if routed else running[0]
    try:
        for measure in (measure_reads, measure_lag, measure_writers, measure_probing):
            measure(start, three, seconds)
    finally:
        for pooler in running:
            pooler.stop()
        three.close()
        template.close()
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
