// Which hosts are watched, as whom, and for which catalogues.
#include <catch2/catch.hpp>

#include "config_test.hpp"
#include "proxy/core/monitor_plan.hpp"

using namespace pgweir::core;
using namespace std::chrono_literals;

namespace {

MonitorPlan plan_of(const std::string& text, std::map<std::string, std::string, std::less<>> users = {}) {
  Settings settings;
  settings.config = std::make_shared<const Config>(good(text));
  settings.users = std::make_shared<const std::map<std::string, std::string, std::less<>>>(std::move(users));
  return make_monitor_plan(settings);
}

const std::string kHosts = "host=h,i port=1,2 ";

}  // namespace

TEST_CASE("only databases that are routed by role are watched") {
  CHECK(plan_of("[databases]\na = host=h,i\nb = target_session_attrs=any\n* = host=h\n[pgbouncer]\n").groups.empty());
}

TEST_CASE("databases with the same hosts are one group") {
  const auto plan = plan_of("[databases]\na = " + kHosts + "dbname=x read_write_split=1\nb = " + kHosts +
                            "target_session_attrs=primary\nc = host=i,h port=2,1 read_write_split=1\nd = " + kHosts +
                            "read_write_split=1\ne = " + kHosts + "target_session_attrs=standby\nf = " + kHosts +
                            "target_session_attrs=any\n[pgbouncer]\n[pgweir]\nrole_check_user = m\n"
                            "role_check_interval = 1s\nmax_replica_lag_bytes = 7\nmax_replica_lag_ms = 8\n");
  REQUIRE(plan.groups.size() == 2);
  const auto& group = plan.groups.at("h:1,i:2");
  CHECK(group.databases == "a,b,d,...");
  CHECK(group.hosts == std::vector<HostPort>{{"h", 1}, {"i", 2}});
  CHECK(group.login.user == "m");
  CHECK(group.login.dbname == "x");
  REQUIRE(group.catalogs.size() == 2);
  CHECK(group.catalogs.at("x").dbname == "x");
  CHECK(group.catalogs.contains("d"));
  CHECK_FALSE(group.other_catalogs);
  CHECK(plan.groups.at("i:2,h:1").databases == "c");
  CHECK(plan.interval == 1s);
  CHECK(plan.timeout == 1s);
  CHECK(plan.policy.lag_bytes_max == 7);
  CHECK(plan.policy.lag_max == 8ms);
}

TEST_CASE("who logs in, and with which password") {
  const auto login = [](const std::string& entry, const std::string& more = "", const std::string& own = "",
                        std::map<std::string, std::string, std::less<>> users = {}) {
    return plan_of(
               "[databases]\na = read_write_split=1 " + entry + "\n[pgbouncer]\n" + more + "\n[pgweir]\n" + own + "\n",
               std::move(users))
        .groups.begin()
        ->second.login;
  };
  CHECK(login("user=u password=p").user == "u");
  CHECK(login("user=u password=p").password == "p");
  CHECK(login("user=u", "", "", {{"u", "q"}}).password == "q");
  CHECK(login("auth_user=v", "auth_user=w").user == "v");
  CHECK(login("", "auth_user=w", "", {{"w", "q"}}).password == "q");
  CHECK(login("user=u password=p", "", "role_check_user=m", {{"m", "q"}}).user == "m");
  CHECK(login("user=u password=p", "", "role_check_user=m", {{"m", "q"}}).password == "q");
  CHECK(login("user=u password=p", "", "role_check_user=m").password == std::nullopt);
  CHECK(login("user=u password=p", "", "role_check_user=u").password == "p");
  // libpq cannot log in with what only proves a password.
  CHECK(login("user=u", "", "", {{"u", "md5" + std::string(32, '0')}}).password == std::nullopt);
  CHECK(login("user=u", "", "", {{"u", ""}}).password == std::nullopt);
}

TEST_CASE("TLS and sockets are those of the server connections") {
  const auto plan = plan_of(
      "[databases]\na = host=h sslmode=verify-full sslrootcert=ca sslcert=c sslkey=k user=u read_write_split=1\n"
      "b = port=9 user=u "
      "target_session_attrs=primary\n[pgbouncer]\nunix_socket_dir=/run/x\nserver_tls_sslmode=require\n");
  const auto& login = plan.groups.at("h:5432").login;
  CHECK(login.sslmode == SslMode::VerifyFull);
  CHECK((login.ca_file == "ca" && login.cert_file == "c" && login.key_file == "k"));
  const auto& local = plan.groups.at(":9");
  CHECK(local.hosts == std::vector<HostPort>{{"/run/x", 9}});
  CHECK(local.login.sslmode == SslMode::Require);
}

TEST_CASE("the entry * asks in the common database, and its catalogues come with its clients") {
  const auto plan = plan_of(
      "[databases]\n* = host=h read_write_split=1\nz = host=h target_session_attrs=primary\n"
      "[pgbouncer]\nauth_user=u\n");
  const auto& group = plan.groups.at("h:5432");
  CHECK(group.databases == "z,*");
  CHECK(group.login.dbname == "z");
  CHECK(group.catalogs.empty());
  REQUIRE(group.other_catalogs);
  CHECK(group.other_catalogs->dbname == "postgres");
  const auto named = plan_of("[databases]\n* = host=h dbname=x read_write_split=1\n[pgbouncer]\nauth_user=u\n");
  CHECK(named.groups.at("h:5432").catalogs.contains("x"));
  CHECK_FALSE(named.groups.at("h:5432").other_catalogs);
}

