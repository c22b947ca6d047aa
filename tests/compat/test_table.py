"""The table of differences itself: every entry belongs to a test and has a reason that can be looked up."""

import ast
import pathlib
import re

import pytest

from both import Ledger
from difference import Difference
from differences import DIFFERENCES
from harness import ROOT

HERE = pathlib.Path(__file__).resolve().parent
VERSION = re.compile(r"1\.(19|2[0-5])$")
SECTIONS = {
    line.lstrip("#").strip()
    for line in (ROOT / "docs/compatibility.md").read_text().splitlines()
    if line.startswith("#")
}


def test_names():
    return {
        node.name
        for path in HERE.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }


test_names.__test__ = False


@pytest.mark.parametrize("one", DIFFERENCES, ids=lambda one: f"{one.test}, {one.label}")
def test_reason_can_be_looked_up(one):
    where, colon, why = one.reason.partition(": ")
    assert colon and why.strip(), one
    assert VERSION.match(where) or where in SECTIONS, f"{where!r} is neither a version nor a section"
    assert one.test.partition("[")[0] in test_names(), f"there is no test {one.test}"


def test_a_difference_without_entry_is_not_allowed():
    ledger = Ledger([Difference("test_a[x]", "label", "1.25: why", "2")])
    assert ledger.allows("test_a[x]", "label", "1", "2")
    assert not ledger.allows("test_a[x]", "label", "1", "3")
    assert not ledger.allows("test_a[y]", "label", "1", "2")


def test_an_entry_without_difference_is_found():
    ledger = Ledger([Difference("test_a[*]", "label", "1.25: why", "2")])
    ledger.collected = {"test_a[x]", "test_a[y]", "test_b"}
    ledger.ran = {"test_a[x]"}
    assert not ledger.unused()
    ledger.ran.add("test_a[y]")
    assert ledger.unused() == ledger.differences


def test_added_items_only():
    one = Difference("test", "label", "1.25: why", adds=("b",))
    assert one.covers(["a", "c"], ["a", "b", "c"])
    assert not one.covers(["a", "c"], ["c", "b", "a"])
    assert not one.covers(["a", "b", "c"], ["a", "b", "c"][:1])


def functions(path):
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_trap_has_tests_that_name_it():
    """The table of traps in tests/README.md: 17 rows, each with tests that exist, and no test of a trap is left out."""
    rows = dict(re.findall(r"^\| (\d+)\. .*? \| (`.*`) \|$", (ROOT / "tests/README.md").read_text(), re.MULTILINE))
    assert list(rows) == [str(number) for number in range(1, 18)]
    listed = set()
    for number, tests in rows.items():
        places = [place.strip("`").split("::") for place in tests.split()]
        assert any(f"_trap_{int(number):02}_" in name for _, name in places), number
        for file, name in places:
            assert name in functions(ROOT / "tests" / file), f"{file} has no {name}"
            listed.add(name)
    written = {
        name
        for folder in ("compat", "integration")
        for path in (ROOT / "tests" / folder).glob("test_*.py")
        for name in functions(path)
        if name.startswith("test_trap_")
    }
    assert written <= listed, written - listed
