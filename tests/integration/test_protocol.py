"""What goes over the wire: first packets, the two query protocols, COPY, and malformed input."""

import struct

import pytest

import wire
from wire import (SYNC, Closed, Wire, WireError, bind, close, copy_data, copy_fail, describe, execute, function_call,
                  message, parse, query, request_packet, startup_packet)

LOGIN = {"user": "postgres", "database": "app"}


def connect(pooler, **options):
    return Wire(pooler.port, **options)


class TestStartup:
    @pytest.mark.smoke
    def test_plain_3_0_login_ends_with_ready_for_query(self, pooler):
        client = connect(pooler)
        welcome = client.login(**LOGIN)
        assert client.negotiated is None
        assert welcome.status == "I"
        assert len(client.key) == 8
        assert client.parameters["server_encoding"] == "UTF8"
        assert client.parameters["TimeZone"] == "UTC"

    @pytest.mark.pgweir
    def test_cancel_key_begins_with_a_clear_bit(self, pooler):
        keys = {pooler.wire().key for _ in range(8)}
        assert len(keys) == 8
        assert all(key[0] < 128 for key in keys)

    @pytest.mark.pgweir
    @pytest.mark.parametrize("minor", [1, 2, 65535])
    def test_newer_minor_versions_are_negotiated_down_to_3_0(self, pooler, minor):
        client = connect(pooler)
        client.login(**LOGIN, version=wire.PROTOCOL_3_0 + minor)
        assert client.negotiated == (wire.PROTOCOL_3_0, [])
        assert client.value("SELECT 1") == "1"

    @pytest.mark.pgweir
    def test_protocol_extensions_are_listed_as_unrecognised(self, pooler):
        client = connect(pooler)
        client.login(**LOGIN, **{"_pq_.shiny": "1", "_pq_.other": "2"})
        assert client.negotiated == (wire.PROTOCOL_3_0, ["_pq_.shiny", "_pq_.other"])

    def test_version_2_is_refused(self, pooler):
        client = connect(pooler)
        client.send(startup_packet(LOGIN, version=131072))
        client.expect_fatal("old V2 protocol not supported", "08P01")

    @pytest.mark.parametrize("packet", [
        startup_packet(LOGIN, version=4 << 16), request_packet(80877199), struct.pack("!II", 7, 196608),
        struct.pack("!II", 0x7FFFFFFF + 1, 196608)])
    def test_unusable_first_packets_are_bad_packet_headers(self, pooler, packet):
        client = connect(pooler)
        client.send(packet)
        fields = client.expect_fatal(code="08P01")
        assert fields["M"].startswith("bad packet header: '")
        assert fields["M"][len("bad packet header: '"):].startswith(packet[:8].hex())

    @pytest.mark.pgweir
    def test_missing_terminator_is_refused(self, pooler):
        client = connect(pooler)
        body = struct.pack("!I", wire.PROTOCOL_3_0) + b"user\0postgres\0database\0app\0"
        client.send(struct.pack("!I", len(body) + 4) + body)
        client.expect_fatal("invalid startup packet layout: expected terminator as last byte", "08P01")

    @pytest.mark.pgweir
    def test_startup_packet_larger_than_the_buffer_is_read(self, make_pooler):
        pooler = make_pooler(settings={"pkt_buf": 1024, "ignore_startup_parameters": "long"})
        client = connect(pooler)
        client.login(**LOGIN, long="x" * 40000)
        assert client.value("SELECT 1") == "1"

    @pytest.mark.pgweir
    def test_startup_packet_beyond_the_maximum_is_refused_early(self, pooler):
        client = connect(pooler)
        client.send(struct.pack("!II", 70000, wire.PROTOCOL_3_0))
        with pytest.raises(Closed):
            while True:
                assert client.read().type == "E"

    @pytest.mark.pgweir
    def test_client_of_another_protocol_is_dropped_at_once(self, pooler):
        client = connect(pooler)
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert all(got.type == "E" for got in client.expect_closed())

    def test_missing_user_is_refused(self, pooler):
        client = connect(pooler)
        client.send(startup_packet({"database": "app"}))
        client.expect_fatal("no username supplied", "08P01")

    def test_too_long_user_name_is_refused(self, pooler):
        client = connect(pooler)
        client.send(startup_packet({"user": "u" * 128, "database": "app"}))
        fields = client.expect_fatal(code="08P01")
        assert fields["M"] in ("username too long", '"trust" authentication failed')

    def test_database_defaults_to_the_user_name(self, make_pooler):
        pooler = make_pooler(databases={"postgres": "dbname=app"})
        client = connect(pooler)
        client.send(startup_packet({"user": "postgres"}))
        client.finish_login("postgres")
        assert client.value("SELECT current_database()") == "app"

    def test_unknown_database_is_reported(self, pooler):
        with pytest.raises(WireError) as refused:
            pooler.wire(database="nowhere")
        assert refused.value.text == "no such database: nowhere"
        assert refused.value.code == "08P01"

    def test_connection_without_a_byte_is_not_an_event(self, pooler):
        connect(pooler).socket.close()
        assert pooler.wire().value("SELECT 1") == "1"
        assert "WARNING" not in pooler.log()

    @pytest.mark.smoke
    @pytest.mark.parametrize("code", [wire.SSL_REQUEST, wire.GSSENC_REQUEST])
    def test_encryption_requests_are_answered_n_and_login_goes_on(self, pooler, code):
        client = connect(pooler)
        client.send(request_packet(code))
        assert client.read_bytes(1) == b"N"
        client.login(**LOGIN)
        assert client.value("SELECT 1") == "1"

    def test_both_encryption_requests_may_follow_each_other(self, pooler):
        client = connect(pooler)
        for code in (wire.GSSENC_REQUEST, wire.SSL_REQUEST):
            client.send(request_packet(code))
            assert client.read_bytes(1) == b"N"
        client.login(**LOGIN)

    @pytest.mark.pgweir
    @pytest.mark.parametrize("code,name", [(wire.SSL_REQUEST, "SSL"), (wire.GSSENC_REQUEST, "GSSAPI encryption")])
    def test_data_pipelined_behind_an_encryption_request_is_refused(self, pooler, code, name):
        client = connect(pooler)
        client.send(request_packet(code), startup_packet(LOGIN))
        first = client.read_bytes(1)
        if first == b"N":
            first = client.read_bytes(1)
        assert first == b"E"
        length = struct.unpack("!I", client.read_bytes(4))[0]
        body = client.read_bytes(length - 4)
        assert f"received unencrypted data after {name} request".encode() in body

    @pytest.mark.pgweir
    @pytest.mark.smoke
    def test_login_and_query_split_into_single_bytes(self, pooler):
        client = connect(pooler)
        for byte in startup_packet(LOGIN):
            client.send(bytes([byte]))
        client.finish_login("postgres")
        for byte in query("SELECT 'split'"):
            client.send(bytes([byte]))
        assert client.collect().rows == [["split"]]

    def test_messages_may_be_pipelined_behind_the_startup_packet(self, pooler):
        client = connect(pooler)
        client.send(startup_packet(LOGIN), query("SELECT 'early'"))
        client.finish_login("postgres")
        assert client.collect().rows == [["early"]]


