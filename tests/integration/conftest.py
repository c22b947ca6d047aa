"""Fixtures: clusters for the whole session, a fresh pooler for every test, and the rules for skipping."""

import os
import pathlib
import shutil
import tempfile

import pytest

import harness
import routing
from certs import Authority
from name_server import NameServer
from pooler import Pooler
from postgres import Cluster
from replicas import Replicas, Template

# How much of a pooler's log a failure shows, in characters.
LOG_SHOWN = int(os.environ.get("PGWEIR_TEST_LOG", "6000"))


def pytest_collection_modifyitems(items):
    for item in items:
        if harness.IS_PGBOUNCER and item.get_closest_marker("pgweir"):
            item.add_marker(pytest.mark.skip(reason="not for PgBouncer 1.18"))
        if item.get_closest_marker("postgres18") and not (harness.PG18_NATIVE / "bin/postgres").exists():
            item.add_marker(pytest.mark.skip(reason="no PostgreSQL 18 in var/node"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows the end of the log of each pooler that the test used."""
    report = yield
    if report.failed:
        for one in getattr(item, "poolers", []):
            report.sections.append((f"log of the pooler on port {one.port}", one.log()[-LOG_SHOWN:]))
    return report


@pytest.fixture(scope="session", autouse=True)
def base():
    """The folder of everything this session makes; the program is copied there if it cannot be run where it is."""
    if not harness.BINARY.exists():
        pytest.exit(f"there is no {harness.BINARY}: build it, or set PGWEIR_BINARY", 2)
    path = pathlib.Path(tempfile.mkdtemp(prefix="pgweir-", dir="/tmp"))
    path.chmod(0o755)
    harness.give_to_run_user(path)
    harness.BINARY = harness.executable_by_run_user(harness.BINARY, path)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def authority(base):
    return Authority(harness.make_dir(base, "ca"))


@pytest.fixture(scope="session")
def cluster(base, authority):
    """PostgreSQL 15."""
    one = Cluster(base, harness.PG15_BIN, authority)
    yield one
    one.stop("immediate")


@pytest.fixture(scope="session")
def cluster18(base, authority):
    """PostgreSQL 18, for what only it can do."""
    native = harness.PG18_NATIVE
    if not harness.reachable_by_run_user(native / "bin/postgres"):
        native = shutil.copytree(native, base / "postgres18", symlinks=True)
    one = Cluster(base, native / "bin", authority)
    yield one
    one.stop("immediate")


@pytest.fixture(scope="session")
def template(base):
    one = Template(base)
    yield one
    one.close()


@pytest.fixture
def make_replicas(template):
    """Makes primaries with standbys: make_replicas(standbys=1, forwarded=False); they are ended with the test."""
    made = []

    def make(**options):
        made.append(Replicas(template, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def pair(template):
    """A primary and one standby for all tests of a file, which leave them as they are."""
    one = Replicas(template)
    yield one
    one.close()


@pytest.fixture(scope="module")
def shared_pooler(base, pair):
    """A pooler before the pair for all tests of a file, which leave nothing behind in it."""
    one = Pooler(base, pair.primary, **routing.options(pair))
    try:
        yield routing.wait_routed(one, pair)
    finally:
        one.stop()


@pytest.fixture
def routed(request, shared_pooler):
    request.node.poolers = [shared_pooler]
    return shared_pooler


@pytest.fixture
def make_routed(make_pooler, pair):
    """make_routed(...) starts a pooler before the pair and waits until its hosts are known."""
    def make(**options):
        return routing.wait_routed(make_pooler(**routing.options(pair, **options)), pair)
    return make


@pytest.fixture
def client(routed):
    with routed.wire() as one:
        yield one


@pytest.fixture
def primary(pair):
    """What host_port() answers on the primary."""
    return str(pair.primary.port)


@pytest.fixture
def standby(pair):
    return str(pair.standby.port)


@pytest.fixture
def names():
    """A name server of the test's own on port 53 of a loopback address."""
    server = NameServer()
    yield server
    server.close()


@pytest.fixture
def make_pooler(request, base, cluster):
    """Starts poolers: make_pooler(settings={...}, databases={...}); they are stopped and checked at the end."""
    request.node.poolers = made = []

    def make(server=None, **options):
        start = options.pop("start", True)
        one = Pooler(base, server or cluster, start=False, **options)
        made.append(one)
        if start:
            one.start()
        return one

    yield make
    failures = []
    for one in made:
        try:
            one.stop()
        except AssertionError as failure:
            failures.append(str(failure))
    assert not failures, "\n".join(failures)


@pytest.fixture
def pooler(make_pooler):
    """A pooler in transaction mode with five connections per pool."""
    return make_pooler()


@pytest.fixture
def table(cluster):
    """An empty table `numbers(n int, token text)` in database app; its name is unique."""
    name = f"numbers_{harness.free_port()}"
    with cluster.connect() as connection:
        connection.execute(f"CREATE TABLE {name} (n int, token text)")
        connection.execute(f"GRANT ALL ON {name} TO PUBLIC")
    yield name
    with cluster.connect() as connection:
        connection.execute(f"DROP TABLE IF EXISTS {name}")
