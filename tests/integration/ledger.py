"""A load of transfers whose every outcome the client writes down, so that nothing can be missing or too much afterwards.

Each client has two accounts of its own and moves money between them, in all the ways in which a transaction reaches a
server; every transfer has a token that is used once, whatever happens to it. In between each reads its own balance.
"""

import random
import threading
import time
from dataclasses import dataclass, field

from harness import PATIENCE, wait_until
from wire import SYNC, Closed, Wire, bind, execute, parse, query

SINGLE = ("WITH noted AS (INSERT INTO transfers VALUES ({token}, {account}, {amount}))"
          " UPDATE accounts SET balance = balance + CASE WHEN id = {account} THEN {amount} ELSE -{amount} END WHERE id IN ({account}, {account} + 1)"
          " RETURNING host_port()")
BOUND = SINGLE.format(token="$1", account="$2", amount="$3")
TYPES = (25, 23, 23)  # text, int, int
PARTS = ("INSERT INTO transfers VALUES ({token}, {account}, {amount})",
         "UPDATE accounts SET balance = balance + {amount} WHERE id = {account}",
         "UPDATE accounts SET balance = balance - {amount} WHERE id = {account} + 1 RETURNING host_port()")


class Refused(Exception):
    """An ErrorResponse."""


@dataclass
class Outcome:
    """One failed transfer or read, as its client saw it."""

    client: int
    what: str
    began: float
    ended: float
    code: str
    text: str


@dataclass
class Records:
    acknowledged: dict = field(default_factory=dict)  # token: (moment, port of the host)
    sent: set = field(default_factory=set)
    failed_transfers: list = field(default_factory=list)
    failed_reads: list = field(default_factory=list)
    wrong: list = field(default_factory=list)  # what must never be: answers that cannot be true, or none at all
    slowest: float = 0.0


