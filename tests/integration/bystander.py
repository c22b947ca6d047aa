"""For tests that do a pooler harm: a client that must not notice, and a look at what was left behind."""

import os
import threading
import time

from harness import PATIENCE, wait_until


class Bystander:
    """A client that keeps querying in a thread; a wrong, late or missing answer fails the test."""

    def __init__(self, pooler, connect=None, slowest=5.0):
        self.slowest = slowest * PATIENCE
        self.client = connect() if connect else pooler.wire()
        self.client.value("SELECT 0")
        self.answers = 0
        self.failure = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._query, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def _query(self):
        try:
            while not self.over.wait(0.005):
                began = time.monotonic()
                assert self.client.value(f"SELECT {self.answers}") == str(self.answers), "not the answer to the query"
                took = time.monotonic() - began
                assert took < self.slowest, f"an answer took {took:.1f} s"
                self.answers += 1
        except BaseException as failure:  # handed to the test's own thread
            self.failure = failure

    def goes_on(self, answers=20):
        """Waits for so many answers more."""
        wanted = self.answers + answers
        wait_until(lambda: self.failure or self.answers >= wanted, 20, "the bystander gets answers")
        self._check()

    def _check(self):
        if self.failure:
            raise AssertionError(f"the bystander was disturbed: {self.failure!r}") from self.failure

    def __exit__(self, kind, *_):
        if kind is None:
            self.goes_on()
        self.over.set()
        self.thread.join(20 * PATIENCE)
        self.client.close()
        if kind is None:
            self._check()


class Footprint:
    """What a pooler holds at the start of a test: clients, servers under way, and descriptors that neither explains."""

    BUSY = ("cl_waiting", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active", "sv_active_cancel",
            "sv_being_canceled", "sv_tested", "sv_login")

    def __init__(self, pooler):
        self.pooler = pooler
        self.console = pooler.console()
        self.start = self.last = None
        wait_until(self._settled, 20, "no server is being logged in")

    def _settled(self):
        """A login that others have caused ends, and would be missed afterwards."""
        self.start = self._now()
        return not any(key.endswith((" sv_login", " sv_tested")) for key in self.start)

    def _now(self):
        lists = {row["list"]: int(row["items"]) for row in self.console.rows("SHOW LISTS")}
        busy = {f"{row['database']}/{row['user']} {key}": int(row[key]) for row in self.console.rows("SHOW POOLS")
                for key in self.BUSY if row[key] != "0" and row["database"] != "pgbouncer"}
        clients, servers = self.console.rows("SHOW CLIENTS"), self.console.rows("SHOW SERVERS")
        descriptors = len(os.listdir(f"/proc/{self.pooler.pid}/fd")) - len(clients) - len(servers)
        return {"descriptors": descriptors, "clients": len(clients), "login_clients": lists["login_clients"],
                "used_clients": lists["used_clients"], **busy}

    def returns(self, seconds=10):
        """Waits until everything is as it was."""
        def same():
            self.last = self._now()
            return self.last == self.start
        try:
            wait_until(same, seconds, "everything is given back")
        except AssertionError as failure:
            raise AssertionError(f"{failure}\nat the start: {self.start}\nnow: {self.last}") from None
