"""Figures of pgweir that do not depend on the machine's mood, each held against a budget: the command bench/ci."""
import contextlib
import json
import os
import pathlib
import re
import statistics
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import Callable

from . import client, command, pgbench, proxies, syscalls, wire
from .lab import PASSWORD, SCRAM_USER, laboratory
from .machine import BENCH, ROOT, Trouble, find_program
from .pgbench import Load
from .proxies import POOLS, Kind, Profile

SLACK_OF_SMALL = 0.05  # so that a budget of 0 allows what a timer does during the run
MEGABYTES = 10  # of one COPY

PLAIN = Profile()
TLS = Profile("tls", tls=True)
SCRAM = Profile("scram", auth="scram-sha-256")
MANY_POOLS = Profile("pools", databases=POOLS)
MAX_CONNECTIONS = 2 * POOLS
CROWD = 1000
MANY_CLIENTS = Profile("crowd", max_clients=CROWD + 100)
SPLIT = Profile("split", split=True, lines=["admin_users = postgres"])


@dataclass(frozen=True)
class Case:
    """A fixed piece of work, done `few` times and `many` times: the difference leaves out start, login and end."""
    name: str
    load: Load = None  # none: it is a COPY
    profile: Profile = field(default_factory=Profile)
    few: int = 100
    many: int = 1100
    copy: str = ""
    workers: int = 1
    beside: Callable = None  # what is there besides, from the start: makes a context of lab and port
    held: bool = True  # against a budget; others are there to be looked at

    @property
    def unit(self):
        return "MB" if self.copy else "transaction"

    def run(self, lab, port, times):
        if not self.copy:
            pgbench.run(lab, port, self.load, transactions=times, log=False)
            return
        commands = [part for _ in range(times) for part in ("-c", self.copy.format(lab=lab))]
        lab.processes.call(lab.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", port, "-U",
                           "postgres", "-d", "postgres", "-o", os.devnull, *commands)

    def divide(self, total):
        """What `many` did more than `few`, for each transaction or megabyte."""
        return total / ((self.many - self.few) * (MEGABYTES if self.copy else self.load.clients))


def select(mode="simple", **env):
    return Load(("-S", "-M", mode), 1, env=env)


@contextlib.contextmanager
def used_pools(lab, port):
    """Every pool has been used once, and has a server."""
    for number in range(POOLS):
        stream = wire.login(port, f"pool{number:03}")
        wire.ask(stream, "SELECT 1")
        wire.leave(stream)
    yield


def idle_crowd(lab, port):
    return client.crowd(lab, port, CROWD)


LOGIN = Load(("-S", "-C"), 1)
COPY_OUT = "COPY bench_budget TO STDOUT"
COPY_IN = "\\copy bench_budget_in FROM '{lab.folder}/budget.copy'"
CASES = (
    Case("simple", select()),
    Case("extended", select("extended")),
    Case("prepared", select("prepared")),
    Case("simple_two_workers", select(), workers=2),
    Case("connect", LOGIN, few=20, many=220),
    Case("scram", Load(("-S", "-C"), 1, SCRAM_USER, env={"PGPASSWORD": PASSWORD}), SCRAM, 5, 55),
    Case("pools500", select(), MANY_POOLS, beside=used_pools, held=False),  # the janitor works by the clock
    Case("idle1000", select(), MANY_CLIENTS, beside=idle_crowd),
    Case("tls", select(PGSSLMODE="require"), TLS),
    Case("split", select(), SPLIT, many=3100),
    Case("copy_out", copy=COPY_OUT, few=2, many=6),
    Case("copy_in", copy=COPY_IN, few=2, many=6),
)


@dataclass
class Bench:
    lab: object
    kind: Kind
    cases: tuple
    figures: dict = field(default_factory=dict)
    skipped: dict = field(default_factory=dict)

    def start(self, case, env=None, wrapper=()):
        kind = self.kind if case.workers == 1 else Kind("pgweir2", self.kind.binary, self.kind.version)
        proxy = proxies.start(self.lab, kind, case.profile, env, wrapper)
        if case.profile.split:
            await_routing(self.lab, proxy)
        return proxy

    def keep(self, what, case, total):
        self.figures[f"{what}.{case.name}"] = case.divide(total)


