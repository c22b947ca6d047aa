"""Random conversations with a server, made from a seed, and how the replies of two servers to one of them differ.

A server without a pooler answers a given sequence of bytes always in the same way, however they arrive. What a client
sends here keeps to what transaction pooling can promise: no session state but parameters and prepared statements.
"""

import random
import struct
import time

from wire import (COPY_DONE, FLUSH, SYNC, Closed, Wire, bind, close, copy_data, copy_fail, describe, execute,
                  function_call, parse, query)

NAMES = ("s0", "s1", "s2", "S Two", "s3")
PORTALS = ("", "", "p0", "p1")
COPY_LINES = (b"1\tcopied\n", b"2\tc", b"opied\n", b"3\tx\n4\ty\n", b"bad\tline\n", b"1\t2\t3\n", b"\\.\n", b"")
BINARY = tuple(struct.pack("!i", n) for n in range(4))

# Each with its number of parameters; {t} is the client's own table, `shared` is read by all.
PREPARED = (
    ("SELECT 1", 0), ("SELECT $1::int", 1), ("SELECT $1::int", 1), ("SELECT $1::text, $2::int", 2),
    ("SELECT generate_series(1, 5)", 0), ("SELECT n, s FROM {t} ORDER BY n, s LIMIT 7", 0), ("SELECT 1 / $1::int", 1),
    ("SELECT n, s FROM shared ORDER BY n", 0), ("VALUES (1, 'a'), (2, 'b'), (3, NULL)", 0), ("", 0), ("-- nothing", 0),
    ("INSERT INTO {t} VALUES ($1, $2)", 2), ("INSERT INTO {t} VALUES ($1, $2) RETURNING n", 2),
    ("UPDATE {t} SET s = $1::text WHERE n = $2 RETURNING n, s", 2), ("DELETE FROM {t} WHERE n > $1::int", 1),
    ("BEGIN", 0), ("COMMIT", 0), ("ROLLBACK", 0), ("SAVEPOINT a", 0), ("ROLLBACK TO a", 0), ("RELEASE a", 0),
    ("SELECT nope", 0), ("SELEC 1", 0), ("SELECT 'abc'::int", 0), ("DO $$ BEGIN RAISE NOTICE 'look'; END $$", 0),
    ("SELECT current_setting('TimeZone'), current_setting('DateStyle')", 0), ("SET TimeZone = 'Asia/Tokyo'", 0),
    ("SELECT set_config('TimeZone', $1::text, false)", 1), ("SHOW TimeZone", 0), ("RESET TimeZone", 0),
    ("DECLARE c CURSOR FOR SELECT generate_series(1, 9)", 0), ("FETCH 2 FROM c", 0), ("SELECT repeat('x', $1::int)", 1),
    ("SELECT count(*) FROM generate_series(1, $1::int)", 1), ("SELECT '1 day'::interval", 0),
    ("COPY {t} FROM STDIN", 0), ("COPY (SELECT generate_series(1, 3)) TO STDOUT", 0), ("SELECT 1; SELECT 2", 0),
    ("DEALLOCATE ALL", 0), ("DISCARD PLANS", 0),
)

