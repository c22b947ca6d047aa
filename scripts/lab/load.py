"""Clients that never give up, and what happened to them.

    load.py run --port P --run N --writers N --readers N --watch PORT... --events FILE
        Until SIGTERM: writers insert numbered rows, readers look up rows of pgbench by their key, each on one connection of
        its own; after an error they go on, with a new connection if the old one is gone. --watch asks PostgreSQL itself,
        not through the pooler, until it is no longer in recovery.
    load.py report --events FILE --since TIME
        What the events tell, as lines "key value".

An event is a line "time kind client detail": W an acknowledged write (detail: its number), R a read (detail: the port that
served it), E an error (detail: SQLSTATE and text), P the promotion of a watched port. Times are seconds since 1970.
"""

import argparse
import collections
import signal
import sys
import threading
import time

import psycopg2
import psycopg2.errors

ACCOUNTS = 1_000_000
# A client that hears nothing for longer than pgweir lets it wait is an error worth seeing, not one to wait for.
PATIENCE_S = 45


class Load:
    """The clients of one run. The events file has one writer at a time."""

    def __init__(self, options):
        self._options = options
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._events = open(options.events, "w", buffering=1)  # pylint: disable=consider-using-with

    def note(self, kind, client, detail):
        with self._lock:
            self._events.write(f"{time.time():.4f} {kind} {client} {detail}\n")

    def _connect(self, port, user, database):
        connection = psycopg2.connect(host="127.0.0.1", port=port, user=user, dbname=database, connect_timeout=PATIENCE_S,
                                      application_name="lab_load")
        connection.autocommit = True
        return connection

    def _client(self, name, interval, step):
        """Calls step(cursor) over and over until the end, with at least `interval` seconds from one to the next."""
        connection = None
        while not self._stop.is_set():
            due = time.monotonic() + interval
            try:
                if connection is None:
                    connection = self._connect(self._options.port, "demo", "app")
                with connection.cursor() as cursor:
                    step(cursor)
            except psycopg2.Error as error:
                text = " ".join(str(error).split()) or type(error).__name__
                self.note("E", name, f"{error.pgcode or '-----'} {text}")
                if connection is None or connection.closed:
                    connection = None
                    self._stop.wait(0.1)
            self._stop.wait(max(0, due - time.monotonic()))
        if connection is not None:
            connection.close()

    def _writer(self, client):
        name = f"w{client}"
        number = 0

        def step(cursor):
            nonlocal number
            number += 1
            cursor.execute("INSERT INTO lab_writes (run, client, number) VALUES (%s, %s, %s)",
                           (self._options.run, client, number))
            self.note("W", name, number)
        self._client(name, self._options.interval, step)

    def _reader(self, client):
        name = f"r{client}"
        number = client

        def step(cursor):
            nonlocal number
            number = number * 7919 % ACCOUNTS + 1
            cursor.execute("SELECT inet_server_port(), abalance FROM pgbench_accounts WHERE aid = %s", (number,))
            self.note("R", name, cursor.fetchone()[0])
        self._client(name, self._options.interval, step)

    def _watch(self, port):
        """Notes the moment at which a standby has become a primary, to 10 ms."""
        connection = None
        was_standby = False
        while not self._stop.wait(0.01):
            try:
                connection = connection or self._connect(port, "postgres", "postgres")
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_is_in_recovery()")
                    is_standby = cursor.fetchone()[0]
            except psycopg2.Error:
                # The node is down, as it is meant to be in these experiments; it is asked again.
                connection = None
                continue
            if was_standby and not is_standby:
                self.note("P", "-", port)
            was_standby = is_standby

    def run(self):
        """Runs until SIGTERM or SIGINT. Returns 1 if a client is still waiting long after."""
        options = self._options
        threads = [threading.Thread(target=target, args=(argument,), daemon=True)
                   for target, arguments in ((self._writer, range(options.writers)), (self._reader, range(options.readers)),
                                             (self._watch, options.watch)) for argument in arguments]
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        for thread in threads:
            thread.start()
        self._stop.wait()
        deadline = time.monotonic() + PATIENCE_S
        for thread in threads:
            thread.join(max(0, deadline - time.monotonic()))
        stuck = sum(thread.is_alive() for thread in threads)
        if stuck:
            print(f"{stuck} clients got no answer within {PATIENCE_S} s", file=sys.stderr)
        return 1 if stuck else 0


def longest_gap(times):
    """The longest time between two of these events, which are in order."""
    return max((later - earlier for earlier, later in zip(times, times[1:])), default=0)


def report(options):
    """Prints the figures of a run; what happened after --since is told by its distance from it, in seconds."""
    writes, reads, served, errors, promotions = [], [], collections.Counter(), [], []
    with open(options.events) as events:
        for line in events:
            when, kind, client, detail = line.rstrip("\n").split(" ", 3)
            if kind == "W":
                writes.append(float(when))
            elif kind == "R":
                reads.append(float(when))
                served[detail] += 1
            elif kind == "E":
                errors.append((client, detail))
            elif kind == "P" and float(when) >= options.since:
                promotions.append(float(when))
    print("writes", len(writes))
    print("reads", len(reads))
    for port, count in sorted(served.items()):
        print(f"reads_{port}", count)
    print("longest_gap", f"{longest_gap(writes):.2f}")
    print("longest_read_gap", f"{longest_gap(reads):.2f}")
    if promotions:
        print("promoted", f"{promotions[0] - options.since:.2f}")
        after = next((when for when in writes if when > promotions[0]), None)
        if after is not None:
            print("first_write", f"{after - options.since:.2f}")
            print("first_write_after_promotion", f"{after - promotions[0]:.2f}")
    print("writer_errors", sum(client.startswith("w") for client, _ in errors))
    print("reader_errors", sum(client.startswith("r") for client, _ in errors))
    for detail, count in collections.Counter(detail for _, detail in errors).most_common(8):
        print(f"error {count} times: {detail[:80]}")


def main():
    parser = argparse.ArgumentParser(description="clients that never give up, and what happened to them")
    verbs = parser.add_subparsers(required=True, dest="verb")
    run = verbs.add_parser("run")
    run.add_argument("--port", type=int, required=True, help="port of the pooler")
    run.add_argument("--run", type=int, required=True, help="number of this run, kept with each row")
    run.add_argument("--writers", type=int, default=0)
    run.add_argument("--readers", type=int, default=0)
    run.add_argument("--interval", type=float, default=0.02, help="seconds from one statement of a client to its next")
    run.add_argument("--watch", type=int, nargs="*", default=[], help="ports of PostgreSQL")
    run.add_argument("--events", required=True)
    tell = verbs.add_parser("report")
    tell.add_argument("--events", required=True)
    tell.add_argument("--since", type=float, default=0)
    options = parser.parse_args()
    if options.verb == "report":
        report(options)
        return 0
    return Load(options).run()


if __name__ == "__main__":
    sys.exit(main())
