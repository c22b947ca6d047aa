"""How the works are measured: each function puts a load on a proxy and gives a dictionary of figures.

Figures: cost (CPU of the whole proxy process, in the work's unit), rate, p50, p99, p999 (ms), rss (bytes), voluntary
and involuntary context switches per transaction; further ones where a work has them. None: there is no such figure.
"""
import hashlib
import os
import time

from . import client, pgbench, wire
from .lab import FIRST_USERS, ROW_BYTES
from .machine import Trouble
from .pgbench import Load
from .processes import peak_resident_bytes, reset_peak, resident_bytes, usage
from .proxies import POOLS

MANY_CLIENTS = 500
HOSTILE_LOAD = Load(("-S", "-R", "500"), 8)


class Meter:
    """What a proxy uses between two moments."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.before = usage(proxy.process)
        self.began = time.monotonic()

    def stop(self):
        self.used = usage(self.proxy.process) - self.before
        self.seconds = time.monotonic() - self.began
        self.rss = resident_bytes(self.proxy.process)

    def figures(self, count):
        if not self.proxy.process:
            return {"cost": None}
        return {"cost": self.used.cpu * 1e6 / count, "voluntary": self.used.voluntary / count,
                "involuntary": self.used.involuntary / count, "rss": self.rss}


def percentiles(outcome):
    return {"p50": outcome.percentile_ms(0.5), "p99": outcome.percentile_ms(0.99),
            "p999": outcome.percentile_ms(0.999)}


def transactions(lab, proxy, work, seconds, load=None):
    load = load or work.load_for(proxy)
    if load.clients >= MANY_CLIENTS:
        seconds += 1  # pgbench counts the time in which they log in
    meter = Meter(proxy)
    process = pgbench.launch(lab, proxy.port, load, seconds)
    outcome = pgbench.collect(lab, process, seconds + 60, meter.stop)
    figures = meter.figures(outcome.count)
    figures.update(count=outcome.count, rate=outcome.tps)
    if "-C" not in load.options:  # pgbench connects one client at a time: latencies would show the others' connecting
        figures.update(percentiles(outcome))
    return figures


def simple(lab, subject, work, seconds, number):
    return transactions(lab, subject.proxy, work, seconds)


def logins(lab, subject, work, seconds, number):
    """Nothing but logins; latencies are from connect to ReadyForQuery."""
    load = work.load_for(subject.proxy)
    meter = Meter(subject.proxy)
    done = client.logins(lab, subject.proxy.port, clients=load.clients, seconds=seconds, user=load.user,
                         password=load.env.get("PGPASSWORD"), tls="PGSSLMODE" in load.env)
    meter.stop()
    figures = meter.figures(done["count"])
    figures.update(count=done["count"], rate=done["count"] / done["seconds"],
                   **{key: done[key] for key in ("p50", "p99", "p999")})
    return figures


def derivation_ms():
    """One PBKDF2 of SCRAM on this machine, now: the fastest of five."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        hashlib.pbkdf2_hmac("sha256", b"a password", b"sixteen bytes ..", 4096)
        times.append((time.perf_counter() - began) * 1e3)
    return min(times)


def first_logins(lab, subject, work, seconds, number):
    """Users whose passwords the proxy has as text, each logging in for the first time: what others wait meanwhile,
    beyond what they wait while those log in to the twin. Both are new each time, since they may remember."""
    others = work.load_for(subject.proxy)
    both = [("apart", subject.twin), ("", subject.proxy)]
    figures = {}
    for name, victim in both if number % 2 == 0 else both[::-1]:
        process = pgbench.launch(lab, subject.proxy.port, others, seconds + 1)
        pgbench.sleep_while(lab, process, 0.3)
        meter = Meter(victim)
        done = client.logins(lab, victim.port, clients=32, user="first", password=others.env["PGPASSWORD"],
                             users=FIRST_USERS)
        meter.stop()
        longest = pgbench.collect(lab, process, seconds + 60).percentile_ms(1)
        if name:
            figures["stall_apart_ms"] = longest
            continue
        figures.update(meter.figures(done["count"]), count=done["count"], rate=done["count"] / done["seconds"],
                       stall_ms=longest, **{key: done[key] for key in ("p50", "p99", "p999")})
    figures["derivation_ms"] = derivation_ms()
    figures["stall_derivations"] = (figures["stall_ms"] - figures["stall_apart_ms"]) / figures["derivation_ms"]
    return figures


def large_rows(lab, subject, work, seconds, number):
    script = lab.folder / "rows.sql"
    script.write_text("\\set id random(1, 100)\nSELECT body FROM bench_rows WHERE id = :id;\n")
    figures = transactions(lab, subject.proxy, work, seconds)
    if figures["cost"] is not None:
        figures["seconds_per_gb"] = figures["cost"] * 1e3 / ROW_BYTES
    return figures


