// The options at the end of a line of pg_hba.conf: where each may stand, its values, and what does not go together.
#include <catch2/catch.hpp>

#include "proxy/core/hba.hpp"
#include "tests/unit/core/auth_test.hpp"

using namespace pgweir::core;

namespace {

using Options = std::vector<std::pair<std::string, std::string>>;

HbaRule rule_of(const std::string& line) {
  const auto rules = parse_hba(line, "hba", {});
  CHECK(texts(rules.problems) == std::vector<std::string>{});
  return rules.rules.at(0);
}

// All reasons, without the place.
std::string problems_of(const std::string& line) {
  const auto rules = parse_hba(line, "hba", {});
  CHECK(rules.rules.empty());
  std::string out;
  for (const auto& problem : rules.problems) {
    CHECK(problem.line == 1);
    out += (out.empty() ? "" : "; ") + problem.text;
  }
  return out;
}

const std::string kHost = "host all all all ";
const std::string kSsl = "hostssl all all all ";

}  // namespace

TEST_CASE("hba options: map") {
  CHECK(rule_of("local all all peer map=m").map == "m");
  CHECK(rule_of(kSsl + "cert map=\"my map\"").map == "my map");
  CHECK(rule_of("local all all peer").map.empty());
  CHECK(problems_of(kHost + "md5 map=m") == "map is for the method cert or peer only");
  CHECK(problems_of("local all all peer map=") == "map: expected the name of a map");
}

TEST_CASE("hba options: client certificates") {
  CHECK(rule_of(kSsl + "md5").client_cert == HbaClientCert::None);
  CHECK(rule_of(kSsl + "md5 clientcert=verify-ca").client_cert == HbaClientCert::VerifyCa);
  CHECK(rule_of(kSsl + "md5 clientcert=verify-full").client_cert == HbaClientCert::VerifyFull);
  CHECK(rule_of(kSsl + "cert").client_cert == HbaClientCert::VerifyFull);
  CHECK(rule_of(kHost + "cert").client_cert == HbaClientCert::VerifyFull);
  CHECK(rule_of(kSsl + "cert clientcert=verify-full").client_cert == HbaClientCert::VerifyFull);
  CHECK(problems_of(kHost + "md5 clientcert=verify-ca") == "clientcert is for hostssl lines only");
  CHECK(problems_of(kSsl + "md5 clientcert=1") == "clientcert: expected verify-ca or verify-full, got \"1\"");
  CHECK(problems_of(kSsl + "cert clientcert=verify-ca") ==
        "clientcert: expected verify-full, which the method cert always means");
  CHECK_FALSE(rule_of(kSsl + "cert clientname=CN").client_name_is_dn);
  CHECK(rule_of(kSsl + "cert clientname=DN map=m").client_name_is_dn);
  CHECK(problems_of(kSsl + "cert clientname=dn") == "clientname: expected CN or DN, got \"dn\"");
  CHECK(problems_of(kHost + "md5 clientname=CN") == "clientname is for hostssl lines only");
}

TEST_CASE("hba options: pam") {
  CHECK(rule_of(kHost + "pam pamservice=pg pam_use_hostname=1").options ==
        Options{{"pamservice", "pg"}, {"pam_use_hostname", "1"}});
  CHECK(problems_of(kHost + "pam pamservice= pam_use_hostname=yes") ==
        "pamservice: expected a name; pam_use_hostname: expected 0 or 1, got \"yes\"");
  CHECK(problems_of(kHost + "md5 pamservice=x") == "pamservice is for the method pam only");
}

TEST_CASE("hba options: ldap") {
  CHECK(rule_of(kHost + "ldap").options.empty());
  CHECK(
      rule_of(kHost + "ldap ldapserver=x ldapport=389 ldapscheme=ldaps ldaptls=1 ldapbasedn=\"dc=a, dc=b\"").options ==
      Options{{"ldapserver", "x"},
              {"ldapport", "389"},
              {"ldapscheme", "ldaps"},
              {"ldaptls", "1"},
              {"ldapbasedn", "dc=a, dc=b"}});
  CHECK(rule_of(kHost + "ldap ldapserver=h \"ldapprefix=cn=\" ldapsuffix=\", dc=\"\"x\"\"\"").options ==
        Options{{"ldapserver", "h"}, {"ldapprefix", "cn="}, {"ldapsuffix", ", dc=\"x\""}});
  CHECK(rule_of(kHost + "ldap ldapurl=ldap://h/dc=a?uid?sub").options.size() == 1);
  CHECK(rule_of(kHost + "ldap ldapserver=a,ldapsuffix=b").options.size() == 2);
  CHECK(problems_of(kHost + "ldap ldapport=0 ldapscheme=x ldaptls=2 ldapurl=http://x ldapserver=").size() > 100);
  CHECK(problems_of(kHost + "ldap ldapserver=x") ==
        "the method ldap needs ldapbasedn, ldapprefix, ldapsuffix or ldapurl");
  CHECK(problems_of(kHost + "ldap ldapprefix=a ldapbasedn=b") ==
        "expected either ldapprefix and ldapsuffix or the options of a search, not both");
  CHECK(problems_of(kHost + "ldap ldapbasedn=b ldapsearchattribute=uid ldapsearchfilter=(uid=$username)") ==
        "expected either ldapsearchattribute or ldapsearchfilter, not both");
  CHECK(problems_of(kHost + "md5 ldapserver=x") == "ldapserver is for the method ldap only");
  CHECK(rule_of(kHost + "ldap ldapserver=h ldapsuffix=" + std::string(998, 'x')).options.size() == 2);
  CHECK(problems_of(kHost + "ldap ldapserver=h ldapsuffix=" + std::string(999, 'x')) ==
        "expected less than 1024 bytes of ldap options");
}

TEST_CASE("hba options: form and names") {
  CHECK(problems_of(kHost + "md5 trust") ==
        "expected name=value options after the method (a value with blanks or commas needs quotes)");
  CHECK(problems_of(kHost + "md5 krb_realm=x") == "unknown or unsupported option \"krb_realm\"");
  CHECK(problems_of(kSsl + "md5 clientcrt=x") ==
        "unknown or unsupported option \"clientcrt\" (did you mean \"clientcert\"?)");
  CHECK(problems_of("local all all peer map=a map=a") == "map is given twice");
  CHECK(problems_of("local samerole +x peer y=1 map") ==
        "samerole is not supported: who is a member of a role is known to the server only; \"+x\" is not supported: "
        "who is a member of a role is known to the server only; unknown or unsupported option \"y\"; expected "
        "name=value options after the method (a value with blanks or commas needs quotes)");
}

TEST_CASE("hba options: problems repeat no secret") {
  for (const std::string tail :
       {"ldapbindpasswd=hush ldapbindpasswd=hush", "ldapbindpasswd= hush", "ldapbindpasswd=a,hush",
        "ldapbindpasswd=hush ldapprefix=x", "ldapbindpasswd=\"hush"}) {
    CHECK(problems_of(kHost + "ldap " + tail).find("hush") == std::string::npos);
  }
  CHECK(problems_of(kHost + "md5 ldapbindpasswd=hush") == "ldapbindpasswd is for the method ldap only");
}
