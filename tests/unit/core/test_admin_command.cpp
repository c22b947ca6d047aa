// The console's grammar: what is a command, what is not, and what exactly it says about the latter.
#include <catch2/catch.hpp>
#include <string>
#include <utility>
#include <vector>

#include "proxy/core/admin_command.hpp"

using namespace pgweir::core;

namespace {

void check_invalid(const std::string& sql) {
  INFO(sql);
  const AdminCommand command = parse_admin_command(sql);
  CHECK(command.verb == AdminVerb::Invalid);
  CHECK(command.error == "invalid command '" + sql + "', use SHOW HELP;");
  CHECK_FALSE(needs_admin(command));
  CHECK(command_tag(command).empty());
}

void check_bad_arguments(const std::string& sql) {
  INFO(sql);
  const AdminCommand command = parse_admin_command(sql);
  CHECK(command.verb == AdminVerb::BadArguments);
  CHECK(command.error == "bad arguments");
  CHECK_FALSE(needs_admin(command));
  CHECK(command_tag(command).empty());
}

void check_action(const std::string& sql, AdminVerb verb, const std::string& argument, const std::string& tag) {
  INFO(sql);
  const AdminCommand command = parse_admin_command(sql);
  CHECK(command.verb == verb);
  CHECK(command.what == ShowWhat::None);
  CHECK(command.argument == argument);
  CHECK(command.error.empty());
  CHECK(needs_admin(command));
  CHECK(command_tag(command) == tag);
}

void check_set(const std::string& sql, const std::string& key, const std::string& value) {
  INFO(sql);
  const AdminCommand command = parse_admin_command(sql);
  CHECK(command.verb == AdminVerb::Set);
  CHECK(command.key == key);
  CHECK(command.value == value);
  CHECK(command.error.empty());
  CHECK(needs_admin(command));
  CHECK(command_tag(command) == "SET " + key + "=" + value);
}

}  // namespace

TEST_CASE("every SHOW word is known", "[admin]") {
  const std::vector<std::pair<std::string, ShowWhat>> words{
      {"HELP", ShowWhat::Help},
      {"VERSION", ShowWhat::Version},
      {"STATE", ShowWhat::State},
      {"DATABASES", ShowWhat::Databases},
      {"POOLS", ShowWhat::Pools},
      {"PEER_POOLS", ShowWhat::PeerPools},
      {"PEERS", ShowWhat::Peers},
      {"USERS", ShowWhat::Users},
      {"CLIENTS", ShowWhat::Clients},
      {"SERVERS", ShowWhat::Servers},
      {"SOCKETS", ShowWhat::Sockets},
      {"ACTIVE_SOCKETS", ShowWhat::ActiveSockets},
      {"STATS", ShowWhat::Stats},
      {"STATS_TOTALS", ShowWhat::StatsTotals},
      {"STATS_AVERAGES", ShowWhat::StatsAverages},
      {"TOTALS", ShowWhat::Totals},
      {"LISTS", ShowWhat::Lists},
      {"MEM", ShowWhat::Mem},
      {"DNS_HOSTS", ShowWhat::DnsHosts},
      {"DNS_ZONES", ShowWhat::DnsZones},
      {"CONFIG", ShowWhat::Config},
      {"FDS", ShowWhat::Fds},
  };
  for (const auto& [word, what] : words) {
    for (const std::string& sql : {"SHOW " + word, "select " + word + ";"}) {
      INFO(sql);
      const AdminCommand command = parse_admin_command(sql);
      CHECK(command.verb == AdminVerb::Show);
      CHECK(command.what == what);
      CHECK(command.error.empty());
      CHECK(command_tag(command) == "SHOW");
      CHECK(needs_admin(command) == (what == ShowWhat::Fds));
    }
  }
}

TEST_CASE("blanks, case, quotes and one semicolon do not matter", "[admin]") {
  for (const std::string sql : {"show pools", "  sHoW\t\r\n PoOlS  ", "SHOW POOLS;", "SHOW POOLS ; \n",
                                "\"show\" pools", "SHOW \"Pools\";", "SELECT pools"}) {
    INFO(sql);
    CHECK(parse_admin_command(sql).what == ShowWhat::Pools);
  }
}

TEST_CASE("what is not exactly one command is invalid", "[admin]") {
  for (const std::string sql : {"",
                                " ",
                                ";",
                                "SHOW",
                                "SHOW;",
                                "SHOW nothing",
                                "SELECT 1",
                                "SELECT",
                                "BEGIN",
                                "SHOW POOLS;;",
                                "SHOW POOLS; ;",
                                "SHOW POOLS; SHOW POOLS",
                                "SHOW POOLS x",
                                "/* x */ SHOW POOLS",
                                "SHOW POOLS -- x",
                                "-- x",
                                "SHOW pools,",
                                "SHOW my-db",
                                "PAUSE my.db",
                                "PAUSE 'db'",
                                "PAUSE \"db",
                                "PAUSE \"a\"b",
                                "PAUSE a\"b\"",
                                "PAUSE\"db\"",
                                "RELOAD x",
                                "SUSPEND x",
                                "SHUTDOWN x",
                                "SHUTDOWN WAIT_FOR",
                                "\"\"",
                                "SHOW \xC3\xA4",
                                "SHOW\vPOOLS"}) {
    check_invalid(sql);
  }
}