SIMPLE = (
    "SELECT 1", "", ";", "SELECT 1; SELECT 2", "BEGIN; SELECT 1; COMMIT", "SELECT 1; SELECT 1/0; SELECT 2", "BEGIN",
    "BEGIN", "COMMIT", "COMMIT", "ROLLBACK", "BEGIN ISOLATION LEVEL SERIALIZABLE", "START TRANSACTION READ ONLY",
    "COMMIT AND CHAIN", "SAVEPOINT a", "ROLLBACK TO a", "RELEASE a", "INSERT INTO {t} VALUES (7, 'simple')",
    "INSERT INTO {t} VALUES (8, 'x'); SELECT nope", "SELECT * FROM {t} ORDER BY n, s",
    "UPDATE {t} SET s = s || 'u' WHERE n = 7", "SELECT 1/0", "SELEC", "SELECT 'ä'",
    "DO $$ BEGIN RAISE NOTICE 'look'; RAISE WARNING 'there'; END $$", "SET TimeZone = 'Europe/Prague'",
    "SET LOCAL TimeZone = 'America/Lima'", "RESET TimeZone", "RESET TIME ZONE", "SET DateStyle = 'SQL, DMY'",
    "SET application_name = 'mine'", "SET client_encoding = 'LATIN1'", "SET client_encoding = 'UTF8'", "SHOW TimeZone",
    "SHOW application_name", "SHOW client_encoding", "SET standard_conforming_strings = off",
    "SET IntervalStyle = 'iso_8601'", "SHOW IntervalStyle", "SELECT set_config('application_name', 'local', true)",
    "SELECT set_config('DateStyle', 'German', false)", "RESET ALL", "DISCARD ALL", "DEALLOCATE ALL", "DEALLOCATE s0",
    "deallocate prepare s1", 'DEALLOCATE "S Two"', "DEALLOCATE unknown", "SAVEPOINT u;DEALLOCATE s1;RELEASE u",
    "EXECUTE s0", "EXECUTE s1(1)", "EXECUTE s2(1, 'a')", 'EXECUTE "S Two"(1, 2)', "/* c */ EXECUTE s3 (5)",
    "DECLARE c CURSOR FOR SELECT generate_series(1, 9)", "FETCH 3 FROM c", "MOVE 1 IN c", "CLOSE c",
    "FETCH ALL FROM p0", "TRUNCATE {t}", "DISCARD TEMP", "DISCARD PLANS", "VACUUM",
    "CREATE TEMP TABLE tt (n int) ON COMMIT DROP", "INSERT INTO tt VALUES (1)", "SELECT * FROM tt",
    "COPY {t} FROM STDIN", "COPY {t} FROM STDIN", "COPY (SELECT n FROM {t}) TO STDOUT", "COPY (SELECT 1/0) TO STDOUT",
    "COPY {t} FROM STDIN; SELECT 5", "COPY nowhere FROM STDIN", "SELECT 1; COPY {t} FROM STDIN; COPY {t} FROM STDIN",
    "CREATE TABLE shared (x int)", "SELECT generate_series(1, 2000), 'some text'", "SELECT repeat('y', 100000)",
    "SELECT current_setting('TimeZone'), current_setting('DateStyle'), current_setting('client_encoding')",
)

# What a start-up packet may add; most clients add nothing.
STARTUP = ({}, {}, {}, {}, {}, {"application_name": "own"}, {"options": "-c TimeZone=Asia/Tokyo"},
           {"client_encoding": "LATIN1"}, {"DateStyle": "German", "options": "-c DateStyle=ISO"})


