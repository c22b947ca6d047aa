#include "proxy/io/tls_buffers.hpp"

#include <openssl/ssl.h>

#include <algorithm>
#include <cstring>

#include "proxy/io/clock.hpp"

namespace pgweir::io {

void TlsBuffers::User::release() noexcept {
  if (!is_linked()) return;
  unlink();
  uses_ = 0;
  SSL_set_mode(ssl_, SSL_MODE_RELEASE_BUFFERS);
  // SSL_free_buffers() looks for such bytes too, but before 3.0.14 overlooks the header of a record whose body has yet
  // to come ("RH": it waits for a header).
  if (SSL_has_pending(ssl_) == 0 && std::strcmp(SSL_rstate_string(ssl_), "RH") == 0) (void)SSL_free_buffers(ssl_);
}

TlsBuffers::TlsBuffers(EventSet& events, pool::Duration idle) : timer_(events), idle_(idle) {}

void TlsBuffers::renew(User& user, pool::TimePoint now) {
  user.since_ = now;
  user.uses_ = 1;
  if (user.is_linked()) kept_.splice(kept_.end(), kept_, kept_.iterator_to(user));
}

void TlsBuffers::keep(User& user, pool::TimePoint now) {
  user.since_ = now;
  SSL_clear_mode(user.ssl_, SSL_MODE_RELEASE_BUFFERS);
  const bool first = kept_.empty();
  kept_.push_back(user);
  if (first) timer_.start(due(user), [this] { on_timer(); });
}

void TlsBuffers::on_timer() {
  const pool::TimePoint now = monotonic_now();
  for (int i = 0; i < kReleasedAtOnce && !kept_.empty() && due(kept_.front()) <= now; ++i) kept_.front().release();
  if (kept_.empty()) return;
  // Others have their turn before the next of a crowd.
  timer_.start(std::max(due(kept_.front()), now + std::chrono::milliseconds(1)), [this] { on_timer(); });
}

}  // namespace pgweir::io
