// The users file: its grammar, its limits, and that one broken line keeps the users before it.
#include <catch2/catch.hpp>

#include "proxy/core/userlist.hpp"

using namespace pgweir::core;

namespace {

using Users = std::map<std::string, std::string, std::less<>>;

UserList parse(std::string_view text) {
  return parse_userlist(text, "users.txt");
}

std::string problem_of(std::string_view text) {
  const auto list = parse(text);
  return list.problems.size() == 1 ? to_string(list.problems.front()) : "not one problem";
}

}  // namespace

TEST_CASE("users and secrets") {
  const auto list = parse(
      "; users\n\n  \t\"a\" \"1\"\n\"b\"\t\"2\" anything else \"x\"\r\n\"c d\" \"\"\n\"e\"\"f\"\"\" \"\"\"\"\n ; end");
  CHECK(list.problems.empty());
  CHECK(list.users == Users{{"a", "1"}, {"b", "2"}, {"c d", ""}, {"e\"f\"", "\""}});
  CHECK(parse("\"a\"\"b\"").problems.size() == 1);
  CHECK(parse("\"a\" \"1\"").users == Users{{"a", "1"}});
  CHECK(parse("\"a\" \"1\"\n\"a\" \"2\"\n").users == Users{{"a", "2"}});
  CHECK(parse("").users.empty());
}

TEST_CASE("a broken line ends the file; the users before it stay") {
  const auto list = parse("\"a\" \"1\"\n# comment\n\"b\" \"2\"\n");
  CHECK(list.users == Users{{"a", "1"}});
  REQUIRE(list.problems.size() == 1);
  CHECK(to_string(list.problems.front()) ==
        "users.txt:2: expected \"name\" \"secret\"; a comment starts with ;; the lines after it are not read");
}

TEST_CASE("kinds of broken lines") {
  CHECK(problem_of("a b") == "users.txt:1: expected \"name\" \"secret\", both in double quotes");
  CHECK(problem_of("\"a") == "users.txt:1: expected \"name\" \"secret\", both in double quotes");
  CHECK(problem_of("\"a\"") == "users.txt:1: expected \"secret\" in double quotes after the name");
  CHECK(problem_of("\"a\" hush") == "users.txt:1: expected \"secret\" in double quotes after the name");
  CHECK(problem_of("\"a\" \"hush") == "users.txt:1: expected \"secret\" in double quotes after the name");
  using namespace std::string_view_literals;
  CHECK(problem_of("\"a\" \"b\0c\""sv) == "users.txt:1: contains a zero byte; expected text");
}

TEST_CASE("lengths") {
  const auto line = [](std::size_t name, std::size_t secret) {
    return "\"" + std::string(name, 'n') + "\" \"" + std::string(secret, 's') + "\"\n";
  };
  CHECK(parse(line(127, 65530)).users.size() == 1);
  CHECK(problem_of(line(128, 1)) == "users.txt:1: expected a name of at most 127 bytes");
  CHECK(problem_of(line(1, 65531)) == "users.txt:1: expected a secret of at most 65530 bytes");
}
