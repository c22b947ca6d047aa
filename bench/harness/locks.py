"""The command bench/locks: the mutexes of the real program, and the pools' one alone under several threads."""
import json
import pathlib
import struct
import time

from . import command, pgbench, proxies
from .lab import laboratory
from .machine import BENCH, ROOT, Trouble, find_program
from .pgbench import Load
from .proxies import Profile
from .report import section

ENTRY = struct.Struct("=6Q")  # as in bench/count_locks.c
BUILT = ROOT / "build/release/bench/contention"


def build_shim(lab):
    compiler = find_program("cc")
    if not compiler:
        raise Trouble("there is no cc to compile bench/count_locks.c with")
    shim = lab.folder / "count_locks.so"
    source = proxies.copy_in(lab, "count_locks.c", BENCH / "count_locks.c")
    lab.processes.call(compiler, "-O2", "-shared", "-fPIC", "-o", shim, source, "-ldl")
    return shim


def entries(path):
    """By the mutex's address: locks, found taken, ns held, ns waited; under 0 what joined and left epoll sets."""
    return {address: values for address, *values in ENTRY.iter_unpack(path.read_bytes()) if any((address, *values))}


def difference(before, after):
    return {address: [now - then for now, then in zip(values, before.get(address, [0] * len(values)))]
            for address, values in after.items()}


def of_program(lab, shim, kind, mode, seconds):
    counts = lab.folder / "locks"
    counts.unlink(missing_ok=True)
    proxy = proxies.start(lab, kind, Profile(), {"LD_PRELOAD": str(shim), "COUNT_LOCKS_FILE": str(counts)})
    try:
        load = Load(("-S", "-M", mode), 32)
        process = pgbench.launch(lab, proxy.port, load, seconds + 2)
        pgbench.sleep_while(lab, process, 0.7)
        before, began = entries(counts), time.time()
        pgbench.sleep_while(lab, process, seconds)
        after, ended = entries(counts), time.time()
        count = pgbench.count_between(pgbench.collect(lab, process), began, ended)
    finally:
        proxies.stop(lab, proxy)
    if not count:
        raise Trouble("no transaction ended while mutexes were counted")
    changes = difference(before, after)
    epoll = changes.pop(0, [0, 0])
    locks, taken, held, waited, _ = max(changes.values(), key=lambda values: values[0])
    return {"proxy": kind.name, "mode": mode, "transactions": count, "locks_per_tx": locks / count,
            "found_taken": taken / locks, "held_ns_per_lock": held / locks, "held_ns_per_tx": held / count,
            "waited_ns_per_lock": waited / locks, "waited_ns_per_tx": waited / count, "moves_per_tx": epoll[1] / count,
            "all_locks_per_tx": sum(values[0] for values in changes.values()) / count}


def of_pools(lab, threads, work_ns, seconds):
    if not BUILT.exists():
        raise Trouble("bench/contention is not built: cmake --preset release && cmake --build --preset release")
    binary = lab.folder / "contention"
    if not binary.exists():
        proxies.copy_in(lab, "contention", BUILT)
    options = [f"--threads={threads}", f"--work-ns={work_ns}", f"--seconds={seconds}"]
    return json.loads(lab.processes.call(binary, *options))


def print_program(rows):
    columns = [("program", 10), ("mode", 10), ("locks/tx", 9), ("taken", 7), ("held ns", 8), ("/tx", 7),
               ("waited ns", 9), ("/tx", 7), ("moves/tx", 9), ("all mutexes/tx", 14)]
    section("The real program", columns, [
        [row["proxy"], row["mode"], f"{row['locks_per_tx']:.2f}", f"{row['found_taken'] * 100:.2f} %",
         f"{row['held_ns_per_lock']:.0f}", f"{row['held_ns_per_tx']:.0f}", f"{row['waited_ns_per_lock']:.0f}",
         f"{row['waited_ns_per_tx']:.0f}", f"{row['moves_per_tx']:.4f}", f"{row['all_locks_per_tx']:.2f}"]
        for row in rows])


def print_pools(rows):
    columns = [("threads", 8), ("work ns", 8), ("tx/s", 9), ("locks/tx", 9), ("held ns", 8), ("undisturbed", 11),
               ("waited ns", 9), ("undisturbed", 11), ("median <", 8), ("p99 <", 8), ("moves/tx", 9)]
    section("The pools alone (for each lock)", columns, [
        [str(row["threads"]), str(row["work_ns"]), f"{row['transactions_per_s']:.0f}", f"{row['locks_per_tx']:.2f}",
         f"{row['held_ns_per_lock']:.0f}", f"{row['held_ns_undisturbed']:.0f}", f"{row['waited_ns_per_lock']:.0f}",
         f"{row['waited_ns_undisturbed']:.0f}", str(row["waited_below_ns_median"]), str(row["waited_below_ns_p99"]),
         f"{row['moves_per_tx']:.4f}"] for row in rows])
    print(f"one reading of the clock: {rows[0]['clock_ns']} ns")


def run(arguments):
    with laboratory() as lab:
        shim = build_shim(lab)
        kinds = [proxies.find_kind(lab, name, arguments.binary, {}) for name in ("pgweir", "pgweir2")]
        program = [of_program(lab, shim, kind, mode, arguments.seconds)
                   for mode in ("simple", "prepared") for kind in kinds]
        pools = [of_pools(lab, threads, work_ns, arguments.seconds) for work_ns in (0, 5000) for threads in (1, 2)]
    print_program(program)
    print_pools(pools)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps({"program": program, "pools": pools}, indent=1) + "\n")
    return 0


def main(description):
    parser = command.parser("bench/locks", description)
    parser.add_argument("--binary", default=str(ROOT / "build/release/pgweir"), help="the pgweir to measure")
    parser.add_argument("--seconds", type=int, default=4, help="length of one measurement (4)")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    return command.exit_code("bench/locks", run, parser.parse_args())
