// Tracked names, sets of values, and the SQL that aligns a server with a client.
#include "protocol/session_parameters.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace pgweir::protocol;

namespace {

const TrackedNames kNames({"IntervalStyle", "search_path"});
constexpr std::size_t kSearchPath = 6;

ParameterSetPtr set_of(const std::vector<std::pair<std::size_t, std::string>>& values) {
  auto set = std::make_shared<ParameterSet>();
  set->values.resize(kNames.size());
  for (const auto& [index, value] : values) set->values[index] = value;
  return set;
}

ExtraParametersPtr extras_of(ExtraParameters values) {
  return std::make_shared<const ExtraParameters>(std::move(values));
}

ServerParameters server_of(ParameterSetPtr tracked, ExtraParametersPtr extras = nullptr, bool unknown = false) {
  ServerParameters server;
  server.tracked = std::move(tracked);
  server.extras = std::move(extras);
  server.extras_unknown = unknown;
  return server;
}

std::optional<std::string> sql(const SessionParameters& client, const ServerParameters& server) {
  return alignment_sql(kNames, client, server);
}

}  // namespace

TEST_CASE("tracked names", "[parameters]") {
  CHECK(kNames.size() == 7);
  CHECK(kNames.find("datestyle") == TrackedNames::kDateStyle);
  CHECK(kNames.find("APPLICATION_NAME") == TrackedNames::kApplicationName);
  CHECK(kNames.find("intervalstyle") == std::size_t{5});
  CHECK_FALSE(kNames.find("work_mem"));
  CHECK(kNames.name(TrackedNames::kTimeZone) == "TimeZone");

  const TrackedNames odd({"", "timezone", "bad name", "a;b", "x.y", "X.Y"});
  CHECK(odd.size() == 6);
  CHECK(odd.name(5) == "x.y");

  std::vector<std::string> many;
  for (int i = 0; i < 100; ++i) many.push_back("p" + std::to_string(i));
  CHECK(TrackedNames(many).size() == 32);
}

TEST_CASE("with_value keeps the set where nothing changes", "[parameters]") {
  const ParameterSetPtr set = set_of({{2, "UTC"}});
  CHECK(with_value(set, 2, "UTC") == set);
  const ParameterSetPtr changed = with_value(set, 2, "CET");
  CHECK(changed != set);
  CHECK(changed->values[2] == "CET");
  CHECK(set->values[2] == "UTC");
  CHECK(with_value(set, 0, "ISO")->values[0] == "ISO");
}

TEST_CASE("servers that agree need nothing", "[parameters]") {
  const ParameterSetPtr set = set_of({{2, "UTC"}});
  CHECK(aligned({set, nullptr}, server_of(set)));
  CHECK(aligned({set, nullptr}, server_of(set_of({{2, "UTC"}}))));
  // What one side does not know is nobody's business.
  CHECK(aligned({set, nullptr}, server_of(set_of({{0, "ISO"}}))));
  CHECK(aligned({nullptr, nullptr}, server_of(set)));
  CHECK(sql({set, nullptr}, server_of(set_of({{2, "UTC"}}))) == "");
}

TEST_CASE("differences become one query", "[parameters]") {
  const SessionParameters client{set_of({{2, "CET"}, {4, "it's"}, {0, "ISO"}}), nullptr};
  const ServerParameters server = server_of(set_of({{2, "UTC"}, {4, ""}, {0, "ISO"}}));
  CHECK_FALSE(aligned(client, server));
  CHECK(sql(client, server) == "SET TimeZone='CET';SET application_name='it''s';");
}

TEST_CASE("lists are set as the start-up packet would", "[parameters]") {
  const SessionParameters client{set_of({{kSearchPath, "\"$user\", public"}}), nullptr};
  CHECK(sql(client, server_of(set_of({{kSearchPath, "x"}}))) ==
        "SELECT pg_catalog.set_config('search_path','\"$user\", public',false);");
}

TEST_CASE("extra parameters are set, reset and compared", "[parameters]") {
  const auto ab = extras_of({{"a", "1"}, {"b", "2"}});
  CHECK(aligned({nullptr, ab}, server_of(nullptr, extras_of({{"a", "1"}, {"b", "2"}}))));
  CHECK_FALSE(aligned({nullptr, ab}, server_of(nullptr)));
  CHECK_FALSE(aligned({nullptr, nullptr}, server_of(nullptr, ab)));
  CHECK(aligned({nullptr, nullptr}, server_of(nullptr, extras_of({}))));

  CHECK(sql({nullptr, ab}, server_of(nullptr, extras_of({{"b", "3"}, {"c", "4"}}))) ==
        "SELECT pg_catalog.set_config('a','1',false);SELECT pg_catalog.set_config('b','2',false);RESET c;");
  CHECK(sql({nullptr, nullptr}, server_of(nullptr, ab)) == "RESET a;RESET b;");
  CHECK(sql({nullptr, ab}, server_of(nullptr, ab)) == "");
}

