"""Names that clients are given, lines about their logins, and the console's help."""

import os
import socket

import pytest

from wire import Wire, WireError

pytestmark = pytest.mark.pgweir


def test_application_name_add_host_on_a_unix_socket(make_pooler):
    pooler = make_pooler(settings={"application_name_add_host": 1})
    client = Wire(pooler.port, path=pooler.home)
    client.login("postgres", "app", application_name="mine")
    wanted = f"mine - unix({os.getpid()}@{socket.gethostname()}):{pooler.port}"
    assert client.value("SHOW application_name") == wanted
    unnamed = Wire(pooler.port, path=pooler.home)
    unnamed.login("postgres", "app")
    assert unnamed.value("SHOW application_name") == wanted.replace("mine", "app")


def test_failed_logins_are_logged(pooler):
    with pytest.raises(WireError):
        pooler.wire(database="nodb")
    assert "login failed: db=nodb user=postgres" in pooler.log()
    with pytest.raises(WireError):
        pooler.wire(user="n" * 128)
    assert f"login failed: db=app user={'n' * 128}" in pooler.log()
    pooler.admin("SET log_connections = 0")
    with pytest.raises(WireError):
        pooler.wire(database="nodb2")
    assert "nodb2 user=" not in pooler.log()


def test_help_names_what_there_is(pooler):
    with pooler.console() as console:
        (notice,) = console.query("SHOW HELP").notices
        words = [word for line in notice["D"].splitlines() if line.strip().startswith("SHOW ")
                 for word in line.strip()[5:].split("|")]
        assert "LATENCY" in words and "PEER_POOLS" in words
        for word in words:
            assert console.query(f"SHOW {word}").error is None, word
