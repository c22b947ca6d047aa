// Base64 of RFC 4648 section 4, as SCRAM messages and SCRAM secrets use it. Decides what is valid base64 and nothing
// else: line breaks, blanks, missing or superfluous padding and non-zero unused bits are all refused, so that every
// byte string has exactly one accepted spelling.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace pgweir::protocol {

/// Padded base64 without line breaks.
[[nodiscard]] std::string base64_encode(std::string_view raw);

/// The bytes that `text` spells, or nullopt if it is not strict base64. The empty text is the empty string.
[[nodiscard]] std::optional<std::string> base64_decode(std::string_view text);

}  // namespace pgweir::protocol
