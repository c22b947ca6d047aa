#include <catch2/catch.hpp>

#include <string>

#include "router/hints.hpp"

using namespace pgweir::router;

namespace {
std::string hint(std::string_view sql) {
  const auto wish = find_hint(sql);
  return wish ? std::string(to_string(*wish)) : "-";
}
std::string command(std::string_view sql) {
  const auto found = find_route_command(sql);
  if (!found) return "-";
  switch (found->kind) {
    case RouteCommand::Kind::Show:
      return "show";
    case RouteCommand::Kind::Reset:
      return "reset";
    case RouteCommand::Kind::Set:
      break;
  }
  const std::string scope = found->local ? "local " : "";
  if (!found->valid) return "set " + scope + "invalid " + std::string(found->value);
  return "set " + scope + std::string(to_string(found->wish));
}
}  // namespace

TEST_CASE("hints stand in a leading comment") {
  CHECK(hint("/* pgweir: primary */ SELECT 1") == "primary");
  CHECK(hint("/* pgweir: standby */ SELECT 1") == "standby");
  CHECK(hint("/*pgweir:standby*/SELECT 1") == "standby");
  CHECK(hint(" \n/* PgWeir :\tPRIMARY */\nSELECT 1") == "primary");
  CHECK(hint("/* pgweir: auto */ SELECT 1") == "auto");
  CHECK(hint("/* other */ -- line\n /* pgweir: primary */ SELECT 1") == "primary");
  CHECK(hint("/* pgweir: primary */ /* pgweir: standby */ SELECT 1") == "primary");
}

TEST_CASE("nothing else is a hint") {
  for (const char* sql :
       {"", "SELECT 1", "SELECT 1 /* pgweir: primary */", "/* pgweir: master */ SELECT 1", "/* pgweir primary */",
        "/* pgweir: primary", "/* pgweir: primary standby */", "-- pgweir: primary\nSELECT 1", "/* xpgweir: primary */",
        "/* /* pgweir: primary */ */ SELECT 1", "/* pgweir: /* x */ primary */", "'/* pgweir: primary */'", "/", "-",
        "/* pgweir: */ SELECT 1", "/**/", "; /* pgweir: primary */"}) {
    INFO(sql);
    CHECK(hint(sql) == "-");
  }
}

TEST_CASE("pgweir.route is set, reset and shown") {
  CHECK(command("SET pgweir.route = 'primary'") == "set primary");
  CHECK(command("set PGWEIR.ROUTE to standby;") == "set standby");
  CHECK(command("SET SESSION pgweir.route TO \"auto\"") == "set auto");
  CHECK(command("SET LOCAL pgweir.route='standby' ; ") == "set local standby");
  CHECK(command("SET pgweir.route TO DEFAULT") == "set auto");
  CHECK(command("/* c */ SET/**/pgweir.route -- x\n = 'Primary'") == "set primary");
  CHECK(command("SET pgweir.route = 'master'") == "set invalid master");
  CHECK(command("SET pgweir.route = ''") == "set invalid ");
  CHECK(command("RESET pgweir.route") == "reset");
  CHECK(command("show pgweir.route;") == "show");
}

TEST_CASE("other settings and several statements are not ours") {
  for (const char* sql : {"SET work_mem = '4MB'",
                          "SET pgweir.routes = 'primary'",
                          "SET pgweir .route = 'primary'",
                          "SET pgweir.other = 1",
                          "SET pgweir.route",
                          "SET pgweir.route =",
                          "SET pgweir.route = 'primary",
                          "SET pgweir.route = 'primary'; SELECT 1",
                          "SHOW pgweir.route; SELECT 1",
                          "SHOW pgweir",
                          "RESET ALL",
                          "RESET pgweir.route, x",
                          "SELECT pgweir.route",
                          "SET pgweir.route = 'a''b'",
                          "SET pgweir.route = 'a' 'b'",
                          "SET",
                          "",
                          "SETpgweir.route = 'primary'",
                          "SET pgweir.routex = 'primary'",
                          "SET xpgweir.route = 'primary'"}) {
    INFO(sql);
    CHECK(command(sql) == "-");
  }
}
