"""What this machine is and has: programs, limits, the unprivileged user, a fingerprint."""
import functools
import hashlib
import itertools
import os
import pathlib
import platform
import pwd
import re
import resource
import shutil
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BENCH = ROOT / "bench"


class Trouble(Exception):
    """What keeps a measurement from being made, said to the user."""


def find_program(name):
    """Debian keeps servers in /usr/sbin, which an ordinary user's PATH leaves out."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


def find_postgres():
    if "PG_BIN" in os.environ:
        candidates = [pathlib.Path(os.environ["PG_BIN"])]
    else:
        newest_first = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: -float(p.parent.name))
        candidates = [pathlib.Path("/usr/lib/postgresql/15/bin"), *newest_first]
    for folder in candidates:
        if all((folder / name).exists() for name in ("initdb", "postgres", "pgbench", "psql", "pg_isready")):
            return folder
    raise Trouble("PostgreSQL's server programs are missing (Debian: apt install postgresql-15); "
                  "PG_BIN names another folder")


def server_user():
    """PostgreSQL and the poolers refuse to run as root: who runs them then, or None for the present user."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Trouble("run as root there must be a user postgres or nobody to run the servers")


def identity():
    """Arguments for subprocess that make the child that user."""
    user = server_user()
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def raise_limits():
    """As many open files as we may have; no core files of what we end. Children inherit both."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def most_open_files():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@functools.cache
def next_ports():
    """Below those the kernel gives to clients, of which a run has thousands: one could sit on a server's port before
    the server does. PGWEIR_BENCH_PORTS=FIRST-LAST names others."""
    first, _, last = os.environ.get("PGWEIR_BENCH_PORTS", "22000-22999").partition("-")
    if not (first.isdigit() and last.isdigit() and 0 < int(first) <= int(last) < 65536):
        raise Trouble("PGWEIR_BENCH_PORTS: FIRST-LAST is meant")
    everything = range(int(first), int(last) + 1)
    begin = os.getpid() % len(everything)  # two runs at once begin at different ones
    return itertools.cycle([*everything[begin:], *everything[:begin]])


def free_port():
    for port in itertools.islice(next_ports(), 1000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Trouble("no port is free; PGWEIR_BENCH_PORTS=FIRST-LAST names others")


def cpu_ticks():
    """Of all cores since the start: busy ones, and all of them."""
    values = [int(word) for word in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(values) - values[3] - values[4], sum(values)


def busy_share(seconds=1.0):
    """How much of the machine is in use, 0 to 1."""
    before = cpu_ticks()
    time.sleep(seconds)
    after = cpu_ticks()
    return (after[0] - before[0]) / max(1, after[1] - before[1])


def fingerprint():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", text, re.MULTILINE)
    return {
        "cpu": model[1].strip() if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "host": hashlib.sha256(socket.gethostname().encode()).hexdigest()[:16],
    }


def version_of(program, option="--version"):
    try:
        done = subprocess.run([str(program), option], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (done.stdout + done.stderr).splitlines()
    return lines[0].strip() if lines else ""
