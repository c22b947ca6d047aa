"""Figures of pgweir that do not depend on the machine's mood, each held against a budget: the command bench/ci."""
import argparse
import json
import pathlib
import re
import struct
import sys
import time
from dataclasses import dataclass

from . import pgbench, proxies, syscalls
from .lab import laboratory
from .machine import BENCH, ROOT, Trouble, find_program
from .pgbench import Load
from .proxies import Kind, Profile

MODES = ("simple", "extended", "prepared")
SLACK_OF_SMALL = 0.05  # so that a budget of 0 allows what a timer does during the run


@dataclass
class Bench:
    lab: object
    kind: Kind
    figures: dict
    skipped: dict

    def load(self, mode, clients=1):
        return Load(("-S", "-M", mode), clients)


def allocations(bench):
    """Heap allocations per transaction of one client; the difference of two runs, so that logins cancel out."""
    compiler = find_program("cc")
    if not compiler:
        raise Trouble("there is no cc to compile bench/count_allocations.c with")
    lab = bench.lab
    shim, counter = lab.folder / "count_allocations.so", lab.folder / "allocations"
    source = proxies.copy_in(lab, "count_allocations.c", BENCH / "count_allocations.c")
    lab.processes.call(compiler, "-O2", "-shared", "-fPIC", "-o", shim, source)
    proxy = proxies.start(lab, bench.kind, Profile(), {"LD_PRELOAD": str(shim), "COUNT_ALLOCATIONS_FILE": str(counter)})
    try:
        if not counter.exists() or struct.unpack("=QQ", counter.read_bytes())[0] == 0:
            raise Trouble("the program does not allocate by the C library: nothing is counted")
        for mode in MODES:
            bench.figures[f"allocations.{mode}.1"] = counted(bench, proxy, counter, bench.load(mode), 500, 2500)
        connect = Load(("-S", "-C"), 1)
        bench.figures["allocations.connect.1"] = counted(bench, proxy, counter, connect, 50, 250)
    finally:
        proxies.stop(lab, proxy)


def counted(bench, proxy, counter, load, few, many):
    totals = []
    for transactions in (few, few, many):  # the first one warms up
        before = struct.unpack("=QQ", counter.read_bytes())[0]
        pgbench.run(bench.lab, proxy.port, load, transactions=transactions, log=False)
        time.sleep(0.05)  # the end of the client is handled after pgbench has gone
        totals.append(struct.unpack("=QQ", counter.read_bytes())[0] - before)
    return (totals[2] - totals[1]) / (many - few)


def system_calls(bench):
    """With one client exactly; with 32 on 20 servers under a steady load, where some calls serve several clients."""
    proxy = proxies.start(bench.lab, bench.kind, Profile())
    try:
        for mode in MODES:
            pgbench.run(bench.lab, proxy.port, bench.load(mode), transactions=100, log=False)
            calls = syscalls.exactly(bench.lab, proxy, bench.load(mode), 200, 1200)
            bench.figures[f"syscalls.{mode}.1"] = sum(calls.values())
        calls = syscalls.per_transaction(bench.lab, proxy, bench.load("simple", 32), 2.0)
        bench.figures["syscalls.simple.32"] = sum(calls.values())
    finally:
        proxies.stop(bench.lab, proxy)


def instructions(bench):
    """In user space per transaction of one client, by callgrind; the difference to a shorter run."""
    valgrind = find_program("valgrind")
    if not valgrind:
        raise Trouble("valgrind is missing (Debian: apt install valgrind)")
    few = executed(bench, valgrind, bench.load("simple"), 100)  # start, login and end are the same for all
    for mode in MODES:
        bench.figures[f"instructions.{mode}.1"] = (executed(bench, valgrind, bench.load(mode), 1100) - few) / 1000


def executed(bench, valgrind, load, transactions):
    report = bench.lab.folder / "callgrind.out"
    report.unlink(missing_ok=True)
    wrapper = [valgrind, "--tool=callgrind", f"--callgrind-out-file={report}", "-q"]
    proxy = proxies.start(bench.lab, bench.kind, Profile(), wrapper=wrapper)
    try:
        pgbench.run(bench.lab, proxy.port, load, transactions=transactions, log=False)
    finally:
        end_gently(bench, proxy)
    found = re.search(r"^(?:summary|totals): (\d+)", report.read_text() if report.exists() else "", re.MULTILINE)
    if not found:
        raise Trouble("callgrind leaves no totals")
    return int(found[1])


def end_gently(bench, proxy):
    """callgrind writes its totals when the program ends by itself, which takes it a moment."""
    bench.lab.processes.stop(proxy.process, patience=15)


def measure(bench):
    for what in (allocations, system_calls, instructions):
        began = time.monotonic()
        try:
            what(bench)
        except (Trouble, OSError) as trouble:
            bench.skipped[what.__name__.replace("_", " ")] = str(trouble)
        print(f"{what.__name__.replace('_', ' ')}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def allowed(budget, slack):
    return budget * (1 + slack) + SLACK_OF_SMALL


def judge(figures, budgets, slack):
    """Rows of the table, and the names of those over their budget."""
    rows, over = [], []
    for name, value in figures.items():
        budget = budgets.get(name)
        if budget is None:
            verdict = "no budget"
        elif value > allowed(budget, slack):
            verdict = "FAIL"
            over.append(name)
        else:
            verdict = "ok, and well below: lower the budget" if value < budget * (1 - slack) - SLACK_OF_SMALL else "ok"
        rows.append((name, f"{value:.2f}", "-" if budget is None else f"{budget:.2f}", verdict))
    return rows, over


def print_rows(rows):
    print(f"{'figure per transaction':26} {'measured':>10} {'budget':>10}  verdict")
    for name, value, budget, verdict in rows:
        print(f"{name:26} {value:>10} {budget:>10}  {verdict}")


def run(arguments):
    path = pathlib.Path(arguments.budget)
    document = json.loads(path.read_text()) if path.exists() else {"slack": 0.1, "figures": {}}
    with laboratory() as lab:
        kind = proxies.find_kind(lab, "pgweir", arguments.binary, {})
        bench = Bench(lab, kind, {}, {})
        measure(bench)
    bench.figures = {name: round(value, 2) + 0.0 for name, value in bench.figures.items()}  # no -0.0
    rows, over = judge(bench.figures, document["figures"], document["slack"])
    print_rows(rows)
    for what, why in bench.skipped.items():
        print(f"skipped: {what}: {why}")
    if arguments.update:
        document["figures"].update(bench.figures)
        path.write_text(json.dumps(document, indent=2) + "\n")
        return 0
    if not bench.figures:
        raise Trouble("nothing could be measured")
    if over:
        print(f"over budget by more than {document['slack'] * 100:.0f} %: {', '.join(over)}")
    return 1 if over else 0


def main(description):
    parser = argparse.ArgumentParser(prog="bench/ci", description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build/release/pgweir"), help="the pgweir to measure")
    parser.add_argument("--budget", default=str(BENCH / "budget.json"), help="the budgets")
    parser.add_argument("--update", action="store_true", help="write what was measured as the new budgets")
    try:
        return run(parser.parse_args())
    except Trouble as trouble:
        print(f"bench/ci: {trouble}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