TEST_CASE("actions with and without a database", "[admin]") {
  check_action("PAUSE", AdminVerb::Pause, "", "PAUSE");
  check_action("pause Db_1;", AdminVerb::Pause, "Db_1", "PAUSE");
  check_action("PAUSE \"my-db.x y;\"", AdminVerb::Pause, "my-db.x y;", "PAUSE");
  check_action("PAUSE \"say \"\"hi\"\"\";", AdminVerb::Pause, "say \"hi\"", "PAUSE");
  check_action("PAUSE \"\"\"\"", AdminVerb::Pause, "\"", "PAUSE");
  check_action("RESUME", AdminVerb::Resume, "", "RESUME");
  check_action("RESUME a", AdminVerb::Resume, "a", "RESUME");
  check_action("RELOAD;", AdminVerb::Reload, "", "RELOAD");
  check_action("SUSPEND", AdminVerb::Suspend, "", "SUSPEND");
  check_action("KILL", AdminVerb::Kill, "", "KILL");
  check_action("KILL a", AdminVerb::Kill, "a", "KILL");
  check_action("RECONNECT", AdminVerb::Reconnect, "", "RECONNECT");
  check_action("RECONNECT a", AdminVerb::Reconnect, "a", "RECONNECT");
  check_action("DISABLE a", AdminVerb::Disable, "a", "DISABLE");
  check_action("ENABLE a", AdminVerb::Enable, "a", "ENABLE");
  check_action("WAIT_CLOSE", AdminVerb::WaitClose, "", "WAIT_CLOSE");
  check_action("wait_close a", AdminVerb::WaitClose, "a", "WAIT_CLOSE");
}

TEST_CASE("DISABLE and ENABLE need a database, after the right to use them", "[admin]") {
  for (const std::string sql : {"DISABLE", "ENABLE;"}) {
    const AdminCommand command = parse_admin_command(sql);
    CHECK(command.error == "a database is required");
    CHECK(needs_admin(command));
  }
}

TEST_CASE("KILL_CLIENT takes an id", "[admin]") {
  const AdminCommand command = parse_admin_command("KILL_CLIENT 18446744073709551615;");
  CHECK(command.verb == AdminVerb::KillClient);
  CHECK(command.client_id == 18446744073709551615u);
  CHECK(command.error.empty());
  CHECK(command_tag(command) == "KILL_CLIENT");
  CHECK(parse_admin_command("kill_client \"42\"").client_id == 42);
  for (const std::string sql : {"KILL_CLIENT", "KILL_CLIENT x1", "KILL_CLIENT 1x", "KILL_CLIENT \"-1\"",
                                "KILL_CLIENT \" 1\"", "KILL_CLIENT 18446744073709551616"}) {
    INFO(sql);
    const AdminCommand wrong = parse_admin_command(sql);
    CHECK(wrong.verb == AdminVerb::KillClient);
    CHECK(wrong.error == "invalid client pointer supplied");
    CHECK(needs_admin(wrong));
  }
}

TEST_CASE("SHUTDOWN has three forms", "[admin]") {
  const AdminCommand now = parse_admin_command("SHUTDOWN");
  CHECK(now.verb == AdminVerb::Shutdown);
  CHECK(now.shutdown == AdminShutdown::Now);
  CHECK(command_tag(now).empty());
  const AdminCommand servers = parse_admin_command("shutdown wait_for_servers;");
  CHECK(servers.shutdown == AdminShutdown::WaitForServers);
  CHECK(command_tag(servers) == "SHUTDOWN");
  const AdminCommand clients = parse_admin_command("SHUTDOWN WAIT_FOR_CLIENTS");
  CHECK(clients.shutdown == AdminShutdown::WaitForClients);
  CHECK(needs_admin(now));
  CHECK(needs_admin(clients));
}

TEST_CASE("SET in all its spellings", "[admin]") {
  check_set("SET verbose = 1", "verbose", "1");
  check_set("set verbose=1;", "verbose", "1");
  check_set("SET verbose TO 1", "verbose", "1");
  check_set(" SET\tverbose\nto\r'1' ; ", "verbose", "1");
  check_set("SET Query_Timeout = '1.5'", "Query_Timeout", "1.5");
  check_set("SET \"query_timeout\"=\"-1\"", "query_timeout", "-1");
  check_set("SET server_reset_query = 'SELECT ''x'', \"y\"; --'", "server_reset_query", "SELECT 'x', \"y\"; --");
  check_set("SET server_check_query = ''", "server_check_query", "");
  check_set("SET a = to", "a", "to");
  check_set("SET to to to", "to", "to");
  check_set("SET set = 1", "set", "1");
}

