// The first packet of a connection; see startup.hpp for what is decided here.
#include "protocol/startup.hpp"

#include <algorithm>
#include <array>

#include "protocol/body_reader.hpp"
#include "protocol/message_type.hpp"

namespace pgweir::protocol {

namespace {

constexpr std::size_t kFirstHeaderSize = 8;  // length word and code word
constexpr std::size_t kCodeOnlySize = 8;     // SSLRequest and GSSENCRequest have no body
constexpr std::size_t kCodeOffset = 4;
constexpr char kTlsHandshakeRecord = 0x16;
constexpr std::uint32_t kProtocolV2Code = 0x00020000;
constexpr std::uint32_t kProtocolV3First = 0x00030000;
constexpr std::uint32_t kProtocolV3Last = 0x0003ffff;

struct WordRange {
  std::uint32_t low;
  std::uint32_t high;
};

/// What a big-endian word can still become, of which up to four bytes are known.
WordRange possible_words(ByteView prefix) {
  std::array<char, 4> low{};
  std::array<char, 4> high{'\xff', '\xff', '\xff', '\xff'};
  std::copy(prefix.begin(), prefix.end(), low.begin());
  std::copy(prefix.begin(), prefix.end(), high.begin());
  return {load_u32(low.data()), load_u32(high.data())};
}

/// True if these first bytes cannot start a packet within the limits, however it goes on.
bool header_wrong(ByteView in, std::size_t packet_max) {
  const WordRange length = possible_words(in.substr(0, kCodeOffset));
  if (length.high < kFirstHeaderSize || length.low > packet_max) return true;
  if (in.size() <= kCodeOffset) return false;
  const WordRange code = possible_words(in.substr(kCodeOffset, kFirstHeaderSize - kCodeOffset));
  const auto may_be = [&code](std::uint32_t first, std::uint32_t last) {
    return code.low <= last && first <= code.high;
  };
  return !may_be(kProtocolV2Code, kProtocolV2Code) && !may_be(kProtocolV3First, kProtocolV3Last) &&
         !may_be(kCancelRequestCode, kGssEncRequestCode);
}

FirstPacketKind kind_of(std::uint32_t code, std::size_t size) {
  switch (code) {
    case kSslRequestCode:
      return size == kCodeOnlySize ? FirstPacketKind::SslRequest : FirstPacketKind::Bad;
    case kGssEncRequestCode:
      return size == kCodeOnlySize ? FirstPacketKind::GssEncRequest : FirstPacketKind::Bad;
    case kCancelRequestCode:
      return FirstPacketKind::CancelRequest;
    case kProtocolV2Code:
      return FirstPacketKind::ProtocolV2;
    default:
      return code >= kProtocolV3First && code <= kProtocolV3Last ? FirstPacketKind::Startup : FirstPacketKind::Bad;
  }
}

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

/// Takes the next word off the front of `text`, backslashes resolved. nullopt at the end of the text.
std::optional<std::string> next_word(ByteView& text) {
  while (!text.empty() && is_space(text[0])) text.remove_prefix(1);
  if (text.empty()) return std::nullopt;
  std::string word;
  bool escaped = false;
  while (!text.empty() && (escaped || !is_space(text[0]))) {
    const char c = text[0];
    text.remove_prefix(1);
    if (c == '\\' && !escaped) {
      escaped = true;
      continue;
    }
    word += c;
    escaped = false;
  }
  return word;
}

}  // namespace

FirstPacket parse_first_packet(ByteView in, std::uint32_t max_packet_size) {
  FirstPacket packet;
  if (in.empty()) return packet;
  if (in[0] == kTlsHandshakeRecord) {
    packet.kind = FirstPacketKind::DirectTls;
    return packet;
  }
  if (header_wrong(in, std::min<std::size_t>(max_packet_size, kStartupPacketMax))) {
    packet.kind = FirstPacketKind::Bad;
    return packet;
  }
  if (in.size() >= kCodeOffset) packet.size = load_u32(in.data());
  if (in.size() < kFirstHeaderSize) return packet;

  const std::uint32_t code = load_u32(in.data() + kCodeOffset);
  const FirstPacketKind kind = kind_of(code, packet.size);
  if (kind == FirstPacketKind::Bad) return FirstPacket{.kind = kind, .body = {}};
  const bool versioned = kind == FirstPacketKind::Startup || kind == FirstPacketKind::ProtocolV2;
  if (kind != FirstPacketKind::ProtocolV2 && in.size() < packet.size) return packet;
  packet.kind = kind;
  if (versioned) {
    packet.major = static_cast<std::uint16_t>(code >> 16);
    packet.minor = static_cast<std::uint16_t>(code & 0xffff);
  }
  if (kind == FirstPacketKind::Startup || kind == FirstPacketKind::CancelRequest) {
    packet.body = in.substr(kFirstHeaderSize, packet.size - kFirstHeaderSize);
  }
  return packet;
}

std::optional<CancelKey> parse_cancel_request(ByteView body) {
  BodyReader reader(body);
  CancelKey key;
  key.pid = reader.u32();
  key.secret = reader.rest();
  if (!reader.ok() || key.secret.size() < kCancelSecretMin || key.secret.size() > kCancelSecretMax) return std::nullopt;
  return key;
}

StartupStatus parse_startup_parameters(ByteView body_after_version, std::vector<StartupParameter>& out) {
  out.clear();
  BodyReader reader(body_after_version);
  for (;;) {
    const ByteView name = reader.string();
    if (name.empty()) break;
    const ByteView value = reader.string();
    if (!reader.ok()) break;
    out.push_back({name, value});
  }
  return reader.complete() ? StartupStatus::Ok : StartupStatus::MissingTerminator;
}

bool parse_startup_options(ByteView options, std::vector<std::pair<std::string, std::string>>& out) {
  out.clear();
  while (std::optional<std::string> word = next_word(options)) {
    std::string setting;
    if (*word == "-c") {
      std::optional<std::string> argument = next_word(options);
      if (!argument) return false;
      setting = std::move(*argument);
    } else if (word->starts_with("-c") || word->starts_with("--")) {
      setting = word->substr(2);
    } else {
      return false;
    }
    const std::size_t equals = setting.find('=');
    if (equals == std::string::npos || equals == 0) return false;
    std::string name = setting.substr(0, equals);
    std::replace(name.begin(), name.end(), '-', '_');
    out.emplace_back(std::move(name), setting.substr(equals + 1));
  }
  return true;
}

}  // namespace pgweir::protocol
