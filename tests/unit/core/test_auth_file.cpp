// The lines under pg_hba.conf and pg_ident.conf: fields and lists, quotes, comments, continuation, other files, limits.
#include <catch2/catch.hpp>

#include "proxy/core/auth_file.hpp"
#include "tests/unit/core/auth_test.hpp"

using namespace pgweir::core;
using namespace std::string_view_literals;

namespace {

using Texts = std::vector<std::string>;

AuthText read(std::string_view text, const FileMap& files = {}) {
  return read_auth_text(text, "etc/hba", files_of(files));
}

// One string a line: "2: a|b,c" for fields a and the list b, c on line 2; quoted tokens in <>.
Texts lines_of(const AuthText& read) {
  Texts out;
  for (const auto& line : read.lines) {
    std::string text = (line.file == "etc/hba" ? "" : line.file + ":") + std::to_string(line.line) + ":";
    for (std::size_t f = 0; f < line.fields.size(); ++f) {
      text += f == 0 ? " " : "|";
      for (std::size_t t = 0; t < line.fields[f].size(); ++t) {
        const auto& token = line.fields[f][t];
        text += (t == 0 ? "" : ",") + (token.quoted ? "<" + token.text + ">" : token.text);
      }
    }
    out.push_back(text);
  }
  return out;
}

Texts good(std::string_view text, const FileMap& files = {}) {
  const auto result = read(text, files);
  CHECK(texts(result.problems) == Texts{});
  return lines_of(result);
}

Texts problems_of(std::string_view text, const FileMap& files = {}) {
  return texts(read(text, files).problems);
}

}  // namespace

TEST_CASE("auth file: fields, lists and comments") {
  CHECK(good("") == Texts{});
  CHECK(good("\n # x\n\t\n#") == Texts{});
  CHECK(good("a b\tc # d") == Texts{"1: a|b|c"});
  CHECK(good("a#b") == Texts{"1: a"});
  CHECK(good("\na b,c,d e\r\n  f\r") == Texts{"2: a|b,c,d|e", "3: f"});
  CHECK(good("a b, c ,d , e f") == Texts{"1: a|b,c,d,e|f"});
}