def copy(lab, proxy, statements, seconds):
    """Whole transfers until the time is up; the cost is in CPU seconds per GB."""
    size = lab.bulk_file.stat().st_size
    commands = [part for statement in statements for part in ("-c", statement)]
    meter, times = Meter(proxy), 0
    while times == 0 or time.monotonic() - meter.began < seconds:
        lab.processes.call(lab.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", proxy.port,
                           "-U", "postgres", "-d", "postgres", "-o", os.devnull, *commands)
        times += 1
    meter.stop()
    gigabytes = times * size / 1e9
    figures = meter.figures(times)
    if figures["cost"] is not None:
        figures["cost"] = meter.used.cpu / gigabytes
    figures.update(count=times, rate=gigabytes * 1e3 / meter.seconds)
    return figures


def copy_out(lab, subject, work, seconds, number):
    return copy(lab, subject.proxy, ["COPY bench_bulk TO STDOUT"], seconds)


def copy_in(lab, subject, work, seconds, number):
    return copy(lab, subject.proxy, ["TRUNCATE bench_bulk_in", f"\\copy bench_bulk_in FROM '{lab.bulk_file}'"], seconds)


# ---- works with a twin: a second process of the same proxy, without what the first one has ----

def beside(lab, subject, work, seconds, number, load=None):
    """The same load on both, in another order each time; the figures are those of the first, with the ratio."""
    both = [subject.twin, subject.proxy]
    by_proxy = {}
    for proxy in both if number % 2 == 0 else both[::-1]:
        by_proxy[id(proxy)] = transactions(lab, proxy, work, seconds, load)
    figures, without = by_proxy[id(subject.proxy)], by_proxy[id(subject.twin)]
    figures.update(subject.facts, cost_without=without["cost"], cost_ratio=figures["cost"] / without["cost"])
    return figures


def warm_up(lab, subject, work, load=None):
    for proxy in filter(None, (subject.proxy, subject.twin)):
        transactions(lab, proxy, work, 1, load)


def prepare_crowd(lab, subject, work, stack):
    """Thousands of idle clients on the first; their memory is measured once, when all have logged in."""
    warm_up(lab, subject, work)
    before = resident_bytes(subject.proxy.process)
    size = stack.enter_context(client.crowd(lab, subject.proxy.port, work.crowd, work.profile.tls))
    after = resident_bytes(subject.proxy.process)
    subject.facts.update(clients=size, rss_before=before, rss_after=after, bytes_each=(after - before) / size)


def await_few_servers(lab, seconds=30):
    """Until the pools' own connections are closed: doing that is no part of what is measured."""
    deadline = time.monotonic() + seconds
    question = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    while int(lab.sql(question)) > 5:
        if time.monotonic() > deadline:
            raise Trouble("the connections of idle pools are not closed by server_idle_timeout")
        time.sleep(0.2)


FIRST_POOL = Load(database="pool000")


def prepare_pools(lab, subject, work, stack):
    """Five hundred pools that have been used once."""
    warm_up(lab, subject, work, FIRST_POOL)
    before = resident_bytes(subject.proxy.process)
    for number in range(POOLS):
        stream = wire.login(subject.proxy.port, f"pool{number:03}")
        wire.ask(stream, "SELECT 1")
        wire.leave(stream)
    await_few_servers(lab)
    after = resident_bytes(subject.proxy.process)
    subject.facts.update(pools=POOLS, rss_before=before, rss_after=after, bytes_each=(after - before) / POOLS)


def one_of_many_pools(lab, subject, work, seconds, number):
    return beside(lab, subject, work, seconds, number, FIRST_POOL)


def hostile(lab, subject, work, seconds, number):
    """Others at a steady rate: by themselves, with a hostile client on the twin (which takes its share of the machine,
    not of the proxy), and with one on their own proxy."""
    kind = work.name.removeprefix("hostile_")
    ways = [("quiet", None), ("apart", subject.twin), ("", subject.proxy)]
    cut = number % len(ways)
    figures = {}
    for name, victim in ways[cut:] + ways[:cut]:
        before = resident_bytes(subject.proxy.process)
        reset_peak(subject.proxy.process)
        meter = Meter(subject.proxy)
        if victim is None:
            outcome = pgbench.run(lab, subject.proxy.port, HOSTILE_LOAD, seconds)
        else:
            with client.hostile(lab, victim.port, kind, seconds + 0.5) as done:
                outcome = pgbench.run(lab, subject.proxy.port, HOSTILE_LOAD, seconds)
        if name:
            figures.update({f"p99_{name}": outcome.percentile_ms(0.99), f"rate_{name}": outcome.tps})
            continue
        meter.stop()
        figures.update(meter.figures(outcome.count), **percentiles(outcome), rate=outcome.tps, count=outcome.count,
                       growth=max(0, peak_resident_bytes(subject.proxy.process) - before),
                       hostile_rate=done["count"] / done["seconds"], hostile_mb=done["bytes"] / 1e6 / done["seconds"])
    figures.update(p99_ratio=figures["p99"] / figures["p99_quiet"],
                   p99_ratio_apart=figures["p99"] / figures["p99_apart"])
    return figures
