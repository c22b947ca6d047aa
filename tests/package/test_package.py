"""The Debian package through its whole life: installed, run as its unit says, rotated, upgraded, removed, purged."""

import os
import pathlib
import shutil
import signal
import subprocess

import pytest

INI, USERS, LOG = "/etc/pgweir/pgweir.ini", "/etc/pgweir/userlist.txt", "/var/log/pgweir/pgweir.log"
UNIT = "/lib/systemd/system/pgweir.service"
# The same system user needs no password on the console.
CONSOLE = "psql -X -A -t -h /run/postgresql -p 6432 -U pgbouncer pgbouncer -c"
UPGRADE = "dpkg --force-confdef --force-confold --install /tmp/newer.deb"


def unit_value(machine, key):
    lines = machine.read(UNIT).splitlines()
    (value,) = [line.partition("=")[2] for line in lines if line.startswith(key + "=")]
    return value


def start_as_the_unit(machine):
    """Starts the service as systemd would, which is not there; returns its process number in the machine."""
    command, user = unit_value(machine, "ExecStart"), unit_value(machine, "User")
    machine.run(f"install -d -o {user} /run/{unit_value(machine, 'RuntimeDirectory')}")
    machine.spawn(f"exec {command} 2>/tmp/stderr", user)
    machine.wait_for(f"{CONSOLE} 'SHOW STATE'", user)
    return int(machine.read("/run/pgweir/pgweir.pid"))


def is_running(machine, pid):
    return machine.succeeds(f"kill -0 {pid}")


def pretend_systemd(machine):
    """A systemctl that only writes down what it is asked, in a machine that looks as if systemd ran."""
    machine.run("mkdir -p /run/systemd/system")
    machine.write("/tmp/systemctl", '#!/bin/sh\necho "$*" >>/tmp/asked\n')
    machine.run("chmod 755 /tmp/systemctl && rm -f /bin/systemctl && mv /tmp/systemctl /bin/systemctl && : >/tmp/asked")


def asked(machine):
    """What systemctl has been asked for since the last time."""
    lines = machine.read("/tmp/asked").splitlines()
    machine.run(": >/tmp/asked")
    return lines


def test_installed_files(installed):
    assert installed.status(INI) == installed.status(USERS) == "640 root postgres"
    assert installed.status("/var/log/pgweir") == "750 postgres postgres"
    assert installed.status("/run/postgresql") == "2775 postgres postgres"
    assert installed.run("dpkg --verify pgweir") == ""
    assert installed.run(f"pgweir --check {INI}", "postgres") == "configuration is valid\n"
    for document in ("copyright", "changelog.gz", "README.md", "compatibility.md", "migrate-from-pgbouncer.md",
                     "routing.md", "examples/postgresql/primary.conf", "examples/postgresql/standby.conf"):
        assert f"/usr/share/doc/pgweir/{document}" in installed.run("dpkg --listfiles pgweir").splitlines()
    # A shared library that is not declared would be missing on another machine.
    assert "not found" not in installed.run("ldd /usr/bin/pgweir")


def test_service_runs_and_stops_as_the_unit_says(installed):
    pid = start_as_the_unit(installed)
    assert installed.run(f"{CONSOLE} 'SHOW VERSION'", "postgres").startswith("PgWeir ")
    assert "process up: PgWeir" in installed.read(LOG)
    assert installed.status(LOG) == "644 postgres postgres"
    installed.run(unit_value(installed, "ExecReload").replace("$MAINPID", str(pid)), "postgres")
    installed.wait_for(f"grep 'got SIGHUP, re-reading config' {LOG}")
    number = getattr(signal, unit_value(installed, "KillSignal"))
    installed.run(f"kill -{number.value} {pid}", "postgres")
    installed.wait_for(f"! kill -0 {pid}")
    assert not installed.exists("/run/pgweir/pgweir.pid") and not installed.exists("/run/postgresql/.s.PGSQL.6432")


def test_daemon_without_a_service_manager(installed):
    installed.run(f"pgweir -d {INI}", "postgres")
    installed.wait_for(f"{CONSOLE} 'SHOW STATE'", "postgres")
    installed.run("kill -INT $(cat /run/pgweir/pgweir.pid)", "postgres")
    installed.wait_for("! test -e /run/pgweir/pgweir.pid")


def test_machine_without_postgresql(machine, package):
    """A pooler of its own machine: neither the user nor the folder of the Unix socket is there before."""
    machine.run("! getent passwd postgres || userdel postgres; ! getent group postgres || groupdel postgres")
    machine.run("rm -f /usr/lib/tmpfiles.d/postgresql*.conf")
    machine.copy_in(package, "/tmp/pgweir.deb")
    machine.run("dpkg --install /tmp/pgweir.deb")
    assert machine.status(INI) == "640 root postgres"
    # After a boot /run is empty.
    machine.run("rm -rf /run/postgresql && systemd-tmpfiles --create")
    assert machine.status("/run/postgresql") == "2775 postgres postgres"
    start_as_the_unit(machine)