class TestQueries:
    @pytest.mark.smoke
    def test_simple_query_with_several_statements(self, pooler):
        result = pooler.wire().query("SELECT 1; SELECT 2, 3; CREATE TEMP TABLE t (); DROP TABLE t")
        assert result.rows == [["1"], ["2", "3"]]
        assert result.tags == ["SELECT 1", "SELECT 1", "CREATE TABLE", "DROP TABLE"]
        assert result.status == "I"

    def test_empty_query(self, pooler):
        assert pooler.wire().query("").types == "IZ"

    @pytest.mark.smoke
    def test_error_keeps_the_connection_and_its_own_sqlstate(self, pooler):
        client = pooler.wire()
        assert client.query("SELECT 1/0").error["C"] == "22012"
        assert client.value("SELECT 'still here'") == "still here"

    def test_failed_transaction_status_reaches_the_client(self, pooler):
        client = pooler.wire()
        assert client.query("BEGIN").status == "T"
        assert client.query("SELECT 1/0").status == "E"
        assert client.query("SELECT 1").error["C"] == "25P02"
        assert client.query("ROLLBACK").status == "I"

    @pytest.mark.smoke
    def test_pipeline_of_many_unnamed_statements_and_one_sync(self, pooler):
        client = pooler.wire()
        parts = [part for n in range(200) for part in (parse("", f"SELECT {n}"), bind(), execute())]
        result = client.extended(*parts)
        assert [row[0] for row in result.rows] == [str(n) for n in range(200)]
        assert result.types == "12DC" * 200 + "Z"

    def test_pipeline_with_many_syncs_answers_each(self, pooler):
        client = pooler.wire()
        client.send(*[part for n in range(100) for part in (parse("", f"SELECT {n}"), bind(), execute(), SYNC)])
        for n in range(100):
            assert client.collect().rows == [[str(n)]]

    def test_many_simple_queries_at_once_are_answered_in_order(self, pooler):
        client = pooler.wire()
        client.send(*[query(f"SELECT {n}") for n in range(300)])
        assert [client.collect().value() for _ in range(300)] == [str(n) for n in range(300)]

    @pytest.mark.smoke
    def test_error_skips_the_pipeline_up_to_sync(self, pooler):
        client = pooler.wire()
        client.send(parse("", "SELECT 1"), bind(), execute(), parse("", "SELECT 1/0"), bind(), execute(),
                    parse("", "SELECT 3"), bind(), execute(), SYNC, parse("", "SELECT 4"), bind(), execute(), SYNC)
        first = client.collect()
        assert first.rows == [["1"]]
        assert [error["C"] for error in first.errors] == ["22012"]
        assert client.collect().rows == [["4"]]

    def test_flush_brings_answers_before_sync(self, pooler):
        client = pooler.wire()
        client.send(parse("", "SELECT $1::int", [23]), describe("S"), wire.FLUSH)
        assert [client.read().type for _ in range(3)] == ["1", "t", "T"]
        client.send(bind(values=[7]), execute(), SYNC)
        assert client.collect().rows == [["7"]]

    def test_portal_fetched_in_parts_within_one_pipeline(self, pooler):
        client = pooler.wire()
        client.send(parse("", "SELECT generate_series(1, 5)"), bind(portal="p"), execute("p", 2), wire.FLUSH)
        assert [client.read().type for _ in range(5)] == ["1", "2", "D", "D", "s"]
        client.send(execute("p", 0), close("P", "p"), SYNC)
        assert client.collect().types == "DDDC3Z"

    def test_function_call(self, pooler):
        client = pooler.wire()
        oid = int(client.value("SELECT 'int4pl'::regproc::oid::int"))
        client.send(function_call(oid, struct.pack("!i", 40), struct.pack("!i", 2)))
        result = client.collect()
        assert result.types == "VZ"
        assert result.messages[0].body == struct.pack("!ii", 4, 42)

    def test_notices_reach_the_client(self, pooler):
        result = pooler.wire().query("DO $$ BEGIN RAISE NOTICE 'look here'; END $$")
        assert [notice["M"] for notice in result.notices] == ["look here"]

    def test_notification_reaches_a_listener_in_session_mode(self, make_pooler):
        pooler = make_pooler(settings={"pool_mode": "session"})
        listener, sender = pooler.wire(), pooler.wire()
        assert listener.query("LISTEN news").tags == ["LISTEN"]
        sender.query("NOTIFY news, 'extra'")
        got = listener.read_type("A")
        assert got.body[4:] == b"news\0extra\0"

    def test_binary_parameters_and_results_pass_unchanged(self, pooler):
        client = pooler.wire()
        payload = bytes(range(256)) * 40
        result = client.extended(parse("", "SELECT $1::bytea", [17]), bind(values=[payload], formats=[1],
                                                                          result_formats=[1]), execute())
        (row,) = [m.body for m in result.messages if m.type == "D"]
        assert row[6:] == payload


