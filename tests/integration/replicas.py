"""A primary and its streaming standbys, made to fail: promoted, killed, frozen, brought back, partitioned.

Making one takes about a second: the data folder is made once, with all objects that the tests of routing ask, and
copied for each host; a standby starts from the same copy and streams from there.
"""

import os
import pathlib
import shutil
import signal
import time

from forwarder import Forwarder
from harness import PATIENCE, PG15_BIN, free_port, make_dir, run, wait_until, write_file
from postgres import HBA, Cluster, wait_for_replay

# wal_log_hints and full_page_writes are what pg_rewind needs; the receiver tries again soon after a lost primary.
CONFIG = """
listen_addresses = '127.0.0.1'
fsync = off
dynamic_shared_memory_type = mmap
wal_log_hints = on
autovacuum = off
max_connections = 100
shared_buffers = 16MB
min_wal_size = 16MB
max_wal_size = 1GB
checkpoint_timeout = 1h
wal_level = replica
wal_keep_size = 64MB
max_wal_senders = 10
max_replication_slots = 10
wal_retrieve_retry_interval = 50
wal_receiver_status_interval = 1
hot_standby = on
client_connection_check_interval = 100
log_line_prefix = '%m [%p] %q%u@%d %a '
timezone = 'UTC'
"""

# host_port() tells which host answers and may be asked on any: it is STABLE. PostgreSQL's own inet_server_port() and
# pg_is_in_recovery() say that they ask for the host, so they are answered by the primary.
# The tables are those that the pooler finds when it looks at the catalogue first; what is made later is unknown to it
# for a while, and so is not read from a standby.
# sneaky() lies: it is STABLE and yet writes, by a function that is volatile.
SCHEMA = """
CREATE TABLE notes (n int, note text);
CREATE TABLE shadow (n int);
INSERT INTO shadow VALUES (1);
CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL);
CREATE TABLE transfers (token text NOT NULL, account int NOT NULL, amount int NOT NULL);
CREATE SEQUENCE counter;
CREATE FUNCTION host_port() RETURNS int STABLE LANGUAGE sql AS $$ SELECT current_setting('port')::int $$;
CREATE FUNCTION on_standby() RETURNS boolean STABLE LANGUAGE sql AS $$ SELECT pg_is_in_recovery() $$;
CREATE FUNCTION hold_on_standby() RETURNS int STABLE LANGUAGE plpgsql AS
  $$ BEGIN IF pg_is_in_recovery() THEN PERFORM pg_sleep(60); END IF; RETURN host_port(); END $$;
CREATE FUNCTION take_note(text) RETURNS int VOLATILE SECURITY DEFINER LANGUAGE sql AS
  $$ INSERT INTO notes VALUES (0, $1); SELECT host_port() $$;
CREATE FUNCTION sneaky(text) RETURNS int STABLE SECURITY DEFINER LANGUAGE plpgsql AS
  $$ BEGIN RETURN take_note($1); END $$;
CREATE VIEW all_notes AS SELECT n, note, host_port() AS port FROM notes;
GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO PUBLIC;
"""

ROLES = """
CREATE ROLE alice LOGIN PASSWORD 'alice secret';
CREATE ROLE watcher LOGIN PASSWORD 'watcher secret' IN ROLE pg_monitor;
CREATE ROLE replicator LOGIN REPLICATION;
"""


def fast_folder(base):
    """Where data folders are made: in memory if there is room, because their thousands of files are slow to remove from
    a disk; else in `base`."""
    memory = pathlib.Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 << 30:
        return make_dir(memory, "pgweir-")
    return make_dir(base, "r")


class Template:
    """The data folder that every host starts from, with database `app`, cleanly shut down; `base` holds it and them."""

    def __init__(self, base):
        self.base = fast_folder(base)
        self.home = make_dir(self.base, "tp")
        self.data = self.home / "data"
        run(PG15_BIN / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C",
            "--no-sync", "--no-instructions", "--wal-segsize=1")
        write_file(self.data / "pg_hba.conf", HBA)
        write_file(self.data / "postgresql.conf", CONFIG)
        first = Host(self, original=True)
        first.start()
        for statement in (*ROLES.strip().splitlines(), "CREATE DATABASE app"):
            first.ask(statement)
        with first.connect("app") as connection:
            connection.execute("GRANT ALL ON SCHEMA public TO PUBLIC")
            connection.execute(SCHEMA)
        first.stop()

    def close(self):
        shutil.rmtree(self.base)


