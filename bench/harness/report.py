"""What a run says: the table, the JSON, and the change against an earlier run."""
import json
import pathlib
import statistics

from .machine import Trouble, fingerprint

COLUMNS = [("work", 11), ("proxy", 10), ("CPU", 9), ("", 5), ("spread", 16), ("x floor", 8), ("x pgbouncer", 11),
           ("rate", 8), ("", 4), ("p50 ms", 8), ("p99", 8), ("p99.9", 8), ("RSS MB", 7), ("vcsw/tx", 8), ("icsw/tx", 8),
           ("calls/tx", 8)]


def median(rounds, key):
    values = [figures[key] for figures in rounds if figures.get(key) is not None]
    return statistics.median(values) if values else None


def costs(rounds):
    return [figures["cost"] for figures in rounds if figures["cost"] is not None]


def number(value, digits):
    return "-" if value is None else f"{value:.{digits}f}"


def ratio(value, base):
    return "-" if value is None or not base else f"{value / base:.2f}"


def cells(work, name, by_name):
    rounds = by_name[name]
    cost = median(rounds, "cost")
    values = costs(rounds)
    spread = f"{min(values):.2f}-{max(values):.2f}" if values else "-"
    base = {other: median(by_name[other], "cost") if other in by_name else None for other in ("floor", "pgbouncer")}
    rss = median(rounds, "rss")
    return [work.name, name, number(cost, 2), work.unit, spread, ratio(cost, base["floor"]),
            ratio(cost, base["pgbouncer"]), number(median(rounds, "rate"), 0), work.rate,
            number(median(rounds, "p50"), 3), number(median(rounds, "p99"), 3), number(median(rounds, "p999"), 3),
            number(rss / 1e6 if rss else None, 1), number(median(rounds, "voluntary"), 3),
            number(median(rounds, "involuntary"), 3), number(median(rounds, "syscalls"), 2)]


def line(words, columns):
    parts = []
    for index, (word, (_, width)) in enumerate(zip(words, columns)):
        left = index < 2 or columns[index][0] == ""
        parts.append(f"{word:<{width}}" if left else f"{word:>{width}}")
    return " ".join(parts).rstrip()


def print_table(works, results):
    print(line([title for title, _ in COLUMNS], COLUMNS))
    for name, by_name in results.items():
        for proxy in by_name:
            print(line(cells(works[name], proxy, by_name), COLUMNS))
    print_memory(results)
    print_connects(results)
    print_volumes(results)


def section(title, columns, rows):
    if rows:
        print(f"\n{title}")
        print(line([name for name, _ in columns], columns))
        for row in rows:
            print(line(row, columns))


def print_memory(results):
    columns = [("work", 11), ("proxy", 10), ("of", 6), ("bytes each", 11), ("before MB", 10), ("after MB", 9),
               ("CPU us/tx", 10), ("without", 8), ("ratio", 6)]
    rows = [[work, proxy, str(rounds[0].get("clients") or rounds[0].get("pools")),
             number(median(rounds, "bytes_each"), 0), number(median(rounds, "rss_before") / 1e6, 1),
             number(median(rounds, "rss_after") / 1e6, 1), number(median(rounds, "cost"), 2),
             number(median(rounds, "cost_without"), 2), number(median(rounds, "cost_ratio"), 2)]
            for work, by_name in results.items() for proxy, rounds in by_name.items() if "bytes_each" in rounds[0]]
    section("Memory (RSS) for each idle client or pool, and CPU of others beside them", columns, rows)


def print_connects(results):
    columns = [("work", 11), ("proxy", 10), ("ms", 8)]
    rows = [[work, proxy, number(median(rounds, "connect_ms"), 3)]
            for work, by_name in results.items() for proxy, rounds in by_name.items() if "connect_ms" in rounds[0]]
    section("Average time to connect, as pgbench sees it", columns, rows)


def print_volumes(results):
    columns = [("work", 11), ("proxy", 10), ("CPU s/GB", 9)]
    rows = [[work, proxy, number(median(rounds, "seconds_per_gb"), 3)]
            for work, by_name in results.items() for proxy, rounds in by_name.items() if "seconds_per_gb" in rounds[0]]
    section("By volume", columns, rows)


def as_json(works, runner, settings, missing):
    return {
        "machine": fingerprint(),
        "settings": settings,
        "versions": {kind.name: kind.version for kind in runner.kinds if kind.version},
        "units": {name: works[name].unit for name in runner.results},
        "results": runner.results,
        "skipped": runner.skipped,
        "missing": [f"{name}: {why}" for name, why in missing.items()] + runner.troubles,
    }


def load_earlier(path):
    """An earlier run's JSON, if it is of this machine: times of different machines say nothing together."""
    try:
        earlier = json.loads(pathlib.Path(path).read_text())
        then = earlier["machine"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Trouble(f"{path} is no JSON of an earlier run: {error}") from None
    now = fingerprint()
    differing = [f"{key}: {then.get(key)} then, {now[key]} now" for key in now if then.get(key) != now[key]]
    if differing:
        raise Trouble(f"{path} is from another machine and cannot be compared:\n  " + "\n  ".join(differing))
    return earlier


def print_changes(results, earlier, units):
    """Changes of the median, and whether the rounds of both runs overlap."""
    columns = [("work", 11), ("proxy", 10), ("then", 9), ("now", 9), ("", 5), ("change", 8), ("", 24)]
    rows = []
    for work, by_name in results.items():
        for proxy, rounds in by_name.items():
            then = costs(earlier["results"].get(work, {}).get(proxy, []))
            now = costs(rounds)
            if not then or not now:
                continue
            before, after = statistics.median(then), statistics.median(now)
            apart = min(now) > max(then) or max(now) < min(then)
            change = f"{(after / before - 1) * 100:+.1f} %" if before else "-"
            rows.append([work, proxy, number(before, 2), number(after, 2), units[work], change,
                         "" if apart else "within the spread"])
    section("Change against the earlier run", columns, rows)
    if not rows:
        print("\nNothing of the earlier run was measured again.")
