#include "proxy/io/key_deriver.hpp"

#include <memory>
#include <utility>

#include "proxy/io/openssl_crypto.hpp"

namespace pgweir::io {

namespace {

sigset_t all_signals() {
  sigset_t set;
  ::sigfillset(&set);  // signals are the business of worker 0
  return set;
}

}  // namespace

KeyDeriver::KeyDeriver(Deliver deliver, std::size_t threads_max)
    : threads_({.work =
                    [deliver = std::move(deliver), crypto = std::make_shared<const OpensslCrypto>()](Task& task) {
                      const core::KeyQuestion& question = task.question;
                      return UniqueFunction(
                          [&deliver, asker = task.asker,
                           key = crypto->pbkdf2_sha256(question.password, question.salt, question.iterations)] {
                            deliver(asker, key);
                          });
                    },
                .threads = threads_max,
                .blocked = all_signals()}) {}

bool KeyDeriver::ask(const Asker& asker, core::KeyQuestion& question) {
  Task task{asker, std::move(question)};
  if (threads_.add(task)) return true;
  question = std::move(task.question);
  return false;
}

}  // namespace pgweir::io
