// Regular expressions of names: what each construct matches, what is refused, and that no pattern takes for ever.
#include <catch2/catch.hpp>

#include "proxy/core/name_pattern.hpp"

using namespace pgweir::core;

namespace {

bool matches(std::string_view pattern, std::string_view name) {
  const auto compiled = NamePattern::compile(pattern);
  if (compiled.has_error()) FAIL(compiled.error());
  CHECK(compiled->find(name).has_value() == compiled->matches(name));
  return compiled->matches(name);
}

std::string group(std::string_view pattern, std::string_view name) {
  const auto compiled = NamePattern::compile(pattern);
  if (compiled.has_error()) FAIL(compiled.error());
  const auto found = compiled->find(name);
  return found ? found->group.value_or("(none)") : "(no match)";
}

std::string error_of(std::string_view pattern) {
  const auto compiled = NamePattern::compile(pattern);
  return compiled.has_error() ? compiled.error() : "no error";
}

bool refused(std::string_view pattern, std::string_view reason) {
  INFO(error_of(pattern));
  return error_of(pattern).find(reason) != std::string::npos;
}

}  // namespace

TEST_CASE("name pattern: unanchored unless it says so") {
  CHECK(matches("", ""));
  CHECK(matches("", "x"));
  CHECK(matches("b", "abc"));
  CHECK_FALSE(matches("^b", "abc"));
  CHECK_FALSE(matches("b$", "abc"));
  CHECK(matches("^abc$", "abc"));
  CHECK(matches("\\Aabc\\Z", "abc"));
  CHECK_FALSE(matches("^abc$", "abcd"));
  CHECK_FALSE(matches("^$", "a"));
  CHECK_FALSE(matches("a^b", "ab"));
}

TEST_CASE("name pattern: a line feed is a character like any other") {
  CHECK_FALSE(matches("^admin$", "admin\nx"));
  CHECK_FALSE(matches("^admin$", "admin\n"));
  CHECK_FALSE(matches("^admin$", "x\nadmin"));
  CHECK(matches("^admin.$", "admin\n"));
  CHECK(matches("^[^x]$", "\n"));
}

TEST_CASE("name pattern: repetitions") {
  CHECK(matches("^a*$", ""));
  CHECK(matches("^a*$", "aaa"));
  CHECK_FALSE(matches("^a+$", ""));
  CHECK(matches("^ab?c$", "ac"));
  CHECK(matches("^ab?c$", "abc"));
  CHECK_FALSE(matches("^ab?c$", "abbc"));
  CHECK(matches("^db\\d{2,4}$", "db12"));
  CHECK(matches("^db\\d{2,4}$", "db1234"));
  CHECK_FALSE(matches("^db\\d{2,4}$", "db1"));
  CHECK_FALSE(matches("^db\\d{2,4}$", "db12345"));
  CHECK(matches("^a{2}$", "aa"));
  CHECK_FALSE(matches("^a{2}$", "aaa"));
  CHECK(matches("^a{2,}$", "aaaaa"));
  CHECK(matches("^a{0}b$", "b"));
  CHECK(matches("^(ab){0,1}$", ""));
  CHECK(matches("^a{x$", "a{x"));
  CHECK(matches("^{x}$", "{x}"));
  CHECK(matches("^(a*)*$", "aaa"));
  CHECK(matches("^(|a)+$", "aa"));
  CHECK(matches("^a??b$", "ab"));
}

TEST_CASE("name pattern: alternatives and groups") {
  CHECK(matches("^(foo|bar)_app$", "bar_app"));
  CHECK_FALSE(matches("^(foo|bar)_app$", "baz_app"));
  CHECK(matches("^(?:foo|bar)$", "foo"));
  CHECK(matches("^(|a)$", ""));
  CHECK(matches("a|^b$", "xax"));
  CHECK(matches("^(a(b(c)?)?)?$", "ab"));
}

TEST_CASE("name pattern: sets and classes") {
  CHECK(matches("^[abc]$", "b"));
  CHECK_FALSE(matches("^[^abc]$", "b"));
  CHECK(matches("^[a-c-]+$", "b-"));
  CHECK(matches("^[]a]+$", "]a"));
  CHECK(matches("^[^]a]$", "b"));
  CHECK(matches("^[[:alpha:]_]+$", "a_Z"));
  CHECK_FALSE(matches("^[[:upper:]]$", "a"));
  CHECK(matches("^[\\d.]+$", "1.2"));
  CHECK(matches("^[\\D]$", "x"));
  CHECK(matches("^[\\]\\\\]+$", "]\\"));
  CHECK(matches("^\\w+\\W\\w+$", "a_1-b"));
  CHECK(matches("^\\S\\s\\S$", "a b"));
  CHECK(matches("^\\.\\*\\t$", ".*\t"));
  for (const auto* name :
       {"digit", "alnum", "lower", "space", "word", "graph", "print", "punct", "blank", "cntrl", "xdigit"}) {
    CHECK(error_of("[[:" + std::string(name) + ":]]") == "no error");
  }
}

