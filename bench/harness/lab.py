"""A throw-away PostgreSQL with the data that the chosen works need."""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from .machine import Trouble, find_postgres, find_program, free_port, raise_limits, server_user
from .processes import Processes

PASSWORD = "a password for the bench"
SCRAM_USER = "bench_scram"  # poolers ask it for a password; PostgreSQL trusts them
SCRAM_DIRECT = "bench_scram_direct"  # PostgreSQL itself asks it for a password
FIRST_USERS = 200  # first000, ...: poolers have their passwords as text
BULK_ROWS = 100_000
ROW_BYTES = 100_000


class Lab:
    def __init__(self, folder, needs=(), max_connections=400):
        self.folder = pathlib.Path(folder)
        self.needs = set(needs)
        self.processes = Processes(self.folder)
        self.postgres = []
        self.bin = find_postgres()
        self.pg_port = free_port()
        self.standby_port = None
        self.max_connections = max_connections

    def begin(self):
        if "tls" in self.needs:
            self.make_certificate()
        self.start_primary()
        self.call("pgbench", "-i", "-q", "-s", "5", "postgres")
        self.write_users()
        if "bulk" in self.needs:
            self.make_bulk()
        if "rows" in self.needs:
            self.make_rows()
        if "split" in self.needs:
            self.start_standby()

    def start_primary(self):
        data = self.folder / "data"
        self.processes.call(self.bin / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync")
        hba = data / "pg_hba.conf"
        rule = f"host all {SCRAM_DIRECT} 127.0.0.1/32 scram-sha-256\n"
        # Clients come from several addresses of the loopback interface.
        hba.write_text((rule + hba.read_text()).replace("127.0.0.1/32", "127.0.0.0/8"))
        tls = f"ssl=on\nssl_cert_file='{self.certificate}'\nssl_key_file='{self.key}'\n" if "tls" in self.needs else ""
        with open(data / "postgresql.conf", "a") as conf:
            conf.write(f"port={self.pg_port}\nlisten_addresses='127.0.0.1'\nfsync=off\nmax_wal_size='4GB'\n"
                       f"max_connections={self.max_connections}\nunix_socket_directories=''\n{tls}")
        self.start_server(data, "postgres", self.pg_port)

    def start_server(self, data, name, port):
        self.postgres.append(self.processes.start(name, [self.bin / "postgres", "-D", data], port))
        deadline = time.monotonic() + 30
        while True:
            try:
                self.processes.call(self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", port)
                return
            except Trouble:
                if time.monotonic() > deadline:
                    raise Trouble(f"{name} does not get ready") from None
                time.sleep(0.05)

    def start_standby(self):
        self.standby_port = free_port()
        data = self.folder / "standby"
        self.call("pg_basebackup", "-D", data, "-R", "-X", "stream", "-c", "fast", "--no-sync")
        with open(data / "postgresql.conf", "a") as conf:
            conf.write(f"port={self.standby_port}\n")
        self.start_server(data, "standby", self.standby_port)

    def call(self, program, *arguments):
        """A client program of PostgreSQL on the primary, as the superuser."""
        return self.processes.call(self.bin / program, "-h", "127.0.0.1", "-p", self.pg_port, "-U", "postgres",
                                   *arguments)

    def sql(self, *statements):
        commands = [part for statement in statements for part in ("-c", statement)]
        return self.call("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", "postgres", *commands).strip()

    @property
    def certificate(self):
        return self.folder / "server.crt"

    @property
    def key(self):
        return self.folder / "server.key"

    def make_certificate(self):
        openssl = find_program("openssl")
        if not openssl:
            raise Trouble("openssl is missing, and the works with TLS need a certificate (Debian: apt install openssl)")
        self.processes.call(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                            "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", self.key,
                            "-out", self.certificate)
        os.chmod(self.key, 0o600)

    def write_users(self):
        self.sql(f"SET password_encryption = 'scram-sha-256'; CREATE ROLE {SCRAM_USER} SUPERUSER LOGIN "
                 f"PASSWORD '{PASSWORD}'; CREATE ROLE {SCRAM_DIRECT} SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
        secret = self.sql(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{SCRAM_USER}'")
        first = "".join(f'"first{number:03}" "{PASSWORD}"\n' for number in range(FIRST_USERS))
        (self.folder / "users.txt").write_text(f'"postgres" ""\n"{SCRAM_USER}" "{secret}"\n{first}')

    @property
    def bulk_file(self):
        return self.folder / "bulk.copy"

    def make_bulk(self):
        """Some 100 MB of rows of about 1 kB, as a table and as a file."""
        self.sql("CREATE UNLOGGED TABLE bench_bulk AS SELECT i AS id, repeat(md5(i::text), 30) AS body "
                 f"FROM generate_series(1, {BULK_ROWS}) AS i", "CREATE UNLOGGED TABLE bench_bulk_in (LIKE bench_bulk)",
                 f"\\copy bench_bulk TO '{self.bulk_file}'")

    def make_rows(self):
        self.sql("CREATE TABLE bench_rows (id int PRIMARY KEY, body text)",
                 "ALTER TABLE bench_rows ALTER body SET STORAGE EXTERNAL",
                 f"INSERT INTO bench_rows SELECT i, repeat('x', {ROW_BYTES}) FROM generate_series(1, 100) AS i",
                 "VACUUM ANALYZE bench_rows")

    def end(self):
        servers = set(self.postgres)
        for process in [p for p in reversed(self.processes.running) if p not in servers]:
            self.processes.stop(process)
        for process in reversed(self.postgres):
            stop_postgres(process)
        self.processes.stop_all()


def stop_postgres(process):
    """A fast shutdown, by the postmaster only: it ends its own children."""
    if process.poll() is not None:
        return
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        os.kill(process.pid, number)
        try:
            process.wait(10)
            return
        except subprocess.TimeoutExpired:
            continue


def exit_on(number, _frame):
    sys.exit(128 + number)


@contextlib.contextmanager
def laboratory(needs=(), max_connections=400):
    """A running Lab in a temporary folder; everything is ended and removed afterwards, whatever happens."""
    raise_limits()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, exit_on)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pgweir-bench-"))
    try:
        os.chmod(folder, 0o755)
        user = server_user()
        if user:
            os.chown(folder, user.pw_uid, user.pw_gid)
        lab = Lab(folder, needs, max_connections)
        try:
            lab.begin()
            yield lab
        finally:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)  # nothing may keep us from ending what we started
            lab.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
