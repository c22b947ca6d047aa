"""Parameters that belong to a client follow it from server to server, unseen, and nobody else gets them."""

import pytest

import wire
from wire import Wire, WireError, bind, execute, parse, query

ALL = ("SELECT current_setting('TimeZone'), current_setting('application_name'), current_setting('client_encoding'),"
       " current_setting('DateStyle'), current_setting('IntervalStyle')")

RESETS = ("SET TimeZone TO DEFAULT", "SET SESSION timezone = DEFAULT", "SET TIME ZONE LOCAL", "RESET TIME ZONE",
          "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;", "RESET ALL; SELECT 1",
          "RESET timezone; RESET application_name", "RESET ALL; SET timezone = 'UTC'", "BEGIN; RESET ALL; COMMIT",
          "RESET ALL; SET timezone = 'Asia/Oral'", "BEGIN; RESET ALL; ROLLBACK", "RESET ALL; SELECT 1/0",
          "SELECT set_config('timezone', 'UTC', false); RESET application_name")


@pytest.fixture
def one_server(make_pooler):
    """All clients share a single server connection."""
    return make_pooler(settings={"default_pool_size": 1})


class TestTracked:
    @pytest.mark.smoke
    def test_parameters_given_at_startup_follow_each_client(self, one_server):
        first = one_server.wire(TimeZone="Europe/Prague", application_name="one", client_encoding="LATIN1")
        second = one_server.wire(TimeZone="Asia/Tokyo", application_name="two", client_encoding="UTF8")
        for _ in range(3):
            assert first.query(ALL).rows[0][:3] == ["Europe/Prague", "one", "LATIN1"]
            assert second.query(ALL).rows[0][:3] == ["Asia/Tokyo", "two", "UTF8"]

    @pytest.mark.smoke
    def test_parameters_set_later_follow_the_client(self, one_server):
        first, second = one_server.wire(), one_server.wire()
        first.query("SET TimeZone = 'Europe/Rome'; SET application_name = 'it''s me'; SET DateStyle = 'German'")
        second.query("SET TimeZone = 'America/Lima'")
        for _ in range(3):
            row = first.query(ALL).rows[0]
            assert row[0] == "Europe/Rome" and row[1] == "it's me" and row[3].startswith("German")
            row = second.query(ALL).rows[0]
            assert row[0] == "America/Lima" and row[3].startswith("ISO")

    @pytest.mark.pgweir
    @pytest.mark.parametrize("encoding", ["UTF8", "LATIN1"])
    def test_start_up_values_do_not_depend_on_the_encoding_of_the_client_before(self, one_server, encoding):
        others = [one_server.wire(client_encoding=other) for other in ("LATIN1", "UTF8")]
        client = one_server.wire(client_encoding=encoding, search_path="schéma", options="-c work.dir=C:\\\\é")
        for other in others:
            assert other.value("SHOW search_path") == '"$user", public'
            assert client.value("SELECT convert_to(current_setting('search_path'), 'UTF8')") == "\\x736368c3a96d61"
            assert client.value("SELECT convert_to(current_setting('work.dir'), 'UTF8')") == "\\x433a5cc3a9"

    @pytest.mark.pgweir
    def test_client_that_gave_no_application_name_has_none(self, one_server):
        first, second = one_server.wire(application_name="first"), one_server.wire()
        first.query("SET application_name = 'changed'")
        assert second.value("SHOW application_name") == ""

    @pytest.mark.pgweir
    def test_intervalstyle_is_tracked_by_default(self, one_server):
        first, second = one_server.wire(), one_server.wire()
        first.query("SET IntervalStyle = 'iso_8601'")
        assert second.query(ALL).rows[0][4] == "postgres"
        assert first.query(ALL).rows[0][4] == "iso_8601"

    @pytest.mark.smoke
    def test_alignment_is_invisible(self, one_server):
        first = one_server.wire(TimeZone="Europe/Prague", application_name="one")
        second = one_server.wire(TimeZone="Asia/Tokyo", application_name="two")
        for client in (first, second, first, second):
            assert client.query("SELECT 1").types == "TDCZ"
            assert client.extended(parse("", "SELECT 1"), bind(), execute()).types == "12DCZ"

    def test_change_is_reported_to_the_client_that_made_it_only(self, one_server):
        first, second = one_server.wire(), one_server.wire()
        assert first.query("SET TimeZone = 'Europe/Rome'").parameters == {"TimeZone": "Europe/Rome"}
        assert second.query("SELECT 1").parameters == {}

    def test_change_in_a_transaction_that_rolls_back_is_undone(self, one_server):
        first, second = one_server.wire(TimeZone="Asia/Tokyo"), one_server.wire()
        first.query("BEGIN; SET TimeZone = 'Europe/Rome'")
        first.query("ROLLBACK")
        assert second.value("SHOW TimeZone") == "UTC"
        assert first.value("SHOW TimeZone") == "Asia/Tokyo"

    def test_long_and_odd_values_survive(self, one_server):
        name = "a 'quoted' \\ name " + "x" * 40
        first, second = one_server.wire(application_name=name), one_server.wire(application_name="other")
        assert second.value("SHOW application_name") == "other"
        assert first.value("SHOW application_name") == name

    def test_client_hears_its_own_values_at_login(self, one_server):
        one_server.wire()
        client = one_server.wire(TimeZone="Asia/Tokyo", application_name="me")
        assert client.parameters["TimeZone"] == "Asia/Tokyo"
        assert client.parameters["application_name"] == "me"

    @pytest.mark.pgweir
    def test_client_hears_the_canonical_spelling(self, one_server):
        client = one_server.wire(client_encoding="'utf-8'", TimeZone="asia/tokyo")
        client.query("SELECT 1")
        assert client.parameters["client_encoding"] == "UTF8"
        assert client.value("SHOW client_encoding") == "UTF8"

    def test_names_of_parameters_are_case_insensitive(self, one_server):
        client = one_server.wire(timezone="Asia/Tokyo", datestyle="SQL, DMY")
        assert client.value("SHOW TimeZone") == "Asia/Tokyo"
        assert client.value("SHOW DateStyle") == "SQL, DMY"

    def test_application_name_add_host(self, make_pooler):
        pooler = make_pooler(settings={"application_name_add_host": 1})
        client = pooler.wire(application_name="web")
        port = client.socket.getsockname()[1]
        assert client.value("SHOW application_name") == f"web - 127.0.0.1:{port}"

    def test_values_of_the_database_entry_are_the_pools_defaults(self, make_pooler):
        pooler = make_pooler(databases={"app": "dbname=app timezone=Asia/Seoul client_encoding=LATIN1"})
        client = pooler.wire()
        assert client.query(ALL).rows[0][0] == "Asia/Seoul"
        assert client.parameters["client_encoding"] == "LATIN1"

    @pytest.mark.pgweir
    def test_extra_parameters_are_tracked_when_configured(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1, "track_extra_parameters": "IntervalStyle, search_path"})
        first, second = pooler.wire(IntervalStyle="sql_standard"), pooler.wire()
        assert second.value("SHOW IntervalStyle") == "postgres"
        assert first.value("SHOW IntervalStyle") == "sql_standard"

    def test_tracked_parameter_that_servers_do_not_report(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1, "track_extra_parameters": "IntervalStyle, enable_seqscan"})
        off, on, none = pooler.wire(enable_seqscan="off"), pooler.wire(options="-c enable_seqscan=on"), pooler.wire()
        for _ in range(2):
            assert [client.value("SHOW enable_seqscan") for client in (off, on, none)] == ["off", "on", "on"]

    def test_invalid_value_at_startup_is_fatal_for_that_client_only(self, one_server):
        one_server.wire()
        with pytest.raises((WireError, wire.Closed, AssertionError)) as refused:
            client = one_server.wire(TimeZone="Nowhere/Land")
            client.send(query("SELECT 1"))
            raise WireError(client.expect_fatal("invalid server parameter"))
        assert isinstance(refused.value, WireError)
        assert refused.value.fields["S"] == "FATAL"
        assert one_server.wire().value("SELECT 1") == "1"


