"""The traps of the compatibility reference that no other file names: what is easy to get wrong."""

import wire
from both import both, conversation, newer_columns, probe, readable
from harness import wait_until
from test_auth import PASSWORD, attempt
from test_config import file_text, start_with
from test_protocol import is_paused
from wire import SYNC, Wire, bind, execute, parse, query, row_types, startup_packet

LOGIN = {"user": "postgres", "database": "app"}


@both(
    fresh=True,
    settings={"auth_type": "md5"},
    userlist={"user1": PASSWORD, "admin": "x"},
    databases={"app": "dbname=app user=bob"},
)
def test_trap_01_every_error_of_the_pooler_is_08P01(pooler, seen):
    seen.messages("wrong password", attempt(pooler, "user1", "wrong"))
    seen.messages("unknown database", attempt(pooler, "user1", PASSWORD, "nowhere"))
    pooler.write_config("[nothing]\n")
    with pooler.console_login("x") as console:
        seen.answer("wrong command", console, query("NOTHING"))
        seen.answer("failed reload", console, query("RELOAD"))
    with Wire(pooler.port) as client:
        client.login("user1", "app", PASSWORD)
        seen.messages("unknown message", conversation(client, wire.message("y")))


@both(fresh=True, start=False)
def test_trap_04_no_comment_behind_a_value(pooler, seen):
    seen("exit code", start_with(pooler, file_text(pooler, settings="server_lifetime = 5 ; seconds")))


@both(
    fresh=True,
    settings={"default_pool_size": "1", "query_wait_timeout": "1"},
    databases={"app": "dbname=app pool_size=-1", "all": "dbname=app pool_size=0"},
)
def test_trap_05_pool_size_0_is_unlimited_and_less_is_inherited(pooler, seen):
    clients = [pooler.wire(database="all") for _ in range(3)]
    seen("no limit", [readable(conversation(client, query("BEGIN"))[0]) for client in clients])
    clients += [pooler.wire(), pooler.wire()]
    seen("inherited", [readable(conversation(client, query("BEGIN"))[0]) for client in clients[3:]])
    for client in clients:
        client.close()


@both()
def test_trap_06_three_schemes_of_names(pooler, seen):
    with pooler.console() as console:
        for what in ("STATS", "STATS_TOTALS", "STATS_AVERAGES"):
            (description,) = [m for m in console.query(f"SHOW {what}").messages if m.type == "T"]
            seen(what, [name for name, _ in row_types(description.body) if name not in newer_columns(what)])


@both(fresh=True, settings={"default_pool_size": "1"})
def test_trap_08_hidden_settings_do_not_reach_the_client(pooler, seen):
    """Two clients with different parameters take turns on one server."""
    first, second = pooler.wire(client_encoding="utf-8"), pooler.wire(client_encoding="LATIN1", DateStyle="German")
    seen("spelling at the login", first.parameters["client_encoding"])
    for turn in range(3):
        for name, client in (("first", first), ("second", second)):
            seen.answer(
                f"turn {turn}, {name}",
                client,
                query("SELECT current_setting('client_encoding'), current_setting('DateStyle')"),
            )
    first.close()
    second.close()


@both()
def test_trap_09_newer_minor_version(pooler, seen):
    with Wire(pooler.port) as client:
        client.send(startup_packet(LOGIN, version=196610))
        told = [client.read()]
        seen("first answer", readable(told[0]).split(" S=")[0][:2])


@both(settings={"pool_mode": "session"})
def test_trap_12_discard_all_forgets_statements(pooler, seen):
    with pooler.wire() as client:
        for number, forget in enumerate(("DISCARD ALL", "DEALLOCATE ALL")):
            seen.messages(
                f"{number} prepared", conversation(client, parse("s", "SELECT 1") + bind("s") + execute() + SYNC)
            )
            seen.answer(f"{number} {forget}", client, query(forget))
            seen(
                "the statement is gone: " + forget,
                [readable(m).partition(" F=")[0] for m in conversation(client, bind("s") + execute() + SYNC)],
            )


@both(
    fresh=True,
    settings={
        "auth_type": "md5",
        "auth_user": "finder",
        "auth_query": f"SELECT 'alice'::text, '{PASSWORD}'::text WHERE $1 <> ''",
    },
    userlist={"finder": "finder secret", "alice": "", "admin": "x"},
)
def test_trap_15_the_name_of_auth_query_is_the_user(pooler, seen):
    with Wire(pooler.port) as client:
        # The answer to MD5 has the name in it that the client knows: alice's secret for somebody.
        try:
            client.login("somebody", "app", PASSWORD)
            seen("user", client.query("SELECT current_user").rows)
        except wire.WireError as failure:
            seen("error", str(failure))


@both(fresh=True, start=False)
def test_trap_16_physical_replication_needs_its_own_rule(pooler, seen):
    (pooler.home / "hba").write_text("host all all 0.0.0.0/0 trust\n")
    pooler.settings.update(auth_type="hba", auth_hba_file=pooler.home / "hba")
    pooler.start()
    seen.messages("physical", probe(pooler, startup_packet({**LOGIN, "replication": "true"})))


@both(fresh=True)
def test_trap_17_pause_after_wait_close(pooler, seen):
    """PgBouncer keeps the mark of WAIT_CLOSE, so that a later PAUSE is answered too early and under its name."""
    client = pooler.wire()
    client.query("BEGIN")
    with pooler.console() as console:
        console.query("WAIT_CLOSE")
        console.send(query("PAUSE"))
        wait_until(lambda: is_paused(pooler), what="it is paused")
        client.query("COMMIT")
        seen("tag", console.collect().tags)
