"""The limits that pgweir is held to, and what a run says about them."""
from dataclasses import dataclass

from . import ratios

TWO_WORKERS = ("simple", "extended", "prepared", "wide", "tls")
TAIL_WORKS = ("simple", "extended", "wide", "tls", "split", "connect", "scram", "tls_connect", "rows", "idle10k",
              "idle_tls", "pools500")
HOSTILE_WORKS = ("hostile_slow_reader", "hostile_one_byte", "hostile_pipeline", "hostile_rows")


@dataclass(frozen=True)
class Limit:
    work: str
    key: str  # of the figures
    what: str
    limit: float
    base: str = None  # the figure is a ratio to this proxy's in the same round
    proxy: str = "pgweir"
    at_least: bool = False
    digits: int = 2

    def measured(self, results):
        by_name = results.get(self.work, {})
        if self.base:
            return ratios.paired(by_name, self.proxy, self.base, self.key)
        return ratios.of_rounds(by_name.get(self.proxy, []), self.key)

    def holds(self, value):
        return value >= self.limit if self.at_least else value <= self.limit


def cpu(work, base, limit, unit="transaction"):
    return Limit(work, "cost", f"CPU per {unit}, x {base}", limit, base)


def all_limits():
    yield cpu("simple", "floor", 1.10)
    yield cpu("simple", "pgbouncer", 0.95)
    yield cpu("prepared", "floor", 1.20)
    yield cpu("tls", "pgbouncer", 0.85)
    yield cpu("copy_out", "floor", 1.10, "GB")
    yield cpu("copy_in", "floor", 1.10, "GB")
    yield Limit("idle10k", "bytes_each", "bytes for an idle client", 1024, digits=0)
    yield Limit("idle_tls", "bytes_each", "bytes for an idle TLS client", 20 * 1024, digits=0)
    yield Limit("connect", "rate", "logins per second, x pgbouncer", 1.2, "pgbouncer", at_least=True)
    yield Limit("scram_first", "stall_derivations", "longest wait of others, in derivations", 1.0)
    yield Limit("idle10k", "cost_ratio", "CPU per transaction, x without idle clients", 1.05)
    yield Limit("pools500", "cost_ratio", "CPU per transaction, x with one pool", 1.05)
    for work in TWO_WORKERS:
        yield Limit(work, "cost", "CPU per transaction, 2 workers x 1", 1.05, "pgweir", "pgweir2")
    for work in TAIL_WORKS:
        yield Limit(work, "p99", "p99, x pgbouncer", 1.0, "pgbouncer")
        yield Limit(work, "p999", "p99.9, x pgbouncer", 1.0, "pgbouncer")
    for work in HOSTILE_WORKS:
        # Beside the same client on another process, whose PostgreSQL takes the same time of these cores.
        yield Limit(work, "p99_ratio_apart", "p99 of others, x with it on another process", 2.0)
        yield Limit(work, "growth", "bytes the proxy grows at most", 2_000_000, digits=0)


LIMITS = tuple(all_limits())
WORKS = tuple(dict.fromkeys(limit.work for limit in LIMITS))


def proxies_of(work):
    """Those that a limit of this work is about."""
    return {name for limit in LIMITS if limit.work == work for name in (limit.proxy, limit.base) if name}


def verdict(limit, measured):
    """ok or FAIL by the median; whether the middle half of the rounds says the same."""
    if measured is None:
        return "not measured", ""
    sure = limit.holds(measured.low) == limit.holds(measured.high)
    return "ok" if limit.holds(measured.median) else "FAIL", "" if sure else "the limit is within the spread"


def judge(results):
    """(limit, measured, verdict, remark) for each limit whose work was run."""
    judged = []
    for limit in LIMITS:
        if limit.work in results:
            measured = limit.measured(results)
            judged.append((limit, measured, *verdict(limit, measured)))
    return judged