class Ledger:
    """Runs the load between __enter__ and __exit__; `patience` is how long (s) a client waits for one answer."""

    def __init__(self, pooler, replicas, clients=6, patience=40.0):
        self.pooler = pooler
        self.replicas = replicas
        self.count = clients
        self.patience = patience
        self.records = Records()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(n,), daemon=True) for n in range(clients)]
        with replicas.primary.connect() as direct:
            direct.execute("INSERT INTO accounts SELECT n, 0 FROM generate_series(0, %s) AS n", (2 * clients - 1,))
        replicas.catch_up()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self._stop.set()
        deadline = time.monotonic() + (self.patience + 5) * PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        stuck = sum(thread.is_alive() for thread in self._threads)
        if kind is None:
            assert not stuck, f"{stuck} clients are stuck"

    # -- what the test asks

    def wait_for(self, count, port=None, since=0.0, seconds=15):
        """Waits until so many transfers are acknowledged by a host (any if None) after `since`, each client having one
        of them; returns the moment of the first."""
        def reached():
            rows = [(token.split("/")[0], moment) for token, (moment, by) in self.records.acknowledged.copy().items()
                    if (port is None or by == port) and moment > since]
            if len(rows) >= count and len({client for client, _ in rows}) == self.count:
                return min(moment for _, moment in rows)
            assert not self.records.wrong, self.records.wrong
            return None
        return wait_until(reached, seconds, f"{count} transfers by every client; {self._state()}")

    def _state(self):
        return f"failed: {self.records.failed_transfers[-3:]} {self.records.failed_reads[-3:]}"

    def reconcile(self):
        """Compares what the clients were told with what the primary has."""
        assert not self.records.wrong, self.records.wrong
        with self.replicas.primary.connect() as direct:
            self.compare(direct)

    def compare(self, direct):
        records = self.records
        found = dict(direct.execute("SELECT token, count(*) FROM transfers GROUP BY token").fetchall())
        balances = direct.execute("SELECT id, balance FROM accounts ORDER BY id").fetchall()
        sums = dict(direct.execute("SELECT account, sum(amount) FROM transfers GROUP BY account").fetchall())
        lost = set(records.acknowledged) - set(found)
        assert not lost, (f"{len(lost)} acknowledged transfers are lost:"
                          f" {sorted((*records.acknowledged[token], token) for token in lost)[:9]}")
        twice = [token for token, times in found.items() if times != 1]
        assert not twice, f"applied more than once: {twice[:5]}"
        invented = set(found) - records.sent
        assert not invented, f"nobody sent them: {sorted(invented)[:5]}"
        for number, balance in balances:
            expected = sums.get(number, 0) if number % 2 == 0 else -sums.get(number - 1, 0)
            assert balance == expected, f"account {number}"

    def check_failures(self, began_before):
        """Only transfers under way at the moment may have failed, and only as they must; no read. Of one client there may be
        two: connections break one after the other, and the next transfer may begin on one that is next."""
        self.check_errors()
        failed = self.records.failed_transfers
        assert all(one.began < began_before for one in failed), failed

    def check_errors(self):
        """The part of it that holds for any number of lost hosts."""
        assert not self.records.failed_reads, self.records.failed_reads
        for one in self.records.failed_transfers:
            assert (one.code, one.text) == ("08006", "server conn crashed?"), one

    # -- the clients

    def _client(self, number):
        chance = random.Random(number)
        connection = None
        turn = 0
        try:
            while not self._stop.is_set():
                if connection is None:
                    connection = self._connect()
                turn += 1
                connection = self._transfer(connection, number, f"{number}/{turn}", chance)
                if connection is not None and chance.random() < 0.5:
                    connection = self._read(connection, number)
        except BaseException as failure:  # shown by the test's own thread
            self.records.wrong.append(f"client {number}: {failure!r}")
        if connection is not None:
            connection.close()

    def _connect(self):
        one = Wire(self.pooler.port, timeout=self.patience)
        one.login("postgres", "app")
        one.prepared = False
        return one

    def _transfer(self, connection, number, token, chance):
        way = chance.choice((self._block, self._single, self._extended, self._several, self._prepared, self._pipeline))
        began = time.monotonic()
        try:
            way(connection, token, 2 * number, chance.randint(1, 100))
        except (Refused, Closed) as failure:
            return self._failed(connection, self.records.failed_transfers, number, way.__name__, began, failure)
        self.records.slowest = max(self.records.slowest, time.monotonic() - began)
        return connection

    def _acknowledged(self, token, rows):
        self.records.acknowledged[token] = (time.monotonic(), int(rows[0][0]))

    def _read(self, connection, number):
        began = time.monotonic()
        try:
            rows = self._ask(connection, query("SELECT sum(balance), count(*) FROM accounts WHERE id IN"
                                               f" ({2 * number}, {2 * number + 1})"))
        except (Refused, Closed) as failure:
            return self._failed(connection, self.records.failed_reads, number, "read", began, failure)
        if rows != [["0", "2"]]:
            self.records.wrong.append(f"client {number} read {rows}")
        return connection

    @staticmethod
    def _failed(connection, failures, number, what, began, failure):
        """Notes it and gives the connection up: the next turn makes another."""
        fields = failure.args[0] if isinstance(failure, Refused) else {}
        failures.append(Outcome(number, what, began, time.monotonic(), fields.get("C"), fields.get("M", str(failure))))
        connection.close()

    def _ask(self, connection, *messages):
        """Rows of what these messages ask for. Nothing is awaited after an error: it may be the last thing that comes."""
        connection.send(*messages)
        return self._answer(connection)

    @staticmethod
    def _answer(connection):
        result = connection.collect("ZE")
        if result.errors:
            raise Refused(result.error)
        return result.rows

    # Each way notes a token before it is sent, and again when it is acknowledged.

    def _block(self, connection, token, account, amount):
        self.records.sent.add(token)
        self._ask(connection, query("BEGIN"))
        for part in PARTS:
            rows = self._ask(connection, query(part.format(token=f"'{token}'", account=account, amount=amount)))
        self._ask(connection, query("COMMIT"))
        self._acknowledged(token, rows)

    def _single(self, connection, token, account, amount):
        self.records.sent.add(token)
        text = SINGLE.format(token=f"'{token}'", account=account, amount=amount)
        self._acknowledged(token, self._ask(connection, query(text)))

    def _several(self, connection, token, account, amount):
        self.records.sent.add(token)
        text = "; ".join(PARTS).format(token=f"'{token}'", account=account, amount=amount)
        self._acknowledged(token, self._ask(connection, query(text)))

    def _extended(self, connection, token, account, amount):
        self.records.sent.add(token)
        messages = (parse("", BOUND, TYPES), bind("", [token, account, amount]), execute(), SYNC)
        self._acknowledged(token, self._ask(connection, *messages))

    def _prepared(self, connection, token, account, amount):
        """By a statement that the connection keeps."""
        if not connection.prepared:
            self._ask(connection, parse("transfer", BOUND, TYPES), SYNC)
            connection.prepared = True
        self.records.sent.add(token)
        self._acknowledged(token, self._ask(connection, bind("transfer", [token, account, amount]), execute(), SYNC))

    def _pipeline(self, connection, token, account, amount):
        """Three transactions, sent at once."""
        tokens = [f"{token}/{part}" for part in "abc"]
        self.records.sent.update(tokens)
        connection.send(*(parse("", BOUND, TYPES) + bind("", [one, account, amount]) + execute() + SYNC for one in tokens))
        for one in tokens:
            self._acknowledged(one, self._answer(connection))
