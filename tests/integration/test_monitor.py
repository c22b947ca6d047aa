"""The hosts behind a database, watched: roles, failures, catalogues, as the log tells them."""

import contextlib
import os
import pathlib
import re
import signal
import time

import pytest

from harness import PG15_BIN, free_port, run, wait_until, write_file
from postgres import Cluster, Standby

pytestmark = pytest.mark.pgweir

# A probe every 100 ms: tests wait for several.
FAST = {"role_check_interval": "100ms", "role_check_timeout": "500ms", "role_check_user": "postgres"}


class Pair:
    """A primary and its standby, with means to change what they are."""

    def __init__(self, base, authority):
        self.primary = Cluster(base, PG15_BIN, authority)
        self.standby = Standby(base, self.primary)

    def entry(self, more="read_write_split=1"):
        return (f"host=127.0.0.1,127.0.0.1 port={self.primary.port},{self.standby.port} dbname=app {more}")

    def name(self, cluster):
        return f"127.0.0.1:{cluster.port}"

    def stop(self):
        for cluster in (self.standby, self.primary):
            cluster.stop("immediate")


def processes_of(cluster):
    """The postmaster and all its children."""
    postmaster = int((cluster.data / "postmaster.pid").read_text().split()[0])
    children = pathlib.Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return [postmaster, *map(int, children)]


@contextlib.contextmanager
def stopped(cluster):
    """Nothing of the server answers, as if the network were cut."""
    pids = processes_of(cluster)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def pair(base, authority):
    """For tests that leave the roles as they are."""
    one = Pair(base, authority)
    yield one
    one.stop()


@pytest.fixture
def own_pair(base, authority):
    """For tests that do not."""
    one = Pair(base, authority)
    yield one
    one.stop()


def wait_log(pooler, text, seconds=10):
    wait_until(lambda: text in pooler.log(), seconds, f"{text!r} in the log:\n{pooler.log()}")


def watch(make_pooler, pair, *, entry=None, **options):
    options.setdefault("pgweir", FAST)
    return make_pooler(pair.primary, databases={"app": entry or pair.entry()}, **options)


class TestRoles:
    def test_primary_and_standby_are_told_once(self, make_pooler, pair):
        pooler = watch(make_pooler, pair)
        wait_log(pooler, f"app: primary is {pair.name(pair.primary)} (timeline 1)")
        wait_log(pooler, f"app: {pair.name(pair.standby)}: reads on")
        probes = "SELECT calls FROM (SELECT count(*) AS calls FROM pg_stat_activity WHERE application_name = 'pgweir monitor') x"
        assert pair.primary.value(probes) == 1 and pair.standby.value(probes) == 1
        began = pair.primary.value("SELECT query_start FROM pg_stat_activity WHERE application_name = 'pgweir monitor'")
        wait_until(lambda: pair.primary.value("SELECT query_start > %s FROM pg_stat_activity "
                                              "WHERE application_name = 'pgweir monitor'", began), 5, "more probes")
        assert len(re.findall(r"primary is|reads on|is up", pooler.log())) == 4
        assert "WARNING app" not in pooler.log()
