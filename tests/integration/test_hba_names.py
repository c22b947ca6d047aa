"""Names of hosts in auth_hba_file: an address has a name if DNS says so both ways."""

import os

import pytest

from harness import wait_until, write_file
from name_server import ADDRESS
from test_auth import refused
from wire import Wire, startup_packet

pytestmark = [pytest.mark.pgweir, pytest.mark.skipif(os.geteuid() != 0, reason="port 53 needs root")]

NO_RULE = "no authentication method is found"
RULES = """
host app  alice  good.test      trust
host app  alice  .inner.test    password
host app  bob    127.0.0.1/32   trust
host app  bob    bad.test       reject
host app  bob    all            trust
"""


@pytest.fixture
def pooler(make_pooler, names):
    one = make_pooler(start=False, settings={"auth_type": "hba"}, userlist={"alice": "pw", "bob": "pw"})
    one.settings["auth_hba_file"] = write_file(one.home / "hba", RULES)
    one.settings["resolv_conf"] = write_file(one.home / "resolv.conf", f"nameserver {ADDRESS}\n")
    return one.start()


def name(names, address, host, addresses=None):
    names.pointers[".".join(reversed(address.split("."))) + ".in-addr.arpa"] = host
    names.addresses[host] = addresses if addresses is not None else [address]


def login(pooler, user, address, password=None):
    """From `address`, which is one of this machine."""
    client = Wire(pooler.port, source=address)
    client.login(user, "app", password)
    return client


def test_a_host_by_its_name(pooler, names):
    name(names, "127.0.0.21", "good.test")
    assert login(pooler, "alice", "127.0.0.21").authentication == [0]
    name(names, "127.0.0.22", "a.inner.test")
    assert login(pooler, "alice", "127.0.0.22", "pw").authentication == [3, 0]
    refused(lambda: login(pooler, "alice", "127.0.0.23"), NO_RULE)


def test_a_name_that_is_claimed_only(pooler, names):
    name(names, "127.0.0.21", "good.test", ["127.0.0.99"])
    refused(lambda: login(pooler, "alice", "127.0.0.21"), NO_RULE)
    name(names, "127.0.0.21", "good.test", [])
    refused(lambda: login(pooler, "alice", "127.0.0.21"), NO_RULE)


def test_a_host_is_kept_out_by_its_name(pooler, names):
    name(names, "127.0.0.24", "bad.test")
    refused(lambda: login(pooler, "bob", "127.0.0.24"), "login rejected")
    assert login(pooler, "bob", "127.0.0.25").value("SELECT 1") == "1"


def test_who_needs_no_name_does_not_wait_for_one(pooler, names):
    names.silent = True
    assert login(pooler, "bob", "127.0.0.1").value("SELECT 1") == "1"
    waiting = Wire(pooler.port, source="127.0.0.21")
    waiting.send(startup_packet({"user": "alice", "database": "app"}))
    assert waiting.quiet_for(0.2)
    waiting.abort()
    wait_until(lambda: "closing because" in pooler.log(), what="it is noticed that the client has left")
    assert login(pooler, "bob", "127.0.0.1").value("SELECT 1") == "1"


def test_names_of_clients_are_not_kept(pooler, names):
    name(names, "127.0.0.24", "bad.test")
    refused(lambda: login(pooler, "bob", "127.0.0.24"), "login rejected")
    del names.pointers["24.0.0.127.in-addr.arpa"]
    assert login(pooler, "bob", "127.0.0.24").value("SELECT 1") == "1"
