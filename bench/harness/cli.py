"""The command bench/run."""
import json
import pathlib
import sys
import time
from types import SimpleNamespace

from . import chart, command, limits, proxies, report, works
from .lab import laboratory
from .machine import ROOT, Trouble, busy_share, fingerprint, raise_limits
from .runner import Runner

DEFAULT_WORKS = ["simple", "extended", "prepared", "connect"]


def words(text):
    return [word for word in text.split(",") if word]


def parse(description, arguments):
    parser = command.parser("bench/run", description)
    parser.add_argument("--seconds", type=int, default=2, help="length of one measurement (2)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured (7)")
    parser.add_argument("--works", type=words, help="names with commas, or all")
    parser.add_argument("--proxies", type=words, help="names with commas; default: all there are")
    parser.add_argument("--other", action="append", default=[], metavar="NAME=BINARY[,TEMPLATE]",
                        help="one more pooler, with a pgbouncer.ini or a template of its own; may be repeated")
    parser.add_argument("--binary", default=str(ROOT / "build/release/pgweir"), help="the pgweir to measure")
    parser.add_argument("--idle-clients", type=int, default=10_000,
                        help="for idle10k; a fifth of it for idle_tls (10000)")
    parser.add_argument("--syscalls", action="store_true",
                        help="a further pass under strace counts system calls; always with --works all")
    parser.add_argument("--limits", action="store_true",
                        help="measure what the limits are about, if no works are named; a limit that does not hold "
                             "makes the exit code 1")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.add_argument("--svg", metavar="FILE", help="write a bar chart")
    parser.add_argument("--compare", metavar="FILE", help="print the change against the JSON of an earlier run")
    parser.add_argument("--show", metavar="FILE",
                        help="measure nothing: tables (and --svg) of the JSON of a run, of --works if named")
    return parser.parse_args(arguments)


def choose_works(arguments):
    known = works.catalogue(arguments.idle_clients)
    names = arguments.works or (limits.WORKS if arguments.limits else DEFAULT_WORKS)
    if names == ["all"]:
        names = list(known)
    for name in names:
        if name not in known:
            raise Trouble(f"there is no work {name}; there are: {', '.join(known)}")
    return {name: known[name] for name in names}


def choose_others(arguments):
    others = {}
    for text in arguments.other:
        name, equals, files = text.partition("=")
        if not equals or not name.isidentifier() or name in proxies.NAMES:
            raise Trouble(f"--other {text}: NAME=BINARY[,TEMPLATE] is meant, with a name of its own")
        binary, _, template = files.partition(",")
        others[name] = (binary, template)
    return others


def write_svg(path, chosen, results, settings, machine):
    note = (f"Medians of {settings['rounds']} rounds of {settings['seconds']} s; lines: the spread; {machine['cpu']}, "
            f"{machine['cores']} cores; only ratios within a panel mean something")
    pathlib.Path(path).write_text(chart.svg(chosen, results, note))


def write_results(arguments, chosen, runner, missing, busy):
    settings = {"seconds": arguments.seconds, "rounds": arguments.rounds, "idle_clients": arguments.idle_clients,
                "busy_before": round(busy, 3)}
    if arguments.json:
        document = report.as_json(chosen, runner, settings, missing)
        pathlib.Path(arguments.json).write_text(json.dumps(document, indent=1) + "\n")
    if arguments.svg:
        write_svg(arguments.svg, chosen, runner.results, settings, fingerprint())


def print_gaps(runner, missing):
    lists = [("Not installed or not built:", [f"{name}: {why}" for name, why in missing.items()]),
             ("Left out by their nature:", runner.skipped), ("FAILED:", runner.troubles)]
    for title, entries in lists:
        if entries:
            print(f"\n{title}")
            for entry in entries:
                print(f"  {entry}")


def show(arguments):
    document = report.load(arguments.show)
    known = works.catalogue(document["settings"]["idle_clients"])
    wanted = known if arguments.works in (None, ["all"]) else arguments.works
    chosen = {name: known[name] for name in document["results"] if name in known and name in wanted}
    results = {name: by_name for name, by_name in document["results"].items() if name in chosen}
    report.print_table(chosen, results)
    hold = report.print_limits(results, arguments.limits)
    print_gaps(SimpleNamespace(skipped=document["skipped"], troubles=document["missing"]), {})
    if arguments.svg:
        write_svg(arguments.svg, chosen, results, document["settings"], document["machine"])
    return 1 if arguments.limits and not hold else 0


def run(arguments):
    if arguments.show:
        return show(arguments)
    raise_limits()
    began = time.monotonic()
    busy = busy_share()
    if busy > 0.05:
        print(f"bench/run: others use {busy * 100:.0f} % of this machine before anything is started: rounds will "
              "differ widely", file=sys.stderr)
    chosen = choose_works(arguments)
    others = choose_others(arguments)
    earlier = report.load_earlier(arguments.compare) if arguments.compare else None
    names = arguments.proxies or [*proxies.NAMES, *others]
    needs = {need for work in chosen.values() for need in work.needs}
    with laboratory(needs, 1000 if "pools" in needs else 400) as lab:
        kinds, missing = proxies.find_kinds(lab, names, arguments.binary, others)
        runner = Runner(lab, kinds, arguments.seconds, arguments.rounds,
                        arguments.syscalls or arguments.works == ["all"])
        for work in chosen.values():
            runner.run(work)
            if arguments.json:
                write_results(arguments, chosen, runner, missing, busy)  # a long run that is ended leaves what it has
    report.print_table(chosen, runner.results)
    hold = report.print_limits(runner.results, arguments.limits)
    if earlier:
        report.print_changes(runner.results, earlier, {name: work.unit for name, work in chosen.items()})
    print_gaps(runner, missing)
    write_results(arguments, chosen, runner, missing, busy)
    print(f"\ntook {(time.monotonic() - began) / 60:.1f} min")
    failed = runner.troubles or (arguments.proxies and missing) or (arguments.limits and not hold)
    return 1 if failed else 0


def main(description):
    return command.exit_code("bench/run", run, parse(description, sys.argv[1:]))