TEST_CASE("Patroni is asked only for the sake of routed databases") {
  const std::string more =
      "[pgbouncer]\nauth_user=u\nserver_tls_ca_file=ca\n[pgweir]\npatroni_urls=http://h:1, https://i\n";
  CHECK(plan_of("[databases]\na = host=h\n" + more).patroni_urls.empty());
  const auto plan = plan_of("[databases]\na = host=h read_write_split=1\n" + more);
  CHECK(plan.patroni_urls == std::vector<PatroniUrl>{{false, "h", 1, ""}, {true, "i", 8008, ""}});
  CHECK(plan.patroni_ca_file == "ca");
}

TEST_CASE("addresses of Patroni") {
  const auto good_url = [](const char* text) {
    const auto url = parse_patroni_url(text);
    REQUIRE(url.has_value());
    return *url;
  };
  CHECK(good_url("http://10.0.0.1:8008") == PatroniUrl{false, "10.0.0.1", 8008, ""});
  CHECK(good_url("http://h/") == PatroniUrl{false, "h", 8008, ""});
  CHECK(good_url("https://h:443/api/") == PatroniUrl{true, "h", 443, "/api"});
  CHECK(good_url("https://[::1]:9") == PatroniUrl{true, "::1", 9, ""});
  CHECK(good_url("http://[::1]") == PatroniUrl{false, "::1", 8008, ""});
  for (const char* text : {"", "h", "ftp://h", "http://", "http://:1", "http://h:", "http://h:0", "http://h:65536",
                           "http://h:x", "http://u@h", "http://h?x", "http://h#x", "http://h h", "http://[::1",
                           "http://[::1]x", "http://[::1]:", "http://[]:1"}) {
    INFO(text);
    CHECK(parse_patroni_url(text).has_error());
  }
}

TEST_CASE("hosts by Patroni take the place of those in the file") {
  const std::string tail = "[pgbouncer]\nauth_user=u\n[pgweir]\npatroni_urls=http://h\n";
  const auto before = std::make_shared<const Config>(
      good("[databases]\na = host=s read_write_split=1 host_source=patroni\nb = host=s read_write_split=1\n* = host=s "
           "target_session_attrs=primary host_source=patroni\n" +
           tail));
  Settings settings;
  settings.config = before;
  CHECK(make_monitor_plan(settings).patroni_is_source);
  CHECK(with_patroni_hosts(before, {}) == before);
  const std::vector<HostPort> hosts{{"h", 1}, {"i", 2}};
  const auto after = with_patroni_hosts(before, hosts);
  CHECK(after->databases.at("a").hosts == hosts);
  CHECK(after->databases.at("b").hosts == std::vector<HostPort>{{"s", 5432}});
  CHECK(after->fallback->hosts == hosts);
  CHECK(with_patroni_hosts(after, hosts) == after);
  CHECK(diff(*before, *after).changed_databases == std::vector<std::string>{"*", "a"});
  settings.config = std::make_shared<const Config>(good("[databases]\nb = host=s read_write_split=1\n" + tail));
  CHECK_FALSE(make_monitor_plan(settings).patroni_is_source);
}

TEST_CASE("hosts by Patroni need Patroni, and somebody who asks for roles") {
  const std::string wanted =
      "main.ini:2: a: host_source: patroni expects patroni_urls in [pgweir], and read_write_split or "
      "target_session_attrs "
      "here\n";
  CHECK(problems_of("[databases]\na = host=s read_write_split=1 host_source=patroni user=u\n[pgbouncer]\n") == wanted);
  CHECK(problems_of("[databases]\na = host=s host_source=patroni\n[pgbouncer]\n[pgweir]\npatroni_urls=http://h\n") ==
        wanted);
  CHECK(problems_of("[databases]\na = host=s host_source=list\n[pgbouncer]\n").empty());
  CHECK(problems_of("[databases]\na = host=s host_source=etcd\n[pgbouncer]\n").find("expected one of list, patroni") !=
        std::string::npos);
}

TEST_CASE("members of Patroni's cluster that go stay until a reload") {
  const auto member = [](const char* name, int port) { return PatroniMember{name, {"h", port}, "replica", "running"}; };
  const auto ports = [](const PatroniHosts& hosts) {
    std::vector<int> result;
    for (const HostPort& host : hosts.hosts()) result.push_back(host.port);
    return result;
  };
  PatroniHosts hosts;
  CHECK_FALSE(hosts.update({}));
  CHECK(hosts.update({member("b", 2), member("a", 1)}));
  CHECK(ports(hosts) == std::vector{1, 2});
  CHECK_FALSE(hosts.update({member("b", 2)}));
  CHECK(ports(hosts) == std::vector{1, 2});
  CHECK(hosts.update({member("b", 2), member("c", 3)}));
  CHECK(ports(hosts) == std::vector{1, 2, 3});
  CHECK(hosts.update({member("b", 4), member("c", 3)}));  // it has moved
  CHECK(ports(hosts) == std::vector{1, 4, 3});
  CHECK_FALSE(hosts.update({member("b", 4), member("z", 3)}));  // it has another name, the last one anyway
  CHECK(ports(hosts) == std::vector{1, 4, 3});
  hosts.forget();
  CHECK(ports(hosts) == std::vector{4, 3});
}
