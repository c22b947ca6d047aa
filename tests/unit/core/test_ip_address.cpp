// IP addresses and networks: all forms of text, the boundaries of prefixes, and IPv4 seen through IPv6 sockets.
#include <catch2/catch.hpp>

#include "proxy/core/ip_address.hpp"

using namespace pgweir::core;

namespace {

IpAddress ip(std::string_view text) {
  const auto address = IpAddress::parse(text);
  if (!address) FAIL("no address: " << text);
  return *address;
}

bool contains(std::string_view network, std::string_view address) {
  const auto parsed = parse_cidr(network);
  if (parsed.has_error()) FAIL(parsed.error());
  return parsed->contains(ip(address));
}

}  // namespace

TEST_CASE("ip address: IPv4") {
  const auto address = ip("10.1.2.255");
  CHECK_FALSE(address.is_v6);
  CHECK(address.bytes == std::array<std::uint8_t, 16>{10, 1, 2, 255});
  CHECK(ip("0.0.0.0") == IpAddress{});
  for (const auto* bad : {"", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.", ".1.2.3", "1..2.3", "01.2.3.4",
                          "1.2.3.4 ", "+1.2.3.4", "-1.2.3.4", "1.2.3.0x4", "1.2.3.4444", "1.2.3.a"}) {
    INFO(bad);
    CHECK_FALSE(IpAddress::parse(bad));
  }
}

TEST_CASE("ip address: IPv6") {
  const auto address = ip("2001:db8:0:1:FFFF:0:0:a");
  CHECK(address.is_v6);
  CHECK(address.bytes == std::array<std::uint8_t, 16>{0x20, 1, 0x0d, 0xb8, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0, 0, 10});
  CHECK(ip("2001:db8:0:1:ffff::a") == address);
  CHECK(ip("::").bytes == IpAddress{}.bytes);
  CHECK(ip("::") != ip("0.0.0.0"));
  CHECK(ip("::1").bytes[15] == 1);
  CHECK(ip("1::").bytes[1] == 1);
  CHECK(ip("1:2:3:4:5:6:7::") == ip("1:2:3:4:5:6:7:0"));
  CHECK(ip("::2:3:4:5:6:7:8") == ip("0:2:3:4:5:6:7:8"));
  CHECK(ip("1::1.2.3.4") == ip("1::102:304"));
  CHECK(ip("1:2:3:4:5:6:1.2.3.4") == ip("1:2:3:4:5:6:102:304"));
  for (const auto* bad : {":", ":::", "1:", ":1", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3",
                          "12345::", "g::", "fe80::1%eth0", "[::1]", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8",
                          "1:2:3:4:5:6:7:1.2.3.4", "1.2.3.4::", "::1.2.3", "::1.2.3.4:5", "1:2:3:4:1.2.3.4", "::1:"}) {
    INFO(bad);
    CHECK_FALSE(IpAddress::parse(bad));
  }
}

TEST_CASE("ip address: from the bytes of a socket address") {
  const std::array<std::uint8_t, 4> four{127, 0, 0, 1};
  CHECK(IpAddress::from_bytes(four) == ip("127.0.0.1"));
  std::array<std::uint8_t, 16> sixteen{};
  sixteen[15] = 1;
  CHECK(IpAddress::from_bytes(sixteen) == ip("::1"));
  sixteen = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1};
  CHECK(IpAddress::from_bytes(sixteen) == ip("127.0.0.1"));
  CHECK_FALSE(IpAddress::from_bytes(std::span(sixteen).first(5)));
  CHECK_FALSE(IpAddress::from_bytes({}));
}