class TestCopy:
    @pytest.mark.smoke
    def test_copy_in_by_simple_query(self, pooler, table):
        client = pooler.wire()
        client.send(query(f"COPY {table} FROM STDIN"))
        client.read_type("G")
        client.send(*[copy_data(f"{n}\tt{n}\n".encode()) for n in range(1000)], wire.COPY_DONE)
        assert client.collect().tags == ["COPY 1000"]
        assert client.value(f"SELECT sum(n) FROM {table}") == "499500"

    @pytest.mark.smoke
    def test_copy_out_by_simple_query(self, pooler):
        result = pooler.wire().query("COPY (SELECT generate_series(1, 1000)) TO STDOUT")
        assert result.types == "H" + "d" * 1000 + "cCZ"

    def test_copy_fail_reports_an_error_and_the_connection_goes_on(self, pooler, table):
        client = pooler.wire()
        client.send(query(f"COPY {table} FROM STDIN"))
        client.read_type("G")
        client.send(copy_data(b"1\tx\n"), copy_fail("changed my mind"))
        result = client.collect()
        assert result.error["C"] == "57014"
        assert "changed my mind" in result.error["M"]
        assert client.value(f"SELECT count(*) FROM {table}") == "0"

    def test_copy_in_error_discards_the_rest_of_the_data(self, pooler, table):
        client = pooler.wire()
        client.send(query(f"COPY {table} FROM STDIN"))
        client.read_type("G")
        client.send(copy_data(b"not a number\tx\n"), *[copy_data(b"1\ty\n")] * 5000, wire.COPY_DONE)
        assert client.collect().error["C"] == "22P02"
        assert client.value("SELECT 'fine'") == "fine"

    def test_extended_copy_in(self, pooler, table):
        client = pooler.wire()
        client.send(parse("", f"COPY {table} FROM STDIN"), bind(), execute(), wire.FLUSH)
        assert [client.read().type for _ in range(3)] == ["1", "2", "G"]
        client.send(copy_data(b"5\tfive\n"), wire.COPY_DONE, SYNC)
        assert client.collect().tags == ["COPY 1"]

    def test_extended_copy_in_with_sync_sent_before_the_data(self, pooler, table):
        client = pooler.wire()
        client.send(parse("", f"COPY {table} FROM STDIN"), bind(), execute(), SYNC)
        assert [client.read().type for _ in range(3)] == ["1", "2", "G"]
        client.send(copy_data(b"6\tsix\n"), wire.COPY_DONE, SYNC)
        assert client.collect().tags == ["COPY 1"]
        assert client.value(f"SELECT n FROM {table}") == "6"

    def test_extended_copy_out(self, pooler):
        client = pooler.wire()
        result = client.extended(parse("", "COPY (SELECT 1) TO STDOUT"), bind(), execute())
        assert result.types == "12HdcCZ"

    def test_late_copy_data_without_a_server_is_discarded(self, pooler):
        client = pooler.wire()
        client.send(copy_data(b"nobody wants this\n"), wire.COPY_DONE)
        assert client.value("SELECT 'calm'") == "calm"

    def test_several_copies_in_one_simple_query(self, pooler, table):
        client = pooler.wire()
        client.send(query(f"COPY {table} FROM STDIN; COPY {table} FROM STDIN; SELECT count(*) FROM {table}"))
        client.read_type("G")
        client.send(copy_data(b"1\ta\n"), wire.COPY_DONE)
        assert [client.read().type for _ in range(2)] == ["C", "G"]
        client.send(copy_data(b"2\tb\n"), wire.COPY_DONE)
        assert client.collect().rows == [["2"]]


