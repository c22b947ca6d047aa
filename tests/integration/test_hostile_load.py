"""What others wait for, and what a pooler keeps, while one client does it harm.

The same hostile client runs against the pooler that is watched and against a second one, and each is stopped while the
other goes on: both times the machine is as busy, so what differs is what clients of one pooler take from each other. The
turns are short and alternate, so that whatever else happens on the machine happens to both.
"""

import signal
import subprocess
import sys
import time

import pytest

from harness import PATIENCE, wait_until

TURNS = 6
QUERIES = 100
PAUSE_S = 0.002
# A single delay is the machine's own; what a pooler does wrong shows as more than that.
ALLOWANCE_MS = {0.5: 5, 0.99: 60}
GROWTH_KIB = 2048


class HostileClient:
    def __init__(self, kind, pooler, folder):
        self.output = folder / f"{kind}-{pooler.port}"
        self.errors = folder / f"{kind}-{pooler.port}.err"
        with open(self.output, "wb") as out, open(self.errors, "wb") as err:
            self.process = subprocess.Popen(["nice", "-n", "19", sys.executable, "-B", "hostile.py", kind,
                                             str(pooler.port)], stdout=out, stderr=err)

    @property
    def work(self):
        """How much it got done."""
        assert self.process.poll() is None, self.errors.read_text()
        return self.output.stat().st_size

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def end(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def hostile_client(tmp_path):
    started = []

    def start(kind, pooler):
        started.append(HostileClient(kind, pooler, tmp_path))
        return started[-1]

    yield start
    for one in started:
        one.end()


def answer_times(client):
    """Of single queries at a steady pace, in ms."""
    times = []
    for number in range(QUERIES):
        began = time.perf_counter()
        assert client.value(f"SELECT {number}") == str(number)
        times.append((time.perf_counter() - began) * 1e3)
        time.sleep(PAUSE_S)
    return times


def percentile(times, share):
    return sorted(times)[int(len(times) * share)]


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["slow_reader", "one_byte", "pipeline", "rows"])
def test_others_wait_at_most_twice_as_long(make_pooler, hostile_client, kind):
    watched, second = make_pooler(), make_pooler()
    with watched.wire(timeout=60) as client:
        answer_times(client)
        clients = {"with": hostile_client(kind, watched), "apart": hostile_client(kind, second)}
        for one in clients.values():
            wait_until(lambda one=one: one.work > 0, 60, "the hostile client gets something done")
        before, kept = watched.memory_kib(), 0
        times = {"with": [], "apart": []}
        for turn in range(TURNS):
            for way in ("with", "apart") if turn % 2 == 0 else ("apart", "with"):
                clients["apart" if way == "with" else "with"].stop()
                clients[way].go_on()
                work = clients[way].work
                times[way] += answer_times(client)
                kept = max(kept, watched.memory_kib() - before)
                wait_until(lambda one=clients[way], work=work: one.work > work, 30, "the hostile client is served too")
        for share, allowance in ALLOWANCE_MS.items():
            with_one, apart = (percentile(times[way], share) for way in ("with", "apart"))
            assert with_one <= 2 * apart + allowance * PATIENCE, f"{share:.0%}: {with_one:.1f} ms, apart {apart:.1f} ms"
        assert kept < GROWTH_KIB
        for one in clients.values():
            one.go_on()
            one.end()
        assert client.value("SELECT 'after'") == "after"
