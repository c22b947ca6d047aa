"""What a run says: the tables, the JSON, and the change against an earlier run."""
import json
import pathlib
import statistics

from . import limits, ratios
from .machine import Trouble, fingerprint

COLUMNS = [("work", 19), ("proxy", 10), ("CPU", 9), ("", 5), ("quartiles", 16), ("x floor", 16), ("x pgbouncer", 16),
           ("rate", 8), ("", 4), ("p50 ms", 8), ("p99", 8), ("p99.9", 8), ("RSS MB", 7), ("vcsw/tx", 8), ("icsw/tx", 8),
           ("calls/tx", 8)]


def median(rounds, key):
    spread = ratios.of_rounds(rounds, key)
    return spread.median if spread else None


def costs(rounds):
    return [figures["cost"] for figures in rounds if figures["cost"] is not None]


def number(value, digits):
    return "-" if value is None else f"{value:.{digits}f}"


def quartiles(spread, digits=2):
    return f"{spread.low:.{digits}f}-{spread.high:.{digits}f}" if spread else "-"


def cells(work, name, by_name):
    rounds = by_name[name]
    cost = ratios.of_rounds(rounds, "cost")
    to_others = [ratios.paired(by_name, name, other, "cost") for other in ("floor", "pgbouncer")]
    rss = median(rounds, "rss")
    return [work.name, name, number(cost and cost.median, 2), work.unit, quartiles(cost),
            *(ratio.text() if ratio else "-" for ratio in to_others), number(median(rounds, "rate"), 0), work.rate,
            number(median(rounds, "p50"), 3), number(median(rounds, "p99"), 3), number(median(rounds, "p999"), 3),
            number(rss / 1e6 if rss else None, 1), number(median(rounds, "voluntary"), 3),
            number(median(rounds, "involuntary"), 3), number(median(rounds, "syscalls"), 2)]


def line(words, columns):
    parts = []
    for index, (word, (title, width)) in enumerate(zip(words, columns)):
        left = index < 2 or title == ""
        parts.append(f"{word:<{width}}" if left else f"{word:>{width}}")
    return " ".join(parts).rstrip()


def print_table(works, results):
    print("\nMedians; behind a ratio the quartiles of the rounds' own ratios")
    print(line([title for title, _ in COLUMNS], COLUMNS))
    for name, by_name in results.items():
        for proxy in by_name:
            print(line(cells(works[name], proxy, by_name), COLUMNS))
    print_memory(results)
    print_volumes(results)
    print_hostile(results)
    print_first_logins(results)


def section(title, columns, rows):
    if rows:
        print(f"\n{title}")
        print(line([name for name, _ in columns], columns))
        for row in rows:
            print(line(row, columns))


def having(results, key):
    """Work, proxy and rounds wherever there is such a figure."""
    return [(work, proxy, rounds) for work, by_name in results.items() for proxy, rounds in by_name.items()
            if key in rounds[0]]


def print_memory(results):
    columns = [("work", 19), ("proxy", 10), ("of", 6), ("bytes each", 11), ("before MB", 10), ("after MB", 9),
               ("CPU us/tx", 10), ("without", 8), ("ratio", 16)]
    rows = [[work, proxy, str(rounds[0].get("clients") or rounds[0].get("pools")),
             number(median(rounds, "bytes_each"), 0), number(median(rounds, "rss_before") / 1e6, 1),
             number(median(rounds, "rss_after") / 1e6, 1), number(median(rounds, "cost"), 2),
             number(median(rounds, "cost_without"), 2), ratios.of_rounds(rounds, "cost_ratio").text()]
            for work, proxy, rounds in having(results, "bytes_each")]
    section("Memory (RSS) of each idle client or pool, CPU of others beside them and without them", columns, rows)


def print_volumes(results):
    columns = [("work", 19), ("proxy", 10), ("CPU s/GB", 9)]
    rows = [[work, proxy, number(median(rounds, "seconds_per_gb"), 3)]
            for work, proxy, rounds in having(results, "seconds_per_gb")]
    section("By volume", columns, rows)


