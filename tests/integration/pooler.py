"""The pooler under test as a process: its configuration files, start, console, signals and end."""

import os
import signal
import subprocess

import harness
from harness import free_port, listening, make_dir, wait_until, write_file
from wire import Wire, WireError

DEFAULT_SETTINGS = {
    "listen_addr": "127.0.0.1",
    "auth_type": "trust",
    "admin_users": "admin",
    "stats_users": "stats",
    "pool_mode": "transaction",
    "default_pool_size": "5",
    "query_wait_timeout": "30",
    "server_login_retry": "1",
    "log_stats": "0",
}
DEFAULT_USERLIST = {name: "" for name in ("admin", "stats", "postgres", "alice", "bob")}


class Pooler:
    """One pooler process with its own folder, port, ini file and userlist.

    `databases` maps entry names to connection strings; a value without host= gets the cluster's address.
    `pgweir` holds the section [pgweir], which is written for pgweir only. `binary` is the program, by default the one
    under test.
    """

    def __init__(self, base, cluster, *, settings=None, databases=None, users=None, peers=None, pgweir=None,
                 userlist=None, start=True, arguments=(), binary=None):
        self.cluster = cluster
        self.becomes(binary or harness.BINARY)
        self.home = make_dir(base, "w")
        self.port = free_port()
        self.ini = self.home / "pooler.ini"
        self.log_file = self.home / "log"
        self.stderr_file = self.home / "stderr"
        self.pidfile = self.home / "pid"
        self.auth_file = self.home / "userlist.txt"
        self.settings = {**DEFAULT_SETTINGS, "listen_port": self.port, "unix_socket_dir": self.home,
                         "logfile": self.log_file, "pidfile": self.pidfile, "auth_file": self.auth_file,
                         **(settings or {})}
        self.databases = databases if databases is not None else {"app": "dbname=app", "other": "dbname=other"}
        self.users = users or {}
        self.peers = peers or {}
        self.pgweir = {"worker_threads": 2, **(pgweir or {})}
        self.userlist = {**DEFAULT_USERLIST, **(userlist or {})}
        self.arguments = list(arguments)
        self.process = None
        self._expected_exit = None
        if start:
            self.start()

    def becomes(self, binary):
        """From the next start on it is another program."""
        self.binary = binary
        self.is_pgbouncer = harness.is_pgbouncer(binary)

    # -- configuration ------------------------------------------------------------------------------------

    def ini_text(self):
        def lines(pairs):
            return "".join(f"{key} = {value}\n" for key, value in pairs.items() if value is not None)

        text = "[databases]\n" + lines({name: self._address(value) for name, value in self.databases.items()})
        text += "\n[pgbouncer]\n" + lines(self.settings)
        if self.users:
            text += "\n[users]\n" + lines(self.users)
        if self.peers:
            text += "\n[peers]\n" + lines(self.peers)
        if not self.is_pgbouncer:
            text += "\n[pgweir]\n" + lines(self.pgweir)
        return text

    def _address(self, value):
        return value if "host=" in value else f"host=127.0.0.1 port={self.cluster.port} {value}"

    def write_config(self, ini_text=None):
        write_file(self.ini, ini_text if ini_text is not None else self.ini_text())
        users = "".join('"{}" "{}"\n'.format(name.replace('"', '""'), secret.replace('"', '""'))
                        for name, secret in self.userlist.items())
        write_file(self.auth_file, users, 0o600)

    # -- process ------------------------------------------------------------------------------------------

    def spawn(self, *more):
        """Starts the process without waiting for it."""
        self.write_config()
        stderr = open(self.stderr_file, "ab")
        environment = {**os.environ, "HOME": str(self.home), "UBSAN_OPTIONS": "print_stacktrace=1",
                       "TSAN_OPTIONS": "second_deadlock_stack=1"}
        self.process = subprocess.Popen([self.binary, "-q", *self.arguments, *more, self.ini],
                                        stdin=subprocess.DEVNULL, stdout=stderr,
                                        stderr=stderr, cwd=self.home, env=environment, **harness.as_run_user())
        stderr.close()

    def start(self):
        self.spawn()
        wait_until(self._listening, 15, f"the pooler listens; log:\n{self.log()}")
        return self

    def restart_online(self, seconds=20, old_stays=False):
        """A new process takes over (-R) from the running one, which ends by itself unless `old_stays`; returns it."""
        old = self.process
        self.spawn("-R")
        wait_until(self._has_pidfile, seconds, f"the new process is up; log:\n{self.log()}")
        if not old_stays:
            old.wait(seconds * harness.PATIENCE)
            assert old.returncode == 0, f"exit code {old.returncode}:\n{self.log()}"
        return old

    def _has_pidfile(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the pooler ended with {self.process.returncode}:\n{self.log()}")
        try:
            return self.pidfile.read_text() == f"{self.pid}\n"
        except FileNotFoundError:
            return False

    def _listening(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the pooler ended with {self.process.returncode}:\n{self.log()}")
        return listening(self.port)

    @property
    def pid(self):
        return self.process.pid

    def signal(self, number):
        self.process.send_signal(number)

    def wait_exit(self, seconds=10, code=0):
        """Waits for the process to end by itself and checks its exit code and its reports."""
        self.process.wait(seconds * harness.PATIENCE)
        assert self.process.returncode == code, f"exit code {self.process.returncode}:\n{self.log()}"
        self.check_reports()

    def stop(self):
        """Ends the process at once, whatever its state, and checks how it went."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.signal(signal.SIGTERM if self.is_pgbouncer else signal.SIGQUIT)
            try:
                self.process.wait(10 * harness.PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"the pooler did not end when told to:\n{self.log()}") from None
        assert self.process.returncode == 0 or self.is_pgbouncer, f"exit {self.process.returncode}:\n{self.log()}"
        self.check_reports()

    def check_reports(self):
        text = self.log()
        assert not harness.SANITIZER_REPORT.search(text), f"the pooler reported an error:\n{text[-8000:]}"

    def log(self):
        return "".join(path.read_text(errors="replace") for path in (self.stderr_file, self.log_file)
                       if path.exists())

    def memory_kib(self, field="VmRSS"):
        with open(f"/proc/{self.pid}/status") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1])
        raise AssertionError(f"no {field} for process {self.pid}")

    # -- clients ------------------------------------------------------------------------------------------

    def wire(self, user="postgres", database="app", password=None, timeout=10.0, **parameters):
        """A raw protocol client that has logged in."""
        client = Wire(self.port, timeout=timeout)
        client.login(user, database, password, **parameters)
        return client

    def dsn(self, user="postgres", database="app", **options):
        return {"host": "127.0.0.1", "port": self.port, "user": user, "dbname": database, "connect_timeout": 10,
                **options}

    def console(self, user="admin", timeout=10.0):
        return Console(self.port, user, None, timeout)

    def console_login(self, password, user="admin"):
        return Console(self.port, user, password, 10.0)

    def admin(self, command):
        """Runs one console command on a connection of its own; returns its rows as dicts of text."""
        with self.console() as console:
            return console.rows(command)

    def pool(self, database="app", user="postgres"):
        """The row of SHOW POOLS for one pool, numbers as int; None while there is no such pool."""
        for row in self.admin("SHOW POOLS"):
            if row["database"] == database and row["user"] == user:
                return {key: int(value) if value and value.isdigit() else value for key, value in row.items()}
        return None

    def clients(self, database="app"):
        return [row for row in self.admin("SHOW CLIENTS") if row["database"] == database]

    def servers(self, database="app"):
        return [row for row in self.admin("SHOW SERVERS") if row["database"] == database]

    def wait_waiting(self, count, database="app", user="postgres", seconds=5):
        """Waits until exactly `count` clients of a pool are queued for a server."""
        def reached():
            pool = self.pool(database, user)
            return pool is not None and pool["cl_waiting"] == count
        wait_until(reached, seconds, f"cl_waiting = {count}")


class Console(Wire):
    """The admin console, by simple Query."""

    def __init__(self, port, user, password, timeout):
        super().__init__(port, timeout=timeout)
        self.login(user, "pgbouncer", password)

    def rows(self, command):
        result = self.query(command)
        if result.error:
            raise WireError(result.error)
        return [dict(zip(result.columns, row)) for row in result.rows]
