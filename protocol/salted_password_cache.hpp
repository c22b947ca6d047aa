// Remembers the results of PBKDF2, the one expensive step of SCRAM, so that logging in again to a server with the same
// password, salt and iteration count costs a few hashes instead of thousands. Bounded: the least recently used result
// goes first. Keys are digests, so neither long passwords nor long salts make an entry bigger.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <string_view>
#include <unordered_map>

#include "protocol/crypto.hpp"

namespace pgweir::protocol {

/// Not thread-safe: one per worker, or behind the owner's lock.
class SaltedPasswordCache {
 public:
  static constexpr std::size_t kDefaultCapacity = 1024;
  /// A capacity of 0 keeps nothing.
  explicit SaltedPasswordCache(std::size_t capacity = kDefaultCapacity) : capacity_(capacity) {}

  /// The stored result and makes it the most recent one; nullptr if there is none. Valid until the next insert or
  /// clear.
  [[nodiscard]] const Sha256Digest* find(const Sha256Digest& key);
  void insert(const Sha256Digest& key, const Sha256Digest& salted_password);
  void clear();
  [[nodiscard]] std::size_t size() const { return entries_.size(); }
  [[nodiscard]] std::size_t capacity() const { return capacity_; }

 private:
  struct Entry {
    Sha256Digest key;
    Sha256Digest salted_password;
  };
  struct KeyHash {
    std::size_t operator()(const Sha256Digest& key) const;
  };

  std::size_t capacity_;
  std::list<Entry> entries_;  // most recent first
  std::unordered_map<Sha256Digest, std::list<Entry>::iterator, KeyHash> index_;
};

/// What salted_password() would take from `cache`; nullptr if it would have to be computed. Valid as find()'s.
[[nodiscard]] const Sha256Digest* find_salted_password(const Crypto& crypto, std::string_view password,
                                                       std::string_view salt, std::uint32_t iterations,
                                                       SaltedPasswordCache& cache);
/// Keeps what was computed elsewhere for salted_password().
void keep_salted_password(const Crypto& crypto, std::string_view password, std::string_view salt,
                          std::uint32_t iterations, const Sha256Digest& result, SaltedPasswordCache& cache);

/// SaltedPassword of RFC 5802 for a password as the user typed it (raw salt, SASLprep applied here), taken from `cache`
/// or computed and kept there; `cache` may be nullptr. Takes time proportional to `iterations` (at least 1) on a miss.
[[nodiscard]] Sha256Digest salted_password(const Crypto& crypto, std::string_view password, std::string_view salt,
                                           std::uint32_t iterations, SaltedPasswordCache* cache = nullptr);

}  // namespace pgweir::protocol
