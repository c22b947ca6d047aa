"""That nobody reads older than what he, or anybody, was told is written, while the standby's replay is paused, resumed
and delayed at random; and that reads still go to the standby when it keeps up."""

import contextlib
import random
import threading
import time

import pytest

import routing
from harness import PATIENCE, wait_until
from replicas import Replicas
from routing import counted, hosts, routes, wait_routed
from wire import SYNC, bind, execute, parse, query

pytestmark = [pytest.mark.pgweir]

CLIENTS = 6


@pytest.fixture(scope="module")
def pair(template):
    one = Replicas(template)
    with one.primary.connect() as direct:
        direct.execute("CREATE TABLE counters (client int PRIMARY KEY, value int NOT NULL)")
    one.catch_up()
    yield one
    one.close()


@pytest.fixture
def counters(pair):
    """All counters are 0, on both hosts; afterwards replay goes on undelayed."""
    with pair.primary.connect() as direct:
        direct.execute("TRUNCATE counters")
        direct.execute("INSERT INTO counters SELECT n, 0 FROM generate_series(0, %s) AS n", (CLIENTS - 1,))
    pair.catch_up()
    yield
    pair.standby.resume_replay()
    pair.standby.set(recovery_min_apply_delay=None)
    pair.catch_up()


class Replay:
    """Pauses, resumes and delays the replay of a standby at random, in a thread of its own."""

    def __init__(self, standby, seed):
        self.standby = standby
        self.turns = 0
        self.failure = None
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive() and self.failure is None, self.failure

    def _run(self):
        try:
            while not self._stop.wait(self._chance.uniform(0.02, 0.25)):
                self.turns += 1
                what = self._chance.randrange(5)
                if what == 0:
                    self.standby.pause_replay()
                elif what == 1:
                    self.standby.set(recovery_min_apply_delay=f"{self._chance.randrange(1, 300)}ms")
                elif what == 2:
                    self.standby.set(recovery_min_apply_delay="0")
                else:
                    self.standby.resume_replay()
        except Exception as failure:  # shown by the test's own thread
            self.failure = repr(failure)


class Checker:
    """Clients that write counters and read them back; what each was told is written is compared with what it reads."""

    def __init__(self, pooler, shared, seed):
        self.pooler = pooler
        self.shared = shared
        self.seed = seed
        self.acknowledged = [0] * CLIENTS
        self.reads = {True: 0, False: 0}  # by whether the standby answered
        self.stale = []
        self.failures = []
        self._lock = threading.Lock()

    def run(self, seconds, write_every):
        """`write_every`: mean time (s) between two writes of one client; it reads all the time."""
        over = time.monotonic() + seconds
        threads = [threading.Thread(target=self._guarded, args=(number, over, write_every), daemon=True)
                   for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + 40 * PATIENCE)
        assert not any(thread.is_alive() for thread in threads), "a client is stuck"
        assert not self.failures, self.failures
        assert not self.stale, self.stale[:5]
        return self.reads[True] / max(1, sum(self.reads.values()))

    def _guarded(self, number, over, write_every):
        try:
            self._client(number, over, write_every)
        except Exception as failure:  # shown by the test's own thread
            self.failures.append(f"client {number}: {failure!r}")

    def _client(self, number, over, write_every):
        chance = random.Random(f"{self.seed}/{number}")
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(self.pooler.wire(timeout=30))
            next_write = time.monotonic() + chance.uniform(0, write_every)
            while (now := time.monotonic()) < over and not self.stale:
                if now >= next_write:
                    next_write = now + chance.expovariate(1 / write_every) if write_every else now
                    self._write(client, number, chance)
                self._read(client, number, chance)
                if self.shared and chance.random() < 0.02:
                    # What others have written before it came must be seen by a client that has written nothing, too.
                    with self.pooler.wire(timeout=30) as new:
                        self._read(new, number, chance)

    def _write(self, client, number, chance):
        value = self.acknowledged[number] + 1
        update = f"UPDATE counters SET value = {value} WHERE client = {number}"
        way = chance.randrange(5)
        if way == 0:
            results = [client.query(update)]
        elif way == 1:
            results = [client.query(text) for text in ("BEGIN", "SELECT 1", update, "COMMIT")]
        elif way == 2:
            results = [client.extended(parse("", "UPDATE counters SET value = $1 WHERE client = $2"),
                                       bind("", [value, number]), execute())]
        elif way == 3:
            results = [client.query(f"SELECT 1; {update}; SELECT 2")]
        else:
            results = [client.query(f"BEGIN; {update}"), client.query("COMMIT; SELECT 1")]
        for result in results:
            assert not result.errors, result.errors
        with self._lock:
            self.acknowledged[number] = value

    def _read(self, client, number, chance):
        with self._lock:
            least = list(self.acknowledged)
        text = "SELECT client, value, on_standby() FROM counters"
        way = chance.randrange(3)
        if way == 0:
            result = client.query(text)
        elif way == 1:
            client.send(parse("", text), bind(), execute(), SYNC)
            result = client.collect()
        else:
            client.query("BEGIN READ ONLY")
            result = client.query(text)
            client.query("COMMIT")
        assert not result.errors, result.errors
        on_standby = result.rows[0][2] == "t"
        seen = {int(row[0]): int(row[1]) for row in result.rows}
        with self._lock:
            self.reads[on_standby] += 1
        for other, value in enumerate(least):
            if (self.shared or other == number) and seen[other] < value:
                self.stale.append(f"client {number} read {seen[other]} of {other}, {value} was acknowledged")


