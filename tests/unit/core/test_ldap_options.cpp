// What ldap options mean together, and that no user name gets out of the place where it belongs.
#include <catch2/catch.hpp>

#include "config_test.hpp"
#include "proxy/core/ldap_options.hpp"

using namespace pgweir::core;

namespace {

std::string reason_of(std::string_view text) {
  auto parsed = parse_ldap_options(text);
  return parsed.has_error() ? parsed.error() : "none";
}

LdapQuestion asked(std::string_view options, std::string_view user = "alice") {
  const auto settings = parse_ldap_options(options);
  REQUIRE(reason_of(options) == "none");
  return ldap_question(*settings, user);
}

LdapQuestion::Search searched(std::string_view options, std::string_view user = "alice") {
  const auto question = asked(options, user);
  REQUIRE(question.search);
  return *question.search;
}

}  // namespace

TEST_CASE("ldap: a name to bind with") {
  const auto question = asked(R"(ldapserver=h ldapprefix="cn=" ldapsuffix=", dc=example, dc=net")");
  CHECK(question.uris == "ldap://h");
  CHECK(question.bind_dn == "cn=alice, dc=example, dc=net");
  CHECK_FALSE(question.start_tls);
  CHECK_FALSE(question.search);
  CHECK(asked("ldapserver=h ldapsuffix=@example.net").bind_dn == "alice@example.net");
  CHECK(asked(R"(ldapserver=h "ldapprefix=DOMAIN\")").bind_dn == "DOMAIN\\alice");
}

TEST_CASE("ldap: servers, port and encryption") {
  CHECK(asked("\"ldapserver=a  b.c ::1 [::2]\" ldapport=1389 ldapprefix=x").uris ==
        "ldap://a:1389 ldap://b.c:1389 ldap://[::1]:1389 ldap://[::2]:1389");
  CHECK(asked("ldapserver=a ldapscheme=ldaps ldapprefix=x").uris == "ldaps://a");
  CHECK(asked("ldapserver=a ldaptls=1 ldapprefix=x").start_tls);
  CHECK_FALSE(asked("ldapserver=a ldaptls=0 ldapprefix=x").start_tls);
  // Without a server it is the library's own choice.
  CHECK(asked("ldapprefix=x").uris.empty());
  CHECK(asked("ldapurl=ldap:///dc=a").uris.empty());
  CHECK(asked("ldapprefix=x ldapport=99").uris == "ldap://localhost:99");
  CHECK(asked("ldapprefix=x ldapscheme=ldaps").uris == "ldaps://localhost");
  for (const std::string server : {"a/b", "a?b", "a:389", "ldap://a", "[a]", "a@b"}) {
    CHECK(reason_of("ldapprefix=x ldapserver=" + server) == "ldapserver: expected names or addresses of servers");
  }
}

TEST_CASE("ldap: a search") {
  const auto search = searched(R"(ldapserver=h ldapbasedn="dc=a,dc=b" ldapbinddn="cn=s" ldapbindpasswd="p w")");
  CHECK(search.bind_dn == "cn=s");
  CHECK(search.bind_password == "p w");
  CHECK(search.base_dn == "dc=a,dc=b");
  CHECK(search.filter == "(uid=alice)");
  CHECK(search.scope == LdapScope::Subtree);
  CHECK(searched("ldapserver=h ldapbasedn=b ldapsearchattribute=cn").filter == "(cn=alice)");
  CHECK(searched("ldapserver=h ldapbasedn=b ldapsearchfilter=(|(uid=$username)(mail=$username))").filter ==
        "(|(uid=alice)(mail=alice))");
  CHECK(searched("ldapserver=h ldapbasedn=b ldapsearchfilter=(uid=x)", "alice").filter == "(uid=x)");
  // What a user's name contains is not looked at again.
  CHECK(searched("ldapserver=h ldapbasedn=b ldapsearchfilter=(uid=$username)", "$username").filter ==
        "(uid=$username)");
}

