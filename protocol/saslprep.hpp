// The SASLprep profile of stringprep (RFC 4013) for passwords, with PostgreSQL's rules where it departs from the RFC
// ("SCRAM-SHA-256 Authentication" in the manual): text that cannot be prepared is used as it is, and the prohibition
// checks look at the text before normalisation. It decides how a password is spelled before hashing, nothing more.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace pgweir::protocol {

/// The prepared password, or nullopt if it is not valid UTF-8, holds a code point that is prohibited or unassigned in
/// Unicode 3.2, mixes writing directions, or becomes empty. Pure ASCII comes back unchanged, control characters too.
[[nodiscard]] std::optional<std::string> saslprep(std::string_view password);

/// What PostgreSQL hashes: saslprep(password), or the bytes as they are where that fails.
[[nodiscard]] std::string prepare_password(std::string_view password);

}  // namespace pgweir::protocol
