"""Processes that a run starts, what they use, and how they end: by their own pids, never by name."""
import os
import pathlib
import signal
import socket
import subprocess
import time
from dataclasses import dataclass

from .machine import Trouble, identity

TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Usage:
    cpu: float = 0.0  # seconds, user and system
    voluntary: int = 0  # context switches
    involuntary: int = 0

    def __sub__(self, other):
        return Usage(self.cpu - other.cpu, self.voluntary - other.voluntary, self.involuntary - other.involuntary)


def read(path):
    try:
        return pathlib.Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def field(text, name):
    for line in text.splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0


def tree(pid):
    """The process and everything below it."""
    pids = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
        for child in read(task / "children").split():
            pids += tree(int(child))
    return pids


def cpu_seconds(pid):
    """User and system time of all threads, from the process's CPU clock; /proc/PID/stat has it in hundredths only."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid(3) makes of a pid
    except OSError:
        words = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / TICK if words else 0.0


def usage(process):
    total = Usage()
    for pid in tree(process.pid) if process else []:
        total.cpu += cpu_seconds(pid)
        for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
            status = read(task / "status")
            total.voluntary += field(status, "voluntary_ctxt_switches")
            total.involuntary += field(status, "nonvoluntary_ctxt_switches")
    return total


def resident_bytes(process):
    return sum(field(read(f"/proc/{pid}/status"), "VmRSS") * 1024 for pid in tree(process.pid)) if process else 0


def reset_peak(process):
    """The peak counts from now on."""
    for pid in tree(process.pid):
        pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_resident_bytes(process):
    return sum(field(read(f"/proc/{pid}/status"), "VmHWM") * 1024 for pid in tree(process.pid))


def tail(path, lines=8):
    return "\n".join("    " + line for line in read(path).splitlines()[-lines:])


class Processes:
    """Everything that was started and still runs."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []

    def start(self, name, command, port, env=None):
        """Starts a server as the unprivileged user and waits until it listens; its output goes to NAME.out."""
        with open(self.folder / f"{name}.out", "wb") as log:
            process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=log, cwd=self.folder, env=self.environment(env), start_new_session=True,
                                       **identity())
        self.running.append(process)
        try:
            self.wait_for_port(name, process, port)
        except BaseException:
            self.stop(process)
            raise
        return process

    def environment(self, extra=None):
        return {**os.environ, "HOME": str(self.folder), "LC_ALL": "C", "PGGSSENCMODE": "disable",
                "PGSSLMODE": "disable", **(extra or {})}

    def wait_for_port(self, name, process, port, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise Trouble(f"{name} ended at once with {process.returncode}:\n{self.last_words(name)}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
        raise Trouble(f"{name} does not listen on port {port} after {seconds} s")

    def last_words(self, name, lines=4):
        """What a server said last: on its standard error and in the log file of its own."""
        return "\n".join(filter(None, (tail(self.folder / f"{name}.{end}", lines) for end in ("out", "log"))))

    def popen(self, command, env=None, **options):
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True,
                   **options}
        process = subprocess.Popen([str(part) for part in command], cwd=self.folder, env=self.environment(env),
                                   start_new_session=True, **identity(), **options)
        self.running.append(process)
        return process

    def finish(self, process, seconds=None):
        """Waits for a process from popen(); its output, or Trouble if it failed."""
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise Trouble(f"{process.args[0]} does not end within {seconds:.0f} s") from None
        finally:
            self.stop(process)
        if process.returncode != 0:
            lines = f"{out or ''}{err or ''}".strip().splitlines()
            shown = "\n".join("    " + line for line in lines[-8:])
            raise Trouble(f"{pathlib.Path(process.args[0]).name} failed with {process.returncode}:\n{shown}")
        return (out or "") + (err or "")

    def call(self, *command, env=None, seconds=300):
        return self.finish(self.popen(command, env=env), seconds)

    def stop(self, process, first=signal.SIGTERM, patience=2.0):
        """Asks a process and what is below it to end, and kills what does not."""
        if process in self.running:
            self.running.remove(process)
        if process.poll() is not None:
            return
        pids = tree(process.pid)
        for number, seconds in ((first, patience), (signal.SIGKILL, 5.0)):
            for pid in pids:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            try:
                process.wait(seconds)
                return
            except subprocess.TimeoutExpired:
                continue

    def stop_all(self):
        for process in reversed(list(self.running)):
            self.stop(process)
