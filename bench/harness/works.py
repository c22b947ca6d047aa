"""The works: what is asked of a proxy, how it is set up for that, and who measures it."""
from dataclasses import dataclass, field
from typing import Callable

from . import measures
from .lab import FIRST_USERS, PASSWORD, SCRAM_DIRECT, SCRAM_USER
from .pgbench import Load
from .proxies import FORWARDERS, POOLS, Profile

NOT_A_POOLER = "one server connection per client: it has no pool to measure"
NO_TLS = "does not speak PostgreSQL's TLS; forwarding the server's would leave out what is measured"
ONE_HANDSHAKE = "shakes hands with one client at a time"
NO_PASSWORDS = "knows no passwords"


@dataclass(frozen=True)
class Work:
    name: str
    what: str
    load: Load = Load()
    measure: Callable = measures.simple
    profile: Profile = field(default_factory=Profile)
    unit: str = "us/tx"  # of the main figure, CPU time
    rate: str = "tx/s"
    skip: dict = field(default_factory=dict)
    needs: tuple = ()
    fresh: bool = False  # the proxy is started anew for each round
    prepare: Callable = None  # done once for each proxy; such a work has a twin, as those with twin=True
    twin: bool = False
    crowd: int = 0
    rounds_max: int = 1000  # fewer than others where a round takes long
    counted: bool = True  # system calls can be counted: it has a load of pgbench or of logins

    @property
    def charted(self):
        """Whether CPU is what it is about."""
        return self.measure not in (measures.hostile, measures.first_logins)

    @property
    def has_twin(self):
        return self.twin or self.prepare is not None

    def load_for(self, proxy):
        """Where PostgreSQL itself asks for the password, it is another user's."""
        if self.load.user == SCRAM_USER and not proxy.kind.pools:
            return Load(self.load.options, self.load.clients, SCRAM_DIRECT, self.load.database, self.load.env)
        return self.load

    def why_not(self, kind):
        if kind.name in self.skip:
            return self.skip[kind.name]
        if self.name == "prepared" and not kind.prepared:
            return f"{kind.version} has no prepared statements in transaction mode"
        return kind.why_not(self.profile)


def skipping(reason, names=FORWARDERS):
    return {name: reason for name in sorted(names)}


HOSTILE = {"slow_reader": "a client that takes 1 kB of its endless result every 10 ms",
           "one_byte": "a client that sends every byte in a packet of its own",
           "pipeline": "a client with 100,000 tiny queries in one write",
           "rows": "a client whose rows of 4 MB and of a few bytes take turns"}


def hostile_works():
    for name, what in HOSTILE.items():
        yield Work(f"hostile_{name}", f"500 tx/s of 8 clients beside {what}", measure=measures.hostile, twin=True,
                   counted=False, rounds_max=5, skip=skipping(NOT_A_POOLER))


def works(idle):
    tls_env, scram_env = {"PGSSLMODE": "require"}, {"PGPASSWORD": PASSWORD}
    tls = Profile("tls", tls=True)
    no_tls = skipping(NO_TLS, {"haproxy"})
    login = {"measure": measures.logins, "rate": "/s"}
    scram = Profile("scram", auth="scram-sha-256")
    yield Work("simple", "pgbench -S, 32 clients on 20 servers")
    yield Work("extended", "the same with the extended protocol", Load(("-S", "-M", "extended")))
    yield Work("prepared", "the same with prepared statements", Load(("-S", "-M", "prepared")))
    yield Work("wide", "pgbench -S, 1,000 clients on 20 servers", Load(clients=1000), skip=skipping(NOT_A_POOLER))
    yield Work("tls", "simple over TLS", Load(env=tls_env), profile=tls, skip=no_tls, needs=("tls",))
    yield Work("split", "simple with read_write_split, primary and standby", profile=Profile("split", split=True),
               skip=skipping("routes nothing", {"floor", "haproxy", "direct"}), needs=("split",))
    yield Work("connect", "logins, 32 at a time", profile=Profile("logins", logins=True), **login)
    yield Work("scram", "SCRAM-SHA-256 logins, 32 at a time", Load(user=SCRAM_USER, env=scram_env), profile=scram,
               **login)
    yield Work("tls_connect", "logins over TLS, 32 at a time", Load(env=tls_env), profile=tls,
               skip=no_tls | skipping(ONE_HANDSHAKE, {"floor"}), needs=("tls",), **login)
    yield Work("connect_tx", "pgbench -S -C: a connection for each transaction", Load(("-S", "-C")))
    yield Work("scram_first", f"{FIRST_USERS} users' first SCRAM logins, beside 500 tx/s",
               Load(("-S", "-R", "500"), 4, SCRAM_USER, env=scram_env), measures.first_logins,
               Profile("first", auth="scram-sha-256", forced_user=True), rate="/s", skip=skipping(NO_PASSWORDS),
               fresh=True, twin=True, counted=False, rounds_max=5)
    yield Work("copy_out", "COPY of 100 MB to the client", measure=measures.copy_out, unit="s/GB", rate="MB/s",
               needs=("bulk",), counted=False)
    yield Work("copy_in", "COPY of 100 MB from the client", measure=measures.copy_in, unit="s/GB", rate="MB/s",
               needs=("bulk",), counted=False)
    yield Work("rows", "rows of 100 kB, 8 clients", Load(("-f", "rows.sql"), 8), measures.large_rows, needs=("rows",))
    yield Work("idle10k", f"simple beside {idle:,} idle clients", measure=measures.beside, crowd=idle,
               prepare=measures.prepare_crowd, profile=Profile("idle", max_clients=idle + 200),
               skip=skipping(NOT_A_POOLER))
    yield Work("idle_tls", f"simple over TLS beside {idle // 5:,} idle clients", Load(env=tls_env), measures.beside,
               Profile("idle_tls", tls=True, max_clients=idle // 5 + 200), crowd=idle // 5,
               prepare=measures.prepare_crowd, skip=skipping(NOT_A_POOLER), needs=("tls",))
    yield Work("pools500", f"simple on one of {POOLS} pools", measures.FIRST_POOL, measures.one_of_many_pools,
               prepare=measures.prepare_pools, skip=skipping(NOT_A_POOLER), needs=("pools",),
               profile=Profile("pools", databases=POOLS, lines=["server_idle_timeout = 3"]))
    yield from hostile_works()


def catalogue(idle=10_000):
    return {work.name: work for work in works(idle)}
