// Views over message bodies: bytes written out here, every truncation and extension refused, counts that do not fit.
#include <catch2/catch.hpp>
#include <functional>
#include <string>

#include "protocol/message_view.hpp"

namespace pgweir::protocol {
namespace {

/// The bytes of a literal, NULs and all; they live as long as the program.
template <std::size_t N>
constexpr ByteView raw(const char (&literal)[N]) {
  return {literal, N - 1};
}

using Accepts = std::function<bool(ByteView)>;

/// Checks that `body` is accepted, and no proper prefix of it nor the body with bytes behind it.
void check_exact(ByteView body, const Accepts& accepts) {
  for (std::size_t size = 0; size < body.size(); ++size) {
    INFO("size " << size);
    CHECK_FALSE(accepts(body.substr(0, size)));
  }
  CHECK(accepts(body));
  CHECK_FALSE(accepts(std::string(body) + '\0'));
  CHECK_FALSE(accepts(std::string(body) + "x"));
}

TEST_CASE("Parse", "[message_view]") {
  const ByteView body = raw("s1\0SELECT $1\0\x00\x02\x00\x00\x00\x17\x00\x00\x00\x19");
  check_exact(body, [](ByteView b) { return parse_parse(b).has_value(); });
  const std::optional<ParseView> view = parse_parse(body);
  REQUIRE(view);
  CHECK(view->statement == "s1");
  CHECK(view->query == "SELECT $1");
  CHECK(view->parameter_types_raw == raw("\x00\x02\x00\x00\x00\x17\x00\x00\x00\x19"));

  const std::optional<ParseView> unnamed = parse_parse(raw("\0\0\0\0"));
  REQUIRE(unnamed);
  CHECK(unnamed->statement.empty());
  CHECK(unnamed->query.empty());
  CHECK(unnamed->parameter_types_raw == raw("\0\0"));

  CHECK_FALSE(parse_parse(raw("\0\0\xff\xff")));                  // -1 types
  CHECK_FALSE(parse_parse(raw("\0\0\x00\x02\x00\x00\x00\x17")));  // one of two
  CHECK_FALSE(parse_parse("no terminator"));
}

TEST_CASE("Bind", "[message_view]") {
  const ByteView body =
      raw("p\0s1\0"
          "\x00\x01\x00\x01"  // one format code: binary
          "\x00\x03"          // three values: "ab", null, empty
          "\x00\x00\x00\x02"
          "ab"
          "\xff\xff\xff\xff"
          "\x00\x00\x00\x00"
          "\x00\x02\x00\x00\x00\x01");  // two result formats
  check_exact(body, [](ByteView b) { return parse_bind(b).has_value(); });
  const std::optional<BindView> view = parse_bind(body);
  REQUIRE(view);
  CHECK(view->portal == "p");
  CHECK(view->statement == "s1");
  CHECK(view->rest_offset == 5);
}

TEST_CASE("Bind with counts and lengths that do not fit", "[message_view]") {
  CHECK(parse_bind(raw("\0\0\0\0\0\0\0\0")));
  CHECK_FALSE(parse_bind(raw("\0\0\xff\xff\0\0\0\0")));                              // -1 format codes
  CHECK_FALSE(parse_bind(raw("\0\0\0\0\xff\xff\0\0")));                              // -1 values
  CHECK_FALSE(parse_bind(raw("\0\0\0\0\0\0\xff\xff")));                              // -1 result formats
  CHECK_FALSE(parse_bind(raw("\0\0\0\0\x00\x01\xff\xff\xff\xfe\0\0")));              // value length -2
  CHECK_FALSE(parse_bind(raw("\0\0\0\0\x00\x01\x80\x00\x00\x00\0\0")));              // smallest negative
  CHECK_FALSE(parse_bind(raw("\0\0\0\0\x00\x01\x7f\xff\xff\xff\0\0")));              // 2 GB
  CHECK_FALSE(parse_bind(raw("\0\0\x00\x02\0\0\0\0\x00\x01\xff\xff\xff\xff\0\0")));  // two formats, one value
  CHECK(parse_bind(raw("\0\0\x00\x01\0\0\x00\x01\xff\xff\xff\xff\0\0")));
}

TEST_CASE("the names of a Bind are found once both are complete", "[message_view]") {
  const ByteView body = raw("port\0stmt\0\x00\x00 and so on");
  for (std::size_t size = 0; size <= body.size(); ++size) {
    const auto names = two_strings(body.substr(0, size));
    INFO("size " << size);
    REQUIRE(names.has_value() == (size >= 10));
    if (names) CHECK(*names == std::pair<ByteView, ByteView>{"port", "stmt"});
  }
  CHECK(two_strings(raw("\0\0")) == std::pair<ByteView, ByteView>{"", ""});
}

TEST_CASE("Describe and Close", "[message_view]") {
  check_exact(raw("Sname\0"), [](ByteView b) { return parse_target(b).has_value(); });
  const std::optional<TargetView> statement = parse_target(raw("Sname\0"));
  REQUIRE(statement);
  CHECK(statement->kind == 'S');
  CHECK(statement->name == "name");
  const std::optional<TargetView> portal = parse_target(raw("P\0"));
  REQUIRE(portal);
  CHECK(portal->kind == 'P');
  CHECK(portal->name.empty());
  CHECK_FALSE(parse_target(raw("Xname\0")));
  CHECK_FALSE(parse_target(raw("\0")));
}

TEST_CASE("Execute", "[message_view]") {
  const ByteView body = raw("p\0\x00\x00\x01\x00");
  check_exact(body, [](ByteView b) { return parse_execute(b).has_value(); });
  CHECK(parse_execute(body)->portal == "p");
  CHECK(parse_execute(body)->max_rows == 256);
  CHECK(parse_execute(raw("\0\xff\xff\xff\xff"))->max_rows == -1);
}

TEST_CASE("Query has exactly one NUL, at its end", "[message_view]") {
  check_exact(raw("SELECT 1\0"), [](ByteView b) { return parse_query(b).has_value(); });
  CHECK(parse_query(raw("SELECT 1\0"))->sql == "SELECT 1");
  CHECK(parse_query(raw("\0"))->sql.empty());
  CHECK_FALSE(parse_query(raw("a\0b\0")));
}

TEST_CASE("password messages", "[message_view]") {
  check_exact(raw("secret\0"), [](ByteView b) { return parse_password(b).has_value(); });
  CHECK(parse_password(raw("secret\0")) == ByteView("secret"));

  const ByteView body = raw("SCRAM-SHA-256\0\x00\x00\x00\x05n,,n=");
  check_exact(body, [](ByteView b) { return parse_sasl_initial_response(b).has_value(); });
  const std::optional<SaslInitialResponseView> view = parse_sasl_initial_response(body);
  CHECK(view->mechanism == "SCRAM-SHA-256");
  CHECK(view->data == ByteView("n,,n="));

  const std::optional<SaslInitialResponseView> no_data = parse_sasl_initial_response(raw("X\0\xff\xff\xff\xff"));
  REQUIRE(no_data);
  CHECK_FALSE(no_data->data);
  CHECK_FALSE(parse_sasl_initial_response(raw("X\0\xff\xff\xff\xfe")));
}

TEST_CASE("ErrorResponse fields", "[message_view]") {
  const ByteView body = raw("SFEHLER\0VERROR\0C42P01\0Mno table\0Ddetail\0Hhint\0P8\0Fparse.c\0L12\0Rparserfail\0\0");
  check_exact(body, [](ByteView b) { return parse_error_fields(b).has_value(); });
  const std::optional<ErrorFields> fields = parse_error_fields(body);
  REQUIRE(fields);
  CHECK(fields->severity == "FEHLER");
  CHECK(fields->severity_v == "ERROR");
  CHECK(fields->sqlstate == "42P01");
  CHECK(fields->message == "no table");
  CHECK(fields->detail == "detail");
  CHECK(fields->hint == "hint");
  CHECK(fields->routine == "parserfail");

  const std::optional<ErrorFields> none = parse_error_fields(raw("\0"));
  REQUIRE(none);
  CHECK(none->message.empty());
  CHECK_FALSE(parse_error_fields(raw("\0Mhidden\0\0")));
}

TEST_CASE("ParameterStatus", "[message_view]") {
  const ByteView body = raw("TimeZone\0UTC\0");
  check_exact(body, [](ByteView b) { return parse_parameter_status(b).has_value(); });
  CHECK(parse_parameter_status(body)->name == "TimeZone");
  CHECK(parse_parameter_status(body)->value == "UTC");
}

TEST_CASE("BackendKeyData with a secret of 4 to 256 bytes", "[message_view]") {
  const ByteView body = raw("\x00\x00\x00\x2a\x01\x02\x03\x04");
  for (std::size_t size = 0; size < body.size(); ++size) {
    CHECK_FALSE(parse_backend_key_data(body.substr(0, size)));
  }
  const std::optional<BackendKeyDataView> view = parse_backend_key_data(body);
  REQUIRE(view);
  CHECK(view->pid == 42);
  CHECK(view->secret == "\x01\x02\x03\x04");
  CHECK(parse_backend_key_data(std::string(260, 'k')));
  CHECK_FALSE(parse_backend_key_data(std::string(261, 'k')));
}

TEST_CASE("ReadyForQuery", "[message_view]") {
  CHECK(parse_ready_for_query("I") == 'I');
  CHECK(parse_ready_for_query("T") == 'T');
  CHECK(parse_ready_for_query("E") == 'E');
  for (const char* body : {"", "X", "i", "II"}) CHECK_FALSE(parse_ready_for_query(body));
}

TEST_CASE("Authentication requests", "[message_view]") {
  check_exact(raw("\x00\x00\x00\x00"), [](ByteView b) { return parse_authentication(b).has_value(); });
  CHECK(parse_authentication(raw("\x00\x00\x00\x00"))->kind == AuthRequest::Ok);
  CHECK(parse_authentication(raw("\x00\x00\x00\x03"))->kind == AuthRequest::CleartextPassword);
  CHECK_FALSE(parse_authentication(raw("\x00\x00\x00\x03x")));

  const ByteView md5 = raw("\x00\x00\x00\x05S\0lt");
  check_exact(md5, [](ByteView b) { return parse_authentication(b).has_value(); });
  CHECK(md5_salt(*parse_authentication(md5)) == ByteView("S\0lt", 4));
  CHECK_FALSE(md5_salt(*parse_authentication(raw("\x00\x00\x00\x03"))));
  CHECK_FALSE(md5_salt(AuthenticationView{AuthRequest::Md5Password, "abc"}));

  const std::optional<AuthenticationView> final_data = parse_authentication(raw("\x00\x00\x00\x0cv=abc"));
  REQUIRE(final_data);
  CHECK(final_data->kind == AuthRequest::SaslFinal);
  CHECK(final_data->data == "v=abc");
  CHECK(parse_authentication(raw("\x00\x00\x00\x0br=n"))->kind == AuthRequest::SaslContinue);
  CHECK(parse_authentication(raw("\x00\x00\x00\x63?"))->kind == static_cast<AuthRequest>(99));
}

TEST_CASE("SASL mechanisms", "[message_view]") {
  const ByteView body = raw("\x00\x00\x00\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
  check_exact(body, [](ByteView b) { return parse_authentication(b).has_value(); });
  std::vector<ByteView> mechanisms{"left over"};
  REQUIRE(sasl_mechanisms(parse_authentication(body)->data, mechanisms));
  CHECK(mechanisms == std::vector<ByteView>{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"});
  CHECK(sasl_mechanisms(raw("\0"), mechanisms));
  CHECK(mechanisms.empty());
  CHECK_FALSE(sasl_mechanisms("", mechanisms));
  CHECK_FALSE(sasl_mechanisms(raw("A\0"), mechanisms));
}

TEST_CASE("CommandComplete", "[message_view]") {
  check_exact(raw("SELECT 5\0"), [](ByteView b) { return parse_command_complete(b).has_value(); });
  CHECK(parse_command_complete(raw("SELECT 5\0"))->tag == "SELECT 5");
}

TEST_CASE("NegotiateProtocolVersion", "[message_view]") {
  const ByteView body = raw("\x00\x03\x00\x00\x00\x00\x00\x02_pq_.a\0_pq_.b\0");
  check_exact(body, [](ByteView b) { return parse_negotiate_protocol_version(b).has_value(); });
  const std::optional<NegotiateView> view = parse_negotiate_protocol_version(body);
  REQUIRE(view);
  CHECK(view->minor == 196608);
  CHECK(view->options == std::vector<ByteView>{"_pq_.a", "_pq_.b"});
  CHECK(parse_negotiate_protocol_version(raw("\x00\x00\x00\x00\x00\x00\x00\x00")));
  CHECK_FALSE(parse_negotiate_protocol_version(raw("\x00\x03\x00\x00\xff\xff\xff\xff_pq_.a\0")));
  CHECK_FALSE(parse_negotiate_protocol_version(raw("\x00\x03\x00\x00\x00\x00\x00\x03_pq_.a\0")));
}

TEST_CASE("RowDescription", "[message_view]") {
  const ByteView column = raw("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00");
  const std::string body = std::string(raw("\0\2a\0")).append(column).append(1, '\0').append(column);
  check_exact(body, [](ByteView b) { return parse_row_description(b).has_value(); });
  CHECK(parse_row_description(body) == 2);
  CHECK(parse_row_description(raw("\x00\x00")) == 0);
  CHECK_FALSE(parse_row_description(std::string(raw("\xff\xff"
                                                    "a\0"))
                                        .append(column)));
}

TEST_CASE("DataRow", "[message_view]") {
  const ByteView body = raw("\x00\x03\x00\x00\x00\x02hi\xff\xff\xff\xff\x00\x00\x00\x00");
  std::vector<std::optional<ByteView>> columns;
  check_exact(body, [&columns](ByteView b) { return parse_data_row(b, columns); });
  columns.assign(5, std::nullopt);
  REQUIRE(parse_data_row(body, columns));
  REQUIRE(columns.size() == 3);
  CHECK(columns[0] == ByteView("hi"));
  CHECK_FALSE(columns[1]);
  CHECK(columns[2] == ByteView(""));

  REQUIRE(parse_data_row(raw("\0\0"), columns));
  CHECK(columns.empty());
  CHECK_FALSE(parse_data_row(raw("\xff\xff\x00\x00\x00\x00"), columns));          // -1 columns
  CHECK_FALSE(parse_data_row(raw("\x00\x01\xff\xff\xff\xfe"), columns));          // length -2
  CHECK_FALSE(parse_data_row(raw("\x00\x01\x00\x00\x00\x05hi"), columns));        // too long
  CHECK_FALSE(parse_data_row(raw("\x00\x02\xff\xff\xff\xff\x00\x00"), columns));  // second length cut off
}

}  // namespace
}  // namespace pgweir::protocol