def print_hostile(results):
    columns = [("work", 19), ("proxy", 10), ("p99 quiet", 9), ("apart", 8), ("with", 8), ("x quiet", 16),
               ("x apart", 16), ("tx/s quiet", 10), ("with", 8), ("grows kB", 9), ("its /s", 9), ("its MB/s", 9)]
    rows = [[work, proxy, *(number(median(rounds, key), 2) for key in ("p99_quiet", "p99_apart", "p99")),
             *(ratios.of_rounds(rounds, key).text() for key in ("p99_ratio", "p99_ratio_apart")),
             number(median(rounds, "rate_quiet"), 0), number(median(rounds, "rate"), 0),
             number(median(rounds, "growth") / 1e3, 0), number(median(rounds, "hostile_rate"), 1),
             number(median(rounds, "hostile_mb"), 1)] for work, proxy, rounds in having(results, "p99_quiet")]
    section("p99 (ms) of others at a steady rate: alone, with a hostile client on another process, on theirs", columns,
            rows)


def print_first_logins(results):
    columns = [("work", 19), ("proxy", 10), ("with", 8), ("apart", 8), ("derivation", 10),
               ("beyond, in derivations", 22)]
    rows = [[work, proxy, *(number(median(rounds, key), 2) for key in ("stall_ms", "stall_apart_ms", "derivation_ms")),
             ratios.of_rounds(rounds, "stall_derivations").text()]
            for work, proxy, rounds in having(results, "stall_ms")]
    section("Longest wait (ms) of others while new users log in by SCRAM", columns, rows)


def print_limits(results, all_of_them=False):
    """True if every limit holds; with `all_of_them` one that was not measured does not."""
    columns = [("work", 19), ("what", 47), ("limit", 10), ("measured", 24), ("rounds", 6), ("", 13), ("", 30)]
    judged = [entry for entry in limits.judge(results) if entry[1] or all_of_them]
    rows = [[limit.work, limit.what, f"{'>=' if limit.at_least else '<='} {limit.limit:.{limit.digits}f}",
             measured.text(limit.digits) if measured else "-", str(measured.count if measured else 0), verdict, remark]
            for limit, measured, verdict, remark in judged]
    section("Limits: the median decides; behind it the quartiles of the rounds", columns, rows)
    failed = sum(verdict != "ok" for *_, verdict, _ in judged)
    if judged:
        print(f"\n{len(judged) - failed} of {len(judged)} limits hold")
    return failed == 0


def as_json(works, runner, settings, missing):
    judged = [{"work": limit.work, "what": limit.what, "limit": limit.limit, "at_least": limit.at_least,
               "measured": measured.median if measured else None, "verdict": verdict, "remark": remark}
              for limit, measured, verdict, remark in limits.judge(runner.results)]
    return {
        "machine": fingerprint(),
        "settings": settings,
        "versions": {kind.name: kind.version for kind in runner.kinds if kind.version},
        "units": {name: works[name].unit for name in runner.results},
        "results": runner.results,
        "limits": judged,
        "skipped": runner.skipped,
        "missing": [f"{name}: {why}" for name, why in missing.items()] + runner.troubles,
    }


def load(path):
    try:
        document = json.loads(pathlib.Path(path).read_text())
        _ = document["machine"], document["results"], document["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Trouble(f"{path} is no JSON of an earlier run: {error}") from None
    return document


def load_earlier(path):
    """An earlier run's JSON, if it is of this machine: times of different machines say nothing together."""
    earlier = load(path)
    then, now = earlier["machine"], fingerprint()
    differing = [f"{key}: {then.get(key)} then, {now[key]} now" for key in now if then.get(key) != now[key]]
    if differing:
        raise Trouble(f"{path} is from another machine and cannot be compared:\n  " + "\n  ".join(differing))
    return earlier


def print_changes(results, earlier, units):
    """Changes of the median, and whether the rounds of both runs overlap."""
    columns = [("work", 19), ("proxy", 10), ("then", 9), ("now", 9), ("", 5), ("change", 8), ("", 24)]
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
