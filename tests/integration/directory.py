"""Directory servers for tests: OpenLDAP's slapd, and a stand-in that answers when the test lets it."""

import pathlib
import shutil
import socket
import subprocess
import threading

from harness import PATIENCE, as_run_user, free_port, listening, make_dir, run, wait_until, write_file

SLAPD = shutil.which("slapd", path="/usr/sbin:/usr/local/sbin:/usr/libexec")
SCHEMAS = pathlib.Path("/etc/ldap/schema")
INSTALLED = SLAPD is not None and (SCHEMAS / "inetorgperson.schema").exists()

BASE = "dc=example,dc=net"
SEARCHER = f"cn=searcher,{BASE}"
SEARCHER_PASSWORD = "look it up"
PASSWORDS = {"alice": "wonder land", "scram_user": "scram secret", "plain_user": "plain secret", "admin": "root secret",
             "odd, name+x": "odd secret"}

CONFIG = """
include {schemas}/core.schema
include {schemas}/cosine.schema
include {schemas}/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {home}/pid
{tls}
database mdb
directory {home}/data
suffix "{base}"
rootdn "cn=root,{base}"
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{searcher}" read by anonymous auth by * none
"""


def entry(name, password, **attributes):
    escaped = name.replace(",", "\\,").replace("+", "\\+")
    values = {"cn": name, "sn": name, **attributes}
    return (f"dn: uid={escaped},ou=people,{BASE}\nobjectClass: inetOrgPerson\nuid: {name}\n"
            + "".join(f"{key}: {value}\n" for key, value in values.items()) + f"userPassword: {password}\n\n")


def content():
    text = f"dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\no: example\ndc: example\n\n"
    text += f"dn: ou=people,{BASE}\nobjectClass: organizationalUnit\nou: people\n\n"
    text += (f"dn: {SEARCHER}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: searcher\n"
             f"userPassword: {SEARCHER_PASSWORD}\n\n")
    for name, password in PASSWORDS.items():
        text += entry(name, password, mail=f"{name.split(',')[0]}@example.net")
    # Two that one name finds.
    return text + entry("twin1", "twin secret", employeeType="twin") + entry("twin2", "twin secret", employeeType="twin")


class Slapd:
    """slapd with a few people, which lets only the searcher search. `certificate` is (cert, key) for StartTLS and ldaps."""

    def __init__(self, base, certificate=None):
        self.home = make_dir(base, "ldap")
        make_dir(self.home, "x").rename(self.home / "data")
        self.port, self.tls_port = free_port(), free_port()
        addresses = f"ldap://127.0.0.1:{self.port}/" + (f" ldaps://127.0.0.1:{self.tls_port}/" if certificate else "")
        tls = "TLSCertificateFile {}\nTLSCertificateKeyFile {}\n".format(*certificate) if certificate else ""
        config = write_file(self.home / "slapd.conf", CONFIG.format(home=self.home, schemas=SCHEMAS, base=BASE,
                                                                    searcher=SEARCHER, tls=tls))
        ldif = write_file(self.home / "content.ldif", content())
        run(SLAPD, "-T", "add", "-q", "-f", config, "-l", ldif)
        with open(self.home / "log", "wb") as log:
            self._process = subprocess.Popen([SLAPD, "-d", "0", "-f", config, "-h", addresses],
                                             stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", **as_run_user())
        wait_until(self._listening, 15, "slapd listens")

    def _listening(self):
        assert self._process.poll() is None, f"slapd ended:\n{(self.home / 'log').read_text()}"
        return listening(self.port)

    def stop(self):
        self._process.terminate()
        self._process.wait(15 * PATIENCE)


class SlowDirectory:
    """Says yes to every simple bind, but not before release(), nor after hold(). Counts the binds that have come in."""

    def __init__(self):
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._connections = []
        self.binds = []  # the names that came
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def release(self):
        self._released.set()

    def hold(self):
        self._released.clear()

    def close(self):
        self.release()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)
        for connection in self._connections:
            connection.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            while True:
                packet = connection.recv(4096)
                if len(packet) < 7 or packet[5] != 0x60:  # no BindRequest
                    return
                # LDAPMessage: 30 len 02 01 id; BindRequest: 60 len 02 01 03 04 len name …
                name = packet[12:12 + packet[11]].decode()
                with self._lock:
                    self.binds.append(name)
                self._released.wait(60)
                connection.sendall(b"\x30\x0c\x02\x01" + packet[4:5] + b"\x61\x07\x0a\x01\x00\x04\x00\x04\x00")
        except OSError:
            return
