"""One scenario, two programs: PgBouncer 1.18 as Debian ships it, and pgweir.

    @both(settings={"pool_mode": "session"})
    def test_something(pooler, seen):
        seen("what it answered", pooler.wire().query("SELECT 1").rows)

The function runs once with a PgBouncer and once with a pgweir, at the same time, each in front of a PostgreSQL of its
own; what it hands to `seen` under the same label must be equal. Ports, process numbers, folders and addresses in memory
are replaced by words first. Differences that may be are in differences.py, and nowhere else.

Poolers with equal options are shared by the tests of a module; `fresh=True` asks for one that nobody else has used.
"""

import concurrent.futures
import fnmatch
import functools
import inspect
import pathlib
import re
import socket
import struct
import time
import traceback
from dataclasses import dataclass

import pytest

import harness
from differences import DIFFERENCES
from pooler import Pooler
from wire import Closed, Wire

SHAPES = (
    (re.compile(r"^0x[0-9a-f]+$|(?<=[CS]-)0x[0-9a-f]+"), "0xPTR"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"),
    (re.compile(r"unix\(\d+\):\d+"), "unix(PID):PORT"),
    (re.compile(r"unix\(\d+\)"), "unix(PID)"),
    (re.compile(r"age=\d+s"), "age=Ns"),
    (re.compile(r"(query|transaction) time: \d+ us"), r"\1 time: N us"),
    (re.compile(r"\d+\.\d+\.\d+/bouncer"), "X.Y.Z/bouncer"),
    (re.compile(r"(PgBouncer|PgWeir) \d+\.\d+\.\d+"), "VERSION"),
)
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \S+ \[\d+\] (?P<level>[A-Z]+) (?P<text>.*)")


@dataclass
class Side:
    """One of the two programs and its PostgreSQL."""

    name: str
    binary: object
    cluster: object
    base: object

    def pooler(self, options):
        """TLS to the server is off: its default has changed in between, and no scenario is about it."""
        settings = {"server_tls_sslmode": "disable", **options.get("settings", {})}
        return Pooler(self.base, self.cluster, binary=self.binary, **{**options, "settings": settings})


class Seen:
    """What one program has shown in one test: label -> value, the values without what must differ."""

    def __init__(self, pooler):
        self.values = {}
        home = str(pooler.home)
        self._words = sorted(
            {
                home: "HOME",
                str(pooler.port): "PORT",
                str(pooler.cluster.port): "PGPORT",
                str(pooler.binary): "PROGRAM",
                str(pooler.cluster.home): "PGHOME",
            }.items(),
            key=lambda pair: -len(pair[0]),
        )
        self._pooler = pooler

    def __call__(self, label, value):
        assert label not in self.values, f"{label!r} is used twice"
        self.values[label] = self.mask(value)

    def mask(self, value):
        if isinstance(value, dict):
            return {self.mask(key): self.mask(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.mask(one) for one in value]
        if not isinstance(value, str):
            return value
        for text, word in self._words:
            value = re.sub(rf"(?<![0-9]){re.escape(text)}(?![0-9])", word, value)
        for shape, word in SHAPES:
            value = shape.sub(word, value)
        if self._pooler.process is not None:
            value = re.sub(rf"(?<![0-9]){self._pooler.pid}(?![0-9])", "PID", value)
        return value

    def row(self, label, row, what):
        """A row of SHOW `what`, without the columns that PgBouncer 1.18 does not have."""
        for name, value in row.items():
            if name not in newer_columns(what):
                self(f"{label} {name}", value)

    def messages(self, label, messages):
        """Protocol messages, byte for byte where there is no secret in them."""
        self(label, [readable(one) for one in messages])

    def answer(self, label, client, request):
        """All that comes back for a simple Query, or that the connection was closed."""
        self.messages(label, conversation(client, request))

    def log(self, label, pattern, since=0, count=1):
        """The lines of the log from the offset `since` on that match, without time and process; waits for `count`."""
        expression = re.compile(pattern)

        def lines():
            found = [LOG_LINE.match(line) for line in self._pooler.log()[since:].splitlines()]
            return [f"{one['level']} {one['text']}" for one in found if one and expression.search(one["text"])]

        deadline = time.monotonic() + 2 * harness.PATIENCE
        while len(lines()) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        self(label, lines())


@functools.lru_cache
def newer_columns(what):
    """The columns that are in the table of differences, under either name where one was renamed."""
    entries = [one for one in DIFFERENCES if (one.test, one.label) == (f"test_show_columns[{what}]", "columns")]
    return {name for one in entries for name, _ in (*one.adds, *one.lacks)}


@functools.lru_cache
def newer_settings():
    """The settings that PgBouncer 1.18 does not know, from the table of differences."""
    (entry,) = [one for one in DIFFERENCES if (one.test, one.label) == ("test_show_config", "order")]
    return frozenset(entry.adds)


def readable(message):
    """A message as text: errors and notices by their fields in order, random contents as a word."""
    kind, body = message.type, message.body
    if kind in "EN":
        return kind + "".join(
            f" {part[:1].decode()}={part[1:].decode(errors='replace')}" for part in body.split(b"\0") if part
        )
    if kind == "K":
        return f"K <{len(body)} bytes>"
    if kind == "R" and body[:4] in (struct.pack("!I", code) for code in (5, 11, 12)):
        return f"R {body[3]} <random>"
    return f"{kind} {body.decode('latin-1')!r}"


def conversation(client, request):
    """Sends bytes and reads up to ReadyForQuery or the end of the connection, which is told as a message itself."""
    try:
        client.send(request)
    except OSError:
        pass
    return until_ready(client)


def until_ready(client):
    """Everything up to ReadyForQuery or the end of the connection."""
    got = []
    try:
        while not got or got[-1].type != "Z":
            got.append(client.read())
    except Closed:
        got.append(End())
    return got


class End:
    """Stands for the end of a connection among messages."""

    type, body = "end of connection", b""


def probe(pooler, *parts, half_close=False, path=None):
    """Sends raw bytes on a new connection and reads to its end. With `half_close` the client says that it will send
    nothing more, which ends connections that would wait."""
    with Wire(pooler.port, path=path) as client:
        return rest_after(client, *parts, half_close=half_close)


def rest_after(client, *parts, half_close=True):
    """Sends bytes and reads to the end of the connection."""
    try:
        client.send(*parts)
        if half_close:
            client.socket.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # closed already: what came before that is still there
    return [*client.expect_closed(), End()]


class Ledger:
    """Which of the allowed differences have occurred, and in which tests they could have."""

    def __init__(self, differences):
        self.differences = differences
        self.collected = set()
        self.ran = set()
        self.used = set()

    def allows(self, test, label, theirs, ours):
        """Whether some entry of the table covers this difference."""
        for index, one in enumerate(self.differences):
            if (
                fnmatch.fnmatchcase(test, escaped(one.test))
                and fnmatch.fnmatchcase(label, escaped(one.label))
                and one.covers(theirs, ours)
            ):
                self.used.add(index)
                return True
        return False

    def unused(self):
        """Entries without effect, all of whose tests have run."""
        result = []
        for index, one in enumerate(self.differences):
            tests = {name for name in self.collected if fnmatch.fnmatchcase(name, escaped(one.test))}
            if index not in self.used and tests and tests <= self.ran:
                result.append(one)
        return result


def escaped(pattern):
    """Brackets are part of the names of tests, not character classes."""
    return pattern.replace("[", "[[]")


class Comparison:
    """The poolers of a module and the test that is running."""

    def __init__(self, sides, ledger):
        self.sides = sides
        self.ledger = ledger
        self.shared = {}
        self.own = []
        self.node = None
        self.threads = concurrent.futures.ThreadPoolExecutor(len(sides))

    def begin(self, node):
        self.node = node

    def end(self):
        own, self.own = self.own, []
        list(self.threads.map(Pooler.stop, own))

    def stop(self):
        """Ends the shared poolers; a crash shows here."""
        list(self.threads.map(Pooler.stop, [pooler for pair in self.shared.values() for pooler in pair]))
        self.threads.shutdown()

    def poolers(self, options, fresh):
        if fresh:
            pair = [side.pooler({**options, "start": False}) for side in self.sides]
            self.own.extend(pair)
            if options.get("start", True):
                list(self.threads.map(Pooler.start, pair))
            return pair
        key = repr(sorted(options.items()))
        if key not in self.shared:
            self.shared[key] = list(self.threads.map(lambda side: side.pooler(options), self.sides))
        return self.shared[key]

    def __call__(self, scenario, options, fresh):
        pair = self.poolers(options, fresh)
        seen = [Seen(pooler) for pooler in pair]
        running = [self.threads.submit(scenario, pooler, one) for pooler, one in zip(pair, seen)]
        failures = []
        for side, future in zip(self.sides, running):
            try:
                future.result()
            except Exception as failure:
                failures.append((side.name, failure))
        if failures:
            logs = "".join(f"\n-- log of {side.name}\n{pooler.log()[-1000:]}" for side, pooler in zip(self.sides, pair))
            told = "\n".join(
                f"{name}, {place(failure)}: {type(failure).__name__}: {failure}" for name, failure in failures
            )
            pytest.fail(told + logs, pytrace=False)
        self.check(*(one.values for one in seen))

    def check(self, theirs, ours):
        name = self.node.name
        self.ledger.ran.add(name)
        assert theirs or ours, "the scenario has shown nothing"
        wrong = []
        labels = [*theirs, *(label for label in ours if label not in theirs)]
        if theirs.get("exit code") != ours.get("exit code"):
            # One of them does not run: what the other one shows has no counterpart.
            labels = ["exit code"]
        for label in labels:
            before, after = theirs.get(label, MISSING), ours.get(label, MISSING)
            if before != after and not self.ledger.allows(name, label, before, after):
                wrong.append(f"{label}:\n    PgBouncer: {before!r}\n    pgweir:    {after!r}")
        if wrong:
            pytest.fail("\n".join(wrong), pytrace=False)


MISSING = "(nothing)"


def place(failure):
    """Where in a scenario something went wrong."""
    frames = [frame for frame in traceback.extract_tb(failure.__traceback__) if "/test_" in frame.filename]
    return f"{pathlib.Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"


def both(*, fresh=False, **options):
    """Makes a test of a scenario: a function of a pooler, a Seen, and further arguments that pytest knows."""

    def decorate(scenario):
        @functools.wraps(scenario)
        def test(compare, **arguments):
            compare(lambda pooler, seen: scenario(pooler, seen, **arguments), options, fresh)

        parameters = list(inspect.signature(scenario).parameters.values())[2:]
        test.__signature__ = inspect.Signature(
            [inspect.Parameter("compare", inspect.Parameter.POSITIONAL_OR_KEYWORD), *parameters]
        )
        del test.__wrapped__
        return test

    return decorate
