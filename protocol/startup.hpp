// Decides what the untyped packet is that a client sends first (TLS hello, SSLRequest, GSSENCRequest, CancelRequest or
// StartupMessage), and splits the latter two into their fields. Does not decide which parameters are allowed. Follows
// "Message Formats" and "Start-up" of the PostgreSQL manual.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protocol/wire.hpp"

namespace pgweir::protocol {

enum class FirstPacketKind {
  NeedMore,       ///< Not all of the packet is here, and what is here is not wrong yet.
  DirectTls,      ///< A TLS record (first byte 0x16) instead of a packet.
  SslRequest,     ///< Complete, 8 bytes.
  GssEncRequest,  ///< Complete, 8 bytes.
  CancelRequest,  ///< Complete; see parse_cancel_request().
  Startup,        ///< Complete, protocol 3.x; see parse_startup_parameters().
  ProtocolV2,     ///< Protocol 2.0, known from the first 8 bytes; the rest may be missing.
  Bad,            ///< Can never become a packet we know.
};

struct FirstPacket {
  FirstPacketKind kind = FirstPacketKind::NeedMore;
  std::size_t size = 0;     ///< Bytes of the whole packet; 0 while unknown and for DirectTls and Bad.
  std::uint16_t major = 0;  ///< Protocol version, for Startup and ProtocolV2 only.
  std::uint16_t minor = 0;
  ByteView body;  ///< What follows the code word, for Startup and CancelRequest only; lives as long as the input.
};

/// Names the packet at the start of `in`. Packets above the smaller of `max_packet_size` and 65535 bytes are Bad. Every
/// answer is given at the first byte that permits it, so a peer cannot make us hold bytes of a packet we will refuse.
[[nodiscard]] FirstPacket parse_first_packet(ByteView in, std::uint32_t max_packet_size);

/// The longest key a CancelRequest of protocol 3.2 may carry; protocol 3.0 has always 4 bytes.
inline constexpr std::size_t kCancelSecretMin = 4;
inline constexpr std::size_t kCancelSecretMax = 256;

struct CancelKey {
  std::uint32_t pid = 0;
  std::string_view secret;  ///< 4 to 256 bytes; lives as long as the parsed body.
};

/// Splits the body of a CancelRequest. nullopt if its length fits no key.
[[nodiscard]] std::optional<CancelKey> parse_cancel_request(ByteView body);

struct StartupParameter {
  ByteView name;  ///< Never empty.
  ByteView value;
};

enum class StartupStatus {
  Ok,
  MissingTerminator,  ///< The list does not end exactly at the last byte, or a name has no value.
};

/// Splits the body of a StartupMessage (what follows the version word) into `out`, replacing what was there. The views
/// live as long as the body. Duplicates are kept, in order. `out` is unspecified unless Ok.
[[nodiscard]] StartupStatus parse_startup_parameters(ByteView body_after_version, std::vector<StartupParameter>& out);

/// Splits the text of the `options` start-up parameter into settings, replacing what was in `out`. Understands
/// `-c name=value`, `-cname=value` and `--name=value`, separated by white space; a backslash makes the next character
/// ordinary; dashes in a name become underscores, as in PostgreSQL. False for any other switch, or without '=' or name.
[[nodiscard]] bool parse_startup_options(ByteView options, std::vector<std::pair<std::string, std::string>>& out);

}  // namespace pgweir::protocol
