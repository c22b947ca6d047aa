"""The works: what is asked of a proxy, how it is set up for that, and which figures come out."""
import os
import time
from dataclasses import dataclass, field
from typing import Callable

from . import pgbench, wire
from .lab import PASSWORD, ROW_BYTES, SCRAM_DIRECT, SCRAM_USER
from .machine import Trouble, most_open_files
from .pgbench import Load
from .processes import resident_bytes, usage
from .proxies import FORWARDERS, POOLS, Profile

NOT_A_POOLER = "one server connection per client"
NO_TLS = "does not speak PostgreSQL's TLS"


@dataclass(frozen=True)
class Work:
    name: str
    what: str
    load: Load = Load()
    measure: Callable = None
    profile: Profile = field(default_factory=Profile)
    unit: str = "us/tx"  # of the main figure, CPU time
    rate: str = "tx/s"
    skip: dict = field(default_factory=dict)
    needs: tuple = ()
    fresh: bool = False  # the proxy is started anew for each round: its memory is measured

    def load_for(self, proxy):
        """Where PostgreSQL itself asks for the password, it is another user's."""
        if self.load.user == SCRAM_USER and not proxy.kind.pools:
            return Load(self.load.options, self.load.clients, SCRAM_DIRECT, self.load.database, self.load.env)
        return self.load

    def why_not(self, kind):
        if kind.name in self.skip:
            return self.skip[kind.name]
        if self.name == "prepared" and not kind.prepared:
            return f"{kind.version} has no prepared statements in transaction mode"
        return None


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


def transactions(lab, proxy, work, seconds, load=None):
    load = load or work.load_for(proxy)
    meter = Meter(proxy)
    process = pgbench.launch(lab, proxy.port, load, seconds)
    outcome = pgbench.collect(lab, process, seconds + 60, meter.stop)
    figures = meter.figures(outcome.count)
    figures.update(count=outcome.count, rate=outcome.tps)
    if "-C" in load.options:  # pgbench connects one client at a time: latencies would show the others' connecting
        figures["connect_ms"] = outcome.connect_ms
    else:
        figures.update(p50=outcome.percentile_ms(0.5), p99=outcome.percentile_ms(0.99),
                       p999=outcome.percentile_ms(0.999))
    return figures


def large_rows(lab, proxy, work, seconds):
    script = lab.folder / "rows.sql"
    script.write_text("\\set id random(1, 100)\nSELECT body FROM bench_rows WHERE id = :id;\n")
    figures = transactions(lab, proxy, work, seconds)
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


def copy_out(lab, proxy, work, seconds):
    return copy(lab, proxy, ["COPY bench_bulk TO STDOUT"], seconds)


def copy_in(lab, proxy, work, seconds):
    return copy(lab, proxy, ["TRUNCATE bench_bulk_in", f"\\copy bench_bulk_in FROM '{lab.bulk_file}'"], seconds)


def crowd_size(wanted):
    """Both we and the proxy need a descriptor for each."""
    return min(wanted, most_open_files() - 300)


def idle_clients(lab, proxy, work, seconds):
    """Memory per client that has logged in and does nothing, and what such clients cost the others."""
    without = transactions(lab, proxy, work, seconds)
    size = crowd_size(work.profile.max_clients - 200)
    before = resident_bytes(proxy.process)
    crowd = wire.Crowd(proxy.port, size, work.profile.tls)
    try:
        time.sleep(0.5)
        after = resident_bytes(proxy.process)
        figures = transactions(lab, proxy, work, seconds)
    finally:
        crowd.close()
    figures.update(clients=size, rss_before=before, rss_after=after, bytes_each=(after - before) / size,
                   cost_without=without["cost"], cost_ratio=figures["cost"] / without["cost"])
    return figures


def await_few_servers(lab, seconds=20):
    deadline = time.monotonic() + seconds
    question = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    while int(lab.sql(question)) > 60:
        if time.monotonic() > deadline:
            raise Trouble("the connections of idle pools are not closed by server_idle_timeout")
        time.sleep(0.2)


def many_pools(lab, proxy, work, seconds):
    """Memory per pool that exists, and what such pools cost those in use."""
    load = Load(database="pool000")
    without = transactions(lab, proxy, work, seconds)
    before = resident_bytes(proxy.process)
    for number in range(POOLS):
        stream = wire.login(proxy.port, f"pool{number:03}")
        wire.ask(stream, "SELECT 1")
        wire.leave(stream)
    await_few_servers(lab)
    after = resident_bytes(proxy.process)
    figures = transactions(lab, proxy, work, seconds, load)
    figures.update(pools=POOLS, rss_before=before, rss_after=after, bytes_each=(after - before) / POOLS,
                   cost_without=without["cost"], cost_ratio=figures["cost"] / without["cost"])
    return figures


def skipping(reason, names=FORWARDERS):
    return {name: reason for name in sorted(names)}


def catalogue(idle=5000):
    tls_env = {"PGSSLMODE": "require"}
    tls = Profile("tls", tls=True)
    no_tls = skipping(NO_TLS, {"floor", "haproxy"})
    works = [
        Work("simple", "pgbench -S, 32 clients on 20 servers"),
        Work("extended", "the same with the extended protocol", Load(("-S", "-M", "extended"))),
        Work("prepared", "the same with prepared statements", Load(("-S", "-M", "prepared"))),
        Work("connect", "a new connection for each transaction", Load(("-S", "-C"))),
        Work("wide", "1,000 clients on 20 servers", Load(clients=1000), skip=skipping(NOT_A_POOLER)),
        Work("scram", "a new SCRAM-SHA-256 login each",
             Load(("-S", "-C"), 32, SCRAM_USER, "postgres", {"PGPASSWORD": PASSWORD}),
             profile=Profile("scram", auth="scram-sha-256")),
        Work("tls", "simple over TLS", Load(env=tls_env), profile=tls, skip=no_tls, needs=("tls",)),
        Work("tls_connect", "a new connection with TLS each", Load(("-S", "-C"), env=tls_env), profile=tls, skip=no_tls,
             needs=("tls",)),
        Work("copy_out", "COPY of 100 MB to the client", measure=copy_out, unit="s/GB", rate="MB/s", needs=("bulk",)),
        Work("copy_in", "COPY of 100 MB from the client", measure=copy_in, unit="s/GB", rate="MB/s", needs=("bulk",)),
        Work("rows", "rows of 100 kB, 8 clients", Load(("-f", "rows.sql"), 8), large_rows, needs=("rows",)),
        Work("split", "simple with reads sent to a standby", profile=Profile("split", split=True), needs=("split",)),
        Work("idle10k", f"simple beside {idle} idle clients", measure=idle_clients, fresh=True,
             profile=Profile("idle", max_clients=idle + 200), skip=skipping(NOT_A_POOLER)),
        Work("idle_tls", f"the same over TLS beside {idle // 5}", Load(env=tls_env), idle_clients, fresh=True,
             profile=Profile("idle_tls", tls=True, max_clients=idle // 5 + 200), skip=skipping(NOT_A_POOLER),
             needs=("tls",)),
        Work("pools500", f"simple on one of {POOLS} pools", measure=many_pools, fresh=True, skip=skipping(NOT_A_POOLER),
             profile=Profile("pools", databases=POOLS, lines=["server_idle_timeout = 3"]), needs=("pools",)),
    ]
    return {work.name: work for work in works}
