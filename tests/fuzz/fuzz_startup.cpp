// First packets: a verdict never changes when more bytes arrive, every view lies inside the input, and a StartupMessage
// that was accepted is byte for byte what the builder makes of its parameters.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "protocol/message_builder.hpp"
#include "protocol/startup.hpp"
#include "tests/fuzz/fuzz_check.hpp"

namespace pgweir::protocol {
namespace {

using fuzz::check;
using fuzz::within;

constexpr std::size_t kSplitsMax = 48;

void check_verdict(ByteView in, const FirstPacket& packet) {
  check(within(in, packet.body), "body within the input");
  switch (packet.kind) {
    case FirstPacketKind::SslRequest:
    case FirstPacketKind::GssEncRequest:
      check(packet.size == 8 && in.size() >= 8, "a code only");
      break;
    case FirstPacketKind::CancelRequest:
    case FirstPacketKind::Startup:
      check(packet.size <= in.size() && packet.body.size() == packet.size - 8, "complete");
      break;
    case FirstPacketKind::NeedMore:
      check(in.size() < 8 || packet.size > in.size(), "something is missing");
      break;
    case FirstPacketKind::ProtocolV2:
    case FirstPacketKind::DirectTls:
    case FirstPacketKind::Bad:
      break;
  }
}

/// Once a prefix has a verdict, every longer one has the same.
void check_splits(ByteView in, std::uint32_t max_packet_size) {
  FirstPacketKind before = FirstPacketKind::NeedMore;
  for (std::size_t split = 0; split <= std::min(in.size(), kSplitsMax); ++split) {
    const ByteView prefix = in.substr(0, split);
    const FirstPacket packet = parse_first_packet(prefix, max_packet_size);
    check(before == FirstPacketKind::NeedMore || packet.kind == before, "a verdict stands");
    check_verdict(prefix, packet);
    before = packet.kind;
  }
}

void check_options(ByteView text) {
  std::vector<std::pair<std::string, std::string>> settings;
  if (!parse_startup_options(text, settings)) return;
  for (const auto& [name, value] : settings) {
    check(!name.empty() && name.find_first_of("=-") == std::string::npos, "a usable name");
    check(name.size() + value.size() < text.size(), "no bytes from nowhere");
  }
}

void check_startup(ByteView in, const FirstPacket& packet) {
  std::vector<StartupParameter> parameters;
  if (parse_startup_parameters(packet.body, parameters) != StartupStatus::Ok) return;
  std::vector<std::pair<std::string_view, std::string_view>> pairs;
  for (const StartupParameter& parameter : parameters) {
    check(!parameter.name.empty(), "an empty name ends the list");
    check(within(packet.body, parameter.name) && within(packet.body, parameter.value), "parameter within the body");
    check_options(parameter.value);
    pairs.emplace_back(parameter.name, parameter.value);
  }
  std::string rebuilt;
  append_startup_message(rebuilt, (std::uint32_t{packet.major} << 16) | packet.minor, pairs);
  check(rebuilt == in.substr(0, packet.size), "StartupMessage rebuilt");
}

void check_cancel(ByteView in, const FirstPacket& packet) {
  const std::optional<CancelKey> key = parse_cancel_request(packet.body);
  if (!key) return;
  std::string rebuilt;
  append_cancel_request(rebuilt, key->pid, key->secret);
  check(rebuilt == in.substr(0, packet.size), "CancelRequest rebuilt");
}

}  // namespace
}  // namespace pgweir::protocol

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pgweir::protocol;
  const ByteView in = pgweir::fuzz::as_view(data, size);
  check_splits(in, 65535);
  check_splits(in, 40);
  const FirstPacket packet = parse_first_packet(in, 65535);
  check_verdict(in, packet);
  if (packet.kind == FirstPacketKind::Startup) check_startup(in, packet);
  if (packet.kind == FirstPacketKind::CancelRequest) check_cancel(in, packet);
  check_options(in);
  return 0;
}
