"""A PostgreSQL client that sees every message: it sends what it is told, well-formed or not, and hides nothing.

It follows the chapter "Frontend/Backend Protocol" of the PostgreSQL manual.
"""

import base64
import hashlib
import hmac
import os
import socket
import struct
import time
from dataclasses import dataclass, field

from harness import PATIENCE

PROTOCOL_3_0 = 196608
PROTOCOL_3_2 = 196610
SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
CANCEL_REQUEST = 80877102


class WireError(Exception):
    """An ErrorResponse; the fields of the message are in .fields, keyed by their letter."""

    def __init__(self, fields):
        super().__init__(f"{fields.get('S')} {fields.get('C')}: {fields.get('M')}")
        self.fields = fields

    @property
    def code(self):
        return self.fields.get("C")

    @property
    def text(self):
        return self.fields.get("M")


class Closed(Exception):
    """The peer closed the connection."""


@dataclass
class Message:
    type: str
    body: bytes

    def fields(self):
        """The fields of an ErrorResponse or NoticeResponse."""
        return {part[:1].decode(): part[1:].decode() for part in self.body.split(b"\0") if part}

    def cstrings(self):
        return [part.decode() for part in self.body.split(b"\0")]


@dataclass
class Result:
    """All that came back up to and including ReadyForQuery."""

    messages: list = field(default_factory=list)
    columns: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    tags: list = field(default_factory=list)
    errors: list = field(default_factory=list)
    notices: list = field(default_factory=list)
    parameters: dict = field(default_factory=dict)
    status: str = ""

    @property
    def error(self):
        return self.errors[0] if self.errors else None

    @property
    def types(self):
        """The message types as one string, for example "TDCZ"."""
        return "".join(message.type for message in self.messages)

    def value(self):
        assert not self.errors, self.errors
        return self.rows[0][0]


# -- messages a client sends ----------------------------------------------------------------------------------


def message(kind, body=b""):
    return kind.encode() + struct.pack("!I", len(body) + 4) + body


def cstring(text):
    return (text if isinstance(text, bytes) else text.encode()) + b"\0"


def startup_packet(parameters, version=PROTOCOL_3_0):
    body = struct.pack("!I", version) + b"".join(cstring(k) + cstring(v) for k, v in parameters.items()) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def request_packet(code, rest=b""):
    return struct.pack("!II", 8 + len(rest), code) + rest


def query(sql):
    return message("Q", cstring(sql))


def parse(name, sql, types=()):
    return message("P", cstring(name) + cstring(sql) + struct.pack(f"!H{len(types)}I", len(types), *types))


def bind(statement="", values=(), portal="", formats=(), result_formats=()):
    body = cstring(portal) + cstring(statement)
    body += struct.pack(f"!H{len(formats)}H", len(formats), *formats) + struct.pack("!H", len(values))
    for value in values:
        if value is None:
            body += struct.pack("!i", -1)
        else:
            raw = value if isinstance(value, bytes) else str(value).encode()
            body += struct.pack("!i", len(raw)) + raw
    return message("B", body + struct.pack(f"!H{len(result_formats)}H", len(result_formats), *result_formats))


def describe(kind, name=""):
    return message("D", kind.encode() + cstring(name))


def close(kind, name=""):
    return message("C", kind.encode() + cstring(name))


def execute(portal="", limit=0):
    return message("E", cstring(portal) + struct.pack("!I", limit))


SYNC = message("S")
FLUSH = message("H")
TERMINATE = message("X")
COPY_DONE = message("c")


def copy_data(data):
    return message("d", data)


def copy_fail(text):
    return message("f", cstring(text))


def function_call(oid, *arguments):
    """A FunctionCall with binary arguments and a binary result."""
    body = struct.pack("!IHHH", oid, 1, 1, len(arguments))
    for argument in arguments:
        body += struct.pack("!i", len(argument)) + argument
    return message("F", body + struct.pack("!H", 1))


# -- SCRAM-SHA-256, client side -------------------------------------------------------------------------------