TEST_CASE("ip network: boundaries of IPv4 prefixes") {
  CHECK(contains("0.0.0.0/0", "255.255.255.255"));
  CHECK(contains("128.0.0.0/1", "128.0.0.0"));
  CHECK_FALSE(contains("128.0.0.0/1", "127.255.255.255"));
  CHECK(contains("10.0.0.0/8", "10.255.255.255"));
  CHECK_FALSE(contains("10.0.0.0/8", "11.0.0.0"));
  CHECK(contains("10.1.16.0/20", "10.1.31.255"));
  CHECK_FALSE(contains("10.1.16.0/20", "10.1.32.0"));
  CHECK(contains("10.0.0.2/31", "10.0.0.3"));
  CHECK_FALSE(contains("10.0.0.2/31", "10.0.0.4"));
  CHECK_FALSE(contains("10.0.0.2/31", "10.0.0.1"));
  CHECK(contains("10.0.0.2/32", "10.0.0.2"));
  CHECK_FALSE(contains("10.0.0.2/32", "10.0.0.3"));
}

TEST_CASE("ip network: boundaries of IPv6 prefixes") {
  CHECK(contains("::/0", "ffff::"));
  CHECK(contains("fe80::/10", "febf::1"));
  CHECK_FALSE(contains("fe80::/10", "fec0::1"));
  CHECK(contains("2001:db8::/32", "2001:db8:ffff::"));
  CHECK_FALSE(contains("2001:db8::/32", "2001:db9::"));
  CHECK(contains("::2/127", "::3"));
  CHECK_FALSE(contains("::2/127", "::4"));
  CHECK(contains("::2/128", "::2"));
  CHECK_FALSE(contains("::2/128", "::3"));
}

TEST_CASE("ip network: the kinds do not mix, but a mapped address is IPv4") {
  CHECK_FALSE(contains("::/0", "10.0.0.1"));
  CHECK_FALSE(contains("0.0.0.0/0", "::1"));
  CHECK_FALSE(contains("::/0", "::ffff:10.0.0.1"));
  CHECK(contains("10.0.0.0/8", "::ffff:10.0.0.1"));
  CHECK(contains("::ffff:10.0.0.0/104", "10.0.0.1"));
  CHECK(contains("::ffff:0:0/96", "10.0.0.1"));
  CHECK_FALSE(contains("::ffff:10.0.0.0/104", "11.0.0.1"));
  CHECK_FALSE(contains("::ffff:0:0/95", "10.0.0.1"));
}

TEST_CASE("ip network: masks") {
  CHECK(parse_address_and_mask("10.0.0.0", "255.0.0.0")->contains(ip("10.9.9.9")));
  CHECK(parse_address_and_mask("::1", "ffff::")->contains(ip("::5")));
  CHECK(parse_address_and_mask("0.0.0.5", "0.0.0.255")->contains(ip("9.9.9.5")));
  CHECK(*parse_address_and_mask("10.0.0.1", "255.255.255.255") == *parse_cidr("10.0.0.1/32"));
  CHECK(parse_cidr("10.0.0.1/8")->has_host_bits());
  CHECK(parse_cidr("10.0.0.1/8")->contains(ip("10.2.2.2")));
  CHECK_FALSE(parse_cidr("10.0.0.1/32")->has_host_bits());
  CHECK(parse_cidr("::1/127")->has_host_bits());
}

TEST_CASE("ip network: what is refused") {
  CHECK(parse_cidr("10.0.0.0/33").error() == "expected 0 to 32 bits after the slash, got \"10.0.0.0/33\"");
  CHECK(parse_cidr("::/129").error() == "expected 0 to 128 bits after the slash, got \"::/129\"");
  for (const auto* bad :
       {"10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+1", "10.0.0.0/8/8", "10.0.0.0/ 8", "10.0.0.0/0x8", "10.0.0.0/9999"}) {
    INFO(bad);
    CHECK(parse_cidr(bad).has_error());
  }
  CHECK(parse_cidr("10.0/8").error() == "expected an address such as 10.0.0.0/8 or fe80::/10, got \"10.0/8\"");
  CHECK(parse_address_and_mask("10.0.0.1", "trust").error() ==
        "expected a mask after the address, as in 10.0.0.1/32 or a column of its own, got \"trust\"");
  CHECK(parse_address_and_mask("::1", "255.0.0.0").error() ==
        "expected an address and a mask of the same kind, got \"::1\" and \"255.0.0.0\"");
  CHECK(parse_address_and_mask("x", "255.0.0.0").error() == "expected an IP address, got \"x\"");
}