class Host(Cluster):
    """One PostgreSQL server whose life the tests decide. Its `address` is what the pooler is told: the port of the
    server itself or, with `forwarded`, that of a forwarder before it."""

    def __init__(self, template, original=False, forwarded=False):  # pylint: disable=super-init-not-called
        self.bin = PG15_BIN
        self.port = free_port()
        self.home = template.home if original else make_dir(template.base, "h")
        self.data = self.home / "data"
        self.log = self.home / "log"
        self.forwarder = Forwarder(self.port) if forwarded else None
        self._process = None
        self._monitor = None
        if not original:
            run("cp", "-a", template.data, self.data)
        write_file(self.data / "postgresql.auto.conf", "")
        self.set_address()

    def set_address(self):
        with open(self.data / "postgresql.auto.conf", "a", encoding="utf-8") as config:
            config.write(f"port = {self.port}\nunix_socket_directories = '{self.home}'\n")

    @property
    def address(self):
        """The port for the pooler."""
        return self.forwarder.port if self.forwarder else self.port

    # -- settings

    def set(self, **settings):
        """ALTER SYSTEM and a reload, done when every new backend will see it; None resets. Not for a standby: see
        set_standby."""
        for name, value in settings.items():
            self.ask(f"ALTER SYSTEM RESET {name}" if value is None else f"ALTER SYSTEM SET {name} = '{value}'")
        loaded = self.value("SELECT pg_conf_load_time()")
        self.ask("SELECT pg_reload_conf()")
        wait_until(lambda: self._loaded_after(loaded), 10, "the new settings are in effect")

    def _loaded_after(self, moment):
        with self.connect("postgres") as connection:
            return connection.execute("SELECT pg_conf_load_time() > %s", (moment,)).fetchone()[0]

    # -- replication

    def follow(self, primary):
        """Makes the stopped server a standby of `primary` from its next start on; the slot there is made."""
        slot = f"slot_{self.port}"
        primary.ask("SELECT pg_create_physical_replication_slot(%s) WHERE NOT EXISTS"
                    " (SELECT FROM pg_replication_slots WHERE slot_name = %s)", slot, slot)
        with open(self.data / "postgresql.auto.conf", "a", encoding="utf-8") as config:
            config.write(f"primary_conninfo = 'host=127.0.0.1 port={primary.port} user=replicator"
                         f" application_name=host_{self.port}'\nprimary_slot_name = '{slot}'\n"
                         "recovery_target_timeline = 'latest'\n")
        write_file(self.data / "standby.signal", "")

    def is_standby(self):
        return self.value("SELECT pg_is_in_recovery()")

    def streams(self):
        return bool(self.ask("SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'"))

    def catch_up(self, primary, seconds=10):
        """Waits until everything the primary has written so far is replayed here."""
        wait_for_replay(primary, self, seconds)

    def pause_replay(self):
        self.ask("SELECT pg_wal_replay_pause()")
        wait_until(lambda: self.value("SELECT pg_get_wal_replay_pause_state()") == "paused", 5, "replay is paused")

    def resume_replay(self):
        self.ask("SELECT pg_wal_replay_resume()")

    def promote(self, seconds=10):
        """Promotes a standby; returns the moment (time.monotonic) at which it was first seen to take writes."""
        with self.connect("postgres") as watcher:
            watcher.execute("SELECT pg_promote(wait => false)")
            deadline = time.monotonic() + seconds * PATIENCE
            while watcher.execute("SELECT pg_is_in_recovery()").fetchone()[0]:
                assert time.monotonic() < deadline, "not promoted"
                time.sleep(0.002)
            return time.monotonic()

    # -- life and death

    def start(self):
        self._monitor = None
        super().start()

    def processes(self):
        """The postmaster and its children."""
        pid = self._process.pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def kill(self):
        """All processes die at once, as with the machine; the sockets are closed by the kernel."""
        self._forget_monitor()
        # Stopped first, nobody can start another process, nor notice that the postmaster is gone and say so.
        self.freeze()
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self._process.wait(10)

    def stop(self, mode="fast"):
        if self._process is not None:
            super().stop(mode)

    def freeze(self):
        """All processes stand still; connects still succeed, since the kernel takes them."""
        os.kill(self._process.pid, signal.SIGSTOP)
        for pid in self.processes()[1:]:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self):
        for pid in reversed(self.processes()):
            os.kill(pid, signal.SIGCONT)

    def is_running(self):
        return self._process is not None and self._process.poll() is None

    def sleepers(self):
        """Pids of the backends that are in pg_sleep."""
        return [row[0] for row in self.ask("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'")]

    def _forget_monitor(self):
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None

    def logged(self, text):
        """How often a text stands in the server's log."""
        return self.log.read_text(errors="replace").count(text)

    def close(self):
        """Ends the server, whatever its state, and the forwarder; the data are gone."""
        self._forget_monitor()
        if self.is_running():
            self.kill()
        if self.forwarder:
            self.forwarder.close()
        shutil.rmtree(self.home)