TEST_CASE("name pattern: characters are those of UTF-8, and a broken byte is one of its own") {
  CHECK(matches("^.$", "ä"));
  CHECK(matches("^.$", "€"));
  CHECK(matches("^.$", "😀"));
  CHECK(matches("^[ä-ö]$", "å"));
  CHECK_FALSE(matches("^[^ä]$", "ä"));
  CHECK(matches("^\\W$", "ä"));
  CHECK(matches("^..$", "\xff\xc3"));
  CHECK(matches("^..$", "\xc0\x80"));
  CHECK_FALSE(matches("\xc3", "ä"));
  CHECK(group("^ä(.)€$", "äö€") == "ö");
}

TEST_CASE("name pattern: the first group") {
  CHECK(group("^(.*)@example\\.com$", "bob@example.com") == "bob");
  CHECK(group("^(.*)@example\\.com$", "bob@example.org") == "(no match)");
  CHECK(group("^(a)?b$", "b") == "(none)");
  CHECK(group("x", "x") == "(none)");
  CHECK(group("^(a+?)(a*)$", "aaa") == "a");
  CHECK(group("^(a+)(a*)$", "aaa") == "aaa");
  CHECK(group("(b+)", "abbab") == "bb");
  CHECK(group("^(?:x)(y)$", "xy") == "y");
  CHECK(group("^(a|b)*$", "ab") == "b");
  CHECK(group("^()$", "").empty());
  CHECK(NamePattern::compile("(a)(?:b)(c)")->groups() == 2);
}

TEST_CASE("name pattern: what is refused") {
  CHECK(error_of("a(") == "expected a regular expression, \"a(\" contains a ( without its )");
  CHECK(refused("a)", "a ) without its ("));
  CHECK(refused("*a", "a repetition of nothing"));
  CHECK(refused("a|+", "a repetition of nothing"));
  CHECK(refused("(?)", "(? without :"));
  CHECK(refused("{2}", "a repetition of nothing"));
  CHECK(refused("^*", "a repetition of ^ or $"));
  CHECK(refused("a**", "a repetition of a repetition"));
  CHECK(refused("a{2}{3}", "a repetition of a repetition"));
  CHECK(refused("a{2", "without its }"));
  CHECK(refused("a{2,1}", "second number is less"));
  CHECK(refused("a{256}", "more than 255"));
  CHECK(refused("a{1,99999999999999999999}", "more than 255"));
  CHECK(refused("(?=a)", "lookaround"));
  CHECK(refused("(?i)a", "embedded options"));
  CHECK(refused("(a)\\1", "a back reference"));
  CHECK(refused("\\y", "escape \\y"));
  CHECK(refused("a\\", "a backslash at the end"));
  CHECK(refused("[a", "a [ without its ]"));
  CHECK(refused("[", "a [ without its ]"));
  CHECK(refused("[a-", "a [ without its ]"));
  CHECK(refused("[\\", "a [ without its ]"));
  CHECK(refused("[z-a]", "comes before its start"));
  CHECK(refused("[[:nope:]]", "unknown class"));
  CHECK(refused("[[:alpha]", "unknown class"));
  CHECK(refused("[[=a=]]", "collating element"));
  CHECK(refused("[[.a.]]", "collating element"));
  CHECK(refused("[\\q]", "escape \\q"));
}

TEST_CASE("name pattern: limits") {
  CHECK(error_of(std::string(1024, 'a')) == "no error");
  CHECK(error_of(std::string(1025, 'a')) == "expected a regular expression of at most 1024 bytes");
  CHECK(refused("((a{255}){255}){255}", "repeats too much"));
  CHECK(refused("(((a?){255})*){255}", "repeats too much"));
  const auto nested = [](std::size_t levels) { return std::string(levels, '(') + "a" + std::string(levels, ')'); };
  CHECK(error_of(nested(50)) == "no error");
  CHECK(refused(nested(51), "nested deeper than 50 levels"));
}

TEST_CASE("name pattern: no pattern takes exponential time") {
  const std::string name(1000, 'a');
  CHECK_FALSE(matches("^(a+)+$", name + "b"));
  CHECK_FALSE(matches("^(a|a)*b$", name));
  CHECK_FALSE(matches("^(((a*)*)*)*b$", name));
  CHECK_FALSE(matches("^(a?){255}a{255}b$", name));
}
