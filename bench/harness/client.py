"""The load generator bench/client: logins at full speed, idle clients, hostile clients."""
import contextlib
import json
import select
import subprocess

from .machine import ROOT, Trouble, most_open_files
from .proxies import copy_in

BUILT = ROOT / "build/release/bench/client"


def binary(lab):
    target = lab.folder / "client"
    if target.exists():
        return target
    if not BUILT.exists():
        raise Trouble("bench/client is not built: cmake --preset release && cmake --build --preset release")
    return copy_in(lab, "client", BUILT)


def command(lab, kind, port, **options):
    words = [binary(lab), kind, f"--port={port}"]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value not in (False, None):
            words.append(f"--{name}={value}")
    return words


def result(text):
    """What the client prints at its end: one line of JSON."""
    return json.loads(text.strip().splitlines()[-1])


def logins(lab, port, **options):
    return result(lab.processes.call(*command(lab, "logins", port, **options), seconds=120))


def wait_until_ready(lab, process, seconds):
    """Reads the line "ready"; Trouble with the client's own words if it ends instead."""
    line = ""
    if select.select([process.stdout], [], [], seconds)[0]:
        line = process.stdout.readline()
    if line.strip() != "ready":
        if process.poll() is None and not line:
            lab.processes.stop(process)
            raise Trouble(f"the clients are not logged in after {seconds} s")
        lab.processes.finish(process, 10)
        raise Trouble(f"the client says: {line.strip()}")


@contextlib.contextmanager
def crowd(lab, port, count, tls=False):
    """So many clients that have logged in and do nothing."""
    count = min(count, most_open_files() - 300)
    process = lab.processes.popen(command(lab, "idle", port, clients=count, tls=tls), stdin=subprocess.PIPE)
    try:
        wait_until_ready(lab, process, 120)
        yield count
    finally:
        lab.processes.stop(process)


@contextlib.contextmanager
def hostile(lab, port, kind, seconds):
    """A hostile client; its figures are in the dictionary when the block has ended. It has the lowest priority: what
    the machine gives to it is not taken from the proxy, only what the proxy gives to it."""
    figures = {}
    process = lab.processes.popen(["nice", "-n", "19", *command(lab, kind, port, seconds=seconds)])
    try:
        wait_until_ready(lab, process, 30)
        yield figures
        figures.update(result(lab.processes.finish(process, seconds + 60)))
    finally:
        lab.processes.stop(process)
