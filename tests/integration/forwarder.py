"""A TCP forwarder between the pooler and one host, with which tests make what a network does: it stands still, swallows
connects, refuses them, or breaks connections off. The host itself goes on, unaware."""

import contextlib
import selectors
import socket
import struct
import threading

CHUNK = 65536
BACKLOG = 128


def reset(connection):
    """Closes so that the peer gets a reset instead of the end of the stream."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Forwarder:
    """Passes bytes between a port of its own and `target`, a loopback port. One thread; its modes:

    passing     as a cable does
    frozen      connects succeed and nothing passes, in either direction; what was sent arrives after the thaw
    dropping    as frozen, and connects get no answer: a firewall that drops
    refusing    connections are reset, connects refused: a firewall that rejects
    """

    def __init__(self, target):
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.port = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._peer = {}
        self._fillers = []
        self._mode = "passing"
        self._commands = []
        self._done = threading.Event()
        self._wake, self._waker = socket.socketpair()
        self._selector.register(self._wake, selectors.EVENT_READ, self._woken)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # -- from the test's thread

    def passing(self):
        self._call(self._to_passing)

    def freeze(self):
        self._call(lambda: self._stand_still("frozen"))

    def drop(self):
        self._call(lambda: self._stand_still("dropping"))

    def refuse(self):
        self._call(self._to_refusing)

    def cut(self):
        """Resets all connections, once; the next ones pass."""
        self._call(self._reset_all)

    def close(self):
        self._call(self._end)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _call(self, command):
        """Runs `command` on the forwarder's thread and waits for it."""
        self._done.clear()
        self._commands.append(command)
        self._waker.send(b"x")
        assert self._done.wait(10), "the forwarder does not answer"

    # -- on its own thread

    def _run(self):
        while self._mode != "ended":
            for key, _ in self._selector.select():
                # An earlier event of this round may have closed the socket of a later one.
                if key.fileobj.fileno() >= 0:
                    key.data(key.fileobj)

    def _woken(self, wake):
        wake.recv(CHUNK)
        while self._commands:
            self._commands.pop(0)()
        self._done.set()

    def _accept(self, listener):
        near, _ = listener.accept()
        far = socket.socket()
        # The host is on loopback: it answers or refuses at once, also while its processes are stopped.
        try:
            far.connect(("127.0.0.1", self.target))
        except OSError:
            far.close()
            reset(near)
            return
        for one, other in ((near, far), (far, near)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peer[one] = other
            self._selector.register(one, selectors.EVENT_READ, self._pass)

    def _pass(self, source):
        sink = self._peer[source]
        try:
            data = source.recv(CHUNK)
            if data:
                sink.sendall(data)
                return
        except OSError:
            reset(sink)
        self._forget(source)
        self._forget(sink)

    def _forget(self, connection):
        if self._peer.pop(connection, None) is not None and self._mode == "passing":
            self._selector.unregister(connection)
        connection.close()

    def _reset_all(self):
        for connection in list(self._peer):
            if self._mode == "passing":
                self._selector.unregister(connection)
            reset(connection)
        self._peer.clear()

    def _stand_still(self, mode):
        self._to_passing()
        for one in (self._listener, *self._peer):
            self._selector.unregister(one)
        self._mode = mode
        if mode == "dropping":
            # A full queue of connects makes the kernel drop further ones.
            self._listener.listen(0)
            for _ in range(3):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", self.port))
                self._fillers.append(filler)

    def _to_refusing(self):
        self._to_passing()
        self._reset_all()
        self._selector.unregister(self._listener)
        self._listener.close()
        self._mode = "refusing"

    def _to_passing(self):
        for filler in self._fillers:
            reset(filler)
        self._fillers.clear()
        if self._mode == "refusing":
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=BACKLOG)
        elif self._mode == "dropping":
            self._listener.listen(BACKLOG)
        if self._mode in ("refusing", "frozen", "dropping"):
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            for connection in self._peer:
                self._selector.register(connection, selectors.EVENT_READ, self._pass)
        self._mode = "passing"

    def _end(self):
        self._to_passing()
        self._reset_all()
        self._listener.close()
        self._mode = "ended"
