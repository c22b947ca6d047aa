"""Named prepared statements in transaction mode: they follow the client, are shared, and fail as in PostgreSQL."""

import psycopg
import pytest

from harness import wait_until
from wire import SYNC, bind, close, describe, execute, parse

pytestmark = pytest.mark.pgweir

SERVER_STATEMENTS = "SELECT count(*) FROM pg_prepared_statements WHERE NOT from_sql"
PID = "SELECT pg_backend_pid()"


@pytest.fixture
def one_server(make_pooler):
    return make_pooler(settings={"default_pool_size": 1})


@pytest.fixture
def two_servers(make_pooler):
    return make_pooler(settings={"default_pool_size": 2})


def run(client, name, *values):
    """Binds and executes a named statement."""
    return client.extended(bind(name, values), execute())


class TestFollowing:
    @pytest.mark.smoke
    def test_statement_reaches_a_server_that_never_saw_it_unseen_by_the_client(self, two_servers):
        client, blockers = two_servers.wire(), [two_servers.wire() for _ in range(2)]
        client.extended(parse("mine", "SELECT $1::text, pg_backend_pid()"))
        (_, seen) = run(client, "mine", "a").rows[0]
        for blocker in blockers:
            blocker.query("BEGIN")
        blocked = {blocker.value(PID): blocker for blocker in blockers}
        (other,) = set(blocked) - {seen}
        blocked[other].query("COMMIT")  # only the server that never saw the statement is free
        result = run(client, "mine", "b")
        assert result.types == "2DCZ"
        assert result.rows == [["b", other]]
        blocked[other].query("BEGIN")
        blocked[seen].query("COMMIT")
        assert run(client, "mine", "c").rows == [["c", seen]]

    @pytest.mark.smoke
    def test_two_clients_use_one_name_for_different_statements(self, one_server):
        first, second = one_server.wire(), one_server.wire()
        first.extended(parse("s1", "SELECT 'first'"))
        second.extended(parse("s1", "SELECT 'second'"))
        for _ in range(2):
            assert run(first, "s1").rows == [["first"]]
            assert run(second, "s1").rows == [["second"]]

    @pytest.mark.smoke
    def test_equal_statements_of_many_clients_are_one_on_the_server(self, one_server):
        clients = [one_server.wire() for _ in range(10)]
        for number, client in enumerate(clients):
            client.extended(parse(f"name{number}", "SELECT $1::int * 2", [23]))
            assert run(client, f"name{number}", number).rows == [[str(number * 2)]]
        assert one_server.wire().value(SERVER_STATEMENTS) == "1"

    def test_statements_that_differ_in_parameter_types_are_not_shared(self, one_server):
        client = one_server.wire()
        client.extended(parse("a", "SELECT $1", [23]))
        client.extended(parse("b", "SELECT $1", [25]))
        assert client.value(SERVER_STATEMENTS) == "2"
        described = client.extended(describe("S", "a"), describe("S", "b"))
        assert [m.body[2:6] for m in described.messages if m.type == "t"] == [b"\0\0\0\x17", b"\0\0\0\x19"]

    def test_describe_of_a_statement(self, one_server):
        client = one_server.wire()
        client.extended(parse("d", "SELECT $1::int AS answer"))
        result = client.extended(describe("S", "d"))
        assert result.types == "tTZ" and result.columns == ["answer"]

    @pytest.mark.smoke
    @pytest.mark.parametrize("text, setting, readings", [
        ("SELECT '01/02/2020'::date - '2020-01-01'::date", "DateStyle", {"ISO, MDY": "1", "ISO, DMY": "31"}),
        (b"SELECT length('\xc3\xa9')", "client_encoding", {"LATIN1": "2", "UTF8": "1"}),
    ])
    def test_a_text_that_settings_give_another_meaning_is_not_shared(self, one_server, text, setting, readings):
        clients = [(one_server.wire(**{setting: value}), answer) for value, answer in readings.items()]
        for client, _ in clients:
            client.extended(parse("s", text))
        for _ in range(2):
            for client, answer in clients:
                assert run(client, "s").rows == [[answer]]

    def test_a_client_that_changes_its_settings_does_not_change_the_statements_of_others(self, one_server):
        text = "SELECT '01/02/2020'::date - '2020-01-01'::date"
        first, second, third = (one_server.wire(DateStyle="ISO, MDY") for _ in range(3))
        first.extended(parse("s", text))
        second.extended(parse("s", text))
        second.query("SET DateStyle = 'ISO, DMY'")
        one_server.admin("RECONNECT")
        assert run(second, "s").rows[0][0] in ("1", "31")
        third.extended(parse("s", text))
        assert run(third, "s").rows == [["1"]]
        assert run(first, "s").rows == [["1"]]

    def test_unnamed_statement_lives_within_its_pipeline(self, one_server):
        client, other = one_server.wire(), one_server.wire()
        for n in range(3):
            assert client.extended(parse("", f"SELECT {n}"), bind(), execute()).rows == [[str(n)]]
            assert other.extended(parse("", "SELECT 'x'"), bind(), execute()).rows == [["x"]]

    def test_statement_survives_the_transaction_that_rolled_back(self, one_server):
        client = one_server.wire()
        client.query("BEGIN")
        client.extended(parse("kept", "SELECT 'kept'"))
        client.query("ROLLBACK")
        assert run(client, "kept").rows == [["kept"]]

    def test_very_long_statement(self, one_server):
        client = one_server.wire()
        text = "z" * 300000
        client.extended(parse("long", f"SELECT length('{text}')"))
        assert run(client, "long").rows == [["300000"]]

    def test_large_bind_of_a_named_statement(self, one_server):
        client = one_server.wire()
        client.extended(parse("big", "SELECT length($1::text)"))
        assert run(client, "big", "v" * 3000000).rows == [["3000000"]]

    def test_prepared_statements_column_counts_them(self, one_server):
        client = one_server.wire()
        for n in range(3):
            client.extended(parse(f"s{n}", f"SELECT {n}"))
        (row,) = one_server.clients()
        assert row["prepared_statements"] == "3"


