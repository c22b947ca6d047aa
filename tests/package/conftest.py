"""Fixtures: the package as CPack builds it, a newer one made from it, and machines to install them in."""

import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

import harness  # noqa: E402
from machine import Machine, NoMachine, root_prefix  # noqa: E402


@pytest.fixture(scope="session")
def base():
    path = pathlib.Path(tempfile.mkdtemp(prefix="pgweir-package-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def package(base):
    """pgweir_X.Y.Z_ARCH.deb, built from the folder in which the program under test was."""
    done = subprocess.run(["cpack", "-G", "DEB", "-B", str(base / "cpack")], cwd=harness.BINARY.parent,
                          capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (base / "cpack").glob("*.deb")
    return file


@pytest.fixture(scope="session")
def newer_package(base, package):
    """Version 99.0, whose two configuration files have a line more."""
    tree = base / "newer"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines()
    control.write_text("".join(("Version: 99.0" if one.startswith("Version:") else one) + "\n" for one in lines))
    for name in ("pgweir.ini", "userlist.txt"):
        with open(tree / "etc/pgweir" / name, "a", encoding="utf-8") as file:
            file.write("; from 99.0\n")
    file = base / "newer.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, file], check=True, stdout=subprocess.DEVNULL)
    return file


@pytest.fixture
def machine(base):
    """A machine without pgweir. Skips where namespaces need a root that is not to be had."""
    if root_prefix() is None:
        pytest.skip("needs root, or a sudo that asks nothing")
    try:
        one = Machine(pathlib.Path(tempfile.mkdtemp(prefix="m", dir=base)))
    except NoMachine as reason:
        pytest.skip(str(reason))
    yield one
    one.stop()


@pytest.fixture
def installed(machine, package):
    """A machine with the package."""
    machine.copy_in(package, "/tmp/pgweir.deb")
    machine.run("dpkg --install /tmp/pgweir.deb")
    return machine