TEST_CASE("ldap: urls") {
  auto question = asked(R"(ldapurl="ldaps://h:1636/dc=a,dc=b?cn?sub")");
  CHECK(question.uris == "ldaps://h:1636");
  REQUIRE(question.search);
  CHECK(question.search->base_dn == "dc=a,dc=b");
  CHECK(question.search->filter == "(cn=alice)");
  CHECK(question.search->scope == LdapScope::Subtree);
  // As RFC 4516 has it; a search says otherwise.
  CHECK(searched("ldapurl=ldap://h/dc=a").scope == LdapScope::Base);
  CHECK(searched("ldapurl=ldap://h/dc=a??one").scope == LdapScope::OneLevel);
  CHECK(searched("ldapurl=ldap://h/dc=a??sub?(uid=$username)").filter == "(uid=alice)");
  CHECK(searched("ldapurl=ldap://h/ou=a%20b%3fc?uid?sub").base_dn == "ou=a b?c");
  CHECK(asked("ldapurl=ldap://[::1]:99/dc=a").uris == "ldap://[::1]:99");
  CHECK(asked("ldapurl=ldap://[::1]/dc=a").uris == "ldap://[::1]");
  CHECK(searched("ldapurl=ldap://h/dc=a?uid?sub ldapbinddn=cn=s").bind_dn == "cn=s");
  CHECK(asked("ldapserver=h ldapurl=ldap:///dc=a").uris == "ldap://h");
  CHECK(asked("ldapurl=ldap://h:99 ldapprefix=x").bind_dn == "xalice");
  CHECK(reason_of("ldapurl=http://h/") == "ldapurl: expected a URL that starts with ldap:// or ldaps://");
  CHECK(reason_of("ldapurl=ldapi://h/") == "ldapurl: expected a URL that starts with ldap:// or ldaps://");
  CHECK(reason_of("ldapurl=ldap") == "ldapurl: expected a URL that starts with ldap:// or ldaps://");
  CHECK(reason_of("ldapurl=ldap://h:x/dc=a") == "ldapurl: expected a port from 1 to 65535");
  CHECK(reason_of("ldapurl=ldap://h:0/dc=a") == "ldapurl: expected a port from 1 to 65535");
  CHECK(reason_of("ldapurl=ldap://h@x/dc=a") == "ldapurl: expected the name or the address of a server");
  CHECK(reason_of("ldapurl=ldap://h/dc=a?uid?tree") == "ldapurl: expected the scope base, one or sub");
  CHECK(reason_of("ldapurl=ldap://h/dc=a?uid?sub??x") == "ldapurl: expected no extensions");
  CHECK(reason_of("\"ldapurl=ldap://h/dc=a?uid,cn?sub\"") == "ldapurl: expected one attribute");
  for (const std::string path : {"%", "%1", "%zz", "%00", "a%"}) {
    CHECK(reason_of("ldapurl=ldap://h/" + path) ==
          "ldapurl: expected two hexadecimal digits, not both 0, after each %");
  }
  CHECK(reason_of("ldapurl=ldap://h/dc=a?uid?sub?(uid=$username)") ==
        "expected either ldapsearchattribute or ldapsearchfilter, not both");
}

TEST_CASE("ldap: options that do not go together, or are none") {
  CHECK(reason_of("ldapserver=h") == "the method ldap needs ldapbasedn, ldapprefix, ldapsuffix or ldapurl");
  CHECK(reason_of("ldapserver=h ldapprefix=x ldapurl=ldap://h/dc=a") ==
        "expected either ldapprefix and ldapsuffix or the options of a search, not both");
  CHECK(reason_of("ldapserver=h ldapsuffix=x ldapbinddn=y") ==
        "expected either ldapprefix and ldapsuffix or the options of a search, not both");
  CHECK(reason_of("ldapserver=h ldapbasedn=x ldapserver=i") == "ldapserver is given twice");
  CHECK(reason_of("nonsense").find("expected name=value options") == 0);
  CHECK(reason_of("ldapsever=h").find("unknown or unsupported option \"ldapsever\" (did you mean") == 0);
  CHECK(reason_of("map=x").find("map is for the method") == 0);
  CHECK(reason_of("pamservice=x") == "pamservice is for the method pam only");
  CHECK(reason_of("ldapserver=h ldapprefix=x clientcert=verify-ca") == "clientcert is for hostssl lines only");
  CHECK(reason_of("# ldapserver=h").find("expected name=value options") == 0);
  CHECK(reason_of(" ").find("expected name=value options") == 0);
  CHECK(reason_of("ldapserver=h ldapsuffix=" + std::string(1100, 'x')).find("expected less than 1024") == 0);
  CHECK(reason_of("ldapserver=h ldapbindpasswd=hush ldapprefix=x").find("hush") == std::string::npos);
  CHECK(reason_of("include other").find("none") == std::string::npos);
}

TEST_CASE("ldap: no user name gets out of a filter") {
  const std::string options = "ldapserver=h ldapbasedn=b";
  CHECK(searched(options, "*").filter == R"((uid=\2a))");
  CHECK(searched(options, "x)(cn=*").filter == R"((uid=x\29\28cn=\2a))");
  CHECK(searched(options, "a\\2a").filter == R"((uid=a\5c2a))");
  CHECK(searched(options, "J\xc3\xbcrg \x01\xff").filter == R"((uid=J\c3\bcrg \01\ff))");
}

TEST_CASE("ldap: no user name gets out of a distinguished name") {
  const std::string options = R"(ldapserver=h ldapprefix="uid=" ldapsuffix=",dc=a")";
  CHECK(asked(options, "x,ou=admins").bind_dn == R"(uid=x\,ou\=admins,dc=a)");
  CHECK(asked(options, "a+cn=b").bind_dn == R"(uid=a\+cn\=b,dc=a)");
  CHECK(asked(options, R"(q"<>;\)").bind_dn == R"(uid=q\"\<\>\;\\,dc=a)");
  CHECK(asked(options, " a b ").bind_dn == R"(uid=\ a b\ ,dc=a)");
  CHECK(asked(options, "#a#").bind_dn == R"(uid=\#a#,dc=a)");
  CHECK(asked(options, "a\nb\x7f").bind_dn == R"(uid=a\0ab\7f,dc=a)");
  CHECK(asked(options, "J\xc3\xbcrg").bind_dn == "uid=J\xc3\xbcrg,dc=a");
}

TEST_CASE("ldap: auth_ldap_options is looked at when it is set") {
  CHECK(problems_of("[pgbouncer]\nauth_type = ldap\nauth_ldap_options = ldapserver=h ldapprefix=x\n").empty());
  CHECK(problems_of("[pgbouncer]\nauth_ldap_options =\n").empty());
  CHECK(problems_of("[pgbouncer]\n\nauth_ldap_options = ldapserver=h ldapbindpasswd=hush ldapprefix=x\n") ==
        "main.ini:3: auth_ldap_options: expected either ldapprefix and ldapsuffix or the options of a search, not "
        "both\n");
  const auto set = with_setting(Config{}, "auth_ldap_options", "ldapport=0 ldapserver=h");
  CHECK(std::get<std::string>(set) ==
        "auth_ldap_options: ldapport: expected a whole number from 1 to 65535, got \"0\"");
}
