// The extended query protocol on the console: which message gets which answer, without a console.
#include "proxy/core/console_statements.hpp"

#include <catch2/catch.hpp>

#include "fake_host.hpp"
#include "proxy/core/admin_format.hpp"

using namespace pgweir;
using namespace pgweir::core;
using namespace pgweir::core::test;
using namespace std::string_literals;
using Next = ConsoleStatements::Next;

namespace {

std::string console_error(std::string_view text) {
  return made(append_console_error, text, "08P01");
}

ConsoleStatements::Step feed(ConsoleStatements& statements, const std::string& message) {
  return statements.on_message(message[0], ByteView(message).substr(5));
}

std::string said(ConsoleStatements& statements, const std::string& message) {
  const auto step = feed(statements, message);
  CHECK(step.next == Next::Send);
  return step.out;
}

/// A Bind that asks for these result formats, with `parameters` NULL parameters.
std::string bind_formats(const std::string& portal, const std::string& statement, std::vector<int> formats,
                         int parameters = 0) {
  std::string body = portal + '\0' + statement + '\0' + "\0\0"s;
  const auto put = [&](int value) { body += {static_cast<char>(value >> 8), static_cast<char>(value)}; };
  put(parameters);
  for (int i = 0; i < parameters; ++i) body += "\xff\xff\xff\xff";
  put(static_cast<int>(formats.size()));
  for (const int format : formats) put(format);
  std::string out = "B";
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>((body.size() + 4) >> shift);
  return out + body;
}

std::string execute_some(const std::string& portal, int rows) {
  return made(protocol::append_execute, portal, rows);
}

const protocol::Column kColumns[] = {{"name", 25, -1}, {"i", 23, 4}, {"q", 20, 8}, {"n", 1700, -1}, {"b", 17, -1}};

std::string header() {
  return made(protocol::append_row_description, std::span<const protocol::Column>(kColumns));
}

std::string row(std::optional<std::string_view> name, std::string_view i, std::string_view q, std::string_view n,
                std::string_view b) {
  const std::optional<std::string_view> values[] = {name, i, q, n, b};
  return made(protocol::append_data_row, std::span<const std::optional<std::string_view>>(values));
}

std::string answer(const std::string& rows) {
  return header() + rows + complete("SHOW") + ready();
}

}  // namespace

TEST_CASE("a SHOW is described and executed", "[console_statements]") {
  ConsoleStatements statements;
  CHECK(said(statements, parse("s", "SHOW POOLS")) == made(protocol::append_parse_complete));
  auto step = feed(statements, describe("s"));
  CHECK(step.next == Next::Run);
  CHECK(step.sql == "SHOW POOLS");
  CHECK(types(step.out) == "t");
  CHECK(statements.running());
  CHECK(statements.finish(answer(row("a", "1", "2", "3", "\\x00"))) == header());
  CHECK_FALSE(statements.running());
  CHECK(said(statements, bind_to("s")) == made(protocol::append_bind_complete));
  CHECK(feed(statements, execute()).next == Next::Run);
  const std::string rows = row("a", "1", "2", "3", "\\x00") + row({}, "-1", "-2", "-3", "\\xff");
  CHECK(statements.finish(answer(rows)) == rows + complete("SHOW"));
  CHECK(said(statements, execute()) == complete("SHOW"));  // no rows left
  CHECK(said(statements, synced()) == ready());
}

TEST_CASE("a described portal is not run twice", "[console_statements]") {
  ConsoleStatements statements;
  (void)feed(statements, parse("", "show lists"));
  (void)feed(statements, bind_to(""));
  CHECK(feed(statements, describe("", 'P')).next == Next::Run);
  CHECK(statements.finish(answer(row("a", "1", "2", "3", "\\x"))) == header());
  CHECK(said(statements, execute()) == row("a", "1", "2", "3", "\\x") + complete("SHOW"));
}

TEST_CASE("values in binary form", "[console_statements]") {
  ConsoleStatements statements;
  (void)feed(statements, parse("", "show lists"));
  const auto all = GENERATE(true, false);
  (void)feed(statements, bind_formats("", "", all ? std::vector<int>{1} : std::vector<int>{0, 1, 1, 1, 1}));
  CHECK(feed(statements, describe("", 'P')).next == Next::Run);
  const std::string described =
      statements.finish(answer(row("text", "-2147483648", "9223372036854775807", "1234567", "\\x00ff") +
                               row({}, "7", "-1", "-10000", "\\x") + row("", "0", "0", "0", "\\xab")));
  CHECK(described.size() == header().size());
  CHECK(described.back() == 1);
  CHECK(described[header().find("name") + 4 + 18] == (all ? 1 : 0));
  const std::string got = said(statements, execute());
  const std::string first =
      row("text", "\x80\0\0\0"s, "\x7f\xff\xff\xff\xff\xff\xff\xff"s, "\0\2\0\1\0\0\0\0\0\x7b\x11\xd7"s, "\0\xff"s);
  const std::string second =
      row({}, "\0\0\0\7"s, "\xff\xff\xff\xff\xff\xff\xff\xff"s, "\0\2\0\1\x40\0\0\0\0\1\0\0"s, "");
  const std::string third = row("", "\0\0\0\0"s, "\0\0\0\0\0\0\0\0"s, "\0\0\0\0\0\0\0\0"s, "\xab"s);
  CHECK(got == first + second + third + complete("SHOW"));
}

