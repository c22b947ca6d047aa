"""Just enough of PostgreSQL's protocol to log in and to ask one question: for clients that do nothing afterwards."""
import socket
import ssl
import struct

from .machine import Trouble


def receive(stream, size):
    data = b""
    while len(data) < size:
        part = stream.recv(size - len(data))
        if not part:
            raise Trouble("the proxy closed the connection during a login")
        data += part
    return data


def read_until_ready(stream):
    while True:
        head = receive(stream, 5)
        body = receive(stream, struct.unpack("!I", head[1:])[0] - 4)
        if head[:1] == b"E":
            raise Trouble("the proxy answers: " + body.replace(b"\0", b" ").decode(errors="replace"))
        if head[:1] == b"R" and body[:4] != b"\0\0\0\0":
            raise Trouble("the proxy asks for a password")
        if head[:1] == b"Z":
            return


def tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def login(port, database="postgres", user="postgres", context=None):
    stream = socket.create_connection(("127.0.0.1", port), timeout=30)
    try:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context:
            stream.sendall(struct.pack("!II", 8, 80877103))
            if receive(stream, 1) != b"S":
                raise Trouble("the proxy refuses TLS")
            stream = context.wrap_socket(stream)
        words = f"user\0{user}\0database\0{database}\0\0".encode()
        stream.sendall(struct.pack("!II", 8 + len(words), 196608) + words)
        read_until_ready(stream)
    except BaseException:
        stream.close()
        raise
    return stream


def ask(stream, sql):
    text = sql.encode() + b"\0"
    stream.sendall(b"Q" + struct.pack("!I", 4 + len(text)) + text)
    read_until_ready(stream)


def leave(stream):
    try:
        stream.sendall(b"X\0\0\0\4")
    except OSError:
        pass
    stream.close()


class Crowd:
    """Clients that have logged in and do nothing."""

    def __init__(self, port, count, tls=False):
        context = tls_context() if tls else None
        self.streams = []
        try:
            for _ in range(count):
                self.streams.append(login(port, context=context))
        except BaseException:
            self.close()
            raise

    def close(self):
        for stream in self.streams:
            leave(stream)
        self.streams = []