def test_unit_and_tmpfiles_are_valid(installed):
    """Both have no finding, tmpfiles.d not even beside the file of postgresql-common."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    assert installed.run(f"systemd-analyze verify {UNIT}") == ""
    theirs = "/usr/lib/tmpfiles.d/postgresql-common.conf"
    installed.run(f"test -e {theirs} || cp /usr/lib/tmpfiles.d/pgweir.conf {theirs}")
    assert installed.run(f"systemd-tmpfiles --create {theirs} /usr/lib/tmpfiles.d/pgweir.conf") == ""


def test_manual_page(installed):
    if shutil.which("mandoc") is None:
        pytest.skip("no mandoc")
    assert installed.run("gzip -dc /usr/share/man/man1/pgweir.1.gz | mandoc -T lint -W warning") == ""
    text = installed.run("gzip -dc /usr/share/man/man1/pgweir.1.gz | mandoc -T ascii | col -b")
    words = [line.split(", ")[-1].split() for line in installed.run("pgweir --help").splitlines()]
    for option in (one[0].partition("=")[0] for one in words if one and one[0].startswith("--")):
        assert option in text, f"{option} is not in the manual"


def test_log_rotation(installed):
    if shutil.which("logrotate", path=os.environ["PATH"] + ":/usr/sbin") is None:
        pytest.skip("no logrotate")
    assert "error" not in installed.run("logrotate --debug /etc/logrotate.d/pgweir")
    start_as_the_unit(installed)
    installed.run("logrotate --force /etc/logrotate.d/pgweir")
    installed.wait_for(f"grep 'got SIGHUP' {LOG} {LOG}.1")
    installed.run(f"{CONSOLE} 'SHOW VERSION'", "postgres")
    installed.wait_for(f"grep 'login attempt' {LOG}")
    assert installed.status(LOG) == "640 postgres postgres"
    # A file that cannot be loaded must not keep the log in the rotated file, which is compressed next.
    installed.run(f"echo nonsense >>{INI}; rm -f {LOG}.1; logrotate --force /etc/logrotate.d/pgweir")
    installed.wait_for(f"grep 'config file loading failed' {LOG}.1 {LOG}")
    installed.run(f"{CONSOLE} 'SHOW VERSION'", "postgres")
    installed.wait_for(f"grep 'login attempt' {LOG}")


def test_upgrade(installed, newer_package):
    """A changed file stays, an unchanged one becomes the new one; owners and modes stay; what runs goes on."""
    pid = start_as_the_unit(installed)
    installed.run(f"echo '; ours' >>{INI}; chmod 600 {USERS}; chown postgres {USERS}; chmod 700 /var/log/pgweir")
    installed.copy_in(newer_package, "/tmp/newer.deb")
    installed.run(UPGRADE)
    assert installed.read(INI).endswith("; ours\n")
    assert installed.read(INI + ".dpkg-dist").endswith("; from 99.0\n")
    assert installed.read(USERS).endswith("; from 99.0\n")
    assert installed.status(USERS) == "600 postgres postgres"
    assert installed.status("/var/log/pgweir") == "700 postgres postgres"
    assert is_running(installed, pid)
    assert "99.0" in installed.run("dpkg-query -W pgweir")
    # The new maintainer scripts take their own files away, too.
    installed.run("dpkg --purge pgweir")
    assert not installed.exists("/etc/pgweir")


def test_deleted_configuration_stays_deleted(installed):
    installed.run(f"rm {USERS} && dpkg --force-confdef --install /tmp/pgweir.deb")
    assert not installed.exists(USERS)
    installed.run(f"dpkg --remove pgweir && rm {INI} && dpkg --install /tmp/pgweir.deb")
    assert not installed.exists(INI)


def test_remove_keeps_the_configuration_and_purge_nothing(installed):
    files = [one for one in installed.run("dpkg --listfiles pgweir").splitlines() if "pgweir" in one]
    start_as_the_unit(installed)
    installed.run("kill -QUIT $(cat /run/pgweir/pgweir.pid)", "postgres")
    installed.run("dpkg --remove pgweir")
    left = [one for one in files if installed.exists(one)]
    assert left == [one for one in files if one.startswith("/etc/")]
    assert installed.exists(LOG)
    installed.run("dpkg --purge pgweir")
    assert [one for one in [*files, "/var/log/pgweir", "/run/pgweir"] if installed.exists(one)] == []
    assert installed.succeeds("getent passwd postgres")
    assert "pgweir" not in installed.run("dpkg-query -W -f '${Package}\n'").split()


def test_what_systemd_is_asked_for(machine, package, newer_package):
    """A first installation starts nothing: port 6432 may be PgBouncer's."""
    pretend_systemd(machine)
    machine.copy_in(package, "/tmp/pgweir.deb")
    machine.copy_in(newer_package, "/tmp/newer.deb")
    assert "systemctl enable --now pgweir" in machine.run("dpkg --install /tmp/pgweir.deb")
    assert [line for line in asked(machine) if "pgweir" in line or "reload" in line] == ["--system daemon-reload"]
    machine.run(UPGRADE)
    assert "try-restart pgweir.service" in asked(machine)
    machine.run("dpkg --remove pgweir")
    lines = asked(machine)
    assert lines[:2] == ["stop pgweir.service", "--quiet disable pgweir.service"]
    assert lines[-1] == "--system daemon-reload"


def test_owners_and_dependencies(package):
    """Files of root, and every library that the program needs is declared."""
    listing = subprocess.run(["dpkg-deb", "--contents", package], capture_output=True, text=True, check=True).stdout
    assert all(line.split()[1] == "root/root" for line in listing.splitlines())
    depends = subprocess.run(["dpkg-deb", "--field", package, "Depends"], capture_output=True, text=True,
                             check=True).stdout
    for library in ("libc6", "libssl3", "libpg-query", "libldap", "libpam0g", "libc-ares2", "adduser"):
        assert library in depends
    assert pathlib.Path(package).name.startswith("pgweir_")
