"""The command bench/profile: lets a program that counts its branches serve the usual works, and keeps the counts."""
import pathlib
import re
import shutil
import sys

from . import budget, command, pgbench, proxies
from .lab import laboratory
from .machine import ROOT, Trouble, find_program
from .pgbench import Load
from .runner import Subject
from .works import catalogue

KEPT = ROOT / "cmake/profile"
WORKS = ("simple", "extended", "prepared", "tls", "split", "connect", "scram", "tls_connect")
COPIES = ("copy_out", "copy_in")
CLIENTS = (1, 32, 300)
OFTEN = 0.05  # times per transaction
BUSY = 0.02  # of its functions; with less it is library code that the linker took from this file of all


def share_of_busy(gcov_dump, path, least, lab):
    """What part of a file's functions has an arc that was taken so often."""
    functions, arcs = [], False
    for line in lab.processes.call(gcov_dump, "-l", path).splitlines():
        text = line[len(str(path)):]
        if ":FUNCTION" in text:
            functions.append(0)
        elif "COUNTERS" in text:
            arcs = "COUNTERS arcs" in text
        elif arcs and re.match(r":\s+\d+: ", text):
            functions[-1] = max(functions[-1], *map(int, text.split(":", 2)[2].split()))
    return sum(count >= least for count in functions) / max(1, len(functions))


def source_of(path):
    """pgweir_core.dir/proxy/core/x.cpp.gcda -> proxy/core/x.cpp"""
    found = re.search(r"/CMakeFiles/pgweir_[^/]+\.dir/(.+\.cpp)\.gcda$", str(path))
    return found[1] if found else None


def serve(lab, kind, work, seconds, environment):
    """Answers how many transactions there were."""
    count = 0
    proxy = proxies.start(lab, kind, budget.SPLIT if work.profile.split else work.profile, environment)
    try:
        if work.profile.split:
            budget.await_routing(lab, proxy)
        if work.load.options[:1] == ("-S",) and work.measure.__name__ == "simple":
            for clients in CLIENTS:
                load = Load(work.load.options, clients, work.load.user, env=work.load.env)
                count += pgbench.run(lab, proxy.port, load, seconds, log=False).count
        else:
            figures = work.measure(lab, Subject(proxy), work, seconds, 1)
            count += figures.get("count", 0)
    finally:
        proxies.stop(lab, proxy)
    return count


def record(arguments):
    gcov_dump = find_program("gcov-dump")
    if not gcov_dump:
        raise Trouble("gcov-dump is missing: it comes with GCC")
    every, total = catalogue(), 0
    with laboratory({"tls", "split", "bulk"}, 1000) as lab:
        counts = lab.folder / "counts"
        counts.mkdir(mode=0o777)
        counts.chmod(0o777)
        environment = {"GCOV_PREFIX": str(counts)}
        for name in ("pgweir", "pgweir2"):
            kind = proxies.find_kind(lab, name, arguments.binary, {})
            for work in (every[name] for name in (*WORKS, *COPIES)):
                count = serve(lab, kind, work, arguments.seconds, environment)
                print(f"{kind.name} {work.name}: {count}", file=sys.stderr, flush=True)
                total += count
        keep(lab, gcov_dump, counts, total * OFTEN)
    return 0


def keep(lab, gcov_dump, counts, least):
    chosen = {}
    for path in counts.rglob("*.gcda"):
        source = source_of(path)
        if source and (ROOT / source).exists() and share_of_busy(gcov_dump, path, least, lab) >= BUSY:
            chosen[source] = path
    if not chosen:
        raise Trouble("the program has left no counts: is it that of the preset profile?")
    shutil.rmtree(KEPT, ignore_errors=True)
    for source, path in sorted(chosen.items()):
        target = KEPT / f"{source}.gcda"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        print(source)


def main(description):
    parser = command.parser("bench/profile", description)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "build/profile/pgweir",
                        help="the pgweir that counts")
    parser.add_argument("--seconds", type=int, default=2, help="of each work (2)")
    return command.exit_code("bench/profile", record, parser.parse_args())
