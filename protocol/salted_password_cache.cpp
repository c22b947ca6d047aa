// A list in order of use and an index into it.
#include "protocol/salted_password_cache.hpp"

#include <cstring>
#include <string>

#include "protocol/saslprep.hpp"
#include "protocol/wire.hpp"

namespace pgweir::protocol {

// Keys are uniformly distributed digests: any eight bytes of one are a good hash.
std::size_t SaltedPasswordCache::KeyHash::operator()(const Sha256Digest& key) const {
  std::size_t hash;
  std::memcpy(&hash, key.data(), sizeof hash);
  return hash;
}

const Sha256Digest* SaltedPasswordCache::find(const Sha256Digest& key) {
  const auto found = index_.find(key);
  if (found == index_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return &found->second->salted_password;
}

void SaltedPasswordCache::insert(const Sha256Digest& key, const Sha256Digest& salted_password) {
  if (capacity_ == 0) return;
  if (const auto found = index_.find(key); found != index_.end()) {
    found->second->salted_password = salted_password;
    entries_.splice(entries_.begin(), entries_, found->second);
    return;
  }
  if (entries_.size() == capacity_) {
    index_.erase(entries_.back().key);
    entries_.pop_back();
  }
  entries_.push_front({key, salted_password});
  index_.emplace(key, entries_.begin());
}

void SaltedPasswordCache::clear() {
  index_.clear();
  entries_.clear();
}

namespace {

// The lengths keep apart what would run together: ("ab", "c") and ("a", "bc").
Sha256Digest cache_key(const Crypto& crypto, std::string_view password, std::string_view salt,
                       std::uint32_t iterations) {
  char numbers[12];
  store_u32(numbers, iterations);
  store_u32(numbers + 4, static_cast<std::uint32_t>(password.size()));
  store_u32(numbers + 8, static_cast<std::uint32_t>(salt.size()));
  std::string text(numbers, sizeof numbers);
  text.append(password).append(salt);
  return crypto.sha256(text);
}

}  // namespace

const Sha256Digest* find_salted_password(const Crypto& crypto, std::string_view password, std::string_view salt,
                                         std::uint32_t iterations, SaltedPasswordCache& cache) {
  return cache.find(cache_key(crypto, password, salt, iterations));
}

void keep_salted_password(const Crypto& crypto, std::string_view password, std::string_view salt,
                          std::uint32_t iterations, const Sha256Digest& result, SaltedPasswordCache& cache) {
  cache.insert(cache_key(crypto, password, salt, iterations), result);
}

Sha256Digest salted_password(const Crypto& crypto, std::string_view password, std::string_view salt,
                             std::uint32_t iterations, SaltedPasswordCache* cache) {
  if (cache == nullptr) return crypto.pbkdf2_sha256(prepare_password(password), salt, iterations);
  const Sha256Digest key = cache_key(crypto, password, salt, iterations);
  if (const auto* known = cache->find(key)) return *known;
  const Sha256Digest result = crypto.pbkdf2_sha256(prepare_password(password), salt, iterations);
  cache->insert(key, result);
  return result;
}

}  // namespace pgweir::protocol