class ScramClient:
    def __init__(self, password, gs2="n,,", binding=b""):
        self.password = password.encode()
        self.gs2 = gs2
        self.binding = base64.b64encode(gs2.encode() + binding).decode()
        self.nonce = base64.b64encode(os.urandom(18)).decode()
        self.first_bare = f"n=,r={self.nonce}"
        self.server_signature = None

    def first(self):
        return (self.gs2 + self.first_bare).encode()

    def final(self, server_first):
        server_first = server_first.decode()
        attributes = dict(part.split("=", 1) for part in server_first.split(","))
        assert attributes["r"].startswith(self.nonce)
        salted = hashlib.pbkdf2_hmac("sha256", self.password, base64.b64decode(attributes["s"]), int(attributes["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        without_proof = f"c={self.binding},r={attributes['r']}"
        auth_message = ",".join((self.first_bare, server_first, without_proof)).encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), auth_message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        self.server_signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), auth_message, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final):
        assert base64.b64decode(server_final.decode().removeprefix("v=")) == self.server_signature


def md5_response(user, password, salt):
    inner = hashlib.md5((password + user).encode()).hexdigest()
    return "md5" + hashlib.md5(inner.encode() + salt).hexdigest()


# -- the connection -------------------------------------------------------------------------------------------