TEST_CASE("after a foreign SET extras are set again", "[parameters]") {
  const auto a = extras_of({{"a", "1"}});
  CHECK_FALSE(aligned({nullptr, a}, server_of(nullptr, a, true)));
  CHECK(sql({nullptr, a}, server_of(nullptr, a, true)) == "SELECT pg_catalog.set_config('a','1',false);");
  // Where nobody asks for extras it does not matter.
  CHECK(aligned({nullptr, nullptr}, server_of(nullptr, nullptr, true)));
}

TEST_CASE("values are quoted for both settings of standard_conforming_strings", "[parameters]") {
  const ServerParameters server = server_of(set_of({{4, "x"}}));
  CHECK(sql({set_of({{4, "a\\b'c"}}), nullptr}, server) == "SET application_name=E'a\\\\b''c';");
  CHECK(sql({set_of({{4, "caf\xc3\xa9"}}), nullptr}, server) == "SET application_name='caf\xc3\xa9';");
  // 0x5c may be the second half of a character.
  CHECK_FALSE(sql({set_of({{4, "\xb5\\"}}), nullptr}, server));
  CHECK_FALSE(sql({set_of({{4, std::string("a\0b", 3)}}), nullptr}, server));
}

TEST_CASE("a value that is not ASCII is set in whatever encoding the server is", "[parameters]") {
  CHECK(sql({nullptr, extras_of({{"a", "\xb5\\"}})}, server_of(nullptr)) ==
        "SELECT pg_catalog.set_config('a',pg_catalog.convert_from(pg_catalog.decode('b55c','hex'),"
        "pg_catalog.getdatabaseencoding()),false);");
  CHECK(sql({set_of({{TrackedNames::kClientEncoding, "LATIN1"}, {kSearchPath, "\xe9"}}), nullptr},
            server_of(set_of({{TrackedNames::kClientEncoding, "LATIN1"}, {kSearchPath, "x"}}))) ==
        "SELECT pg_catalog.set_config('search_path',pg_catalog.convert_from(pg_catalog.decode('e9','hex'),'LATIN1'),"
        "false);");
}

TEST_CASE("the settings that a text is read by have a number", "[parameters]") {
  const HashKey key{1, 2};
  const auto number = [&](const SessionParameters& parameters) { return settings_hash(key, kNames, parameters); };
  const SessionParameters one{set_of({{TrackedNames::kDateStyle, "ISO, MDY"}}), nullptr};
  CHECK(number(one) == number({set_of({{TrackedNames::kDateStyle, "ISO, MDY"}, {4, "psql"}}), extras_of({})}));
  CHECK(number(one) != number({set_of({{TrackedNames::kDateStyle, "ISO, DMY"}}), nullptr}));
  CHECK(number(one) != number({one.tracked, extras_of({{"search_path", "a"}})}));
  CHECK(number({nullptr, extras_of({{"a", "bc"}})}) != number({nullptr, extras_of({{"ab", "c"}})}));
  CHECK(number(one) != settings_hash({1, 3}, kNames, one));
}

TEST_CASE("names that may go into SQL", "[parameters]") {
  for (const char* good : {"a", "_x", "work_mem", "my.ext$1", "A1.b2"}) CHECK(valid_parameter_name(good));
  for (const char* bad : {"", "1a", "$a", ".a", "a.", "a..b", "a b", "a;b", "a'b", "a-b", "a.1", "caf\xc3\xa9"}) {
    CHECK_FALSE(valid_parameter_name(bad));
  }
  CHECK(valid_parameter_name(std::string(128, 'a')));
  CHECK_FALSE(valid_parameter_name(std::string(129, 'a')));
}

TEST_CASE("application_name is cleaned as PostgreSQL does", "[parameters]") {
  CHECK(clean_application_name("psql 1~ ") == "psql 1~ ");
  CHECK(clean_application_name("\x1f\x7f\xc3\xa9\n") == "?????");
}

TEST_CASE("case is ignored for ASCII only", "[parameters]") {
  CHECK(equal_ignoring_case("TimeZone", "tIMEzONE"));
  CHECK_FALSE(equal_ignoring_case("a", "ab"));
  CHECK_FALSE(equal_ignoring_case("[", "{"));
  CHECK(to_lower("AbC\xc4") == "abc\xc4");
}
