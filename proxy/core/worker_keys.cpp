// Keys of passwords: the queue of derivations at work, and what is remembered of them.
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace {
constexpr std::size_t kScramSecretsMax = 10'000;

std::string secret_key(const std::string& user, const std::string& password) {
  std::string key;
  key.reserve(user.size() + 1 + password.size());
  return key.append(user).append(1, '\0').append(password);
}
}  // namespace

KeyDerivations::Request WorkerCore::derive_key(const KeyWaiter& waiter, KeyQuestion question) {
  KeyDerivations::Request request = key_derivations_.ask(waiter, std::move(question));
  derive_next();
  return request;
}

void WorkerCore::derive_next() {
  if (auto next = key_derivations_.next()) host_.derive_key(next->number, std::move(next->question));
}

void WorkerCore::key_derived(std::uint64_t number, const protocol::Sha256Digest& key) {
  const KeyDerivations::Finished finished = key_derivations_.finished(number);
  for (const KeyWaiter& waiter : finished.waiters) {
    if (const auto* client = std::get_if<pool::ClientId>(&waiter)) {
      if (ClientSession* session = find_client(*client)) session->on_key_derived(finished.question, key);
    } else if (ServerSession* session = find_server(std::get<pool::ServerId>(waiter))) {
      session->on_key_derived(finished.question, key);
    }
  }
  derive_next();
}

const protocol::ScramSecret* WorkerCore::known_scram_secret(const std::string& user,
                                                            const std::string& password) const {
  const auto it = scram_secrets_.find(secret_key(user, password));
  return it == scram_secrets_.end() ? nullptr : &it->second;
}

void WorkerCore::remember_scram_secret(const std::string& user, const std::string& password,
                                       protocol::ScramSecret secret) {
  if (scram_secrets_.size() >= kScramSecretsMax) scram_secrets_.clear();
  scram_secrets_.insert_or_assign(secret_key(user, password), std::move(secret));
}

}  // namespace pgweir::core