def start(make_pooler, pair, mode, **pgweir):
    return wait_routed(make_pooler(**routing.options(pair, pgweir={"read_your_writes": mode, **pgweir})), pair)


@pytest.mark.parametrize("mode", ["session", "database"])
@pytest.mark.parametrize("write_every", [0.02, 0.5])
def test_nobody_reads_older_than_was_acknowledged(make_pooler, pair, counters, mode, write_every):
    pooler = start(make_pooler, pair, mode, max_replica_lag_ms="10s")
    seed = time.time_ns()
    with Replay(pair.standby, seed) as replay:
        share = Checker(pooler, mode == "database", seed).run(3, write_every)
    assert replay.turns > 5
    print(f"seed {seed}: {share:.0%} of the reads on the standby, {replay.turns} turns")


@pytest.mark.parametrize("mode", ["session", "database"])
def test_reads_go_to_the_standby_while_it_keeps_up(make_pooler, pair, counters, mode):
    pooler = start(make_pooler, pair, mode)
    before = routes(pooler)
    # In database mode a write by one keeps the reads of all on the primary for the while.
    share = Checker(pooler, mode == "database", time.time_ns()).run(4, 2.0 if mode == "session" else 2.0 * CLIENTS)
    assert share >= 0.9, f"{share:.0%}"
    assert counted(pooler, before)["reads_standby"] > 0


@pytest.mark.parametrize("mode", ["session", "database"])
def test_frequent_writers_read_from_the_standby(make_pooler, pair, counters, mode):
    """With the default interval of probes: clients that think for a moment between two statements and write with every
    eleventh. That their writes are replayed is asked for, not waited for."""
    pooler = wait_routed(make_pooler(**routing.options(pair, interval=routing.DEFAULT_INTERVAL,
                                                       pgweir={"read_your_writes": mode})), pair)
    chance = random.Random(5)
    # In database mode the writes of others count as well.
    writers = CLIENTS if mode == "session" else 1
    reads = {"t": 0, "f": 0}
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(pooler.wire(timeout=30)) for _ in range(writers)]
        for turn in range(16):
            for number, client in enumerate(clients):
                assert not client.query(f"UPDATE counters SET value = {turn} WHERE client = {number}").errors
            for _ in range(10):
                time.sleep(chance.uniform(0.02, 0.04))
                for number, client in enumerate(clients):
                    value, on_standby = client.query("SELECT value, on_standby() FROM counters"
                                                     f" WHERE client = {number}").rows[0]
                    assert int(value) == turn
                    reads[on_standby] += turn > 0  # the first write finds nobody who waits
    share = reads["t"] / sum(reads.values())
    print(f"{share:.0%} of the reads on the standby")
    assert share >= 0.9, reads


def test_nobody_waits_nobody_asks(make_pooler, pair, counters):
    """Probes come at their interval, however much is written or read, unless a read has to be kept on the primary."""
    pooler = wait_routed(make_pooler(**routing.options(pair, pgweir={"role_check_interval": "60s"})), pair)

    def age():
        return hosts(pooler)[pair.primary.port]["last_probe_ms"]
    with pooler.wire() as writer, pooler.wire() as reader:
        before = age()
        for value in range(50):
            writer.query(f"UPDATE counters SET value = {value} WHERE client = 0")
            assert reader.value("SELECT on_standby()") == "t"
        assert age() >= before
        wait_until(lambda: writer.value("SELECT on_standby()") == "t", 5, "the standby is known to have the write")
        assert age() < before + 5000


