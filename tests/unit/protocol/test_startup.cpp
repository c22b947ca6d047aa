// First packets: every split point of every kind, refusals at the earliest byte, start-up parameters and options.
#include <catch2/catch.hpp>
#include <string>

#include "protocol/message_builder.hpp"
#include "protocol/startup.hpp"

namespace pgweir::protocol {
namespace {

using Kind = FirstPacketKind;
using Settings = std::vector<std::pair<std::string, std::string>>;

constexpr std::uint32_t kMax = 2147483647;

template <std::size_t N>
std::string raw(const char (&literal)[N]) {
  return {literal, N - 1};
}

Kind kind_of(ByteView in, std::uint32_t max = kMax) {
  return parse_first_packet(in, max).kind;
}

/// Checks that `packet` is `kind` from `complete_at` bytes on, and NeedMore with fewer; also with more bytes behind it.
void check_splits(const std::string& packet, Kind kind, std::size_t complete_at) {
  const std::string with_more = packet + "next";
  for (std::size_t split = 0; split <= with_more.size(); ++split) {
    const FirstPacket got = parse_first_packet(ByteView(with_more).substr(0, split), kMax);
    INFO("split " << split);
    CHECK(got.kind == (split < complete_at ? Kind::NeedMore : kind));
    if (split >= 4 && kind != Kind::DirectTls) CHECK(got.size == packet.size());
    if (split < complete_at) CHECK(got.body.empty());
  }
}

/// Checks that `bytes` is refused from `wrong_at` bytes on and could still become good before.
void check_refused_at(const std::string& bytes, std::size_t wrong_at, std::uint32_t max = kMax) {
  for (std::size_t split = 0; split <= bytes.size(); ++split) {
    INFO("split " << split);
    const FirstPacket got = parse_first_packet(ByteView(bytes).substr(0, split), max);
    CHECK(got.kind == (split < wrong_at ? Kind::NeedMore : Kind::Bad));
    if (got.kind == Kind::Bad) CHECK(got.size == 0);
  }
}

TEST_CASE("SSLRequest and GSSENCRequest", "[startup]") {
  check_splits(raw("\x00\x00\x00\x08\x04\xd2\x16\x2f"), Kind::SslRequest, 8);
  check_splits(raw("\x00\x00\x00\x08\x04\xd2\x16\x30"), Kind::GssEncRequest, 8);
  check_refused_at(raw("\x00\x00\x00\x09\x04\xd2\x16\x2f\x00"), 8);
  check_refused_at(raw("\x00\x00\x00\x09\x04\xd2\x16\x30\x00"), 8);
}

TEST_CASE("a TLS record is known by its first byte", "[startup]") {
  check_splits(raw("\x16\x03\x01\x02\x00\x01"), Kind::DirectTls, 1);
  CHECK(parse_first_packet(raw("\x16\x03\x01"), kMax).size == 0);
}

TEST_CASE("CancelRequest with the key of protocol 3.0 and a longer one", "[startup]") {
  const std::string packet = raw("\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x04\xd2KEYS");
  check_splits(packet, Kind::CancelRequest, 16);
  const std::optional<CancelKey> key = parse_cancel_request(parse_first_packet(packet, kMax).body);
  REQUIRE(key);
  CHECK(key->pid == 1234);
  CHECK(key->secret == "KEYS");

  const std::string longer = raw("\x00\x00\x00\x14\x04\xd2\x16\x2e\xff\xff\xff\xff") + raw("A\0CDEFGH");
  check_splits(longer, Kind::CancelRequest, 20);
  const std::optional<CancelKey> long_key = parse_cancel_request(parse_first_packet(longer, kMax).body);
  REQUIRE(long_key);
  CHECK(long_key->pid == 0xffffffffU);
  CHECK(long_key->secret == raw("A\0CDEFGH"));
}

TEST_CASE("a cancel key has 4 to 256 bytes", "[startup]") {
  for (std::size_t size = 0; size < 8; ++size) {
    INFO("size " << size);
    CHECK_FALSE(parse_cancel_request(std::string(size, 'k')));
  }
  CHECK(parse_cancel_request(std::string(8, 'k')));
  CHECK(parse_cancel_request(std::string(4 + 256, 'k')));
  CHECK_FALSE(parse_cancel_request(std::string(4 + 257, 'k')));
}

TEST_CASE("StartupMessage of 3.0 and later minor versions", "[startup]") {
  const std::string body = raw("user\0bob\0\0");
  const std::string packet = raw("\x00\x00\x00\x12\x00\x03\x00\x00") + body;
  check_splits(packet, Kind::Startup, packet.size());
  const std::string with_more = packet + "rest";
  const FirstPacket got = parse_first_packet(with_more, kMax);
  CHECK(got.major == 3);
  CHECK(got.minor == 0);
  CHECK(got.body == body);

  const FirstPacket newer = parse_first_packet(raw("\x00\x00\x00\x12\x00\x03\x00\x02") + body, kMax);
  CHECK(newer.kind == Kind::Startup);
  CHECK(newer.minor == 2);
  const FirstPacket newest = parse_first_packet(raw("\x00\x00\x00\x12\x00\x03\xff\xff") + body, kMax);
  CHECK(newest.kind == Kind::Startup);
  CHECK(newest.minor == 65535);
}

TEST_CASE("protocol 2.0 is known from eight bytes", "[startup]") {
  check_splits(raw("\x00\x00\x00\x10\x00\x02\x00\x00") + "12345678", Kind::ProtocolV2, 8);
  CHECK(parse_first_packet(raw("\x00\x00\x01\x28\x00\x02\x00\x00"), kMax).major == 2);
  check_refused_at(raw("\x00\x00\x00\x10\x00\x02\x00\x01"), 8);
}

TEST_CASE("what cannot become a packet is refused at the earliest byte", "[startup]") {
  check_refused_at("GET / HTTP/1.1\r\n", 1);
  check_refused_at(raw("\x00\x01\x00\x00\x00\x03\x00\x00"), 2);  // 65536 bytes
  check_refused_at(raw("\x00\x00\x00\x07\x00\x03\x00\x00"), 4);
  check_refused_at(raw("\x00\x00\x00\x00\x00\x03\x00\x00"), 4);
  check_refused_at(raw("\x00\x00\x00\x10\x05"), 5);
  check_refused_at(raw("\x00\x00\x00\x10\x00\x04\x00\x00"), 6);  // protocol 4.0
  check_refused_at(raw("\x00\x00\x00\x10\x00\x01\x00\x00"), 6);
  check_refused_at(raw("\x00\x00\x00\x10\x04\xd2\x17\x00"), 7);
  check_refused_at(raw("\x00\x00\x00\x10\x04\xd2\x16\x2d"), 8);
  check_refused_at(raw("\x00\x00\x00\x10\x04\xd2\x16\x31"), 8);
}

TEST_CASE("the packet size is limited by the setting and by 65535", "[startup]") {
  CHECK(kind_of(raw("\x00\x00\xff\xff")) == Kind::NeedMore);
  CHECK(kind_of(raw("\x00\x01\x00\x00")) == Kind::Bad);
  CHECK(kind_of(raw("\x00\x00\x01\x00"), 256) == Kind::NeedMore);
  CHECK(kind_of(raw("\x00\x00\x01\x01"), 256) == Kind::Bad);
  check_refused_at(raw("\x00\x00\x02\x00\x00"), 3, 256);

  const std::string largest = raw("\x00\x00\xff\xff\x00\x03\x00\x00") + std::string(65535 - 8, 'x');
  CHECK(kind_of(ByteView(largest).substr(0, 65534)) == Kind::NeedMore);
  CHECK(kind_of(largest) == Kind::Startup);
}

TEST_CASE("start-up parameters", "[startup]") {
  std::vector<StartupParameter> parameters{{"left", "over"}};
  const std::string body = raw("user\0bob\0database\0\0user\0eve\0\0");
  REQUIRE(parse_startup_parameters(body, parameters) == StartupStatus::Ok);
  REQUIRE(parameters.size() == 3);
  CHECK(parameters[0].name == "user");
  CHECK(parameters[0].value == "bob");
  CHECK(parameters[1].name == "database");
  CHECK(parameters[1].value.empty());
  CHECK(parameters[2].value == "eve");

  CHECK(parse_startup_parameters(raw("\0"), parameters) == StartupStatus::Ok);
  CHECK(parameters.empty());
}

TEST_CASE("start-up parameters must end exactly with the terminator", "[startup]") {
  std::vector<StartupParameter> parameters;
  const std::string body = raw("user\0bob\0application_name\0x y\0\0");
  for (std::size_t size = 0; size < body.size(); ++size) {
    INFO("size " << size);
    CHECK(parse_startup_parameters(ByteView(body).substr(0, size), parameters) == StartupStatus::MissingTerminator);
  }
  CHECK(parse_startup_parameters(body, parameters) == StartupStatus::Ok);
  CHECK(parse_startup_parameters(body + raw("\0"), parameters) == StartupStatus::MissingTerminator);
  CHECK(parse_startup_parameters(body + raw("a\0b\0\0"), parameters) == StartupStatus::MissingTerminator);
}

TEST_CASE("the options text in all its spellings", "[startup]") {
  Settings out{{"left", "over"}};
  REQUIRE(parse_startup_options("", out));
  CHECK(out.empty());
  REQUIRE(parse_startup_options("  \t\n", out));
  CHECK(out.empty());

  REQUIRE(parse_startup_options("-c a=1 -cb=2\t--c-d=3 -c   e-f=x=y  -c g=", out));
  CHECK(out == Settings{{"a", "1"}, {"b", "2"}, {"c_d", "3"}, {"e_f", "x=y"}, {"g", ""}});

  REQUIRE(parse_startup_options(R"(-c search_path=a,\ b --x=c:\\d\z -cy=\  )", out));
  CHECK(out == Settings{{"search_path", "a, b"}, {"x", "c:\\dz"}, {"y", " "}});

  REQUIRE(parse_startup_options("-c a=b-c\\", out));  // a backslash with nothing behind it is dropped
  CHECK(out == Settings{{"a", "b-c"}});
}

TEST_CASE("other switches in the options text are refused", "[startup]") {
  Settings out;
  for (const char* text : {"-c", "-c ", "-c a", "-ca", "--a", "--", "--=1", "-c =1", "-c=1", "-d 5", "-B100", "a=1",
                           "-c a=1 b=2", "-", "--a=1 -x", "-C a=1", "\\"}) {
    INFO(text);
    CHECK_FALSE(parse_startup_options(text, out));
  }
}

TEST_CASE("built first packets are read back", "[startup]") {
  std::string out;
  append_ssl_request(out);
  CHECK(out == raw("\x00\x00\x00\x08\x04\xd2\x16\x2f"));

  out.clear();
  append_cancel_request(out, 7, "secret-key");
  const std::optional<CancelKey> key = parse_cancel_request(parse_first_packet(out, kMax).body);
  REQUIRE(key);
  CHECK(key->pid == 7);
  CHECK(key->secret == "secret-key");

  out.clear();
  const std::pair<std::string_view, std::string_view> sent[] = {{"user", "bob"}, {"database", "db"}};
  append_startup_message(out, 196608, sent);
  CHECK(out == raw("\x00\x00\x00\x1e\x00\x03\x00\x00user\0bob\0database\0db\0\0"));
  std::vector<StartupParameter> parameters;
  REQUIRE(parse_startup_parameters(parse_first_packet(out, kMax).body, parameters) == StartupStatus::Ok);
  REQUIRE(parameters.size() == 2);
  CHECK(parameters[1].name == "database");
  CHECK(parameters[1].value == "db");
}

}  // namespace
}  // namespace pgweir::protocol
