"""What the harness computes and reads, without any process: python3 -m unittest harness.test_harness in bench/."""
import json
import pathlib
import tempfile
import unittest

from . import budget, chart, limits, pgbench, proxies, ratios, report, stages, syscalls, works
from .machine import Trouble, fingerprint


def rounds(*costs, key="cost"):
    return [{"round": number, key: cost} for number, cost in enumerate(costs)]


class Ratios(unittest.TestCase):
    def test_are_those_of_each_round(self):
        by_name = {"pgweir": rounds(10, 40, 22), "floor": rounds(10, 20, 20)}
        self.assertEqual(ratios.paired(by_name, "pgweir", "floor", "cost"), ratios.Spread(1.1, 1.0, 2.0, 3))

    def test_leave_out_rounds_that_one_of_both_lacks(self):
        by_name = {"pgweir": rounds(10, 40, 22), "floor": rounds(10)}
        self.assertEqual(ratios.paired(by_name, "pgweir", "floor", "cost").count, 1)
        self.assertIsNone(ratios.paired(by_name, "pgweir", "pgbouncer", "cost"))
        self.assertIsNone(ratios.paired({"pgweir": rounds(None), "floor": rounds(1)}, "pgweir", "floor", "cost"))


class Limits(unittest.TestCase):
    LIMIT = limits.Limit("simple", "cost", "CPU", 1.1, "floor")

    def test_median_decides_and_the_spread_is_told(self):
        self.assertEqual(limits.verdict(self.LIMIT, ratios.Spread(1.0, 0.9, 1.05, 7)), ("ok", ""))
        self.assertEqual(limits.verdict(self.LIMIT, ratios.Spread(1.2, 1.15, 1.3, 7)), ("FAIL", ""))
        verdict, remark = limits.verdict(self.LIMIT, ratios.Spread(1.05, 0.9, 1.2, 7))
        self.assertEqual((verdict, bool(remark)), ("ok", True))
        self.assertEqual(limits.verdict(self.LIMIT, None), ("not measured", ""))

    def test_some_are_lower_ones(self):
        logins = limits.Limit("connect", "rate", "logins", 1.2, "pgbouncer", at_least=True)
        self.assertEqual(limits.verdict(logins, ratios.Spread(1.3, 1.25, 1.4, 7))[0], "ok")
        self.assertEqual(limits.verdict(logins, ratios.Spread(1.1, 1.0, 1.15, 7))[0], "FAIL")

    def test_every_limit_is_about_a_work_that_measures_it(self):
        known = works.catalogue()
        for limit in limits.LIMITS:
            work = known[limit.work]
            for name in filter(None, (limit.proxy, limit.base)):
                version = "PgBouncer 1.18.0" if name == "pgbouncer" else ""
                self.assertIsNone(work.why_not(proxies.Kind(name, version=version)), limit)


class Comparison(unittest.TestCase):
    def load(self, **changes):
        document = {"machine": {**fingerprint(), **changes}, "results": {}, "settings": {}}
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "run.json"
            path.write_text(json.dumps(document))
            return report.load_earlier(path)

    def test_is_of_one_machine(self):
        self.load()
        for changes in ({"cpu": "another"}, {"cores": 1000}, {"host": "another"}, {"kernel": "another"}):
            with self.assertRaises(Trouble):
                self.load(**changes)


class Budgets(unittest.TestCase):
    def setUp(self):
        self.budget = budget.Budget("/nonexistent")
        self.budget.document = {"slack": 0.05, "slacks": {"wide": 0.5},
                                "figures": {"a": 100.0, "none": 0.0, "wide": 10.0}}

    def test_slack(self):
        for name, value, begin in (("a", 105, "ok"), ("a", 106, "FAIL"), ("a", 90, "ok, and well below"), ("none", 0.04, "ok"),
                                   ("none", 1, "FAIL"), ("wide", 14, "ok"), ("wide", 16, "FAIL"), ("new", 1, "FAIL")):
            self.assertTrue(self.budget.verdict(name, value).startswith(begin), (name, value))


class Readers(unittest.TestCase):
    def test_strace(self):
        text = ("% time     seconds  usecs/call     calls    errors syscall\n"
                "------ ----------- ----------- --------- --------- ----------------\n"
                " 60.00    0.000060           6        10         2 recvfrom\n 40.00    0.000040           4        10 sendto\n"
                "100.00    0.000100                    20         2 total\n")
        self.assertEqual(syscalls.read_report(text), {"recvfrom": 10, "sendto": 10})

    def test_pgbench(self):
        text = ("number of transactions actually processed: 12\nnumber of failed transactions: 0 (0.000%)\n"
                "tps = 34.5 (without initial connection time)\n")
        outcome = pgbench.read_summary(text)
        self.assertEqual((outcome.count, outcome.tps), (12, 34.5))
        with self.assertRaises(Trouble):
            pgbench.read_summary(text.replace("failed transactions: 0", "failed transactions: 3"))

    def test_callgrind(self):
        text = ("2,000 (100.0%) 30 (100.0%) 0  PROGRAM TOTALS\n"
                "1,500 (75.0%)  20 (66.7%)  .  /x/pool/pool.cpp:pgweir::pool::PoolManager::acquire(int) [/x/pgweir.bin]\n"
                "  500 (25.0%)  10 (33.3%)  .  ???:malloc [/usr/lib/libc.so.6]\n")
        self.assertEqual(stages.functions(text), {("pgweir::pool::PoolManager::acquire(int)", "pool"): [1500, 20, 0],
                                                  ("malloc", "libc"): [500, 10, 0]})


class Chart(unittest.TestCase):
    def test_shows_what_has_a_cost(self):
        text = chart.svg(works.catalogue(), {"simple": {"pgweir": rounds(10, 12), "direct": rounds(None)}}, "a < b")
        self.assertIn("pgweir</text>", text)
        self.assertNotIn("direct</text>", text)
        self.assertIn("a &lt; b", text)


if __name__ == "__main__":
    unittest.main()
