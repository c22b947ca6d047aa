"""The command bench/stages: instructions and simulated cache misses for each transaction, by layer and function."""
import dataclasses
import re
import sys

from . import budget, command, proxies
from .lab import laboratory
from .machine import ROOT, Trouble, find_program
from .report import section

EVENTS = ("Ir", "D1mr", "D1mw")  # instructions; reads and writes that miss the first level
LAYERS = {"io": "proxy/io", "core": "proxy/core", "pool": "pool", "protocol": "protocol", "router": "router"}
LINE = re.compile(r"^\s*([\d,.]+(?: \([^)]*\))?)\s+([\d,.]+(?: \([^)]*\))?)\s+([\d,.]+(?: \([^)]*\))?)\s+(\S.*)$")


def value(text):
    text = text.partition(" ")[0]
    return 0 if text == "." else int(text.replace(",", ""))


def layer_of(function, library):
    """By the namespace of the function: what is inlined into it is its own."""
    own = re.match(r"[^(]*?\bpgweir::(\w+)::", function)
    if own and own[1] in LAYERS:
        return LAYERS[own[1]]
    if "asio" in function:
        return "Asio"
    return library or "other"


def functions(annotated):
    """(function, layer) -> the events of callgrind_annotate's table."""
    found = {}
    for line in annotated.splitlines():
        match = LINE.match(line)
        if not match or match[4].startswith(("PROGRAM TOTALS", "file:function")):
            continue
        name, _, place = match[4].partition(" [")
        _, colon, function = name.partition(":")
        if not colon:
            continue
        library = re.sub(r"[-.0-9]*\.so.*", "", place.rstrip("]").rpartition("/")[2])
        key = re.sub(r"\\\\?'\d+$", "", function.strip()), layer_of(function, library)
        events = found.setdefault(key, [0] * len(EVENTS))
        for index in range(len(EVENTS)):
            events[index] += value(match[index + 1])
    return found


def profile(bench, case, times):
    valgrind, annotate = find_program("valgrind"), find_program("callgrind_annotate")
    if not valgrind or not annotate:
        raise Trouble("valgrind is missing (Debian: apt install valgrind)")
    report = bench.lab.folder / "callgrind.out"
    budget.executed(bench, valgrind, case, times, ["--cache-sim=yes", "--D1=49152,12,64"])
    return functions(bench.lab.processes.call(annotate, "--threshold=100", "--inclusive=no", "--tree=none", "--auto=no",
                                                 f"--show={','.join(EVENTS)}", report))


def per_transaction(bench, case):
    few, many = (profile(bench, case, times) for times in (case.few, case.many))
    result = {}
    for key, events in many.items():
        result[key] = [case.divide(now - then) for now, then in zip(events, few.get(key, [0] * len(EVENTS)))]
    return result


def print_case(case, measured, top):
    by_layer = {}
    for (_, layer), events in measured.items():
        sums = by_layer.setdefault(layer, [0.0] * len(EVENTS))
        for index, number in enumerate(events):
            sums[index] += number
    total = [sum(events[index] for events in by_layer.values()) for index in range(len(EVENTS))]
    columns = [("layer", 24), ("", 0), ("instructions", 12), ("L1 read misses", 14), ("L1 write misses", 15)]
    rows = [[layer, "", f"{events[0]:.0f}", f"{events[1]:.1f}", f"{events[2]:.1f}"]
            for layer, events in sorted(by_layer.items(), key=lambda item: -item[1][0]) if events[0] >= 0.5]
    section(f"{case.name}: for each {case.unit}", columns,
            [*rows, ["all", "", f"{total[0]:.0f}", f"{total[1]:.1f}", f"{total[2]:.1f}"]])
    columns = [("instructions", 12), ("", 2), ("L1 misses", 9), ("layer", 12), ("function", 20)]
    rows = [[f"{events[0]:.0f}", "", f"{events[1] + events[2]:.1f}", layer, function[:110]]
            for (function, layer), events in sorted(measured.items(), key=lambda item: -item[1][0])[:top]]
    section(f"{case.name}: the {top} functions that take most", columns, rows)


def with_clients(case, clients):
    """The same with many clients at once: they no longer fit the first level together."""
    if clients == 1 or case.copy:
        return case
    few = max(2, 200 // clients)
    return dataclasses.replace(case, load=dataclasses.replace(case.load, clients=clients), few=few, many=6 * few)


def run(arguments):
    cases = [with_clients(case, arguments.clients) for case in budget.choose_cases(arguments.cases)]
    needs = {"tls", "split"} & set(arguments.cases)
    with laboratory(needs, budget.MAX_CONNECTIONS) as lab:
        budget.prepare(lab)
        bench = budget.Bench(lab, proxies.find_kind(lab, "pgweir", arguments.binary, {}), cases)
        for case in cases:
            print_case(case, per_transaction(bench, case), arguments.top)
            sys.stdout.flush()
    return 0


def main(description):
    parser = command.parser("bench/stages", description)
    parser.add_argument("--binary", default=str(ROOT / "build/release/pgweir"), help="the pgweir to measure")
    parser.add_argument("--cases", type=lambda text: text.split(","), default=["simple", "prepared"],
                        help="names with commas (simple,prepared)")
    parser.add_argument("--clients", type=int, default=1, help="so many at once, on 20 servers (1)")
    parser.add_argument("--top", type=int, default=25, help="so many functions are shown (25)")
    return command.exit_code("bench/stages", run, parser.parse_args())
