// Keys are derived on another thread, and whoever asked hears of it.
#include <catch2/catch.hpp>
#include <condition_variable>
#include <map>
#include <mutex>

#include "proxy/io/key_deriver.hpp"
#include "proxy/io/openssl_crypto.hpp"

using namespace pgweir;
using namespace pgweir::io;
using namespace std::chrono_literals;

namespace {

/// What was delivered, for another thread to wait for.
class Answers {
 public:
  KeyDeriver::Deliver deliver() {
    return [this](const KeyDeriver::Asker& asker, const protocol::Sha256Digest& key) {
      const std::lock_guard lock(mutex_);
      keys_[{asker.worker, asker.number}] = key;
      changed_.notify_all();
    };
  }
  bool wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 30s, [&] { return keys_.size() >= count; });
  }
  protocol::Sha256Digest of(pool::WorkerId worker, std::uint64_t number) {
    const std::lock_guard lock(mutex_);
    return keys_.at({worker, number});
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<pool::WorkerId, std::uint64_t>, protocol::Sha256Digest> keys_;
};

core::KeyQuestion question(const std::string& password) {
  return {password, "a salt", 10};
}

}  // namespace

TEST_CASE("a key for each question, whichever worker asks") {
  Answers answers;
  KeyDeriver deriver(answers.deliver(), 2);
  const OpensslCrypto crypto;
  for (pool::WorkerId worker = 0; worker < 4; ++worker) {
    for (std::uint64_t number = 1; number <= 3; ++number) {
      core::KeyQuestion asked = question(std::to_string(worker * 10 + number));
      REQUIRE(deriver.ask({worker, number}, asked));
    }
  }
  REQUIRE(answers.wait_for(12));
  CHECK(answers.of(3, 2) == crypto.pbkdf2_sha256("32", "a salt", 10));
  CHECK(answers.of(0, 1) == crypto.pbkdf2_sha256("1", "a salt", 10));
  CHECK(deriver.stop(30s));
}

TEST_CASE("a key deriver that has stopped takes no question, and leaves it as it was") {
  Answers answers;
  KeyDeriver deriver(answers.deliver(), 1);
  CHECK(deriver.stop(0s));
  core::KeyQuestion asked = question("password");
  CHECK_FALSE(deriver.ask({0, 1}, asked));
  CHECK(asked == question("password"));
}