def test_off_gives_old_answers(make_pooler, pair, counters):
    """Which also shows that the checker above can find something."""
    pooler = start(make_pooler, pair, "off")
    pair.standby.pause_replay()
    with pooler.wire() as client:
        client.query("UPDATE counters SET value = 7 WHERE client = 0")
        assert client.query("SELECT value, on_standby() FROM counters WHERE client = 0").rows == [["0", "t"]]
    with pytest.raises(AssertionError, match="was acknowledged"):
        Checker(pooler, False, 1).run(1, 0.02)


def test_a_write_holds_for_its_own_session_only(make_pooler, pair, counters):
    pooler = start(make_pooler, pair, "session")
    pair.standby.pause_replay()
    text = "SELECT value, on_standby() FROM counters WHERE client = 0"
    with pooler.wire() as writer, pooler.wire() as other:
        writer.query("UPDATE counters SET value = 7 WHERE client = 0")
        before = routes(pooler)
        assert writer.query(text).rows == [["7", "f"]]
        assert other.query(text).rows == [["0", "t"]]
        assert counted(pooler, before) == {"reads_primary_read_your_writes": 1, "reads_standby": 1}
        pair.standby.resume_replay()
        wait_until(lambda: writer.query(text).rows == [["7", "t"]], 5, "the standby has the write")


def test_a_write_holds_for_all_of_the_database(make_pooler, pair, counters):
    pooler = start(make_pooler, pair, "database")
    pair.standby.pause_replay()
    text = "SELECT value, on_standby() FROM counters WHERE client = 0"
    with pooler.wire() as writer, pooler.wire() as other:
        writer.query("UPDATE counters SET value = 7 WHERE client = 0")
        assert other.query(text).rows == [["7", "f"]]
        with pooler.wire() as new:
            assert new.query(text).rows == [["7", "f"]]
        pair.standby.resume_replay()
        wait_until(lambda: other.query(text).rows == [["7", "t"]], 5, "the standby has the write")


@pytest.mark.parametrize("write", ["INSERT INTO notes VALUES (1, 'x')",
                                   "BEGIN; INSERT INTO notes VALUES (1, 'x'); COMMIT",
                                   "DO $$ BEGIN INSERT INTO notes VALUES (1, 'x'); END $$",
                                   "SELECT take_note('x')",
                                   "/* pgweir: primary */ SELECT take_note('hinted')",
                                   "SELECT sneaky('x')",
                                   "SELECT nextval('counter')",
                                   "CREATE TABLE IF NOT EXISTS made (n int)"])
def test_everything_that_may_write_counts(make_pooler, pair, counters, write):
    pooler = start(make_pooler, pair, "session")
    with pooler.wire() as client:
        client.query("SELECT sneaky('learn it')")
    pair.catch_up()
    pair.standby.pause_replay()
    with pooler.wire() as client:
        assert client.value("SELECT on_standby()") == "t"
        assert not client.query(write).errors
        assert client.value("SELECT on_standby()") == "f"


@pytest.mark.parametrize("rest", [
    ["COMMIT; UPDATE counters SET value = 7 WHERE client = 0"],
    ["COMMIT; BEGIN", "UPDATE counters SET value = 7 WHERE client = 0", "COMMIT"],
    ["COMMIT AND CHAIN", "SET TRANSACTION READ WRITE", "UPDATE counters SET value = 7 WHERE client = 0", "COMMIT"],
    ["SET TRANSACTION READ WRITE", "UPDATE counters SET value = 7 WHERE client = 0", "COMMIT"],
])
def test_what_follows_a_read_only_block_counts(make_pooler, pair, counters, rest):
    """... where the client's next word comes with its end, or takes it back."""
    pooler = start(make_pooler, pair, "session")
    pair.standby.pause_replay()
    with pooler.wire() as client:
        client.query("/* pgweir: primary */ BEGIN READ ONLY")
        for text in rest:
            assert not client.query(text).errors
        assert client.query("SELECT value, on_standby() FROM counters WHERE client = 0").rows == [["7", "f"]]


def test_reads_do_not_count(make_pooler, pair, counters):
    pooler = start(make_pooler, pair, "session")
    pair.standby.pause_replay()
    with pooler.wire() as client:
        for text in ("/* pgweir: primary */ SELECT 1", "SELECT 1", "SHOW work_mem",
                     "BEGIN READ ONLY; SELECT 1; COMMIT"):
            assert not client.query(text).errors
            assert client.value("SELECT on_standby()") == "t"
