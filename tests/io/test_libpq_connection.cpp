// What is made of libpq's messages and of the row that a probe answers with.
#include <catch2/catch.hpp>
#include <vector>

#include "proxy/io/host_prober.hpp"
#include "proxy/io/libpq_connection.hpp"

using namespace pgweir::io;
using namespace std::chrono_literals;

namespace {

/// A row of text; null pointers are nulls.
LibpqResult row(const std::vector<const char*>& values) {
  LibpqResult result(::PQmakeEmptyPGresult(nullptr, PGRES_TUPLES_OK));
  std::vector<PGresAttDesc> columns(values.size());
  char name[] = "column";
  for (auto& column : columns) column.name = name;
  REQUIRE(::PQsetResultAttrs(result.get(), static_cast<int>(columns.size()), columns.data()) == 1);
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::string text = values[i] == nullptr ? "" : values[i];
    const int length = values[i] == nullptr ? -1 : static_cast<int>(text.size());
    REQUIRE(::PQsetvalue(result.get(), 0, static_cast<int>(i), text.data(), length) == 1);
  }
  return result;
}

std::string refusal(const std::vector<const char*>& values) {
  const auto answer = read_probe(row(values).get());
  return answer ? "none" : answer.error();
}

}  // namespace

TEST_CASE("libpq: a server that refuses tells its code") {
  const auto failure = parse_libpq_error(
      "connection to server at \"127.0.0.1\", port 5432 failed: FATAL:  28P01: password authentication failed for user "
      "\"x\"\nLOCATION:  auth_failed, auth.c:326\n"
      "connection to server at \"127.0.0.1\", port 5432 failed: FATAL:  28P01: password authentication failed for user "
      "\"x\"\nLOCATION:  auth_failed, auth.c:326\n");
  CHECK(failure.sqlstate == "28P01");
  CHECK(failure.text == "password authentication failed for user \"x\"");
  CHECK_FALSE(failure.refused);
}

TEST_CASE("libpq: a detail is kept, advice is not") {
  const auto failure = parse_libpq_error(
      "connection to server on socket \"/tmp/.s.PGSQL.1\" failed: FATAL:  42501: permission denied for database "
      "\"app\"\nDETAIL:  User does not have CONNECT privilege.\nLOCATION:  CheckMyDatabase, postinit.c:389\n");
  CHECK(failure.text == "permission denied for database \"app\"; User does not have CONNECT privilege.");
  CHECK(failure.sqlstate == "42501");
  CHECK(parse_libpq_error("server closed the connection unexpectedly\n\tThis probably means the server terminated\n")
            .text == "server closed the connection unexpectedly");
  CHECK(parse_libpq_error("").text == "connection failed");
}

TEST_CASE("libpq: nobody listens, or it does not accept connections now") {
  CHECK(parse_libpq_error("connection to server at \"127.0.0.1\", port 1 failed: Connection refused\n\tIs the server "
                          "running on that host and accepting TCP/IP connections?\n")
            .refused);
  CHECK(parse_libpq_error("connection to server on socket \"/x/.s.PGSQL.1\" failed: No such file or directory\n")
            .refused);
  CHECK(parse_libpq_error(
            "connection to server at \"h\" (10.0.0.1), port 1 failed: FATAL:  57P03: the database system is "
            "starting up\n")
            .refused);
  CHECK_FALSE(parse_libpq_error("connection to server at \"h\", port 1 failed: No route to host\n").refused);
  CHECK_FALSE(
      parse_libpq_error(
          "connection to server at \"h\", port 1 failed: root certificate file \"x\": No such file or directory\n")
          .refused);
}

TEST_CASE("libpq: a message in another language has its code in the same place") {
  const auto failure = parse_libpq_error(
      "connection to server at \"h\", port 1 failed: SCHWERWIEGEND:  57P03: das "
      "Datenbanksystem startet\n");
  CHECK(failure.sqlstate == "57P03");
  CHECK(failure.refused);
}

TEST_CASE("probe: the answer of a primary") {
  const auto answer = read_probe(
      row({"f", "3", "16/B374D848", nullptr, nullptr, nullptr, "7123456789012345678", "8192", "16777216"}).get());
  REQUIRE(answer.has_value());
  CHECK_FALSE(answer->in_recovery);
  CHECK(answer->timeline == 3);
  CHECK(answer->insert_lsn.value == 0x16B374D848);
  CHECK_FALSE(answer->replay_age);
  CHECK(answer->system_identifier == 7123456789012345678U);
}

TEST_CASE("probe: a position behind the header of a page is that of the record before it") {
  const auto position = [](const char* text) {
    return read_probe(row({"f", "1", text, nullptr, nullptr, nullptr, "1", "8192", "16777216"}).get())
        ->insert_lsn.value;
  };
  CHECK(position("0/5000028") == 0x5000000);
  CHECK(position("0/5002018") == 0x5002000);
}

TEST_CASE("probe: the answer of a standby") {
  const auto answer = read_probe(row({"t", "1", nullptr, "0/20", "0/10", "1500", "-1", "8192", "16777216"}).get());
  REQUIRE(answer.has_value());
  CHECK(answer->in_recovery);
  CHECK(answer->receive_lsn.value == 0x20);
  CHECK(answer->replay_lsn.value == 0x10);
  CHECK(answer->replay_age == 1500ms);
  CHECK(answer->system_identifier == ~std::uint64_t{0});
  // It streams nothing, and nothing has been replayed since the start.
  CHECK(read_probe(row({"t", "1", nullptr, nullptr, "0/10", nullptr, "1", "8192", "16777216"}).get()).has_value());
}

TEST_CASE("probe: what is no answer is told") {
  CHECK(refusal({"f", "1", "0/1", nullptr, nullptr, nullptr, "1", "8192", "16777216"}) == "none");
  CHECK(refusal({"f", "1", "8192", "16777216"}) == "unexpected answer to the probe: not one row of nine columns");
  CHECK(refusal({nullptr, "1", "0/1", nullptr, nullptr, nullptr, "1", "8192", "16777216"}) ==
        "unexpected answer to the probe: no role");
  CHECK(refusal({"f", nullptr, "0/1", nullptr, nullptr, nullptr, "1", "8192", "16777216"}) ==
        "unexpected answer to the probe: no timeline");
  CHECK(refusal({"f", "0", "0/1", nullptr, nullptr, nullptr, "1", "8192", "16777216"}) ==
        "unexpected answer to the probe: no timeline");
  CHECK(refusal({"f", "1", "x", nullptr, nullptr, nullptr, "1", "8192", "16777216"}) ==
        "unexpected answer to the probe: not a position: \"x\"");
  CHECK(refusal({"f", "1", nullptr, nullptr, nullptr, nullptr, "1", "8192", "16777216"}) ==
        "unexpected answer to the probe: a primary without a position");
}