class TestEnd:
    @pytest.mark.smoke
    def test_close_is_answered_and_frees_the_name(self, one_server):
        client = one_server.wire()
        client.extended(parse("c", "SELECT 'old'"))
        assert client.extended(close("S", "c")).types == "3Z"
        client.extended(parse("c", "SELECT 'new'"))
        assert run(client, "c").rows == [["new"]]

    def test_close_of_an_unknown_name_is_no_error(self, one_server):
        assert one_server.wire().extended(close("S", "never")).types == "3Z"

    def test_close_by_one_client_leaves_the_statement_of_another(self, one_server):
        first, second = one_server.wire(), one_server.wire()
        for client in (first, second):
            client.extended(parse("same", "SELECT 'shared'"))
        first.extended(close("S", "same"))
        assert run(second, "same").rows == [["shared"]]
        assert run(first, "same").error["C"] == "26000"

    def test_least_recently_used_statement_leaves_the_server(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1, "max_prepared_statements": 3})
        client = pooler.wire()
        for n in range(10):
            client.extended(parse(f"s{n}", f"SELECT {n}"))
            assert run(client, f"s{n}").rows == [[str(n)]]
        assert int(client.value(SERVER_STATEMENTS)) <= 4
        for n in range(10):
            assert run(client, f"s{n}").rows == [[str(n)]]
        assert int(client.value(SERVER_STATEMENTS)) <= 4

    def test_many_statements_in_one_pipeline_beyond_the_limit(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1, "max_prepared_statements": 2})
        client = pooler.wire()
        parts = [part for n in range(8) for part in (parse(f"s{n}", f"SELECT {n}"), bind(f"s{n}"), execute())]
        result = client.extended(*parts)
        assert [row[0] for row in result.rows] == [str(n) for n in range(8)]
        again = client.extended(*[part for n in range(8) for part in (bind(f"s{n}"), execute())])
        assert [row[0] for row in again.rows] == [str(n) for n in range(8)]

    @pytest.mark.smoke
    @pytest.mark.parametrize("command", ["DEALLOCATE ALL", "DISCARD ALL"])
    def test_deallocate_all_forgets_the_clients_names_only(self, one_server, command):
        client, other = one_server.wire(), one_server.wire()
        client.extended(parse("gone", "SELECT 'client'"))
        other.extended(parse("kept", "SELECT 'other'"))
        assert client.query(command).errors == []
        assert run(client, "gone").error["C"] == "26000"
        assert run(other, "kept").rows == [["other"]]
        client.extended(parse("gone", "SELECT 'new'"))
        assert run(client, "gone").rows == [["new"]]

    def test_deallocate_by_name_finds_the_protocol_statement(self, one_server):
        client = one_server.wire()
        client.extended(parse("pdo_1", "SELECT 'by protocol'"))
        client.query("BEGIN")
        assert client.query("DEALLOCATE pdo_1").status == "T"
        assert client.query("COMMIT").tags == ["COMMIT"]
        assert run(client, "pdo_1").error["C"] == "26000"

    def test_sql_execute_finds_the_protocol_statement(self, one_server):
        client = one_server.wire()
        client.extended(parse("by_protocol", "SELECT $1::int + 1"))
        assert client.query("EXECUTE by_protocol(41)").rows == [["42"]]

    def test_tracking_can_be_turned_off(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1, "max_prepared_statements": 0})
        client = pooler.wire()
        client.extended(parse("raw", "SELECT 1"))
        assert client.value("SELECT name FROM pg_prepared_statements") == "raw"

    def test_session_mode_passes_everything_untouched(self, make_pooler):
        client = make_pooler(settings={"pool_mode": "session"}).wire()
        client.extended(parse("raw", "SELECT 1"))
        assert client.value("SELECT name FROM pg_prepared_statements") == "raw"