TEST_CASE("rows in portions", "[console_statements]") {
  ConsoleStatements statements;
  (void)feed(statements, parse("", "show lists"));
  (void)feed(statements, bind_to("", "p"));
  CHECK(feed(statements, execute_some("p", 2)).next == Next::Run);
  std::string rows;
  for (int i = 0; i < 3; ++i) rows += row("a", "1", "2", "3", "\\x");
  CHECK(types(statements.finish(answer(rows))) == "DDs");
  CHECK(types(said(statements, execute_some("p", 1))) == "DC");
  CHECK(types(said(statements, execute_some("p", 1))) == "C");
}

TEST_CASE("commands without rows", "[console_statements]") {
  ConsoleStatements statements;
  (void)feed(statements, parse("", "pause"));
  CHECK(types(said(statements, describe(""))) == "tn");
  (void)feed(statements, bind_to(""));
  CHECK(types(said(statements, describe("", 'P'))) == "n");
  CHECK(feed(statements, execute()).next == Next::Run);
  CHECK(statements.finish(complete("PAUSE") + ready()) == complete("PAUSE"));
  SECTION("a notice stays") {
    (void)feed(statements, parse("", "show help"));
    CHECK(types(said(statements, describe(""))) == "tn");
    (void)feed(statements, bind_to(""));
    CHECK(feed(statements, execute()).next == Next::Run);
    const std::string notice = made([](std::string& out) { protocol::append_notice(out, "NOTICE", "00000", "text"); });
    CHECK(statements.finish(notice + complete("SHOW") + ready()) == notice + complete("SHOW"));
  }
}

TEST_CASE("after an error everything up to Sync is passed over", "[console_statements]") {
  ConsoleStatements statements;
  (void)feed(statements, parse("", "pause"));
  (void)feed(statements, bind_to(""));
  CHECK(feed(statements, execute()).next == Next::Run);
  CHECK(statements.finish(console_error("already suspended/paused")) ==
        console_error("already suspended/paused").substr(0, console_error("already suspended/paused").size() - 6));
  CHECK(statements.skipping());
  for (const std::string& message : {parse("x", "show lists"), bind_to(""), execute(), describe(""), flush()}) {
    CHECK(said(statements, message).empty());
  }
  CHECK(said(statements, synced()) == ready());
  CHECK_FALSE(statements.skipping());
  CHECK(types(said(statements, bind_to("x"))) == "E");  // it was not prepared
}

TEST_CASE("names that are wrong, and what commands do not take", "[console_statements]") {
  ConsoleStatements statements;
  (void)feed(statements, parse("s", "show lists"));
  (void)feed(statements, bind_to("s", "p"));
  const auto refused = [&](const std::string& message, const std::string& sqlstate) {
    const std::string out = said(statements, message);
    CHECK(types(out) == "E");
    CHECK(out.find(sqlstate) != std::string::npos);
    CHECK(statements.skipping());
    statements = {};
    (void)feed(statements, parse("s", "show lists"));
    (void)feed(statements, bind_to("s", "p"));
  };
  refused(parse("s", "show lists"), "42P05");
  refused(parse("t", "frobnicate"), "invalid command 'frobnicate'");
  refused(bind_to("t"), "26000");
  refused(bind_to("s", "p"), "42P03");
  refused(bind_formats("", "s", {}, 1), "take none");
  refused(bind_formats("", "s", {2}), "22023");
  refused(describe("t"), "26000");
  refused(describe("q", 'P'), "34000");
  refused(execute("q"), "34000");
  CHECK(types(said(statements, close_of("t"))) == "3");
  CHECK(types(said(statements, close_of("s"))) == "3");
  refused(bind_to("s"), "26000");
  CHECK(types(said(statements, close_of("p", 'P'))) == "3");
  refused(execute("p"), "34000");
  SECTION("portals end with Sync, statements do not") {
    (void)said(statements, synced());
    refused(execute("p"), "34000");
    (void)said(statements, synced());
    CHECK(types(said(statements, bind_to("s", "p"))) == "2");
  }
  SECTION("a simple query takes the unnamed ones away") {
    (void)feed(statements, parse("", "show lists"));
    statements.on_simple_query();
    refused(bind_to(""), "26000");
  }
}

TEST_CASE("there is an end to names and to broken messages", "[console_statements]") {
  ConsoleStatements statements;
  int prepared = 0;
  while (!statements.skipping() && prepared < 1000) {
    (void)feed(statements, parse("s" + std::to_string(prepared), "show lists"));
    ++prepared;
  }
  CHECK(prepared == 257);
  (void)feed(statements, synced());
  int bound = 0;
  while (!statements.skipping() && bound < 1000) {
    (void)feed(statements, bind_to("s1", "p" + std::to_string(bound)));
    ++bound;
  }
  CHECK(bound == 257);
  ConsoleStatements fresh;
  for (const char type : {'P', 'B', 'D', 'E', 'C'}) CHECK(fresh.on_message(type, "x").next == Next::BadPacket);
  for (const char type : {'S', 'H'}) CHECK(fresh.on_message(type, "x").next == Next::BadPacket);
  for (const char type : {'Q', 'X', 'F', 'd', 'p'}) CHECK_FALSE(ConsoleStatements::handles(type));
}