class Replicas:
    """Hosts of one cluster: `hosts[0]` starts as the primary, the others as its standbys. With `forwarded`, every host
    is behind a forwarder, for the pooler only: replication and the tests' own connections go past it."""

    def __init__(self, template, standbys=1, forwarded=False):
        self.hosts = []
        self.primary = self._add(Host(template, forwarded=forwarded))
        self.primary.start()
        for _ in range(standbys):
            one = self._add(Host(template, forwarded=forwarded))
            one.follow(self.primary)
            one.start()
        for one in self.standbys:
            wait_until(one.streams, 10, "the standby streams")

    def _add(self, host):
        self.hosts.append(host)
        return host

    @property
    def standbys(self):
        return [host for host in self.hosts if host is not self.primary]

    @property
    def standby(self):
        return self.standbys[0]

    @property
    def host_list(self):
        """host= and port= of all hosts, for a line of [databases]."""
        return f"host={','.join('127.0.0.1' for _ in self.hosts)} port={','.join(str(h.address) for h in self.hosts)}"

    def databases(self, options=""):
        """The three entries that stand for a read-write pair of ports and the routing one."""
        entry = f"{self.host_list} dbname=app {options}"
        return {"app": f"{entry} read_write_split=1", "app_rw": f"{entry} target_session_attrs=primary",
                "app_ro": f"{entry} target_session_attrs=prefer-standby"}

    def catch_up(self):
        for one in self.standbys:
            one.catch_up(self.primary)

    def set_synchronous(self, on=True):
        """With it no commit is acknowledged before the standby has it on disk."""
        self.primary.set(synchronous_standby_names="*" if on else None)
        if on:
            wait_until(self._commit_waits, 30, "commits wait for the standby")

    def _commit_waits(self):
        """Backends wait once the checkpointer has read the settings, which it does only when it has nothing else to do, and
        no view tells. So one asks for what cannot be had while replay is paused."""
        self.standby.pause_replay()
        with self.primary.connect() as direct:
            direct.execute("SET synchronous_commit = remote_apply")
            connection = direct.pgconn
            connection.send_query(b"SELECT pg_logical_emit_message(true, 'test', '')")

            def outcome():
                connection.consume_input()
                if not connection.is_busy():
                    return "done"
                return self.primary.ask("SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'",
                                        direct.info.backend_pid) and "waits"
            seen = wait_until(outcome, 10, "the commit is done or waits")
            self.standby.resume_replay()
            while connection.get_result() is not None:
                pass
        return seen == "waits"

    def promote(self, host=None):
        """Promotes a standby, which is the primary from now on; what happens to the old one is the caller's affair.
        Returns the moment at which it took writes."""
        host = host or self.standby
        moment = host.promote()
        self.primary = host
        return moment

    def rejoin(self, host, how="rewind"):
        """Brings a host back as a standby of the primary: `rewind` keeps its data and undoes what it wrote alone,
        `backup` makes it anew."""
        assert not host.is_running()
        if how == "backup":
            shutil.rmtree(host.data)
            run(PG15_BIN / "pg_basebackup", "-h", "127.0.0.1", "-p", self.primary.port, "-U", "replicator",
                "-D", host.data, "-X", "stream", "-c", "fast", "--no-sync")
        else:
            # pg_rewind compares timelines by the control file, which learns of the new one with a checkpoint.
            self.primary.ask("CHECKPOINT")
            run(PG15_BIN / "pg_rewind", "-D", host.data, "--no-sync",
                "--source-server", f"host=127.0.0.1 port={self.primary.port} user=postgres dbname=postgres")
        write_file(host.data / "postgresql.auto.conf", "")
        host.set_address()
        host.follow(self.primary)
        host.start()
        wait_until(host.streams, 10, "the host streams from the new primary")

    def close(self):
        for host in self.hosts:
            host.close()
