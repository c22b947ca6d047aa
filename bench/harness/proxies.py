"""The proxies that are measured, and how each is started for a profile (plain, scram, tls, ...)."""
import pathlib
import re
import shlex
import shutil
from dataclasses import dataclass, field
from typing import Any

from .machine import BENCH, ROOT, Trouble, find_program, free_port, version_of

NAMES = ["direct", "floor", "haproxy", "pgbouncer", "pgweir", "pgweir2"]
FORWARDERS = {"direct", "floor", "haproxy"}  # one server connection per client: no pooling
POOLS = 500
POOL_SIZE = 20


@dataclass
class Profile:
    """How poolers are set up for a work."""
    name: str = "plain"
    auth: str = "trust"
    tls: bool = False
    databases: int = 0  # further names for the same database: pool000, pool001, ...
    split: bool = False
    forced_user: bool = False  # whoever logs in, the servers see the user postgres
    logins: bool = False  # nothing but logins is asked: the floor then welcomes clients itself
    max_clients: int = 2000
    lines: list = field(default_factory=list)


@dataclass
class Kind:
    """A proxy that could be started: what it is called, what runs."""
    name: str
    binary: Any = None
    version: str = ""
    template: str = ""  # of its configuration, where that is not a pgbouncer.ini

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

    def why_not(self, profile):
        """Why it cannot be set up for a profile; None: it can."""
        if not self.template:
            return None
        if profile.databases or profile.split or profile.forced_user:
            return "a template is for one plain database"
        lacking = [name for name, wanted in (("tls_mode", profile.tls), ("auth_type", profile.auth != "trust"))
                   if wanted and "{" + name + "}" not in self.template]
        return f"its template has no {{{lacking[0]}}}" if lacking else None


@dataclass
class Proxy:
    """One that runs."""
    kind: Kind
    port: int
    process: Any = None
    instance: str = ""  # names its files

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
    lab.processes.call(compiler, "-std=c++20", "-O2", "-o", lab.folder / "floor", source, "-lssl", "-lcrypto")
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
        binary, template = others[name]
        for path in filter(None, (binary, template)):
            if not pathlib.Path(path).is_file():
                raise Trouble(f"there is no {path}")
        binary = copy_in(lab, f"{name}.bin", binary)
        return Kind(name, binary, version_of(binary), pathlib.Path(template).read_text() if template else "")
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


def haproxy_config(lab, instance, port):
    path = lab.folder / f"{instance}.cfg"
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
    forced = " user=postgres" if profile.forced_user else ""
    if profile.split and kind.is_pgweir:
        yield (f"postgres = host=127.0.0.1,127.0.0.1 port={lab.pg_port},{lab.standby_port} dbname=postgres "
               "read_write_split=1")
    else:
        yield f"postgres = host=127.0.0.1 port={lab.pg_port} dbname=postgres{forced}"
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
        if profile.split:
            yield "role_check_user = postgres"


def pooler_config(lab, kind, instance, port, profile):
    path = lab.folder / f"{instance}.ini"
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
default_pool_size = {POOL_SIZE}
max_client_conn = {profile.max_clients}
server_tls_sslmode = disable
log_connections = 0
log_disconnections = 0
logfile = {lab.folder}/{instance}.log
{extra}
""")
    return path


def template_command(lab, kind, instance, port, profile):
    """Fills in a template; its first line that has "command:" in it says how the program is called."""
    config = lab.folder / f"{instance}.conf"
    values = {"binary": kind.binary, "config": config, "folder": lab.folder, "listen_port": port,
              "server_port": lab.pg_port, "pool_size": POOL_SIZE, "max_clients": profile.max_clients,
              "auth_type": profile.auth, "users": lab.folder / "users.txt", "log": lab.folder / f"{instance}.log",
              "tls_mode": "require" if profile.tls else "disable",
              "tls_certificate": lab.certificate, "tls_key": lab.key}
    text = kind.template
    for name, value in values.items():
        text = text.replace("{" + name + "}", str(value))
    config.write_text(text)
    found = re.search(r"command:\s*(.+)$", text, re.MULTILINE)
    return shlex.split(found[1]) if found else [kind.binary, config]


def floor_options(lab, profile):
    if profile.logins:
        return ["welcome"]
    return [lab.pg_port, lab.certificate, lab.key] if profile.tls else [lab.pg_port]


def command_of(lab, kind, instance, port, profile):
    if kind.name == "floor":
        return [kind.binary, port, *floor_options(lab, profile)]
    if kind.name == "haproxy":
        return [kind.binary, "-db", "-f", haproxy_config(lab, instance, port)]
    if kind.template:
        return template_command(lab, kind, instance, port, profile)
    return [kind.binary, "-q", pooler_config(lab, kind, instance, port, profile)]


def start(lab, kind, profile, env=None, wrapper=(), suffix=""):
    """`suffix` tells a second one of a kind from the first."""
    if kind.name == "direct":
        return Proxy(kind, lab.pg_port)
    port, instance = free_port(), kind.name + suffix
    (lab.folder / f"{instance}.log").unlink(missing_ok=True)
    command = command_of(lab, kind, instance, port, profile)
    return Proxy(kind, port, lab.processes.start(instance, [*wrapper, *command], port, env), instance)


def stop(lab, proxy):
    if proxy.process:
        lab.processes.stop(proxy.process)
