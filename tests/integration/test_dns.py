"""Servers by name: what SHOW says of names, and what happens when a name gets other addresses."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import wait_until, write_file
from name_server import ADDRESS
from wire import query

pytestmark = [pytest.mark.pgweir, pytest.mark.skipif(os.geteuid() != 0, reason="port 53 needs root")]


@pytest.fixture
def named(make_pooler, cluster, names):
    """A pooler whose database `app` is at db.test."""
    names.addresses["db.test"] = ["127.0.0.1"]

    def make(**settings):
        pooler = make_pooler(start=False, databases={"app": f"host=db.test port={cluster.port} dbname=app"})
        file = write_file(pooler.home / "resolv.conf", f"nameserver {ADDRESS}\n")
        pooler.settings.update(resolv_conf=file, server_login_retry=1, **settings)
        return pooler.start()

    return make


def shown(pooler, what):
    return pooler.admin(f"SHOW {what}")


def lists(pooler):
    return {row["list"]: int(row["items"]) for row in shown(pooler, "LISTS")}


def test_a_name_is_looked_up_when_a_server_is_needed(named):
    pooler = named(dns_max_ttl=600)
    assert shown(pooler, "DNS_HOSTS") == []
    assert pooler.wire().value("SELECT 1") == "1"
    (row,) = shown(pooler, "DNS_HOSTS")
    assert (row["hostname"], row["addrs"]) == ("db.test", "127.0.0.1")
    assert 500 < int(row["ttl"]) <= 600
    assert [(row["zonename"], row["serial"], row["count"]) for row in shown(pooler, "DNS_ZONES")] == [("test", "0", "1")]
    counts = lists(pooler)
    assert [counts[key] for key in ("dns_names", "dns_zones", "dns_queries", "dns_pending")] == [1, 1, 0, 0]


def test_servers_at_an_address_that_is_gone_serve_nobody_new(named, names):
    pooler = named(dns_max_ttl=0, dns_nxdomain_ttl=0)
    first, second = pooler.wire(), pooler.wire()
    first.query("BEGIN")
    pid = first.value("SELECT pg_backend_pid()")
    names.addresses["db.test"] = ["127.0.0.77"]  # where nobody listens
    second.send(query("SELECT 1"))
    wait_until(lambda: [s["close_needed"] for s in pooler.servers()] == ["1"], what="the old server is marked")
    names.addresses["db.test"] = ["127.0.0.1"]
    assert second.collect().value() == "1"
    first.query("COMMIT")
    wait_until(lambda: "closing because: close_needed" in pooler.log(), what="the old server is closed")
    assert first.value("SELECT pg_backend_pid()") != pid
    assert "db.test has other addresses now: 127.0.0.77" in pooler.log()


def test_a_client_waits_for_a_name_that_has_no_address_yet(named, names):
    names.addresses.clear()
    pooler = named(dns_nxdomain_ttl=0)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(lambda: pooler.wire(timeout=30).value("SELECT 1"))
        wait_until(lambda: "server DNS lookup failed" in pooler.log(), what="the name is not found")
        names.addresses["db.test"] = ["127.0.0.1"]
        assert answer.result() == "1"


def test_a_changed_zone_is_noticed_without_a_new_connection(named, names):
    names.serials["test"] = 7
    pooler = named(dns_max_ttl=600, dns_zone_check_period=1)
    client = pooler.wire()
    client.query("BEGIN")
    wait_until(lambda: [row["serial"] for row in shown(pooler, "DNS_ZONES")] == ["7"], what="the serial is known")
    names.addresses["db.test"] = ["127.0.0.77"]
    names.serials["test"] = 8
    wait_until(lambda: [s["close_needed"] for s in pooler.servers()] == ["1"], 10, "the server is marked")
    (row,) = shown(pooler, "DNS_HOSTS")
    assert row["addrs"] == "127.0.0.77"
    client.query("COMMIT")
    wait_until(lambda: pooler.servers() == [], what="the server is gone")
