"""The command bench/run."""
import argparse
import json
import pathlib
import sys

from . import chart, proxies, report, works
from .lab import laboratory
from .machine import ROOT, Trouble, fingerprint, raise_limits
from .runner import Runner

DEFAULT_WORKS = ["simple", "extended", "prepared", "connect"]


def words(text):
    return [word for word in text.split(",") if word]


def parse(description, arguments):
    parser = argparse.ArgumentParser(prog="bench/run", description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4, help="length of one measurement (4)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument("--works", type=words, default=DEFAULT_WORKS, help="names with commas, or all")
    parser.add_argument("--proxies", type=words, help="names with commas; default: all there are")
    parser.add_argument("--other", action="append", default=[], metavar="NAME=BINARY",
                        help="one more pooler that reads pgbouncer.ini; may be repeated")
    parser.add_argument("--binary", default=str(ROOT / "build/release/pgweir"), help="the pgweir to measure")
    parser.add_argument("--idle-clients", type=int, default=5000, help="for idle10k; a fifth of it for idle_tls (5000)")
    parser.add_argument("--with-split", action="store_true", help="also the work split, with a standby")
    parser.add_argument("--syscalls", action="store_true", help="a further pass under strace counts system calls")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.add_argument("--svg", metavar="FILE", help="write a bar chart")
    parser.add_argument("--compare", metavar="FILE", help="print the change against the JSON of an earlier run")
    return parser.parse_args(arguments)


def choose_works(arguments):
    known = works.catalogue(arguments.idle_clients)
    if arguments.works == ["all"]:
        names = [name for name in known if name != "split"]
    else:
        names = list(arguments.works)
    if arguments.with_split and "split" not in names:
        names.append("split")
    for name in names:
        if name not in known:
            raise Trouble(f"there is no work {name}; there are: {', '.join(known)}")
        if name == "split" and not arguments.with_split:
            raise Trouble("the work split needs --with-split")
    return {name: known[name] for name in names}


def choose_others(arguments):
    others = {}
    for text in arguments.other:
        name, equals, binary = text.partition("=")
        if not equals or not name.isidentifier() or name in proxies.NAMES:
            raise Trouble(f"--other {text}: NAME=BINARY is meant, with a name of its own")
        others[name] = binary
    return others


def write_results(arguments, chosen, runner, missing):
    settings = {"seconds": arguments.seconds, "rounds": arguments.rounds, "idle_clients": arguments.idle_clients}
    if arguments.json:
        document = report.as_json(chosen, runner, settings, missing)
        pathlib.Path(arguments.json).write_text(json.dumps(document, indent=1) + "\n")
    if arguments.svg:
        machine = fingerprint()
        note = (f"Medians; rounds of {arguments.seconds} s: {arguments.rounds}; lines: the spread; {machine['cpu']}, "
                f"{machine['cores']} cores; only ratios within a panel mean something")
        pathlib.Path(arguments.svg).write_text(chart.svg(chosen, runner.results, note))


def print_gaps(runner, missing):
    lists = [("Not installed or not built:", [f"{name}: {why}" for name, why in missing.items()]),
             ("Left out by their nature:", runner.skipped), ("FAILED:", runner.troubles)]
    for title, entries in lists:
        if entries:
            print(f"\n{title}")
            for entry in entries:
                print(f"  {entry}")


def run(arguments):
    raise_limits()
    chosen = choose_works(arguments)
    others = choose_others(arguments)
    earlier = report.load_earlier(arguments.compare) if arguments.compare else None
    names = arguments.proxies or [*proxies.NAMES, *others]
    needs = {need for work in chosen.values() for need in work.needs}
    with laboratory(needs, 1000 if "pools" in needs else 400) as lab:
        kinds, missing = proxies.find_kinds(lab, names, arguments.binary, others)
        runner = Runner(lab, kinds, arguments.seconds, arguments.rounds, arguments.syscalls)
        for work in chosen.values():
            runner.run(work)
    report.print_table(chosen, runner.results)
    if earlier:
        report.print_changes(runner.results, earlier, {name: work.unit for name, work in chosen.items()})
    print_gaps(runner, missing)
    write_results(arguments, chosen, runner, missing)
    return 1 if runner.troubles or (arguments.proxies and missing) else 0


def main(description):
    arguments = parse(description, sys.argv[1:])
    try:
        return run(arguments)
    except Trouble as trouble:
        print(f"bench/run: {trouble}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