def await_routing(lab, proxy, seconds=150):
    """Which operators there are is read once, soon after the start (half a billion instructions, which take callgrind a
    while), and is no part of any transaction: from then on a proven read is sent to the standby. Asked seldom, since
    these questions count too."""
    def ask(database, sql):
        return lab.processes.call(lab.bin / "psql", "-X", "-A", "-t", "-h", "127.0.0.1", "-p", proxy.port, "-U",
                                  "postgres", "-d", database, "-c", sql).strip()

    deadline = time.monotonic() + seconds
    while True:
        ask("postgres", "SELECT abalance FROM pgbench_accounts WHERE aid = 1")
        routes = ask("pgbouncer", "SHOW ROUTES").split("|")
        if len(routes) > 1 and int(routes[1]) > 0:
            return
        if time.monotonic() > deadline:
            proxies.stop(lab, proxy)
            raise Trouble(f"reads do not go to the standby within {seconds} s: {routes}\n"
                          f"{lab.processes.last_words(proxy.instance)}")
        time.sleep(1)


def prepare(lab):
    """Rows of about 1 kB for COPY, as a table and as a file."""
    lab.sql("CREATE UNLOGGED TABLE bench_budget AS SELECT i AS id, repeat(md5(i::text), 30) || repeat('x', 31) AS body "
            f"FROM generate_series(1, {MEGABYTES * 1000}) AS i",
            "CREATE UNLOGGED TABLE bench_budget_in (LIKE bench_budget)",
            f"\\copy bench_budget TO '{lab.folder}/budget.copy'")


def alone(bench):
    """Cases with something beside them are about walks over it, which show as instructions."""
    return [case for case in bench.cases if not case.beside]


def allocations(bench):
    """Heap allocations, counted by a library that is preloaded."""
    compiler = find_program("cc")
    if not compiler:
        raise Trouble("there is no cc to compile bench/count_allocations.c with")
    lab = bench.lab
    shim, counter = lab.folder / "count_allocations.so", lab.folder / "allocations"
    source = proxies.copy_in(lab, "count_allocations.c", BENCH / "count_allocations.c")
    lab.processes.call(compiler, "-O2", "-shared", "-fPIC", "-o", shim, source)
    for case in alone(bench):
        counter.unlink(missing_ok=True)
        proxy = bench.start(case, {"LD_PRELOAD": str(shim), "COUNT_ALLOCATIONS_FILE": str(counter)})
        try:
            if not counter.exists() or struct.unpack("=QQ", counter.read_bytes())[0] == 0:
                raise Trouble("the program does not allocate by the C library: nothing is counted")
            bench.keep("allocations", case, counted(bench, proxy, counter, case))
        finally:
            proxies.stop(lab, proxy)


def counted(bench, proxy, counter, case):
    totals = []
    for times in (case.few, case.few, case.many):  # the first one warms up
        before = struct.unpack("=QQ", counter.read_bytes())[0]
        case.run(bench.lab, proxy.port, times)
        totals.append(settled(counter) - before)
    return totals[2] - totals[1]


def settled(counter):
    """The count when it no longer grows: the end of a client is handled after the client has gone."""
    last, deadline = None, time.monotonic() + 2
    while time.monotonic() < deadline:
        now = struct.unpack("=QQ", counter.read_bytes())[0]
        if now == last:
            return now
        last = now
        time.sleep(0.05)
    return last


def system_calls(bench):
    """With one client exactly; with 32 on 20 servers under a steady load, where some calls serve several clients."""
    for case in alone(bench):
        if case.copy:
            continue  # how many bytes one call moves is up to the sender's and the kernel's pace
        proxy = bench.start(case)
        try:
            case.run(bench.lab, proxy.port, case.few)
            totals = []
            for times in (case.few, case.many):
                counting = syscalls.Counting(bench.lab, proxy.process)
                try:
                    case.run(bench.lab, proxy.port, times)
                finally:
                    totals.append(sum(counting.stop().values()))
            bench.keep("syscalls", case, totals[1] - totals[0])
        finally:
            proxies.stop(bench.lab, proxy)
    crowded(bench)


def crowded(bench):
    proxy = proxies.start(bench.lab, bench.kind, PLAIN)
    try:
        calls = syscalls.per_transaction(bench.lab, proxy, Load(("-S", "-M", "simple"), 32), 2.0)
        bench.figures["syscalls.simple_32_clients"] = sum(calls.values())
    finally:
        proxies.stop(bench.lab, proxy)


