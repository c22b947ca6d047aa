"""A throw-away PostgreSQL cluster: made, started, asked and removed by the tests."""

import contextlib
import os
import signal
import subprocess

import psycopg

from harness import as_run_user, free_port, make_dir, run, wait_until, write_file

USERS = """
SET password_encryption = 'md5';
CREATE ROLE md5_user LOGIN PASSWORD 'md5 secret';
SET password_encryption = 'scram-sha-256';
CREATE ROLE scram_user LOGIN PASSWORD 'scram secret';
CREATE ROLE plain_user LOGIN PASSWORD 'plain secret';
CREATE ROLE tls_user LOGIN PASSWORD 'tls secret';
CREATE ROLE alice LOGIN PASSWORD 'alice secret';
CREATE ROLE bob LOGIN;
CREATE ROLE finder LOGIN SUPERUSER PASSWORD 'finder secret';
CREATE ROLE nologin_user;
"""

HBA = """
local   all  all                      trust
host    all  md5_user    127.0.0.1/32 md5
host    all  scram_user  127.0.0.1/32 scram-sha-256
host    all  plain_user  127.0.0.1/32 password
hostssl all  tls_user    127.0.0.1/32 scram-sha-256
host    all  tls_user    127.0.0.1/32 reject
host    all  all         127.0.0.1/32 trust
host    replication scram_user 127.0.0.1/32 scram-sha-256
host    replication all  127.0.0.1/32 trust
"""

CONFIG = """
listen_addresses = '127.0.0.1'
fsync = off
dynamic_shared_memory_type = mmap
synchronous_commit = off
full_page_writes = off
autovacuum = off
max_connections = 300
shared_buffers = 64MB
max_wal_size = 2GB
wal_level = logical
max_prepared_transactions = 5
log_line_prefix = '%m [%p] %q%u@%d %a '
client_connection_check_interval = 100
timezone = 'UTC'
"""


class Cluster:
    """One PostgreSQL server on a free loopback port with databases `app` and `other`."""

    def __init__(self, base, bin_dir, authority=None):
        self.bin = bin_dir
        self.home = make_dir(base, "pg")
        self.data = self.home / "data"
        self.port = free_port()
        self.log = self.home / "log"
        self._process = None
        self._monitor = None
        run(self.bin / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C",
            "--no-sync", "--no-instructions")
        config = CONFIG + f"port = {self.port}\nunix_socket_directories = '{self.home}'\n"
        if authority is not None:
            cert, key = authority.issue(f"server{self.port}", "localhost")
            config += f"ssl = on\nssl_cert_file = '{cert}'\nssl_key_file = '{key}'\nssl_ca_file = '{authority.cert}'\n"
        (self.data / "postgresql.auto.conf").write_text(config)
        write_file(self.data / "pg_hba.conf", HBA)
        self.start()
        for statement in USERS.strip().splitlines():
            self.ask(statement)
        for name in ("app", "other"):
            self.ask(f"CREATE DATABASE {name}")
            with self.connect(name) as connection:
                connection.execute("GRANT ALL ON SCHEMA public TO PUBLIC")

    def start(self):
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen([self.bin / "postgres", "-D", self.data], stdout=log, stderr=log,
                                             cwd="/", **as_run_user())
        wait_until(self._accepts, 30, "PostgreSQL accepts connections")

    def _accepts(self):
        assert self._process.poll() is None, f"PostgreSQL ended:\n{self.log.read_text()}"
        try:
            self.connect("postgres").close()
            return True
        except psycopg.OperationalError:
            return False

    def stop(self, mode="fast"):
        """Stops the server; `mode` as in pg_ctl."""
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if self._process.poll() is None:
            run(self.bin / "pg_ctl", "stop", "-D", self.data, "-m", mode, "-w", "-t", "30")
        self._process.wait(30)

    @contextlib.contextmanager
    def frozen(self):
        """The postmaster stands still: no backend is started or missed. Those that run go on."""
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def connect(self, database="app", user="postgres", **options):
        """A direct connection, in autocommit mode, not through the pooler."""
        options = {"host": "127.0.0.1", "port": self.port, "dbname": database, "user": user, "autocommit": True,
                   "application_name": "monitor", **options}
        return psycopg.connect(**options)

    def ask(self, sql, *parameters):
        """Runs one statement over a connection kept for that purpose; returns its rows, if it has any."""
        if self._monitor is None or self._monitor.closed:
            self._monitor = self.connect("postgres")
        cursor = self._monitor.execute(sql, parameters or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, sql, *parameters):
        return self.ask(sql, *parameters)[0][0]

    def backends(self, database="app", **columns):
        """Pids of the client backends of `database`, optionally with further pg_stat_activity columns equal."""
        condition = "".join(f" AND {name} = %s" for name in columns)
        rows = self.ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = %s"
                        f" AND application_name <> 'monitor'{condition} ORDER BY backend_start, pid",
                        database, *columns.values())
        return [row[0] for row in rows]

    def secret(self, user):
        """What pg_authid holds for a user: an md5 or SCRAM secret."""
        return self.value("SELECT rolpassword FROM pg_authid WHERE rolname = %s", user)


def wait_for_replay(primary, standby, seconds):
    """Waits until everything `primary` has written so far is replayed on `standby`."""
    # The end of a record of its own. The flush position would not do: a commit need not wait for it. Nor the insert
    # position: at the start of a page it lies behind the page's header, where replay arrives only with the next record.
    position = primary.value("SELECT pg_logical_emit_message(true, 'test', '')")
    wait_until(lambda: standby.value("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", position), seconds, "replay")


class Standby(Cluster):
    """A streaming standby of a Cluster, made by pg_basebackup."""

    def __init__(self, base, primary):  # pylint: disable=super-init-not-called
        self.bin = primary.bin
        self.primary = primary
        self.home = make_dir(base, "sb")
        self.data = self.home / "data"
        self.port = free_port()
        self.log = self.home / "log"
        self._process = None
        self._monitor = None
        run(self.bin / "pg_basebackup", "-h", "127.0.0.1", "-p", primary.port, "-U", "postgres", "-D", self.data,
            "-R", "-X", "stream", "-c", "fast", "--no-sync")
        with open(self.data / "postgresql.auto.conf", "a", encoding="utf-8") as config:
            config.write(f"port = {self.port}\nunix_socket_directories = '{self.home}'\nhot_standby = on\n")
        self.start()

    def catch_up(self):
        """Waits until everything the primary has written so far is replayed here."""
        wait_for_replay(self.primary, self, 30)