TEST_CASE("SET that is not well formed is invalid", "[admin]") {
  for (const std::string sql :
       {"SET",         "SET x",       "SET x =",           "SET x TO",   "SET = 1",       "SET x = 1.5",
        "SET x = -1",  "SET x = 1 2", "SET x = 1,2",       "SET x 1",    "SET x = 'a",    "SET x = 'a'b",
        "SET x TO'a'", "SET x to1",   "SET \"x\"TO 1",     "SETx = 1",   "\"SET\" x = 1", "SET 'x' = 1",
        "SET x == 1",  "SET x = 1;;", "SET SESSION x = 1", "SET x = = 1"}) {
    check_invalid(sql);
  }
}

TEST_CASE("settings that drivers set are ignored, for everyone", "[admin]") {
  for (const std::string key : {"client_encoding", "default_transaction_isolation", "standard_conforming_strings",
                                "DateStyle", "TIMEZONE", "extra_float_digits"}) {
    INFO(key);
    const AdminCommand set = parse_admin_command("SET " + key + " TO 'x'");
    CHECK(set.verb == AdminVerb::SetIgnored);
    CHECK(set.key == key);
    CHECK_FALSE(needs_admin(set));
    CHECK(command_tag(set) == "SET");
    CHECK(set.error.empty());
    const AdminCommand show = parse_admin_command("SHOW " + key);
    CHECK(show.verb == AdminVerb::FakeShow);
    CHECK_FALSE(needs_admin(show));
    CHECK(command_tag(show) == "SHOW");
    CHECK(show.error.empty());
  }
  CHECK(parse_admin_command("show DateStyle").argument == "datestyle");
}

TEST_CASE("words have a longest length", "[admin]") {
  check_invalid(std::string(15, 'a'));
  check_bad_arguments(std::string(16, 'a'));
  check_bad_arguments("\"" + std::string(16, ' ') + "\"");
  check_action("PAUSE " + std::string(63, 'd'), AdminVerb::Pause, std::string(63, 'd'), "PAUSE");
  check_bad_arguments("PAUSE " + std::string(64, 'd'));
  // Quotes do not count, doubled ones count once.
  std::string quotes;
  for (int i = 0; i < 63; ++i) quotes += "\"\"";
  check_action("PAUSE \"" + quotes + "\"", AdminVerb::Pause, std::string(63, '"'), "PAUSE");
  check_set("SET " + std::string(63, 'k') + " = '" + std::string(255, 'v') + "'", std::string(63, 'k'),
            std::string(255, 'v'));
  check_bad_arguments("SET " + std::string(64, 'k') + " = 1");
  check_bad_arguments("SET k = '" + std::string(256, 'v') + "'");
  // What is no command at all is invalid, however long its words.
  check_invalid("PAUSE " + std::string(64, 'd') + " x");
}

TEST_CASE("an empty name never stands for everything", "[admin]") {
  check_bad_arguments("KILL \"\"");
  check_bad_arguments("PAUSE \"\";");
  check_bad_arguments("SHUTDOWN \"\"");
  check_bad_arguments("SET \"\" = 1");
}

TEST_CASE("the echo of a long command is cut", "[admin]") {
  check_invalid("SELECT x, " + std::string(440, 'y'));
  for (std::size_t length : {451u, 452u, 490u, 5000u, 1000000u}) {
    const std::string sql = "SELECT x, " + std::string(length - 10, 'y');
    const AdminCommand command = parse_admin_command(sql);
    CHECK(command.verb == AdminVerb::Invalid);
    CHECK(command.error == "invalid command '" + sql.substr(0, 450) + "...', use SHOW HELP;");
    CHECK(command.error.size() < 490);
  }
}

TEST_CASE("the echo is cut between characters", "[admin]") {
  // A character of four bytes that ends at, or one to three bytes after, the place of the cut.
  for (std::size_t before = 446; before <= 450; ++before) {
    const std::string sql = std::string(before, '*') + "\xF0\x9F\x90\x98" + std::string(100, '*');
    const AdminCommand command = parse_admin_command(sql);
    const std::string kept = before == 446 ? sql.substr(0, 450) : sql.substr(0, before);
    CHECK(command.error == "invalid command '" + kept + "...', use SHOW HELP;");
  }
  // Bytes that are no UTF-8 must not be searched for the start of a character without end.
  const AdminCommand command = parse_admin_command(std::string(1000, '\x80'));
  CHECK(command.error == "invalid command '" + std::string(447, '\x80') + "...', use SHOW HELP;");
}

TEST_CASE("a command ends at a zero byte", "[admin]") {
  CHECK(parse_admin_command(std::string_view("SHOW POOLS\0x", 12)).what == ShowWhat::Pools);
  CHECK(parse_admin_command(std::string_view("x y z\0x", 7)).error == "invalid command 'x y z', use SHOW HELP;");
}