class TestMistakes:
    """Deviation 1: mistakes with names are ordinary errors; the pipeline is skipped up to Sync, nobody is killed."""

    @pytest.mark.smoke
    def test_duplicate_name(self, one_server):
        client = one_server.wire()
        client.extended(parse("dup", "SELECT 'first'"))
        result = client.extended(parse("dup", "SELECT 'second'"), bind("dup"), execute())
        assert result.types == "EZ"
        assert (result.error["S"], result.error["C"]) == ("ERROR", "42P05")
        assert result.error["M"] == 'prepared statement "dup" already exists'
        assert run(client, "dup").rows == [["first"]]

    @pytest.mark.smoke
    @pytest.mark.parametrize("use", [bind("never"), describe("S", "never")])
    def test_unknown_name(self, one_server, use):
        client = one_server.wire()
        result = client.extended(use, execute(), parse("", "SELECT 1"), bind(), execute())
        assert result.types == "EZ"
        assert (result.error["S"], result.error["C"]) == ("ERROR", "26000")
        assert result.error["M"] == 'prepared statement "never" does not exist'
        assert client.value("SELECT 'alive'") == "alive"

    def test_mistake_in_a_transaction_fails_the_transaction(self, one_server):
        client = one_server.wire()
        client.query("BEGIN")
        assert run(client, "never").status == "E"
        assert client.query("SELECT 1").error["C"] == "25P02"
        assert client.query("ROLLBACK").status == "I"

    def test_mistake_in_the_middle_of_a_pipeline_keeps_order(self, one_server):
        client = one_server.wire()
        client.send(parse("ok", "SELECT 'one'"), bind("ok"), execute(), bind("never"), execute(), bind("ok"),
                    execute(), SYNC, bind("ok"), execute(), SYNC)
        first, second = client.collect(), client.collect()
        assert first.types == "12DCEZ"
        assert first.error["C"] == "26000"
        assert second.rows == [["one"]]

    def test_work_before_the_mistake_in_the_same_implicit_transaction_is_undone(self, one_server, table):
        client = one_server.wire()
        client.extended(parse("", f"INSERT INTO {table} VALUES (1)"), bind(), execute(), bind("never"), execute())
        assert client.value(f"SELECT count(*) FROM {table}") == "0"

    @pytest.mark.smoke
    def test_name_of_a_parse_that_failed_is_free_again(self, one_server):
        client = one_server.wire()
        assert client.extended(parse("again", "SELEC 1")).error["C"] == "42601"
        assert client.extended(parse("again", "SELECT 'right'")).errors == []
        assert run(client, "again").rows == [["right"]]

    def test_name_of_a_parse_that_was_skipped_is_free_again(self, one_server):
        client = one_server.wire()
        client.extended(parse("", "SELECT 1/0"), bind(), execute(), parse("skipped", "SELECT 'x'"))
        assert run(client, "skipped").error["C"] == "26000"
        client.extended(parse("skipped", "SELECT 'y'"))
        assert run(client, "skipped").rows == [["y"]]

    def test_close_that_was_skipped_did_not_close(self, one_server):
        client = one_server.wire()
        client.extended(parse("stays", "SELECT 'here'"))
        client.extended(parse("", "SELEC"), close("S", "stays"))
        assert run(client, "stays").rows == [["here"]]

    def test_failed_parse_of_one_client_does_not_harm_another(self, one_server, table, cluster):
        first, second = one_server.wire(), one_server.wire()
        missing = f"SELECT count(*) FROM later_{table}"
        assert first.extended(parse("q", missing)).error["C"] == "42P01"
        with cluster.connect() as direct:
            direct.execute(f"CREATE TABLE later_{table} ()")
        try:
            assert second.extended(parse("q", missing), bind("q"), execute()).rows == [["0"]]
            assert first.extended(parse("q", missing), bind("q"), execute()).rows == [["0"]]
        finally:
            with cluster.connect() as direct:
                direct.execute(f"DROP TABLE later_{table}")

    def test_changed_plan_is_an_ordinary_error_and_a_new_parse_cures_it(self, one_server, table, cluster):
        client = one_server.wire()
        client.extended(parse("plan", f"SELECT * FROM {table}"))
        run(client, "plan")
        with cluster.connect() as direct:
            direct.execute(f"ALTER TABLE {table} ADD COLUMN more int")
        result = run(client, "plan")
        if result.error is not None:
            assert result.error["C"] == "0A000"
            one_server.admin("RECONNECT app")
            result = run(client, "plan")
        assert result.errors == []

    def test_hidden_parse_in_a_failed_transaction_keeps_the_name(self, two_servers):
        client = two_servers.wire()
        client.extended(parse("later", "SELECT 'later'"))
        client.query("BEGIN")
        client.query("SELECT 1/0")
        assert run(client, "later").error["C"] == "25P02"
        client.query("ROLLBACK")
        assert run(client, "later").rows == [["later"]]

    def test_cursor_by_statement_and_portal_names(self, one_server):
        client = one_server.wire()
        client.extended(parse("series", "SELECT generate_series(1, 4)"))
        client.query("BEGIN")
        client.send(bind("series", portal="p"), execute("p", 2), SYNC)
        assert client.collect().rows == [["1"], ["2"]]
        client.send(execute("p", 2), SYNC)
        assert client.collect().rows == [["3"], ["4"]]
        client.query("COMMIT")