@pytest.mark.pgweir
class TestStartupOptions:
    """Deviation 5: options and any startup parameter are the client's own, wherever it is served."""

    @pytest.mark.smoke
    @pytest.mark.parametrize("options,name,value", [
        ("-c search_path=pg_catalog", "search_path", "pg_catalog"),
        ("-cstatement_timeout=5min", "statement_timeout", "5min"),
        ("--extra-float-digits=2", "extra_float_digits", "2"),
        ("-c work_mem=7MB -c  jit=off", "work_mem", "7MB"),
        (r"-c search_path=\"one\ two\",public", "search_path", '"one two",public'),
        (r"-c application_name=a\\b", "application_name", r"a\b")])
    def test_options_follow_the_client(self, one_server, options, name, value):
        options = options.replace(r'\"', '"')
        client, other = one_server.wire(options=options), one_server.wire()
        before = other.value(f"SHOW {name}")
        for _ in range(2):
            assert client.value(f"SHOW {name}") == value
            assert other.value(f"SHOW {name}") == before != value

    @pytest.mark.smoke
    def test_any_startup_parameter_follows_the_client(self, one_server):
        client = one_server.wire(extra_float_digits="3", search_path="pg_catalog", statement_timeout="60000")
        other = one_server.wire()
        for _ in range(2):
            assert client.value("SHOW extra_float_digits") == "3"
            assert client.value("SHOW search_path") == "pg_catalog"
            assert client.value("SHOW statement_timeout") == "1min"
            assert other.value("SHOW extra_float_digits") == "1"
            assert other.value("SHOW statement_timeout") == "0"

    @pytest.mark.parametrize("reset", ["RESET statement_timeout", "RESET ALL", "DISCARD ALL",
                                       "SET statement_timeout TO DEFAULT", "SET SESSION statement_timeout = DEFAULT"])
    def test_reset_goes_back_to_the_clients_own_startup_value(self, one_server, reset):
        client, other = one_server.wire(options="-c statement_timeout=5min"), one_server.wire()
        client.query("SET statement_timeout = '1min'")
        assert client.query(reset).errors == []
        for _ in range(2):
            assert client.value("SHOW statement_timeout") == "5min"
            assert other.value("SHOW statement_timeout") == "0"

    def test_reset_of_a_tracked_parameter_goes_back_to_the_startup_value(self, one_server):
        client = one_server.wire(TimeZone="Asia/Tokyo", application_name="me")
        client.query("SET TimeZone = 'Europe/Rome'; SET application_name = 'changed'")
        client.query("DISCARD ALL")
        assert client.value("SHOW TimeZone") == "Asia/Tokyo"
        assert client.value("SHOW application_name") == "me"

    @pytest.mark.parametrize("before", ["UTC", "Europe/Rome"])
    @pytest.mark.parametrize("reset", RESETS)
    def test_what_a_reset_leaves_is_what_postgresql_leaves(self, one_server, cluster, reset, before):
        """UTC is the default of the server, which therefore has nothing to report."""
        left = []
        for port in (cluster.port, one_server.port):
            client, other = Wire(port), Wire(port)
            client.login("postgres", "app", TimeZone="Asia/Tokyo", application_name="me")
            other.login("postgres", "app")
            for sql in (f"SET TimeZone = '{before}'", "SET application_name = ''", reset):
                client.query(sql)
                assert other.value("SHOW TimeZone") == "UTC"
            names = ("TimeZone", "application_name")
            left.append([(client.value(f"SHOW {name}"), client.parameters[name]) for name in names])
        assert left[0] == left[1]

    def test_ignored_parameters_are_dropped(self, make_pooler):
        pooler = make_pooler(settings={"ignore_startup_parameters": "extra_float_digits,work_mem"})
        client = pooler.wire(extra_float_digits="3", options="-c work_mem=7MB")
        assert client.value("SHOW extra_float_digits") == "1"
        assert client.value("SHOW work_mem") == "4MB"

    def test_options_to_ignore_are_those_that_are_not_tracked(self, make_pooler):
        pooler = make_pooler(settings={"ignore_startup_parameters": "options"})
        client = pooler.wire(options="-c work_mem=7MB -c no.such_thing=1 -c TimeZone=Europe/Lisbon")
        assert client.value("SHOW work_mem") == "4MB"
        assert client.value("SHOW TimeZone") == "Europe/Lisbon"

    def test_unknown_parameter_is_refused_as_postgresql_would(self, one_server):
        one_server.wire()
        with pytest.raises(WireError) as refused:
            client = one_server.wire(no_such_parameter="1")
            client.send(query("SELECT 1"))
            raise WireError(client.expect_fatal())
        assert refused.value.fields["S"] == "FATAL"
        assert one_server.wire().value("SELECT 1") == "1"

    def test_options_that_are_not_settings_are_refused(self, one_server):
        client = Wire(one_server.port)
        client.send(wire.startup_packet({"user": "postgres", "database": "app", "options": "-W 5"}))
        client.expect_fatal("unsupported options startup parameter: "
                            "only '-c config=val' and '--config=val' are allowed", "08P01")

    def test_options_do_not_reach_the_auth_query_or_other_databases(self, one_server):
        one_server.wire(options="-c statement_timeout=5min").value("SELECT 1")
        assert one_server.wire(database="other").value("SHOW statement_timeout") == "0"


class TestIgnored:
    def test_unknown_startup_parameter_may_be_ignored(self, make_pooler):
        pooler = make_pooler(settings={"ignore_startup_parameters": "extra_float_digits"})
        assert pooler.wire(extra_float_digits="3").value("SELECT 1") == "1"

    @pytest.mark.pgweir
    def test_login_notice(self, make_pooler):
        pooler = make_pooler(settings={"login_notify_message": "be gentle"})
        client = Wire(pooler.port)
        welcome = client.login("postgres", "app")
        assert [notice["M"] for notice in welcome.notices] == ["be gentle"]