class TestMalformed:
    @pytest.mark.parametrize("kind", ["Y", "\0", "z", "v", "R"])
    def test_unknown_message_type_is_fatal(self, pooler, kind):
        client = pooler.wire()
        client.send(message(kind, b"1234"))
        client.expect_fatal("unknown pkt" if kind != "\0" else None, "08P01")

    @pytest.mark.parametrize("length", [0, 3, 0x80000000, 0xFFFFFFFF])
    def test_impossible_length_is_fatal(self, pooler, length):
        client = pooler.wire()
        client.send(b"Q" + struct.pack("!I", length) + b"xxxxxxxx")
        assert client.expect_fatal(code="08P01")["M"].startswith("bad packet header: '51")

    @pytest.mark.pgweir
    def test_message_beyond_max_packet_size_is_fatal(self, make_pooler):
        client = make_pooler(settings={"max_packet_size": 10000}).wire()
        client.send(b"Q" + struct.pack("!I", 20000))
        assert client.expect_fatal(code="08P01")["M"].startswith("bad packet header: '51")

    def test_second_startup_packet_is_refused(self, pooler):
        client = connect(pooler)
        client.login(**LOGIN)
        client.send(startup_packet(LOGIN))
        assert client.expect_fatal(code="08P01")["M"]

    @pytest.mark.pgweir
    @pytest.mark.parametrize("kind,body,text", [
        ("P", b"no terminator", "broken Parse packet"), ("P", b"name\0sql\0\0\5", "broken Parse packet"),
        ("B", b"portal without end", "broken Bind packet"), ("D", b"", "broken Describe packet"),
        ("D", b"Sname", "broken Describe packet"), ("C", b"S", "broken Close packet")])
    def test_broken_extended_messages_are_fatal(self, pooler, kind, body, text):
        client = pooler.wire()
        client.send(message(kind, body), SYNC)
        client.expect_fatal(text, "08P01")

    def test_garbage_mid_transaction_costs_only_this_client(self, make_pooler):
        pooler = make_pooler(settings={"default_pool_size": 1})
        client = pooler.wire()
        client.query("BEGIN")
        client.send(message("Y"))
        client.expect_fatal("unknown pkt")
        assert pooler.wire().query("SELECT 1").status == "I"

    def test_password_message_after_login_is_refused(self, pooler):
        client = pooler.wire()
        client.send(message("p", b"secret\0"))
        assert client.expect_fatal(code="08P01")["M"]

    def test_disable_pqexec_refuses_simple_queries_only(self, make_pooler):
        pooler = make_pooler(settings={"disable_pqexec": 1})
        client = pooler.wire()
        assert client.extended(parse("", "SELECT 1"), bind(), execute()).rows == [["1"]]
        client.send(query("SELECT 1"))
        client.expect_fatal("PQexec disallowed", "08P01")


