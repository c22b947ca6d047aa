"""A scripted stand-in for PostgreSQL: every connection runs a piece of Python, which may break any rule it likes.

    with FakeServer([lambda peer: peer.startup(), serve]) as fake:

The first connection runs the first script, and so on; the last script serves all that follow. When a script returns,
its connection is closed. What serve() answers names the connection and the query, so a mixed-up answer shows.
"""

import base64
import hashlib
import hmac
import socket
import struct
import threading

from harness import PATIENCE
from wire import CANCEL_REQUEST, SSL_REQUEST, TERMINATE, cstring, message

AUTH_OK = message("R", struct.pack("!I", 0))
PARAMETERS = {"server_version": "15.0", "server_encoding": "UTF8", "client_encoding": "UTF8", "DateStyle": "ISO, MDY",
              "IntervalStyle": "postgres", "TimeZone": "UTC", "standard_conforming_strings": "on",
              "integer_datetimes": "on", "application_name": "", "is_superuser": "on"}
KEY_DATA = message("K", struct.pack("!II", 4711, 42))
ROW_DESCRIPTION = message("T", struct.pack("!H", 1) + cstring("answer") +
                          struct.pack("!IHIhIH", 0, 0, 25, -1, 0xFFFFFFFF, 0))


class Gone(Exception):
    """The pooler closed the connection."""


def ready(status="I"):
    return message("Z", status.encode())


def parameter_status(name, value):
    return message("S", cstring(name) + cstring(value))


def data_row(value):
    return message("D", struct.pack("!Hi", 1, len(value)) + value.encode())


def complete(tag="SELECT 1"):
    return message("C", cstring(tag))


def error(sqlstate, text, severity="FATAL"):
    return message("E", b"S" + cstring(severity) + b"C" + cstring(sqlstate) + b"M" + cstring(text) + b"\0")


ALL_PARAMETERS = b"".join(parameter_status(name, value) for name, value in PARAMETERS.items())
WELCOME = AUTH_OK + ALL_PARAMETERS + KEY_DATA + ready()


class Peer:
    """The server's end of one connection."""

    def __init__(self, number, connection):
        self.number = number
        self.socket = connection
        self.buffer = b""

    def send(self, *parts):
        try:
            self.socket.sendall(b"".join(parts))
        except OSError as failure:
            raise Gone from failure

    def read_bytes(self, count):
        while len(self.buffer) < count:
            try:
                data = self.socket.recv(65536)
            except OSError as failure:
                raise Gone from failure
            if not data:
                raise Gone
            self.buffer += data
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def startup(self):
        """Reads the start-up packet, declining encryption; a cancel request ends the connection."""
        while True:
            length, code = struct.unpack("!II", self.read_bytes(8))
            rest = self.read_bytes(length - 8)
            if code == CANCEL_REQUEST:
                raise Gone
            if code != SSL_REQUEST:
                return rest
            self.send(b"N")

    def read(self):
        kind, length = struct.unpack("!cI", self.read_bytes(5))
        return kind.decode(), self.read_bytes(length - 4)

    def query(self):
        """The text of the next Query that is not one of the pooler's own SETs; those are carried out."""
        while True:
            kind, body = self.read()
            if kind == "X":
                raise Gone
            assert kind == "Q", f"the stand-in speaks the simple protocol only, not {kind}"
            sql = body[:-1].decode()
            if not sql.startswith(("SET ", "ROLLBACK")):
                return sql
            self.send(complete("SET"), ready())

    def answer(self, sql):
        return ROW_DESCRIPTION + data_row(f"{self.number}: {sql}") + complete() + ready()

    def until_closed(self):
        """Says nothing more; leaves when told goodbye, as PostgreSQL does."""
        tail = b""
        while tail != TERMINATE:
            tail = (tail + self.read_bytes(1))[-len(TERMINATE):]


def login(peer):
    peer.startup()
    peer.send(WELCOME)


def serve(peer):
    """A server as it should be."""
    login(peer)
    while True:
        peer.send(peer.answer(peer.query()))


def scram(peer, password, *, iterations=4096, nonce=None, signature=None, wrong=None):
    """Demands SCRAM-SHA-256 and carries it through, or with something in it replaced."""
    peer.startup()
    peer.send(message("R", struct.pack("!I", 10) + b"SCRAM-SHA-256\0\0"))
    _, body = peer.read()
    first_bare = body[body.index(b"\0") + 5:].decode().removeprefix("n,,")
    client_nonce = first_bare.partition(",r=")[2]
    salt = b"0123456789abcdef"
    server_first = f"r={nonce or client_nonce + 'server'},s={base64.b64encode(salt).decode()},i={iterations}"
    peer.send(message("R", struct.pack("!I", 11) + (wrong or server_first).encode()))
    _, body = peer.read()
    without_proof = body.decode().rpartition(",p=")[0]
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    auth_message = ",".join((first_bare, server_first, without_proof)).encode()
    right = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), auth_message, "sha256")
    verifier = signature if signature is not None else b"v=" + base64.b64encode(right)
    peer.send(message("R", struct.pack("!I", 12) + verifier), WELCOME)


class FakeServer:
    def __init__(self, scripts):
        self.scripts = scripts
        self.peers = []
        self.failures = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            with self.lock:
                for peer in self.peers:
                    try:
                        peer.socket.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
            thread.join(10 * PATIENCE)
            assert not thread.is_alive(), "a script of the stand-in hangs"
        if kind is None and self.failures:
            raise self.failures[0]

    @property
    def address(self):
        return f"host=127.0.0.1 port={self.port} dbname=fake"

    @property
    def logins(self):
        """How many connections there have been, cancel requests apart."""
        with self.lock:
            return len(self.peers)

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            # A cancel request does not use up a script.
            connection.settimeout(60 * PATIENCE)
            if self._is_cancel(connection):
                connection.close()
                continue
            with self.lock:
                peer = Peer(len(self.peers), connection)
                self.peers.append(peer)
                script = self.scripts[min(peer.number, len(self.scripts) - 1)]
            thread = threading.Thread(target=self._run, args=(peer, script), daemon=True)
            self.threads.append(thread)
            thread.start()

    @staticmethod
    def _is_cancel(connection):
        try:
            head = connection.recv(8, socket.MSG_PEEK)
        except OSError:
            return False
        return len(head) == 8 and struct.unpack("!I", head[4:])[0] == CANCEL_REQUEST

    def _run(self, peer, script):
        try:
            script(peer)
        except Gone:
            pass
        except BaseException as failure:  # handed to the test's own thread
            self.failures.append(failure)
        finally:
            peer.socket.close()
