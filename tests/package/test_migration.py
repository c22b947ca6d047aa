"""docs/migrate-from-pgbouncer.md, step by step as on the page, with the files of Debian's pgbouncer as they are."""

import pathlib
import re

import pytest

from harness import PG15_BIN, ROOT

PAGE = (ROOT / "docs/migrate-from-pgbouncer.md").read_text()
INI, USERS = "/etc/pgbouncer/pgbouncer.ini", "/etc/pgbouncer/userlist.txt"
PIDFILE = "/var/run/postgresql/pgbouncer.pid"
DROP_IN = "/etc/systemd/system/pgbouncer.service.d/override.conf"
CONSOLE = "psql -X -A -t -h /var/run/postgresql -p 6432 -U pgbouncer pgbouncer"
CLIENT = "PGPASSWORD=secret psql -X -A -t -v ON_ERROR_STOP=1 -h 127.0.0.1 -p 6432 -U webapp app"
OLD = f"/usr/sbin/pgbouncer {INI}"


def blocks():
    """The indented blocks of the page, as the reader copies them."""
    return [re.sub("(?m)^    ", "", one).strip() for one in re.findall(r"(?:^    .*\n)+", PAGE, re.MULTILINE)]


def block(start):
    (one,) = [text for text in blocks() if text.startswith(start)]
    return one


@pytest.fixture
def moving(installed):
    """A machine with both packages, their files as they come, and a PostgreSQL on 5432."""
    if not installed.exists(INI):
        pytest.skip("Debian's package pgbouncer is not installed")
    installed.run("install -d -o postgres /tmp/pg /var/log/postgresql")
    installed.run(f"{PG15_BIN}/initdb -D /tmp/pg/data -A trust --no-sync", "postgres")
    installed.spawn(f"exec {PG15_BIN}/postgres -D /tmp/pg/data -p 5432 -k /var/run/postgresql", "postgres")
    installed.wait_for("psql -X -h /var/run/postgresql -c 'CREATE ROLE webapp LOGIN'", "postgres", 30)
    installed.run("createdb -h /var/run/postgresql app", "postgres")
    return installed


def start(machine, command):
    machine.spawn(f"exec {command} 2>/tmp/stderr", "postgres")
    machine.wait_for(f"{CONSOLE} -c 'SHOW VERSION'", "postgres")


def end(machine, number="INT"):
    pid = machine.read(PIDFILE).strip()
    machine.run(f"kill -{number} {pid}", "postgres")
    machine.wait_for(f"! kill -0 {pid}")


def configuration(machine):
    rows = machine.run(f"{CONSOLE} -c 'SHOW CONFIG'", "postgres").splitlines()
    return {row.split("|")[0]: row.split("|")[1] for row in rows}


def columns(machine, what, *names):
    """Some columns of SHOW `what`, in the order of its rows."""
    header, *rows = machine.run(f"{CONSOLE.replace(' -t', '')} -P footer=off -c 'SHOW {what}'", "postgres").splitlines()
    header = header.split("|")
    return [[row.split("|")[header.index(name)] for name in names] for row in rows]


def shown(machine):
    return (columns(machine, "DATABASES", "name", "host", "port", "database", "force_user", "pool_size", "pool_mode"),
            columns(machine, "USERS", "name", "pool_mode"))


def add_application(machine):
    """What every installation has added to the two files."""
    machine.run(f"sed -i 's/^\\[databases\\]$/&\\napp = host=127.0.0.1/' {INI}")
    machine.run(f"echo '\"webapp\" \"secret\"' >>{USERS}")


@pytest.mark.parametrize("changed", [False, True], ids=["as it comes", "with a database"])
def test_the_same_file(moving, changed):
    if changed:
        add_application(moving)
    check = block("pgweir --check")
    assert moving.run(check) == "configuration is valid\n"
    start(moving, OLD)
    before, listed = configuration(moving), shown(moving)
    end(moving)
    start(moving, f"/usr/bin/pgweir {INI}")
    after = configuration(moving)
    different = {key for key in before if key != "job_name" and before[key] != after.get(key)}
    for key in different:
        assert key in PAGE or re.sub("^(client|server)", "*", key) in PAGE, f"the page does not tell of {key}"
    # The sockets' folder of a database without a host is not told by either.
    assert shown(moving) == listed
    if changed:
        assert moving.run(f"{CLIENT} -c 'SELECT current_user'") == "webapp\n"
        # With a wrong password, over the Unix socket, and to a database that is not there.
        assert "password authentication failed" in moving.run(f"{CLIENT} -c ''".replace("=secret", "=wrong"), code=2)
        assert moving.run(f"{CLIENT} -c 'SELECT 1'".replace("127.0.0.1", "/var/run/postgresql")) == "1\n"
        assert "no such database: nowhere" in moving.run(f"{CLIENT} -c ''".replace(" app ", " nowhere "), code=2)


def test_swap_verify_and_back(moving):
    add_application(moving)
    start(moving, OLD)
    moving.run(f"mkdir -p {pathlib.Path(DROP_IN).parent}")
    moving.write(DROP_IN, block("[Service]") + "\n")
    # Documentation= of the unit is not installed everywhere.
    assert moving.run("systemd-analyze verify --man=no pgbouncer.service") == ""
    command = [line for line in block("[Service]").splitlines() if line.startswith("ExecStart=/")]
    assert len(command) == 1
    # As long as the old one is there the new one does not start, and says which one is meant.
    said = moving.run(command[0].partition("=")[2], "postgres", code=1)
    assert f"pidfile '{PIDFILE}' exists, another instance running?" in said
    end(moving)
    start(moving, command[0].partition("=")[2])
    verify = block("psql -h /var/run/postgresql").splitlines()
    assert moving.run(verify[0].partition("#")[0], "postgres").splitlines()[2].strip().startswith("PgWeir ")
    moving.run("PGPASSWORD=secret " + verify[1].replace("USER", "webapp").replace("DATABASE", "app"))
    log = moving.read("/var/log/postgresql/pgbouncer.log")
    assert "process up: PgWeir" in log and "server login failed" not in log
    end(moving)
    moving.run(f"rm {DROP_IN}")
    start(moving, OLD)
    assert moving.run(f"{CLIENT} -c 'SELECT 1'") == "1\n"


def test_without_a_gap(moving):
    """A client that is connected goes on with its session, first over to pgweir, then from one pgweir to the next."""
    add_application(moving)
    moving.run(f"sed -i 's/^\\[pgbouncer\\]$/&\\npool_mode = transaction/' {INI}")
    start(moving, OLD)
    steps = "echo \"SELECT '{}';\"; until test -e /tmp/go{}; do sleep 0.02; done; "
    script = steps.format("first", 1) + steps.format("second", 2) + "echo \"SELECT 'third';\""
    moving.spawn(f"{{ {script}; }} | {CLIENT} >/tmp/said 2>&1")
    moving.wait_for("grep first /tmp/said")
    for number, word in ((1, "second"), (2, "third")):
        old = moving.read(PIDFILE).strip()
        moving.run(block("pgweir -R"), "postgres")
        moving.wait_for(f"! kill -0 {old}")
        moving.wait_for(f"test \"$(cat {PIDFILE})\" != {old} && {CONSOLE} -c 'SHOW VERSION' | grep PgWeir", "postgres")
        moving.run(f"touch /tmp/go{number}")
        moving.wait_for(f"grep '{word}\\|FATAL\\|ERROR\\|closed' /tmp/said")
        assert moving.read("/tmp/said").split() == ["first", "second", "third"][: number + 1]
    end(moving)