TEST_CASE("auth file: quotes") {
  CHECK(good(R"("a b" "c,#d" "e""f" "" g"h i"j)") == Texts{R"(1: <a b>|<c,#d>|<e"f>|<>|gh ij)"});
  CHECK(good(R"("a","b")") == Texts{"1: <a>,<b>"});
  CHECK(good(R"(a\b "c\")") == Texts{R"(1: a\b|<c\>)"});
  CHECK(problems_of("a \"b\nc") == Texts{"etc/hba:1: expected a closing quote"});
  CHECK(problems_of("a b\"") == Texts{"etc/hba:1: expected a closing quote"});
}

TEST_CASE("auth file: commas") {
  CHECK(problems_of(",a") == Texts{"etc/hba:1: expected a name before the comma"});
  CHECK(problems_of("a,,b") == Texts{"etc/hba:1: expected a name before the comma"});
  CHECK(problems_of("a b,") == Texts{"etc/hba:1: expected a name after the comma"});
  CHECK(problems_of("a b, # c") == Texts{"etc/hba:1: expected a name after the comma"});
}

TEST_CASE("auth file: continuation") {
  CHECK(good("a \\\n b\\\nc\nd") == Texts{"1: a|bc", "4: d"});
  CHECK(good("a \\\r\nb\r\nc") == Texts{"1: a|b", "3: c"});
  CHECK(good("# a \\\n b\nc") == Texts{"3: c"});
  CHECK(good("\"a \\\nb\"") == Texts{"1: <a b>"});
  CHECK(good("a\\") == Texts{"1: a"});
  CHECK(good("a\\\n\nb") == Texts{"1: a", "3: b"});
  CHECK(good("a\\ b") == Texts{"1: a\\|b"});
}

TEST_CASE("auth file: zero bytes and lengths") {
  CHECK(problems_of("a\nb \0 c"sv) == Texts{"etc/hba:2: contains a zero byte; expected text"});
  CHECK(good(std::string(kMaxAuthToken, 'a')).size() == 1);
  CHECK(problems_of(std::string(kMaxAuthToken + 1, 'a')) == Texts{"etc/hba:1: expected a word of at most 4096 bytes"});
  CHECK(good("a" + std::string(kMaxAuthLine - 1, ' ')).size() == 1);
  CHECK(problems_of("a" + std::string(kMaxAuthLine, ' ') + "\n\"") ==
        Texts{"etc/hba:1: expected a line of at most 65536 bytes", "etc/hba:2: expected a closing quote"});
  std::string many;
  for (int i = 0; i < 20; ++i) many += std::string(4000, ' ') + "\\\n";
  CHECK(problems_of(many + "a") == Texts{"etc/hba:1: expected a line of at most 65536 bytes"});
}

TEST_CASE("auth file: names from another file") {
  const FileMap files{{"etc/users", "# users\nann, bob\n\"@eve\" @more\n"},
                      {"etc/more", "x y"},
                      {"/abs", "z"},
                      {"etc/my users", "q"},
                      {"etc/none", "# nobody\n"}};
  CHECK(good("a @users b", files) == Texts{"1: a|ann,bob,<@eve>,x,y|b"});
  CHECK(good("a c,@more,@/abs b", files) == Texts{"1: a|c,x,y,z|b"});
  CHECK(good("a @\"my users\"", files) == Texts{"1: a|q"});
  CHECK(good("a \"@users\" @", files) == Texts{"1: a|<@users>|@"});
  CHECK(good("a @none b", files) == Texts{"1: a||b"});
}

TEST_CASE("auth file: a line whose names cannot be read is left out") {
  const auto result = read("a @gone\nb @broken\nc", {{"etc/broken", "x\n\"y"}});
  CHECK(lines_of(result) == Texts{"3: c"});
  CHECK(texts(result.problems) == Texts{"etc/hba:1: cannot read \"etc/gone\": No such file or directory",
                                        "etc/broken:2: expected a closing quote"});
}

TEST_CASE("auth file: include") {
  const FileMap files{{"etc/sub/a", "1\ninclude b\n"}, {"etc/sub/b", "2"}};
  CHECK(good("0\ninclude sub/a\n3", files) == Texts{"1: 0", "etc/sub/a:1: 1", "etc/sub/b:1: 2", "3: 3"});
  CHECK(problems_of("include gone") == Texts{"etc/hba:1: cannot read \"etc/gone\": No such file or directory"});
  CHECK(problems_of("include") == Texts{"etc/hba:1: expected one name after include"});
  CHECK(problems_of("include a b") == Texts{"etc/hba:1: expected one name after include"});
  CHECK(problems_of("include a,b") == Texts{"etc/hba:1: expected one name after include"});
  CHECK(problems_of("include_dir \"\"") == Texts{"etc/hba:1: expected one name after include_dir"});
}

TEST_CASE("auth file: include_if_exists") {
  CHECK(good("include_if_exists a\ninclude_if_exists b", {{"etc/b", "x"}}) == Texts{"etc/b:1: x"});
  CHECK(problems_of("include_if_exists a", {{"etc/a", "\""}}) == Texts{"etc/a:1: expected a closing quote"});
}

TEST_CASE("auth file: include_dir") {
  const FileMap files{{"etc/d/b.conf", "2"}, {"etc/d/a.conf", "1"}, {"etc/d/.c.conf", "3"}, {"etc/d/a.conf~", "4"}};
  CHECK(good("include_dir d", files) == Texts{"etc/d/a.conf:1: 1", "etc/d/b.conf:1: 2"});
  CHECK(problems_of("include_dir gone") ==
        Texts{"etc/hba:1: cannot read the directory \"etc/gone\": No such file or directory"});
}

TEST_CASE("auth file: files that include each other") {
  CHECK(problems_of("include hba", {{"etc/hba", "x"}}) == Texts{"etc/hba:1: \"etc/hba\" includes itself"});
  CHECK(problems_of("include a", {{"etc/a", "b @c"}, {"etc/c", "include a"}}) ==
        Texts{"etc/c:1: \"etc/a\" includes itself"});
  FileMap chain;
  for (int i = 0; i < 20; ++i) chain["etc/" + std::to_string(i)] = "include " + std::to_string(i + 1);
  chain["etc/10"] = "x";
  CHECK(problems_of("include 0", chain) == Texts{"etc/9:1: files are nested too deep; at most 10 levels are read"});
  CHECK(good("include 1", chain) == Texts{"etc/10:1: x"});
}

TEST_CASE("auth file: the work of many inclusions is bounded") {
  FileMap files;
  for (int i = 0; i < 9; ++i) {
    for (int j = 0; j < 10; ++j) files["etc/" + std::to_string(i)] += "include " + std::to_string(i + 1) + "\n";
  }
  files["etc/9"] = "x\n";
  const auto problems = problems_of("include 0", files);
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].ends_with("too much text; at most 300000 lines are read"));

  std::string text;
  FileMap many;
  for (int i = 0; i <= 500; ++i) {
    text += "include f" + std::to_string(i) + "\n";
    many["etc/f" + std::to_string(i)] = "x";
  }
  CHECK(problems_of(text, many) == Texts{"etc/hba:501: too many files; at most 500 are read"});
}

TEST_CASE("auth file: the list of mistakes is bounded") {
  std::string text;
  for (int i = 0; i < 1500; ++i) text += ",\n";
  const auto problems = problems_of(text);
  CHECK(problems.size() == 1001);
  CHECK(problems.back() == "etc/hba: 500 more mistakes");
}

TEST_CASE("auth file: without access to other files") {
  CHECK(texts(read_auth_text("a @b\ninclude c\ninclude_if_exists d\ninclude_dir e\nf", "hba", {}).problems) ==
        Texts{"hba:1: other files cannot be read here", "hba:2: other files cannot be read here",
              "hba:3: include_if_exists is not supported here", "hba:4: include_dir is not supported here"});
}
