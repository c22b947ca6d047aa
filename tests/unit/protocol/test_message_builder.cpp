// Builders: the exact bytes of each message, round trips through the views, and framing at every split point.
#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>
#include <stdexcept>
#include <string>

#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/message_view.hpp"

namespace pgweir::protocol {
namespace {

template <std::size_t N>
std::string raw(const char (&literal)[N]) {
  return {literal, N - 1};
}

using Append = std::function<void(std::string&)>;
using Values = std::vector<std::optional<std::string_view>>;

/// What `append` puts behind existing bytes, which must stay as they are.
std::string built(const Append& append) {
  std::string out = "before";
  append(out);
  REQUIRE(out.starts_with("before"));
  return out.substr(6);
}

/// The body of the one message in `message`. Checks that it frames itself: complete at its last byte and no earlier.
std::string body_of(const std::string& message) {
  FrameHeader header;
  for (std::size_t size = 0; size < kHeaderSize; ++size) {
    CHECK(read_frame_header(ByteView(message).substr(0, size), 1 << 20, header) == FrameStatus::NeedMore);
  }
  REQUIRE(read_frame_header(message, 1 << 20, header) == FrameStatus::Ok);
  REQUIRE(header.total() == message.size());
  return message.substr(kHeaderSize);
}

TEST_CASE("Authentication messages", "[message_builder]") {
  CHECK(built(append_authentication_ok) == raw("R\x00\x00\x00\x08\x00\x00\x00\x00"));
  CHECK(built(append_authentication_cleartext) == raw("R\x00\x00\x00\x08\x00\x00\x00\x03"));
  CHECK(built([](std::string& out) { append_authentication_md5(out, raw("a\0bc")); }) ==
        raw("R\x00\x00\x00\x0c\x00\x00\x00\x05") + raw("a\0bc"));
  const std::string_view mechanisms[] = {"A-PLUS", "B"};
  CHECK(built([&](std::string& out) { append_authentication_sasl(out, mechanisms); }) ==
        raw("R\x00\x00\x00\x12\x00\x00\x00\x0a") + raw("A-PLUS\0B\0\0"));
  CHECK(built([](std::string& out) { append_authentication_sasl_continue(out, "r=1"); }) ==
        raw("R\x00\x00\x00\x0b\x00\x00\x00\x0br=1"));
  CHECK(built([](std::string& out) { append_authentication_sasl_final(out, "v=1"); }) ==
        raw("R\x00\x00\x00\x0b\x00\x00\x00\x0cv=1"));
}

TEST_CASE("the messages of a welcome", "[message_builder]") {
  CHECK(built([](std::string& out) { append_parameter_status(out, "TimeZone", "UTC"); }) ==
        raw("S\x00\x00\x00\x11TimeZone\0UTC\0"));
  CHECK(built([](std::string& out) { append_backend_key_data(out, 42, "\x01\x02\x03\x04"); }) ==
        raw("K\x00\x00\x00\x0c\x00\x00\x00\x2a\x01\x02\x03\x04"));
  CHECK(built([](std::string& out) { append_ready_for_query(out, 'T'); }) == raw("Z\x00\x00\x00\x05T"));
  const std::string_view options[] = {"_pq_.x"};
  CHECK(built([&](std::string& out) { append_negotiate_protocol_version(out, 196608, options); }) ==
        raw("v\x00\x00\x00\x13\x00\x03\x00\x00\x00\x00\x00\x01_pq_.x\0"));
}

TEST_CASE("ErrorResponse and NoticeResponse", "[message_builder]") {
  const std::string three = raw("SFATAL\0") + raw("C08P01\0") + raw("Mbad\0\0");
  CHECK(built([](std::string& out) { append_error(out, "FATAL", "08P01", "bad"); }) ==
        raw("E\x00\x00\x00\x18") + three);
  CHECK(built([](std::string& out) { append_notice(out, "FATAL", "08P01", "bad"); }) ==
        raw("N\x00\x00\x00\x18") + three);

  const ErrorText text{"ERROR", "42601", "m", "d", "h", true};
  const std::string all = raw("SERROR\0VERROR\0") + raw("C42601\0") + raw("Mm\0") + raw("Dd\0") + raw("Hh\0\0");
  CHECK(built([&](std::string& out) { append_error(out, text); }) == raw("E\x00\x00\x00\x23") + all);
  CHECK(built([&](std::string& out) { append_notice(out, text); }) == raw("N\x00\x00\x00\x23") + all);
  const ErrorText detail_only{.severity = "NOTICE", .sqlstate = "00000", .message = "m", .detail = "why"};
  CHECK(built([&](std::string& out) { append_notice(out, detail_only); }) ==
        raw("N\x00\x00\x00\x1c") + raw("SNOTICE\0C00000\0") + raw("Mm\0") + raw("Dwhy\0\0"));
}

TEST_CASE("the short replies", "[message_builder]") {
  CHECK(built(append_parse_complete) == raw("1\x00\x00\x00\x04"));
  CHECK(built(append_bind_complete) == raw("2\x00\x00\x00\x04"));
  CHECK(built(append_close_complete) == raw("3\x00\x00\x00\x04"));
  CHECK(built(append_no_data) == raw("n\x00\x00\x00\x04"));
  CHECK(built(append_empty_query_response) == raw("I\x00\x00\x00\x04"));
  CHECK(built([](std::string& out) { append_command_complete(out, "SHOW"); }) == raw("C\x00\x00\x00\x09SHOW\0"));
}

TEST_CASE("a result of rows", "[message_builder]") {
  const Column columns[] = {{.name = "a"}, {.name = "id", .type_oid = 20, .type_len = 8}};
  CHECK(built([&](std::string& out) { append_row_description(out, columns); }) ==
        raw("T\x00\x00\x00\x2f\x00\x02") +
            raw("a\0\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00") +
            raw("id\0\x00\x00\x00\x00\x00\x00\x00\x00\x00\x14\x00\x08\xff\xff\xff\xff\x00\x00"));
  const Values values{"hi", std::nullopt, ""};
  CHECK(built([&](std::string& out) { append_data_row(out, values); }) ==
        raw("D\x00\x00\x00\x14\x00\x03\x00\x00\x00\x02hi\xff\xff\xff\xff\x00\x00\x00\x00"));
}

TEST_CASE("the messages of a login to a server", "[message_builder]") {
  CHECK(built([](std::string& out) { append_password(out, "pw"); }) == raw("p\x00\x00\x00\x07pw\0"));
  CHECK(built([](std::string& out) { append_sasl_initial_response(out, "M", "n,,"); }) ==
        raw("p\x00\x00\x00\x0dM\0\x00\x00\x00\x03n,,"));
  CHECK(built([](std::string& out) { append_sasl_response(out, "c=x"); }) == raw("p\x00\x00\x00\x07"
                                                                                 "c=x"));
}

TEST_CASE("queries, simple and extended", "[message_builder]") {
  CHECK(built([](std::string& out) { append_query(out, "SELECT 1"); }) == raw("Q\x00\x00\x00\x0dSELECT 1\0"));
  CHECK(built([](std::string& out) { append_parse(out, "s", "q", ""); }) == raw("P\x00\x00\x00\x0as\0q\0\0\0"));
  CHECK(built([](std::string& out) { append_parse(out, "s", "q", raw("\x00\x01\x00\x00\x00\x17")); }) ==
        raw("P\x00\x00\x00\x0es\0q\0\x00\x01\x00\x00\x00\x17"));
  const Values parameters{"7", std::nullopt};
  CHECK(built([&](std::string& out) { append_bind_text(out, "p", "s", parameters); }) ==
        raw("B\x00\x00\x00\x17p\0s\0\x00\x00\x00\x02\x00\x00\x00\x01") + "7" + raw("\xff\xff\xff\xff\x00\x00"));
  CHECK(built([](std::string& out) { append_describe(out, 'S', "s"); }) == raw("D\x00\x00\x00\x07Ss\0"));
  CHECK(built([](std::string& out) { append_close(out, 'P', "p"); }) == raw("C\x00\x00\x00\x07Pp\0"));
  CHECK(built([](std::string& out) { append_execute(out, "p", 256); }) == raw("E\x00\x00\x00\x0ap\0\x00\x00\x01\x00"));
  CHECK(built(append_sync) == raw("S\x00\x00\x00\x04"));
  CHECK(built(append_flush) == raw("H\x00\x00\x00\x04"));
  CHECK(built(append_terminate) == raw("X\x00\x00\x00\x04"));
}

TEST_CASE("COPY", "[message_builder]") {
  CHECK(built([](std::string& out) { append_copy_data(out, raw("a\0b")); }) == raw("d\x00\x00\x00\x07") + raw("a\0b"));
  CHECK(built(append_copy_done) == raw("c\x00\x00\x00\x04"));
  CHECK(built([](std::string& out) { append_copy_fail(out, "no"); }) == raw("f\x00\x00\x00\x07no\0"));
}

TEST_CASE("client messages are read back by the views", "[message_builder]") {
  const std::string types = raw("\x00\x01\x00\x00\x00\x17");
  const std::string parse = body_of(built([&](std::string& out) { append_parse(out, "s", "SELECT $1", types); }));
  CHECK(parse_parse(parse)->statement == "s");
  CHECK(parse_parse(parse)->query == "SELECT $1");
  CHECK(parse_parse(parse)->parameter_types_raw == types);

  const Values parameters{"x", std::nullopt, ""};
  const std::string bind = body_of(built([&](std::string& out) { append_bind_text(out, "p", "s", parameters); }));
  REQUIRE(parse_bind(bind));
  CHECK(parse_bind(bind)->portal == "p");
  CHECK(parse_bind(bind)->statement == "s");

  const std::string describe = body_of(built([](std::string& out) { append_describe(out, 'S', "s"); }));
  CHECK(parse_target(describe)->name == "s");
  const std::string close = body_of(built([](std::string& out) { append_close(out, 'P', "p"); }));
  CHECK(parse_target(close)->kind == 'P');
  const std::string execute = body_of(built([](std::string& out) { append_execute(out, "p", -5); }));
  CHECK(parse_execute(execute)->max_rows == -5);
  const std::string query = body_of(built([](std::string& out) { append_query(out, "SELECT 1"); }));
  CHECK(parse_query(query)->sql == "SELECT 1");
  const std::string password = body_of(built([](std::string& out) { append_password(out, "pw"); }));
  CHECK(parse_password(password) == ByteView("pw"));
  const std::string sasl = body_of(built([](std::string& out) { append_sasl_initial_response(out, "M", "d"); }));
  CHECK(parse_sasl_initial_response(sasl)->mechanism == "M");
  CHECK(parse_sasl_initial_response(sasl)->data == ByteView("d"));
}

TEST_CASE("server messages are read back by the views", "[message_builder]") {
  const std::string error = body_of(built([](std::string& out) {
    append_error(out, {"ERROR", "22012", "m", "d", "h", true});
  }));
  const std::optional<ErrorFields> fields = parse_error_fields(error);
  REQUIRE(fields);
  CHECK(fields->severity == "ERROR");
  CHECK(fields->severity_v == "ERROR");
  CHECK(fields->sqlstate == "22012");
  CHECK(fields->message == "m");
  CHECK(fields->detail == "d");
  CHECK(fields->hint == "h");

  const std::string status = body_of(built([](std::string& out) { append_parameter_status(out, "n", "v"); }));
  CHECK(parse_parameter_status(status)->value == "v");
  const std::string key = body_of(built([](std::string& out) { append_backend_key_data(out, 9, "12345678"); }));
  CHECK(parse_backend_key_data(key)->pid == 9);
  CHECK(parse_backend_key_data(key)->secret == "12345678");
  CHECK(parse_ready_for_query(body_of(built([](std::string& out) { append_ready_for_query(out, 'E'); }))) == 'E');

  const std::string_view options[] = {"_pq_.x", "_pq_.y"};
  const std::string negotiate =
      body_of(built([&](std::string& out) { append_negotiate_protocol_version(out, 196608, options); }));
  CHECK(parse_negotiate_protocol_version(negotiate)->options == std::vector<ByteView>{"_pq_.x", "_pq_.y"});

  std::vector<ByteView> mechanisms;
  const std::string sasl = body_of(built([&](std::string& out) { append_authentication_sasl(out, options); }));
  REQUIRE(sasl_mechanisms(parse_authentication(sasl)->data, mechanisms));
  CHECK(mechanisms.size() == 2);

  const Column columns[] = {{.name = "a"}, {.name = "b"}, {.name = ""}};
  CHECK(parse_row_description(body_of(built([&](std::string& out) { append_row_description(out, columns); }))) == 3);
  std::vector<std::optional<ByteView>> row;
  const Values values{"x", std::nullopt};
  const std::string data_row = body_of(built([&](std::string& out) { append_data_row(out, values); }));
  REQUIRE(parse_data_row(data_row, row));
  CHECK(std::equal(row.begin(), row.end(), values.begin(), values.end()));
}

TEST_CASE("a stream of messages is cut into the same messages at every split point", "[message_builder]") {
  std::string stream;
  append_parse(stream, "", "SELECT 1", "");
  append_bind_text(stream, "", "", {});
  append_describe(stream, 'P', "");
  append_execute(stream, "", 0);
  append_sync(stream);
  append_query(stream, "COMMIT");
  append_terminate(stream);
  for (std::size_t split = 0; split <= stream.size(); ++split) {
    std::string types;
    std::string buffer;
    for (const std::string& part : {stream.substr(0, split), stream.substr(split)}) {
      buffer += part;
      FrameHeader header;
      while (read_frame_header(buffer, 1 << 20, header) == FrameStatus::Ok && buffer.size() >= header.total()) {
        types += header.type;
        buffer.erase(0, header.total());
      }
    }
    INFO("split " << split);
    CHECK(types == "PBDESQX");
    CHECK(buffer.empty());
  }
}

TEST_CASE("a NUL inside a text ends it and cannot break the framing", "[message_builder]") {
  const std::string evil = raw("a\0b");
  CHECK(parse_query(body_of(built([&](std::string& out) { append_query(out, evil); })))->sql.size() == 1);
  CHECK(parse_error_fields(body_of(built([&](std::string& out) { append_error(out, "FATAL", "08P01", evil); }))));
  CHECK(parse_parameter_status(body_of(built([&](std::string& out) { append_parameter_status(out, evil, evil); }))));
}

TEST_CASE("counts up to 65535 are expressible and greater ones are refused", "[message_builder]") {
  const Values most(65535, std::nullopt);
  std::vector<std::optional<ByteView>> row;
  REQUIRE(parse_data_row(body_of(built([&](std::string& out) { append_data_row(out, most); })), row));
  CHECK(row.size() == 65535);
  CHECK(parse_bind(body_of(built([&](std::string& out) { append_bind_text(out, "", "", most); }))));

  const Values too_many(65536, std::nullopt);
  const std::vector<Column> columns(65536);
  std::string out;
  CHECK_THROWS_AS(append_data_row(out, too_many), std::length_error);
  CHECK_THROWS_AS(append_bind_text(out, "", "", too_many), std::length_error);
  CHECK_THROWS_AS(append_row_description(out, columns), std::length_error);
}

}  // namespace
}  // namespace pgweir::protocol
