// The line grammar: each rule, each trap, and that every mistake is reported with its file and line.
#include <catch2/catch.hpp>

#include "config_test.hpp"
#include "proxy/core/ini_parser.hpp"

using namespace pgweir::core;

namespace {

std::string value_of(const std::string& line) {
  return good("[pgbouncer]\n" + line + "\n").logfile;
}

}  // namespace

TEST_CASE("a value runs to the end of its line") {
  CHECK(value_of("logfile = a b") == "a b");
  CHECK(value_of("logfile=a") == "a");
  CHECK(value_of("  logfile \t = \t a \t ") == "a");
  CHECK(value_of("logfile = 'a'") == "'a'");
  CHECK(value_of("logfile = a ; b # c") == "a ; b # c");
  CHECK(value_of("logfile = a = b") == "a = b");
  CHECK(value_of("logfile =").empty());
  CHECK(value_of("logfile = a\r").size() == 1);
  CHECK(value_of("logfile = a\\\n;") == "a\\");
  CHECK(good("[pgbouncer]\nlogfile = last line").logfile == "last line");
}

TEST_CASE("comments start a line") {
  CHECK(value_of("; logfile = a\n# logfile = b\n   ; logfile = c\n\n \t \nlogfile = d") == "d");
}

TEST_CASE("the last of repeated keys wins") {
  CHECK(value_of("logfile = a\nlogfile = b") == "b");
}

TEST_CASE("keys may be quoted") {
  const auto config = good(
      "[databases]\n'my db;1' = host=a\n\"say \"\"hi\"\"\" = host=b\n\"it's\" = host=c\nx.y-z_1 = host=d\n"
      "[pgbouncer]\n'logfile' = e\n");
  CHECK(config.databases.at("my db;1").hosts.front().host == "a");
  CHECK(config.databases.at("say \"hi\"").hosts.front().host == "b");
  CHECK(config.databases.at("it's").hosts.front().host == "c");
  CHECK(config.databases.at("x.y-z_1").hosts.front().host == "d");
  CHECK(config.logfile == "e");
}

TEST_CASE("single quotes in a key have no escape") {
  CHECK(problems_of("[pgbouncer]\n[databases]\n'a''b' = host=x\n") == "main.ini:3: a: expected = after the key\n");
}

