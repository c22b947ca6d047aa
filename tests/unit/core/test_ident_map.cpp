// Ident maps: who may be whom, and the lines that are refused.
#include <catch2/catch.hpp>

#include "proxy/core/ident_map.hpp"
#include "tests/unit/core/auth_test.hpp"

using namespace pgweir::core;

namespace {

IdentMaps parse(std::string_view text, const FileMap& files = {}) {
  return parse_ident_maps(text, "dir/ident.conf", files_of(files));
}

IdentMaps good(std::string_view text) {
  auto maps = parse(text);
  CHECK(texts(maps.problems).empty());
  return maps;
}

std::string problem_of(std::string_view text) {
  const auto maps = parse(text);
  CHECK(maps.mappings.empty());
  return maps.problems.size() == 1 ? to_string(maps.problems.front()) : "not one problem";
}

}  // namespace

TEST_CASE("ident map: plain names") {
  const auto maps =
      good("# who is who\n\nm bob robert # comment\nm\tbob\trob\nother bob eve\nm \"jane doe\" \"jd\"\"x\"\n");
  CHECK(map_allows(maps, "m", "bob", "robert"));
  CHECK(map_allows(maps, "m", "bob", "rob"));
  CHECK_FALSE(map_allows(maps, "m", "bob", "bob"));
  CHECK_FALSE(map_allows(maps, "m", "bob", "eve"));
  CHECK_FALSE(map_allows(maps, "m", "Bob", "rob"));
  CHECK(map_allows(maps, "other", "bob", "eve"));
  CHECK(map_allows(maps, "m", "jane doe", "jd\"x"));
  CHECK_FALSE(map_allows(maps, "none", "bob", "bob"));
}

TEST_CASE("ident map: without a map the names must be equal") {
  CHECK(map_allows({}, "", "bob", "bob"));
  CHECK_FALSE(map_allows({}, "", "bob", "Bob"));
  CHECK_FALSE(map_allows({}, "m", "bob", "bob"));
}

TEST_CASE("ident map: all") {
  const auto maps = good("m root all\nq root \"all\"\nm all x\n");
  CHECK(map_allows(maps, "m", "root", "anybody"));
  CHECK_FALSE(map_allows(maps, "q", "root", "anybody"));
  CHECK(map_allows(maps, "q", "root", "all"));
  CHECK_FALSE(map_allows(maps, "m", "anybody", "x"));
}

TEST_CASE("ident map: patterns for the system user") {
  const auto maps = good("m /^(.*)@example\\.com$ \\1\nm /^(.*)@guest$ guest\np \"/^([a-z]+), (.*)$\" app_\\1_\\1\n");
  CHECK(map_allows(maps, "m", "bob@example.com", "bob"));
  CHECK_FALSE(map_allows(maps, "m", "bob@example.com", "eve"));
  CHECK_FALSE(map_allows(maps, "m", "bob@example.comx", "bob"));
  CHECK(map_allows(maps, "m", "bob@guest", "guest"));
  CHECK(map_allows(maps, "p", "ann, x", "app_ann_\\1"));
}

TEST_CASE("ident map: what the system user puts in is a name and nothing else") {
  const auto maps = good("m /^(.*)@x$ \\1\n");
  CHECK_FALSE(map_allows(maps, "m", "all@x", "bob"));
  CHECK(map_allows(maps, "m", "all@x", "all"));
  CHECK_FALSE(map_allows(maps, "m", "/.*@x", "bob"));
  CHECK_FALSE(map_allows(maps, "m", "@x", "bob"));
}

TEST_CASE("ident map: a group that took no part allows nothing") {
  const auto maps = good("m /^(a)?b$ x\\1\n");
  CHECK(map_allows(maps, "m", "ab", "xa"));
  CHECK_FALSE(map_allows(maps, "m", "b", "x"));
  CHECK_FALSE(map_allows(maps, "m", "b", "x\\1"));
}

TEST_CASE("ident map: patterns for the database user") {
  const auto maps = good("m bob /^app_\nm /^(.*)$ /^\\w+_ro$\nm eve x\\1\n");
  CHECK(map_allows(maps, "m", "bob", "app_1"));
  CHECK_FALSE(map_allows(maps, "m", "bob", "my_app_1"));
  CHECK(map_allows(maps, "m", "anybody", "x_ro"));
  CHECK(map_allows(maps, "m", "eve", "x\\1"));
}

TEST_CASE("ident map: lines that are refused") {
  CHECK(problem_of("m") == "dir/ident.conf:1: expected map-name system-user database-user");
  CHECK(problem_of("m bob") == "dir/ident.conf:1: expected map-name system-user database-user");
  CHECK(problem_of("m bob rob x") == "dir/ident.conf:1: expected map-name system-user database-user");
  CHECK(problem_of("m bob a,b") == "dir/ident.conf:1: expected map-name system-user database-user, got a list");
  CHECK(problem_of("m \"\" a") == "dir/ident.conf:1: expected map-name system-user database-user, got an empty name");
  CHECK(problem_of("m bob +staff") ==
        "dir/ident.conf:1: \"+staff\" is not supported: who is a member of a role is known to the server only");
  CHECK(problem_of("m /( x") == "dir/ident.conf:1: expected a regular expression, \"(\" contains a ( without its )");
  CHECK(problem_of("m x /*") ==
        "dir/ident.conf:1: expected a regular expression, \"*\" contains a repetition of nothing");
  CHECK(problem_of("m /a x\\1") == "dir/ident.conf:1: expected parentheses in \"/a\" for the \\1 in \"x\\1\"");
  CHECK(problem_of("m \"a b") == "dir/ident.conf:1: expected a closing quote");
}

TEST_CASE("ident map: all mistakes are reported, in order, and the good lines stay") {
  const auto maps = parse("m\nm a b\nm \"\nm a +b\n");
  CHECK(maps.mappings.size() == 1);
  CHECK(maps.mappings.front().line == 2);
  REQUIRE(maps.problems.size() == 3);
  CHECK(maps.problems[0].line == 1);
  CHECK(maps.problems[1].line == 3);
  CHECK(maps.problems[2].line == 4);
}

TEST_CASE("ident map: other files") {
  const auto maps = parse("include more.conf\nm a @one\nm b @two\n",
                          {{"dir/more.conf", "m c d"}, {"dir/one", "x"}, {"dir/two", "x\ny"}});
  CHECK(map_allows(maps, "m", "c", "d"));
  CHECK(map_allows(maps, "m", "a", "x"));
  CHECK(texts(maps.problems) ==
        std::vector<std::string>{"dir/ident.conf:3: expected map-name system-user database-user, got a list"});
}
