"""Fixtures: a PostgreSQL for each of the two programs, poolers of the same configuration, and the comparison."""

import concurrent.futures
import importlib.util
import pathlib
import sys

import pytest

INTEGRATION = pathlib.Path(__file__).resolve().parents[1] / "integration"
sys.path.insert(1, str(INTEGRATION))


def _integration_fixtures():
    spec = importlib.util.spec_from_file_location("integration_conftest", INTEGRATION / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_integration = _integration_fixtures()
base = _integration.base

# After the path: these come with it.
import harness  # noqa: E402
from both import Comparison, Ledger, Side  # noqa: E402
from differences import DIFFERENCES  # noqa: E402
from postgres import Cluster  # noqa: E402

PGBOUNCER = pathlib.Path("/usr/sbin/pgbouncer")
LEDGER = Ledger(DIFFERENCES)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Before anything is deselected, so that the ledger knows which tests there are."""
    LEDGER.collected = {item.name for item in items}


@pytest.fixture(scope="session")
def sides(base):
    """PgBouncer and pgweir, each with a cluster of its own, so that neither sees what the other does."""
    if not PGBOUNCER.exists():
        pytest.exit(f"there is no {PGBOUNCER}: scripts/install_dependencies installs it", 2)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        clusters = list(threads.map(lambda _: Cluster(base, harness.PG15_BIN), range(2)))
    made = [Side("pgbouncer", PGBOUNCER, clusters[0], base), Side("pgweir", harness.BINARY, clusters[1], base)]
    yield made
    for side in made:
        side.cluster.stop("immediate")


@pytest.fixture(scope="module")
def comparison(sides):
    one = Comparison(sides, LEDGER)
    yield one
    one.stop()


@pytest.fixture
def compare(request, comparison):
    """Runs a scenario against both programs; the name of the test is what the table of differences goes by."""
    comparison.begin(request.node)
    yield comparison
    comparison.end()


@pytest.fixture(scope="session", autouse=True)
def no_rotten_differences(request):
    """A difference that is allowed, but did not occur although its tests ran, must leave the table."""
    yield
    if not any("::" in str(argument) for argument in request.config.args):
        unused = LEDGER.unused()
        assert not unused, "these allowed differences do not occur any more:\n" + "\n".join(map(str, unused))
