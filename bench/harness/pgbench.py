"""Runs pgbench through a proxy and reads what it says."""
import re
import time
from dataclasses import dataclass, field

from .machine import Trouble


@dataclass(frozen=True)
class Load:
    options: tuple = ("-S", "-M", "simple")
    clients: int = 32
    user: str = "postgres"
    database: str = "postgres"
    env: dict = field(default_factory=dict, hash=False)


@dataclass
class Outcome:
    count: int = 0
    tps: float = 0.0
    connect_ms: float | None = None  # average time to connect, where every transaction does
    latencies: list = field(default_factory=list)  # us
    ends: list = field(default_factory=list)  # when each transaction ended, in seconds of the epoch

    def percentile_ms(self, share):
        if not self.latencies:
            return None
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))] / 1000


def launch(lab, port, load, seconds=None, transactions=None, log=True):
    amount = ["-T", seconds] if transactions is None else ["-t", transactions]
    logging = ["-l", "--log-prefix", lab.folder / "latency"] if log else []
    return lab.processes.popen([lab.bin / "pgbench", "-h", "127.0.0.1", "-p", port, "-U", load.user, "-n",
                                *load.options, "-c", load.clients, "-j", "1", "--random-seed=1",
                                *amount, *logging, load.database], env=load.env)


def collect(lab, process, seconds=300, at_end=lambda: None):
    """Waits for the end, calls at_end, and only then spends time on the log."""
    log = lab.folder / f"latency.{process.pid}"
    try:
        text = lab.processes.finish(process, seconds)
        at_end()
        outcome = read_summary(text)
        if log.exists():
            read_log(log, outcome)
    finally:
        log.unlink(missing_ok=True)
    return outcome


def read_summary(text):
    count = int(re.search(r"transactions actually processed: (\d+)", text)[1])
    failed = re.search(r"failed transactions: (\d+)", text)
    if failed and int(failed[1]):
        raise Trouble(f"{failed[1]} transactions failed")
    if count == 0:
        raise Trouble("no transaction was processed")
    connect = re.search(r"average connection time = ([\d.]+) ms", text)
    return Outcome(count, float(re.search(r"tps = ([\d.]+)", text)[1]), float(connect[1]) if connect else None)


def read_log(path, outcome):
    """Each line: client, transaction, latency in us, script, seconds of the epoch, us."""
    with open(path) as lines:
        for line in lines:
            words = line.split()
            outcome.latencies.append(int(words[2]))
            outcome.ends.append(int(words[4]) + int(words[5]) / 1e6)
    outcome.latencies.sort()


def run(lab, port, load, seconds=None, transactions=None, log=True):
    process = launch(lab, port, load, seconds, transactions, log)
    return collect(lab, process, (seconds or 60) + 60)


def count_between(outcome, begin, end):
    return sum(begin <= moment < end for moment in outcome.ends)


def sleep_while(lab, process, seconds):
    """Waits; ends early with Trouble if the load is over before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            lab.processes.finish(process)
            raise Trouble("pgbench ended too early")
        time.sleep(0.05)
