"""System calls of a process, counted by strace that is attached to it for a while."""
import select
import signal
import subprocess
import time

from . import measures, pgbench
from .machine import Trouble, find_program
from .processes import tree


class Counting:
    """Counts from the moment it is made until stop()."""

    def __init__(self, lab, process):
        strace = find_program("strace")
        if not strace:
            raise Trouble("strace is missing (Debian: apt install strace)")
        self.lab = lab
        self.report = lab.folder / "strace.txt"
        self.report.unlink(missing_ok=True)
        pids = [part for pid in tree(process.pid) for part in ("-p", str(pid))]
        self.tracer = subprocess.Popen([strace, "-c", "-f", "-o", str(self.report), *pids], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                       start_new_session=True)
        lab.processes.running.append(self.tracer)
        self.wait_until_attached()
        self.begin = time.time()

    def wait_until_attached(self):
        if not select.select([self.tracer.stderr], [], [], 10)[0]:
            self.lab.processes.stop(self.tracer)
            raise Trouble("strace does not attach")
        line = self.tracer.stderr.readline()
        if "attached" not in line:
            self.lab.processes.stop(self.tracer)
            raise Trouble(f"strace may not attach here: {line.strip() or 'it ended'}")

    def stop(self):
        """Calls by name."""
        self.end = time.time()
        self.lab.processes.stop(self.tracer, signal.SIGINT, 10)
        self.tracer.stderr.close()
        return read_report(self.report.read_text() if self.report.exists() else "")


def read_report(text):
    calls = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 5 and words[0][0].isdigit() and words[-1] != "total":
            calls[words[-1]] = int(words[3])
    return calls


def of_work(lab, subject, work):
    """By name for each transaction, or login, of a work."""
    load = work.load_for(subject.proxy)
    if work.measure is not measures.logins:
        return per_transaction(lab, subject.proxy, load, 1.0)
    counting = Counting(lab, subject.proxy.process)
    try:
        done = measures.logins(lab, subject, work, 1, 0)
    finally:
        calls = counting.stop()
    return {name: value / done["count"] for name, value in calls.items()}


def per_transaction(lab, proxy, load, seconds=2.0):
    """Under a steady load: calls by name per transaction, logins left out unless each transaction has one."""
    process = pgbench.launch(lab, proxy.port, load, seconds=round(seconds) + 2)
    pgbench.sleep_while(lab, process, 0.7)
    counting = Counting(lab, proxy.process)
    time.sleep(seconds)
    calls = counting.stop()
    count = pgbench.count_between(pgbench.collect(lab, process), counting.begin, counting.end)
    if count == 0:
        raise Trouble("no transaction ended while strace was attached")
    return {name: value / count for name, value in calls.items()}


def exactly(lab, proxy, load, few, many):
    """With a fixed number of transactions: the difference of two runs, so that logins and start cancel out."""
    totals = []
    for transactions in (few, many):
        counting = Counting(lab, proxy.process)
        try:
            pgbench.run(lab, proxy.port, load, transactions=transactions, log=False)
        finally:
            calls = counting.stop()
        totals.append(calls)
    names = set(totals[0]) | set(totals[1])
    return {name: (totals[1].get(name, 0) - totals[0].get(name, 0)) / ((many - few) * load.clients) for name in names}
