"""Just enough of PostgreSQL's protocol to log in and to ask one question."""
import socket
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


def login(port, database="postgres", user="postgres"):
    stream = socket.create_connection(("127.0.0.1", port), timeout=30)
    try:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
