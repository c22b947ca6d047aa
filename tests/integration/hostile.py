"""A client that does a pooler harm, as a program of its own: hostile.py KIND PORT.

It goes on until it is killed, and writes one byte to its standard output for each piece of work that was done.
"""

import sys
import time

from wire import Wire, query

PIPELINED = 100_000


def done():
    sys.stdout.buffer.write(b".")
    sys.stdout.buffer.flush()


def slow_reader(client):
    """Takes 1 kB of an endless result every 10 ms."""
    client.send(query("SELECT repeat('x', 1000) FROM generate_series(1, 100000000)"))
    while True:
        if not client.socket.recv(1000):
            raise SystemExit("the connection was closed")
        done()
        time.sleep(0.01)


def one_byte(client):
    """Every byte of its queries is a packet of its own."""
    stream = [bytes([byte]) for byte in query("SELECT 'a query that is sent byte by byte'")]
    while True:
        for byte in stream:
            client.send(byte)
        assert client.collect().value() == "a query that is sent byte by byte"
        done()


def pipeline(client):
    """100,000 tiny queries in one write, as much as the socket takes, and again when they are answered."""
    stream = memoryview(query("") * PIPELINED)
    expected = len(b"I\0\0\0\4Z\0\0\0\5I") * PIPELINED
    while True:
        sent = received = 0
        while received < expected:
            client.socket.setblocking(False)
            try:
                sent += client.socket.send(stream[sent:]) if sent < len(stream) else 0
            except BlockingIOError:
                pass
            client.socket.settimeout(0.001 if sent < len(stream) else client.timeout)
            try:
                received += len(client.socket.recv(1 << 18))
            except TimeoutError:
                if sent == len(stream):
                    raise
        assert received == expected
        done()


def rows(client):
    """Rows of 4 MB and of one byte take turns."""
    while True:
        client.send(query("SELECT CASE WHEN i % 2 = 0 THEN repeat('x', 4000000) ELSE 'y' END "
                          "FROM generate_series(1, 20) AS i"))
        lengths = []
        while (message := client.skip_body())[0] != "Z":
            lengths.extend([message[1]] if message[0] == "D" else [])
        assert lengths == [7, 4000006] * 10
        done()


if __name__ == "__main__":
    kind, port = sys.argv[1:]
    one = Wire(int(port), timeout=120)
    one.login("postgres", "app")
    globals()[kind](one)
