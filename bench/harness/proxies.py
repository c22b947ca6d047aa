"""The proxies that are measured, and how each is started for a profile (plain, scram, tls, ...)."""
import pathlib
import re
import shutil
from dataclasses import dataclass, field
from typing import Any

from .machine import BENCH, ROOT, Trouble, find_program, free_port, version_of

NAMES = ["direct", "floor", "haproxy", "pgbouncer", "pgweir", "pgweir2"]
FORWARDERS = {"direct", "floor", "haproxy"}  # one server connection per client: no pooling
POOLS = 500


@dataclass
class Profile:
    """How poolers are set up for a work."""
    name: str = "plain"
    auth: str = "trust"
    tls: bool = False
    databases: int = 0  # further names for the same database: pool000, pool001, ...
    split: bool = False
    max_clients: int = 2000
    lines: list = field(default_factory=list)


@dataclass
class Kind:
    """A proxy that could be started: what it is called, what runs."""
    name: str
    binary: Any = None
    version: str = ""

    @property
    def pools(self):
        return self.name not in FORWARDERS

    @property
    def is_pgweir(self):
        return self.name in ("pgweir", "pgweir2")

    @property
    def prepared(self):
        """Whether it serves prepared statements in transaction mode."""
        known = re.search(r"PgBouncer (\d+)\.(\d+)", self.version)
        return not known or (int(known[1]), int(known[2])) >= (1, 21)


@dataclass
class Proxy:
    """One that runs."""
    kind: Kind
    port: int
    process: Any = None

    @property
    def name(self):
        return self.kind.name


def copy_in(lab, name, binary):
    """The build tree may be unreadable for the unprivileged user, and may be rebuilt during the run."""
    target = lab.folder / name
    shutil.copy(binary, target)
    target.chmod(0o755)
    return target


def floor_binary(lab):
    built = ROOT / "build/release/bench/floor"
    if built.exists():
        return copy_in(lab, "floor", built)
    compiler = find_program("c++")
    if not compiler:
        raise Trouble("floor is not built, and there is no c++ to compile bench/floor.cpp with")
    source = copy_in(lab, "floor.cpp", BENCH / "floor.cpp")
    lab.processes.call(compiler, "-std=c++20", "-O2", "-o", lab.folder / "floor", source)
    return lab.folder / "floor"


def pgweir_binary(path):
    if not pathlib.Path(path).is_file():
        raise Trouble(f"there is no {path}: build it with cmake --preset release && cmake --build --preset release")
    return path


def find_kind(lab, name, pgweir, others):
    if name == "direct":
        return Kind(name)
    if name == "floor":
        return Kind(name, floor_binary(lab))
    if name in ("pgweir", "pgweir2"):
        binary = copy_in(lab, "pgweir.bin", pgweir_binary(pgweir))
        return Kind(name, binary, version_of(binary))
    if name in others:
        if not pathlib.Path(others[name]).is_file():
            raise Trouble(f"there is no {others[name]}")
        binary = copy_in(lab, f"{name}.bin", others[name])
        return Kind(name, binary, version_of(binary))
    if name not in NAMES:
        raise Trouble("no proxy has this name; --other NAME=BINARY adds one")
    binary = find_program(name)
    if not binary:
        raise Trouble(f"not installed (Debian: apt install {name})")
    return Kind(name, binary, version_of(binary, "-v" if name == "haproxy" else "--version"))


def find_kinds(lab, names, pgweir, others):
    """Those that can be started, and for the rest why not."""
    kinds, missing = [], {}
    for name in names:
        try:
            kinds.append(find_kind(lab, name, pgweir, others))
        except Trouble as trouble:
            missing[name] = str(trouble)
    if not kinds:
        raise Trouble("nothing to measure: " + "; ".join(f"{name}: {why}" for name, why in missing.items()))
    return kinds, missing


def haproxy_config(lab, port):
    path = lab.folder / "haproxy.cfg"
    path.write_text(f"""global
  nbthread 1
  maxconn 4000
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
listen postgres
  bind 127.0.0.1:{port}
  server postgres 127.0.0.1:{lab.pg_port}
""")
    return path


def database_lines(lab, kind, profile):
    if profile.split and kind.is_pgweir:
        yield (f"postgres = host=127.0.0.1,127.0.0.1 port={lab.pg_port},{lab.standby_port} dbname=postgres "
               "read_write_split=1")
    else:
        yield f"postgres = host=127.0.0.1 port={lab.pg_port} dbname=postgres"
    for number in range(profile.databases):
        yield f"pool{number:03} = host=127.0.0.1 port={lab.pg_port} dbname=postgres"


def extra_lines(lab, kind, profile):
    yield from profile.lines
    if kind.prepared and "PgBouncer" in kind.version:
        yield "max_prepared_statements = 200"
    if profile.tls:
        yield "client_tls_sslmode = require"
        yield f"client_tls_cert_file = {lab.certificate}"
        yield f"client_tls_key_file = {lab.key}"
    if kind.is_pgweir:
        yield "[pgweir]"
        yield f"worker_threads = {2 if kind.name == 'pgweir2' else 1}"


def pooler_config(lab, kind, port, profile):
    path = lab.folder / f"{kind.name}.ini"
    databases = "\n".join(database_lines(lab, kind, profile))
    extra = "\n".join(extra_lines(lab, kind, profile))
    path.write_text(f"""[databases]
{databases}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = {profile.auth}
auth_file = {lab.folder}/users.txt
pool_mode = transaction
default_pool_size = 20
max_client_conn = {profile.max_clients}
server_tls_sslmode = disable
log_connections = 0
log_disconnections = 0
logfile = {lab.folder}/{kind.name}.log
{extra}
""")
    return path


def start(lab, kind, profile, env=None, wrapper=()):
    if kind.name == "direct":
        return Proxy(kind, lab.pg_port)
    port = free_port()
    (lab.folder / f"{kind.name}.log").unlink(missing_ok=True)
    if kind.name == "floor":
        command = [kind.binary, port, lab.pg_port]
    elif kind.name == "haproxy":
        command = [kind.binary, "-db", "-f", haproxy_config(lab, port)]
    else:
        command = [kind.binary, "-q", pooler_config(lab, kind, port, profile)]
    return Proxy(kind, port, lab.processes.start(kind.name, [*wrapper, *command], port, env))


def stop(lab, proxy):
    if proxy.process:
        lab.processes.stop(proxy.process)