def instructions(bench):
    """In user space, by callgrind."""
    valgrind = find_program("valgrind")
    if not valgrind:
        raise Trouble("valgrind is missing (Debian: apt install valgrind)")
    starts = {}  # start, login and end are the same for all cases of a profile whose transactions are light
    for case in bench.cases:
        if case.copy or case.load.options == LOGIN.options:
            few = executed(bench, valgrind, case, case.few)
        else:
            key = case.profile.name, case.workers
            if key not in starts:
                starts[key] = executed(bench, valgrind, case, case.few)
            few = starts[key]
        bench.keep("instructions", case, executed(bench, valgrind, case, case.many) - few)


def executed(bench, valgrind, case, times, options=()):
    report = bench.lab.folder / "callgrind.out"
    report.unlink(missing_ok=True)
    proxy = bench.start(case, wrapper=[valgrind, "--tool=callgrind", f"--callgrind-out-file={report}", "-q", *options])
    try:
        with case.beside(bench.lab, proxy.port) if case.beside else contextlib.nullcontext():
            case.run(bench.lab, proxy.port, times)
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


def round_of_figures(lab, kind, cases):
    bench = Bench(lab, kind, cases)
    measure(bench)
    return {name: round(value, 2) + 0.0 for name, value in bench.figures.items()}, bench.skipped  # no -0.0


class Budget:
    """The budgets, how far each may be exceeded, and the file they are in."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.document = json.loads(self.path.read_text()) if self.path.exists() else {"slack": 0.05, "figures": {}}

    def slack(self, name):
        return self.document.get("slacks", {}).get(name, self.document["slack"])

    def verdict(self, name, value):
        budget, slack = self.document["figures"].get(name), self.slack(name)
        if budget is None:
            return "FAIL: it has no budget"
        if value > budget * (1 + slack) + SLACK_OF_SMALL:
            return f"FAIL: more than {slack * 100:.0f} % over"
        return "ok, and well below: lower the budget" if value < budget * (1 - slack) - SLACK_OF_SMALL else "ok"

    def update(self, figures):
        self.document["figures"].update(figures)
        self.path.write_text(json.dumps(self.document, indent=2) + "\n")


def print_table(budget, measured):
    """True if none is over its budget. `measured`: for each name what the repetitions gave."""
    title = "for each transaction, COPY for each MB"
    print(f"{title:40} {'measured':>10} {'from':>10} {'to':>10} {'budget':>10}  verdict")
    failed = False
    for name, values in measured.items():
        value, limit = statistics.median(values), budget.document["figures"].get(name)
        verdict = budget.verdict(name, value)
        failed = failed or verdict.startswith("FAIL")
        shown = "-" if limit is None else f"{limit:.2f}"
        print(f"{name:40} {value:10.2f} {min(values):10.2f} {max(values):10.2f} {shown:>10}  {verdict}")
    return not failed


def choose_cases(names):
    unknown = set(names) - {case.name for case in CASES}
    if unknown:
        raise Trouble(f"there is no case {', '.join(sorted(unknown))}")
    return tuple(case for case in CASES if (case.name in names if names else case.held))


def run(arguments):
    cases = choose_cases(arguments.cases)
    budget = Budget(arguments.budget)
    measured, skipped = {}, {}
    with laboratory({"tls", "split"}, MAX_CONNECTIONS) as lab:
        prepare(lab)
        kind = proxies.find_kind(lab, "pgweir", arguments.binary, {})
        for _ in range(arguments.repeat):
            figures, skipped = round_of_figures(lab, kind, cases)
            for name, value in figures.items():
                measured.setdefault(name, []).append(value)
    good = print_table(budget, measured)
    for what, why in skipped.items():
        print(f"skipped: {what}: {why}")
    if arguments.update:
        budget.update({name: statistics.median(values) for name, values in measured.items()})
        return 0
    if not measured:
        raise Trouble("nothing could be measured")
    return 0 if good else 1


def main(description):
    parser = command.parser("bench/ci", description)
    parser.add_argument("--binary", default=str(ROOT / "build/release/pgweir"), help="the pgweir to measure")
    parser.add_argument("--budget", default=str(BENCH / "budget.json"), help="the budgets")
    parser.add_argument("--cases", type=lambda text: text.split(","), default=[],
                        help="names with commas; default: all")
    parser.add_argument("--repeat", type=int, default=1, help="measure so often; medians are judged (1)")
    parser.add_argument("--update", action="store_true", help="write what was measured as the new budgets")
    return command.exit_code("bench/ci", run, parser.parse_args())