TEST_CASE("broken lines, all of them, with their numbers") {
  const auto result = load(R"(early = 1
[pgbouncer]
no equals sign
=5
'open = 1
'' = 1
"" = 1
[open
%exclude x
%include
key! = 1
ä = 1
logfile = fine
)");
  CHECK(result.config == nullptr);
  CHECK(problems_of(result) ==
        "main.ini:1: early: expected a section header such as [pgbouncer] before the first key\n"
        "main.ini:3: no: expected = after the key\n"
        "main.ini:4: expected key = value (a key with other characters than letters, digits, _ . - * needs quotes)\n"
        "main.ini:5: expected a closing quote after the key\n"
        "main.ini:6: expected a name between the quotes\n"
        "main.ini:7: expected a name between the quotes\n"
        "main.ini:8: expected a section header such as [databases]: the ] is missing\n"
        "main.ini:9: unknown directive; expected %include FILENAME\n"
        "main.ini:10: expected a file name after %include\n"
        "main.ini:11: key: expected = after the key\n"
        "main.ini:12: expected key = value (a key with other characters than letters, digits, _ . - * needs quotes)\n");
}

TEST_CASE("a zero byte hides nothing") {
  using namespace std::string_literals;
  CHECK(problems_of("[pgbouncer]\nlogfile = a\0b\n"s) == "main.ini:2: contains a zero byte; expected text\n");
}

TEST_CASE("sections") {
  CHECK(problems_of("[databases]\na = host=x\n") == "main.ini: expected a section [pgbouncer]; there is none\n");
  CHECK(problems_of("").find("[pgbouncer]") != std::string::npos);
  // The lines of an unknown section are not reported one by one.
  CHECK(problems_of("[pgbouncer]\n[Databases]\na = host=x\nb = host=y\n[users]\nu = pool_mode=x\n") ==
        "main.ini:2: unknown section \"Databases\"; expected [pgbouncer], [databases], [users], [peers] or [pgweir]\n"
        "main.ini:6: u: pool_mode: expected one of session, transaction, statement, got \"x\"\n");
  CHECK(good("[databases]\na =\n[pgbouncer]\nlogfile = l\n[databases]\nb =\n").databases.size() == 2);
  CHECK(good("[pgbouncer] ; a comment\nlogfile = a\n").logfile == "a");
  CHECK(good("[pgbouncer] logfile = a\n").logfile == "a");
}

TEST_CASE("a repeated [pgbouncer] header brings the defaults back") {
  const auto config = good(
      "[pgbouncer]\nlogfile = a\nlisten_port = 7000\nauth_file = f\n[pgweir]\nmax_pool_logins = 9\n"
      "[databases]\nd =\n[pgbouncer]\nmax_client_conn = 5\n");
  CHECK(config.logfile.empty());
  CHECK(config.listen_port == 6432);
  CHECK(config.max_client_conn == 5);
  // Settings without a default are not reset, other sections neither.
  CHECK(config.auth_file == "f");
  CHECK(config.max_pool_logins == 9);
  CHECK(config.databases.contains("d"));
}

TEST_CASE("unknown settings, and where they would be right") {
  CHECK(problems_of("[pgbouncer]\nmax_client_con = 5\n") ==
        "main.ini:2: max_client_con: unknown setting (did you mean \"max_client_conn\"?)\n");
  CHECK(problems_of("[pgbouncer]\nworker_threads = 5\n") ==
        "main.ini:2: worker_threads: expected in the section [pgweir]\n");
  CHECK(problems_of("[pgbouncer]\n[pgweir]\npool_mode = session\n") ==
        "main.ini:3: pool_mode: expected in the section [pgbouncer]\n");
  CHECK(problems_of("[pgbouncer]\nservice_name = x\n").find("unknown setting") != std::string::npos);
  CHECK(problems_of("[pgbouncer]\n" + std::string(5000, 'k') + " = 1\n").find("unknown setting") != std::string::npos);
}

TEST_CASE("included files") {
  const auto result = load(Files{{"main.ini", "[databases]\n%include a dir/dbs.ini  \nlogfile = l\n"},
                                 {"a dir/dbs.ini", "a = host=x\n%include\tmore.ini\n[pgbouncer]\n"},
                                 {"more.ini", "b = host=y\n"}});
  INFO(problems_of(result));
  REQUIRE(result.config);
  // The section goes into the file and comes out of it.
  CHECK(result.config->databases.contains("a"));
  CHECK(result.config->databases.contains("b"));
  CHECK(result.config->logfile == "l");
}

TEST_CASE("problems name the included file; a missing one names the line that asks for it") {
  const auto result = load(Files{{"main.ini", "[pgbouncer]\n%include sub.ini\n%include gone.ini\nlog = 1\n"},
                                 {"sub.ini", "\nquery_timeout = abc\n"}});
  CHECK(problems_of(result) ==
        "sub.ini:2: query_timeout: expected a number of seconds, got \"abc\"\n"
        "main.ini:3: cannot read \"gone.ini\": No such file or directory\n"
        "main.ini:4: log: unknown setting\n");
}

TEST_CASE("a missing main file is one problem") {
  CHECK(problems_of(load(Files{})) == "main.ini: cannot read \"main.ini\": No such file or directory\n");
}

TEST_CASE("includes nest ten deep") {
  const auto chain = [](int depth) {
    Files files{{"main.ini", "[pgbouncer]\n%include 1\n"}};
    for (int i = 1; i < depth; ++i) files[std::to_string(i)] = "%include " + std::to_string(i + 1) + "\n";
    files[std::to_string(depth)] = "logfile = deep\n";
    return files;
  };
  REQUIRE(load(chain(10)).config);
  CHECK(load(chain(10)).config->logfile == "deep");
  CHECK(problems_of(load(chain(11))) == "10:1: %include is nested too deep; at most 10 levels are read\n");
}

TEST_CASE("files that include themselves end") {
  int reads = 0;
  const ReadFile reader = [&](const std::string&) -> boost::system::result<std::string, std::string> {
    ++reads;
    return {boost::system::in_place_value, "[pgbouncer]\n%include x\n%include x\n%include x\n"};
  };
  const auto result = load_config("x", reader, nullptr);
  CHECK(result.config == nullptr);
  CHECK(reads == kMaxFiles);
}
