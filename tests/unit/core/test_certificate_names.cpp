// Which names of a certificate a login may be judged by.
#include "proxy/core/certificate_names.hpp"

#include <catch2/catch.hpp>
#include <utility>

using namespace pgweir::core;
using namespace std::string_literals;

namespace {

using Names = std::vector<std::string_view>;

/// What it returns is good until the next call.
Names usable(CertificatePart part, std::vector<std::string> common_names, std::vector<std::string> dns_names) {
  static CertificateNames kept;
  kept = {std::move(common_names), std::move(dns_names), "x"};
  return usable_names(kept, part);
}

Names common(std::vector<std::string> common_names) {
  return usable(CertificatePart::CommonName, std::move(common_names), {});
}

Names any(std::vector<std::string> common_names, std::vector<std::string> dns_names) {
  return usable(CertificatePart::AnyName, std::move(common_names), std::move(dns_names));
}

}  // namespace

TEST_CASE("certificate: the parts that are looked at") {
  const CertificateNames names{{"alice"}, {"alice.example", "app"}, "CN=alice,O=Org"};
  CHECK(usable_names(names, CertificatePart::CommonName) == Names{"alice"});
  CHECK(usable_names(names, CertificatePart::AnyName) == Names{"alice", "alice.example", "app"});
  CHECK(usable_names(names, CertificatePart::Subject) == Names{"CN=alice,O=Org"});
  for (const auto part : {CertificatePart::CommonName, CertificatePart::AnyName, CertificatePart::Subject}) {
    CHECK(usable_names({}, part).empty());
  }
}

TEST_CASE("certificate: a common name counts if it is the only one") {
  CHECK(common({"alice", "bob"}).empty());
  CHECK(common({"alice", ""}).empty());
  CHECK(common({"alice", "alice"}).empty());
  CHECK(common({""}).empty());
  CHECK(any({"alice", "bob"}, {"carol"}) == Names{"carol"});
}

TEST_CASE("certificate: a zero byte in any name takes the worth of all") {
  CHECK(common({"alice\0.evil.org"s}).empty());
  CHECK(common({"\0"s}).empty());
  CHECK(any({"alice"}, {"bob\0.evil.org"s}).empty());
  CHECK(any({"alice\0"s}, {"bob"}).empty());
  CHECK(usable_names({{"alice\0x"s}, {}, "CN=alice\\00x"}, CertificatePart::Subject).empty());
  CHECK(usable_names({{"alice"}, {"bob\0"s}, "CN=alice"}, CertificatePart::CommonName).empty());
}

TEST_CASE("certificate: wildcards name nobody") {
  CHECK(any({}, {"*", "*.example.org", "a*.example.org", "app.example.org"}) == Names{"app.example.org"});
}

TEST_CASE("certificate: names longer than they can be are left out") {
  const std::string longest(256, 'a');
  CHECK(any({longest}, {longest}) == Names{longest, longest});
  CHECK(any({longest + 'a'}, {longest + 'a', ""}).empty());
  const CertificateNames long_subject{{}, {}, std::string(2048, 's')};
  CHECK(usable_names(long_subject, CertificatePart::Subject).size() == 1);
  CHECK(usable_names({{}, {}, std::string(2049, 's')}, CertificatePart::Subject).empty());
}
