"""What the tests of routing, of read-your-writes and of failover share: a pooler before several hosts, and what its
console says of them."""

from harness import wait_until

USERS = {"watcher": "watcher secret"}

# Tests wait for probes; what is tested with the default interval says so.
FAST = {"role_check_user": "watcher", "role_check_interval": "50ms"}
DEFAULT_INTERVAL = {"role_check_user": "watcher"}


def options(replicas, *, settings=None, pgweir=None, databases=None, database_options="", interval=None):
    """Arguments for a Pooler before these hosts: databases app, app_rw and app_ro."""
    return {"settings": settings, "userlist": USERS, "pgweir": {**(interval or FAST), **(pgweir or {})},
            "databases": databases or replicas.databases(database_options)}


def hosts(pooler):
    """The rows of SHOW HOSTS by port, numbers as int."""
    return {int(row["port"]): numbers(row) for row in pooler.admin("SHOW HOSTS")}


def routes(pooler, database="app"):
    """The row of SHOW ROUTES of one database, counters as int."""
    return next(numbers(row) for row in pooler.admin("SHOW ROUTES") if row["database"] == database)


def pools(pooler, database="app", user="postgres"):
    """The rows of SHOW POOLS of one database and user by port of the host, numbers as int; one without a host, for the
    clients that have none at the moment, is left out."""
    rows = [row for row in pooler.admin("SHOW POOLS") if (row["database"], row["user"]) == (database, user)]
    return {int(row["port"]): numbers(row) for row in rows if row["port"] is not None}


def numbers(row):
    return {key: int(value) if value and value.lstrip("-").isdigit() else value for key, value in row.items()}


def where(pooler, database="app"):
    """The port of the host that answers the first read of a new client."""
    with pooler.wire(database=database) as client:
        return int(client.value("SELECT host_port()"))


def wait_routed(pooler, replicas, seconds=10):
    """Waits until the pooler knows the primary, and every standby and its catalogue: reads go to a standby."""
    standbys = {host.port for host in replicas.standbys}

    def routed():
        known = hosts(pooler)
        roles = [known.get(host.address, {}).get("role") for host in (replicas.primary, *replicas.standbys)]
        return roles == ["primary", *("standby" for _ in standbys)] and where(pooler) in standbys
    wait_until(routed, seconds, f"hosts and reads are where they belong; log:\n{pooler.log()[-3000:]}")
    return pooler


def counted(pooler, before, database="app"):
    """What SHOW ROUTES has counted since `before`, without what has not changed."""
    now = routes(pooler, database)
    return {key: now[key] - old for key, old in before.items() if key != "database" and now[key] != old}