class Speaker:
    """What one client says; each step is a list of messages."""

    def __init__(self, rng, table):
        self.rng = rng
        self.table = table

    def step(self):
        kind = self.rng.random()
        if kind < 0.35:
            sql = self.simple()
            return [query(sql), *(part for _ in range(sql.count("FROM STDIN")) for part in self.copy_tail())]
        return self.pipeline() if kind < 0.8 else self.mistakes()

    def simple(self):
        return self.rng.choice(SIMPLE).format(t=self.table)

    def prepared(self):
        sql, count = self.rng.choice(PREPARED)
        return sql.format(t=self.table), count

    def values(self, count):
        return self.rng.choices((None, "0", "1", "7", "abc", "UTC", "", "12345678901234", b"\xff", "3", "2"), k=count)

    def types(self, count):
        return self.rng.choice(((), (), (), (23,) * count, (25,) * count))

    def name(self):
        return self.rng.choice(("", "", *NAMES)) if self.rng.random() < 0.97 else "unknown"

    def bind(self, name, count, portal):
        kind, formats = self.rng.random(), ()
        values = self.rng.choices(("1", "2", "7", "0", "5"), k=count)
        if kind < 0.2:
            values = self.values(count)
        elif kind < 0.3 and count:
            formats, values = (1,), self.rng.choices(BINARY, k=count)
        return bind(name, values, portal, formats, self.rng.choice(((), (), (0,), (1,))))

    def copy_tail(self):
        """The data of a COPY and its end: whether a server ignores a Sync before that depends on its speed."""
        parts = [copy_data(self.rng.choice(COPY_LINES)) for _ in range(self.rng.randrange(4))]
        return parts + [COPY_DONE if self.rng.random() < 0.8 else copy_fail("no more")]

    def pipeline(self):
        """Statements as drivers send them, with whatever they may leave out or add."""
        rng, parts = self.rng, []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            (sql, count), name, portal = self.prepared(), rng.choice(("", *NAMES)), rng.choice(PORTALS)
            if rng.random() < 0.05:
                sql, count, name = f"DEALLOCATE {rng.choice(('s0', 's1', 's2'))}", 0, ""
            if rng.random() < 0.7 or sql.startswith("DEALLOCATE s"):
                parts += [close("S", name)] if name and rng.random() < 0.7 else []
                parts.append(parse(name, sql, self.types(count)))
            parts += [describe("S", name)] if rng.random() < 0.3 else []
            parts += [rng.choice((SYNC, SYNC, FLUSH))] if rng.random() < 0.15 else []
            if rng.random() < 0.9:
                parts.append(self.bind(name, count, portal))
                parts += [describe("P", portal)] if rng.random() < 0.4 else []
                parts += [execute(portal, rng.choice((0, 0, 0, 1, 2))) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
                parts += self.copy_tail() if "FROM STDIN" in sql else []
                parts += [close("P", portal)] if rng.random() < 0.2 else []
            parts += [close("S", name)] if rng.random() < 0.2 else []
        return parts + rng.choice([[SYNC]] * 8 + [[FLUSH], []])

    def mistakes(self):
        """Messages that have little to do with each other."""
        rng = self.rng

        def parse_any():
            sql, count = self.prepared()
            return parse(self.name(), sql, self.types(count))

        makers = (parse_any, lambda: self.bind(self.name(), rng.randrange(4), rng.choice(PORTALS)),
                  lambda: describe("S", self.name()), lambda: describe("P", rng.choice(PORTALS)),
                  lambda: execute(rng.choice(PORTALS), rng.randrange(3)), lambda: close("S", self.name()),
                  lambda: close("P", rng.choice(PORTALS)), lambda: SYNC, lambda: SYNC, lambda: FLUSH,
                  lambda: query(self.simple()), lambda: function_call(177, BINARY[2], BINARY[3]),
                  lambda: function_call(154, BINARY[1], BINARY[0]), lambda: function_call(999999),
                  lambda: COPY_DONE, lambda: copy_data(b"1\tlate\n"), lambda: copy_fail("late"))
        return [rng.choice(makers)() for _ in range(rng.randrange(1, 5))]


def make_script(seed, table, steps):
    """Steps of (messages, whether the client then waits for all replies that come by themselves)."""
    rng = random.Random(seed)
    speaker = Speaker(rng, table)
    return [(speaker.step(), rng.random() < 0.6) for _ in range(steps)]


def farewell(token):
    """Ends whatever may be open: COPY, pipeline, transaction."""
    return b"".join([copy_fail("end"), SYNC, copy_fail("end"), SYNC, query("ROLLBACK"), copy_fail("end"), SYNC,
                     query(f"SELECT '{token}'")])


class Stream:
    """One connection and all replies that have come over it."""

    def __init__(self, port, startup):
        self.wire = Wire(port)
        self.wire.login("postgres", "app", **startup)
        self.welcome = dict(self.wire.parameters)
        self.got = []
        self.closed = False
        self.stuck = None

    def read(self, count):
        """Until so many messages have come in all; an answer that does not come is an AssertionError."""
        while len(self.got) < count and not self.closed:
            try:
                self.got.append(self.wire.read())
            except Closed:
                self.closed = True

    def catch_up(self, direct, count):
        """As read(), but False when replies are missing that may be."""
        patience, self.wire.timeout = self.wire.timeout, 0.3
        deadline = time.monotonic() + patience
        try:
            while True:
                try:
                    self.read(count)
                    return True
                except AssertionError:
                    if first_difference(direct, self)[1]:
                        return False
                    if time.monotonic() > deadline:
                        raise
        finally:
            self.wire.timeout = patience

    def read_until_quiet(self, seconds):
        while not self.closed and not self.wire.quiet_for(seconds):
            self.read(len(self.got) + 1)

    def read_until_token(self, token):
        while not self.closed and not (self.got and self.got[-1].body.endswith(token.encode())):
            self.read(len(self.got) + 1)
        self.read(len(self.got) + 2)  # CommandComplete and ReadyForQuery


def ask_directly(port, script, token, startup):
    """The replies of a server itself, and how many of them had come at the end of each step."""
    stream, counts = Stream(port, startup), []
    try:
        for messages, waits in script:
            stream.wire.send(*messages)
            if waits:
                try:
                    stream.read_until_quiet(0.008)
                except ConnectionError:
                    stream.closed = True
            counts.append(len(stream.got))
        stream.wire.send(farewell(token))
    except ConnectionError:
        pass
    stream.read_until_token(token)
    stream.wire.socket.close()
    return stream, counts


def ask_pooler(port, script, token, startup, reference, seed, leaves_at=None):
    """The same through a pooler, in pieces of any size; with `leaves_at` the client vanishes in the middle of a step.

    `reference` is what ask_directly() has found. After a difference that is excused the client goes no further.
    """
    rng, stream = random.Random(seed), Stream(port, startup)
    direct, counts = reference
    try:
        for number, (messages, waits) in enumerate(script[:len(counts)]):
            data = b"".join(messages)
            if number == leaves_at:
                stream.wire.send(data[:rng.randrange(len(data) + 1)])
                (stream.wire.abort if rng.random() < 0.5 else stream.wire.socket.close)()
                return stream
            while data:
                size = len(data) if rng.random() < 0.7 else rng.randrange(1, len(data) + 1)
                stream.wire.send(data[:size])
                data = data[size:]
                if data and rng.random() < 0.5:
                    time.sleep(0.001)  # lets the pooler see a piece
            if waits and not stream.catch_up(direct, counts[number]):
                break
        stream.wire.send(farewell(token))
    except ConnectionError:
        pass
    except AssertionError as late:
        stream.stuck = f"step {number}: {late}"
    if not stream.stuck:
        stream.read_until_token(token)
    stream.wire.socket.close()
    return stream


# -- comparison -----------------------------------------------------------------------------------------------


def row_description(body):
    """Without the OIDs of tables, which differ from run to run."""
    columns, position = [], 2
    while position < len(body):
        end = body.index(b"\0", position)
        table, *rest = struct.unpack("!IhIhih", body[end + 1:end + 19])
        columns.append((body[position:end], table != 0, *rest))
        position = end + 19
    return columns


def comparable(message):
    if message.type == "T":
        return "T", row_description(message.body)
    if message.type in "EN":  # the place in PostgreSQL's source is left out
        parts = [part.decode("latin1") for part in message.body.split(b"\0") if part]
        return message.type, [part for part in parts if part[0] not in "FLR"]
    return message.type, message.body


def told(stream):
    """The replies, without reports of a parameter that the client has been told already."""
    known = dict(stream.welcome)
    for message in stream.got:
        if message.type == "S":
            name, value = message.cstrings()[:2]
            if known.get(name) == value:
                continue
            known[name] = value
        yield comparable(message)


def says(reply, text):
    return reply[0] == "E" and any(text in part for part in reply[1])


def excused(direct, pooled, index):
    """What a pooler cannot know: in a failed transaction a server takes no statement that it has not got."""
    status = [reply[1] for reply in direct[:index] if reply[0] == "Z"][-1:]
    failed = status == [b"E"]
    return (failed and says(pooled[index], "C25P02")) or (says(direct[index], "C25P02") and pooled[index][0] == "1")


def first_difference(direct, pooled):
    """(text about it, whether it is excused) of the first reply that differs; (None, False) if none does so far."""
    a, b = list(told(direct)), list(told(pooled))
    for index, reply in enumerate(a):
        # The server ends because of what the client has sent; from here on it depends on what was on its way.
        if says(reply, "unexpected message type") or says(reply, "FATAL"):
            return compare(a[:index], b[:index])
    return compare(a, b)


def compare(a, b):
    for index, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return describe_difference(a, b, index), excused(a, b, index)
    return None, False


def difference(direct, pooled):
    """A text about the first reply that differs or is missing, or None."""
    text, is_excused = first_difference(direct, pooled)
    if is_excused:
        return None
    if text is None and pooled.stuck:
        text = describe_difference(list(told(direct)), list(told(pooled)), len(pooled.got))
    if text is None and not pooled.closed and not pooled.got[-1].type == direct.got[-1].type == "Z":
        text = "not all replies"
    return f"{pooled.stuck or ''} {text}" if text else None


def describe_difference(a, b, index):
    def lines(replies):
        return "".join(f"\n    {kind} {str(body)[:200]}" for kind, body in replies[max(0, index - 3):index + 3])

    return f"reply {index} differs; direct:{lines(a)}\n  pooled:{lines(b)}"


def written(script):
    """A script for people."""
    lines = []
    for messages, waits in script:
        shown = []
        for data in messages:
            shown.append(f"{data[:1].decode()} {data[5:80]}")
        lines.append(("wait " if waits else "     ") + "; ".join(shown))
    return "\n".join(lines)