@pytest.mark.heavy
class TestMemory:
    """What passes through is never held: the process does not grow with the size of a message or a stream."""

    GROWTH_KIB = 1024

    def warm_up(self, pooler):
        for _ in range(3):
            with pooler.wire() as client:
                client.query("SELECT repeat('x', 1000000)")

    def test_huge_row_passes_in_constant_memory(self, pooler):
        self.warm_up(pooler)
        client = pooler.wire(timeout=60)
        before = pooler.memory_kib("VmHWM")
        client.send(query("SELECT repeat('x', 64 * 1024 * 1024)"))
        client.read_type("T")
        kind, length = client.skip_body()
        assert (kind, length) == ("D", 64 * 1024 * 1024 + 6)
        client.collect()
        assert pooler.memory_kib("VmHWM") - before < self.GROWTH_KIB

    @pytest.mark.parametrize("count", [0, 1])
    def test_turns_of_one_buffer_or_without_a_limit(self, make_pooler, count):
        pooler = make_pooler(settings={"sbuf_loopcnt": count})
        client, other = pooler.wire(), pooler.wire()
        client.send(query("SELECT repeat('x', 1000) FROM generate_series(1, 5000)"))
        assert other.value("SELECT 1") == "1"
        assert len(client.collect().rows) == 5000

    def test_huge_query_passes_in_constant_memory(self, pooler):
        self.warm_up(pooler)
        client = pooler.wire(timeout=60)
        before = pooler.memory_kib("VmHWM")
        assert client.value("SELECT length('" + "y" * (32 << 20) + "')") == str(32 << 20)
        assert pooler.memory_kib("VmHWM") - before < self.GROWTH_KIB

    def test_copy_out_of_200_mb_in_constant_memory(self, pooler):
        self.warm_up(pooler)
        client = pooler.wire(timeout=120)
        before = pooler.memory_kib("VmHWM")
        client.send(query("COPY (SELECT repeat('z', 100000) FROM generate_series(1, 2000)) TO STDOUT"))
        client.read_type("H")
        total = 0
        while True:
            kind, length = client.skip_body()
            if kind == "c":
                break
            total += length
        client.collect()
        assert total == 2000 * 100001
        assert pooler.memory_kib("VmHWM") - before < self.GROWTH_KIB

    def test_copy_in_of_200_mb_in_constant_memory(self, pooler, table):
        self.warm_up(pooler)
        client = pooler.wire(timeout=120)
        before = pooler.memory_kib("VmHWM")
        client.send(query(f"COPY {table} (token) FROM STDIN WHERE length(token) < 5"))
        client.read_type("G")
        chunk = copy_data(b"w" * 99999 + b"\n") * 10
        for _ in range(200):
            client.send(chunk)
        client.send(wire.COPY_DONE)
        assert client.collect().tags == ["COPY 0"]
        assert pooler.memory_kib("VmHWM") - before < self.GROWTH_KIB

    def test_client_that_does_not_read_costs_no_memory(self, pooler):
        self.warm_up(pooler)
        slow = pooler.wire(timeout=60)
        before = pooler.memory_kib("VmHWM")
        slow.send(query("SELECT repeat('q', 1000) FROM generate_series(1, 100000)"))
        with pooler.wire() as other:
            for _ in range(200):
                assert other.value("SELECT 'moving'") == "moving"
        assert pooler.memory_kib("VmHWM") - before < self.GROWTH_KIB
        assert len(slow.collect().rows) == 100000