class Wire:
    """One connection. Every read has a deadline; nothing is sent that was not asked for."""

    def __init__(self, port, host="127.0.0.1", path=None, timeout=10.0, receive_buffer=None, source=None):
        self.timeout = timeout * PATIENCE
        if path is not None:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(f"{path}/.s.PGSQL.{port}")
        else:
            self.socket = socket.socket()
            if receive_buffer is not None:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            if source is not None:
                self.socket.bind((source, 0))
            self.socket.settimeout(self.timeout)
            self.socket.connect((host, port))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(self.timeout)
        self.buffer = b""
        self.parameters = {}
        self.key = None
        self.authentication = []
        self.negotiated = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, *parts):
        self.socket.sendall(b"".join(parts))

    def start_tls(self, context, direct=False):
        """Changes to TLS: after an SSLRequest that was answered S, or at once with `direct`."""
        if not direct:
            self.send(request_packet(SSL_REQUEST))
            assert self.read_bytes(1) == b"S"
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        return self

    def close(self):
        """Says goodbye as a well-behaved client does."""
        try:
            self.socket.sendall(TERMINATE)
        except OSError:
            pass
        self.socket.close()

    def abort(self):
        """Vanishes: the peer gets a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    # -- reading

    def _fill(self, count):
        deadline = time.monotonic() + self.timeout
        while len(self.buffer) < count:
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self.socket.recv(65536)
            except ConnectionError as error:
                raise Closed(str(error)) from None
            except TimeoutError:
                raise AssertionError(f"no answer within {self.timeout} s; have {self.buffer[:200]!r}") from None
            if not data:
                raise Closed("end of file")
            self.buffer += data
        self.socket.settimeout(self.timeout)

    def read_bytes(self, count):
        self._fill(count)
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def read(self):
        """The next message, whatever it is."""
        kind, length = struct.unpack("!cI", self.read_bytes(5))
        return Message(kind.decode(), self.read_bytes(length - 4))

    def skip_body(self):
        """Reads the next message without keeping its body; returns its type and the length of the body."""
        kind, length = struct.unpack("!cI", self.read_bytes(5))
        left = length - 4
        while left > 0:
            if not self.buffer:
                self._fill(1)
            taken = min(left, len(self.buffer))
            self.buffer = self.buffer[taken:]
            left -= taken
        return kind.decode(), length - 4

    def read_type(self, kind):
        """The next message, which must be of this type."""
        got = self.read()
        assert got.type == kind, f"expected {kind}, got {got.type}: {got.body[:300]!r}"
        return got

    def quiet_for(self, seconds):
        """True when nothing arrives for so long."""
        if self.buffer:
            return False
        self.socket.settimeout(seconds)
        try:
            self.buffer += self.socket.recv(65536)
            return False
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(self.timeout)

    def expect_closed(self):
        """Reads to the end of the stream; returns the messages that still came."""
        got = []
        while True:
            try:
                got.append(self.read())
            except Closed:
                return got

    def expect_fatal(self, text=None, code=None):
        """The peer must send an error, possibly after other messages, and then close; returns its fields."""
        errors = [m.fields() for m in self.expect_closed() if m.type == "E"]
        assert errors, "closed without an error message"
        last = errors[-1]
        assert last["S"] == "FATAL", last
        if text is not None:
            assert last["M"] == text, last
        if code is not None:
            assert last["C"] == code, last
        return last

    def collect(self, until="Z"):
        """Reads up to and including the first message of one of these types and sorts what came."""
        result = Result()
        while True:
            got = self.read()
            result.messages.append(got)
            self._sort(got, result)
            if got.type in until:
                return result

    def _sort(self, got, result):
        if got.type == "T":
            result.columns = row_description(got.body)
        elif got.type == "D":
            result.rows.append(data_row(got.body))
        elif got.type == "C":
            result.tags.append(got.body[:-1].decode())
        elif got.type == "E":
            result.errors.append(got.fields())
        elif got.type == "N":
            result.notices.append(got.fields())
        elif got.type == "S":
            name, value = got.cstrings()[:2]
            result.parameters[name] = value
            self.parameters[name] = value
        elif got.type == "Z":
            result.status = got.body.decode()

    # -- conversations

    def query(self, sql):
        """One simple Query; errors are in the result, not raised."""
        self.send(query(sql))
        return self.collect()

    def value(self, sql):
        return self.query(sql).value()

    def extended(self, *parts):
        """The given messages and a Sync."""
        self.send(*parts, SYNC)
        return self.collect()

    def login(self, user, database, password=None, version=PROTOCOL_3_0, **parameters):
        """Startup and authentication up to the first ReadyForQuery; raises WireError when refused."""
        self.send(startup_packet({"user": user, "database": database, **parameters}, version))
        return self.finish_login(user, password)

    def finish_login(self, user, password=None):
        scram = None
        while True:
            got = self.read()
            if got.type == "E":
                raise WireError(got.fields())
            if got.type == "v":
                newest, count = struct.unpack("!II", got.body[:8])
                self.negotiated = (newest, [name.decode() for name in got.body[8:].split(b"\0")[:count]])
                continue
            assert got.type == "R", f"unexpected {got}"
            scram = self._authenticate(got.body, user, password, scram)
            if self.authentication[-1] == 0:
                return self._welcome()

    def _authenticate(self, body, user, password, scram):
        code = struct.unpack("!I", body[:4])[0]
        self.authentication.append(code)
        if code == 3:
            self.send(message("p", cstring(password)))
        elif code == 5:
            self.send(message("p", cstring(md5_response(user, password, body[4:8]))))
        elif code == 10:
            scram = ScramClient(password)
            first = scram.first()
            self.send(message("p", cstring("SCRAM-SHA-256") + struct.pack("!I", len(first)) + first))
        elif code == 11:
            self.send(message("p", scram.final(body[4:])))
        elif code == 12:
            scram.verify(body[4:])
        elif code != 0:
            raise AssertionError(f"unknown authentication request {code}")
        return scram

    def _welcome(self):
        """From AuthenticationOk to ReadyForQuery."""
        result = Result()
        while True:
            got = self.read()
            result.messages.append(got)
            self._sort(got, result)
            if got.type == "E":
                raise WireError(got.fields())
            if got.type == "K":
                self.key = got.body
            if got.type == "Z":
                return result


def send_cancel(port, key, host="127.0.0.1"):
    """Sends a CancelRequest on a connection of its own and waits until the peer has closed it."""
    with socket.create_connection((host, port), 10 * PATIENCE) as connection:
        connection.settimeout(10 * PATIENCE)
        connection.sendall(request_packet(CANCEL_REQUEST, key))
        try:
            assert connection.recv(1) == b""
        except ConnectionResetError:
            pass


def row_description(body):
    """The column names of a RowDescription."""
    return [name for name, _ in row_types(body)]


def row_types(body):
    """(name, type oid) of each column of a RowDescription."""
    (count,) = struct.unpack("!H", body[:2])
    columns, at = [], 2
    for _ in range(count):
        end = body.index(b"\0", at)
        columns.append((body[at:end].decode(), struct.unpack("!I", body[end + 7:end + 11])[0]))
        at = end + 19
    return columns


def data_row(body):
    """The values of a DataRow, as text; None for NULL."""
    (count,) = struct.unpack("!H", body[:2])
    values, at = [], 2
    for _ in range(count):
        (length,) = struct.unpack("!i", body[at:at + 4])
        at += 4
        if length < 0:
            values.append(None)
        else:
            values.append(body[at:at + length].decode(errors="replace"))
            at += length
    return values