class TestLibraries:
    def test_psycopg_prepares_automatically(self, two_servers):
        with psycopg.connect(**two_servers.dsn(), autocommit=True, prepare_threshold=0) as connection:
            for number in range(30):
                sql = f"SELECT %s::int + {number % 5}"
                assert connection.execute(sql, (number,)).fetchone() == (number + number % 5,)

    def test_statements_in_a_libpq_pipeline(self, one_server):
        with psycopg.connect(**one_server.dsn(), autocommit=True, prepare_threshold=0) as connection:
            with connection.pipeline():
                cursors = [connection.execute("SELECT %s::int", (n,)) for n in range(50)]
            assert [cursor.fetchone()[0] for cursor in cursors] == list(range(50))

    def test_disappearing_server_takes_no_statement_along(self, one_server, cluster):
        client = one_server.wire()
        client.extended(parse("tough", "SELECT pg_backend_pid()"))
        (pid,) = run(client, "tough").rows[0]
        cluster.ask("SELECT pg_terminate_backend(%s)", int(pid))
        wait_until(lambda: not one_server.servers())
        assert run(client, "tough").rows[0][0] != pid


class TestClose:
    def test_takes_no_server(self, one_server):
        """Go's database/sql holds a lock while it waits for the answer, which whoever has the server needs to go on."""
        busy, client = one_server.wire(), one_server.wire()
        client.extended(parse("a", "SELECT 'a'"), parse("b", "SELECT 'b'"), parse("c", "SELECT 'c'"))
        busy.query("BEGIN")
        assert client.extended(close("S", "a"), close("S", "none")).types == "33Z"
        client.send(close("S", "b"), SYNC, bind("c"), execute(), SYNC)
        assert client.collect().types == "3Z"
        assert busy.query("COMMIT").tags == ["COMMIT"]
        assert client.collect().rows == [["c"]]
        assert [run(client, name).error["C"] for name in "ab"] == ["26000", "26000"]
        assert client.extended(parse("a", "SELECT 'again'"), bind("a"), execute()).rows == [["again"]]

    def test_of_something_else_waits_its_turn(self, one_server):
        busy, client = one_server.wire(), one_server.wire()
        client.extended(parse("a", "SELECT 'a'"))
        busy.query("BEGIN")
        client.send(close("S", "a"), close("P", "portal"), SYNC)
        busy.query("COMMIT")
        assert client.collect().types == "33Z"
        assert run(client, "a").error["C"] == "26000"


class TestStatistics:
    def test_parse_and_bind_are_counted(self, one_server):
        client = one_server.wire()
        for n in range(5):
            client.extended(parse(f"n{n}", "SELECT 'same'"))
            run(client, f"n{n}")
        (row,) = [row for row in one_server.admin("SHOW STATS") if row["database"] == "app"]
        assert int(row["total_client_parse_count"]) == 5
        assert int(row["total_server_parse_count"]) == 1
        assert int(row["total_bind_count"]) == 5

    def test_only_statements_whose_names_are_managed_are_counted(self, make_pooler):
        pooler = make_pooler(settings={"max_prepared_statements": 0})
        client = pooler.wire()
        client.extended(parse("", "SELECT 1"), bind(""), execute())
        client.extended(parse("mine", "SELECT 1"), bind("mine"), execute())
        (row,) = [row for row in pooler.admin("SHOW STATS") if row["database"] == "app"]
        assert {int(row[f"total_{what}_count"]) for what in ("client_parse", "server_parse", "bind")} == {0}


def test_sync_between_parse_and_bind_may_move_to_another_server(two_servers):
    client, other = two_servers.wire(), two_servers.wire()
    for n in range(20):
        client.send(parse(f"m{n}", f"SELECT {n}"), SYNC)
        other.query("BEGIN" if n % 2 == 0 else "COMMIT")
        assert client.collect().types == "1Z"
        client.send(bind(f"m{n}"), describe("P"), execute(), SYNC)
        assert client.collect().rows == [[str(n)]]
