"""A name server for tests, on a loopback address of its own: the port is fixed, and files for it name no port."""

import socket
import struct
import threading

ADDRESS = "127.0.53.53"
A, SOA, PTR = 1, 6, 12


class NameServer:
    """Answers for IPv4 addresses, their names and serials of zones; every other name does not exist. Needs root."""

    def __init__(self):
        self.addresses = {}
        self.serials = {}
        self.pointers = {}
        self.silent = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((ADDRESS, 53))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self):
        self._socket.sendto(b"", (ADDRESS, 53))
        self._thread.join()
        self._socket.close()

    def _serve(self):
        while True:
            packet, peer = self._socket.recvfrom(512)
            if not packet:
                return
            if self.silent:
                continue
            labels, at = [], 12
            while packet[at]:
                labels.append(packet[at + 1:at + 1 + packet[at]].decode())
                at += packet[at] + 1
            (kind,) = struct.unpack_from(">H", packet, at + 1)
            self._socket.sendto(self._answer(packet, at + 5, ".".join(labels), kind), peer)

    def _answer(self, packet, end, name, kind):
        data = []
        if kind == A:
            data = [socket.inet_aton(address) for address in self.addresses.get(name, [])]
        elif kind == SOA and name in self.serials:
            data = [b"\0\0" + struct.pack(">5I", self.serials[name], 60, 60, 60, 60)]
        elif kind == PTR and name in self.pointers:
            labels = self.pointers[name].split(".")
            data = [b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"]
        known = name in self.addresses or name in self.serials or name in self.pointers
        reply = packet[:2] + struct.pack(">5H", 0x8180 if known else 0x8183, 1, len(data), 0, 0) + packet[12:end]
        for one in data:
            reply += struct.pack(">HHHIH", 0xC00C, kind, 1, 0, len(one)) + one
        return reply
