// Which TLS connections of a worker keep OpenSSL's buffers. A connection's two record buffers are 34 kB: to keep them
// for every connection costs memory, and to free them after each record (SSL_MODE_RELEASE_BUFFERS) costs a busy
// connection several allocations per transaction. So those in frequent use keep theirs, until they have been idle for a
// while.
#pragma once

#include <openssl/types.h>

#include <boost/intrusive/list.hpp>
#include <chrono>

#include "pool/time.hpp"
#include "proxy/io/event_set.hpp"
#include "proxy/io/timer.hpp"

namespace pgweir::io {

/// On the thread of its EventSet, which must outlive it. Every call takes a time that does not depend on how many
/// connections there are.
class TlsBuffers {
 public:
  using Hook = boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>>;

  /// One connection's part, which begins without buffers of its own: `ssl` has SSL_MODE_RELEASE_BUFFERS. Leaves the
  /// list by itself when it is destroyed.
  class User : public Hook {
   public:
    explicit User(SSL* ssl) noexcept : ssl_(ssl) {}
    User(const User&) = delete;
    User& operator=(const User&) = delete;
    [[nodiscard]] bool keeps_buffers() const noexcept { return is_linked(); }
    /// Gives the buffers back: now, or if there are bytes in them, as soon as those are gone.
    void release() noexcept;

   private:
    friend class TlsBuffers;

    SSL* ssl_;
    pool::TimePoint since_{};  ///< when the second began in which uses are counted
    unsigned uses_ = 0;
  };

  /// `idle`: how long buffers are kept without a use. At most kWindow more may pass.
  explicit TlsBuffers(EventSet& events, pool::Duration idle = std::chrono::seconds(1));

  /// The connection has read or written at `now`, which must not go back.
  void used(User& user, pool::TimePoint now) {
    if (now - user.since_ >= kWindow) {
      renew(user, now);
    } else if (!user.is_linked() && ++user.uses_ >= kFrequent) {
      keep(user, now);
    }
  }

 private:
  static constexpr pool::Duration kWindow = std::chrono::seconds(1);
  /// More than a login takes: a crowd that logs in and then is silent must not leave a large heap behind.
  static constexpr unsigned kFrequent = 16;
  /// Freed in one go, so that the others do not wait for long when a crowd has become idle.
  static constexpr int kReleasedAtOnce = 256;

  void renew(User& user, pool::TimePoint now);
  void keep(User& user, pool::TimePoint now);
  void on_timer();
  [[nodiscard]] pool::TimePoint due(const User& user) const { return user.since_ + kWindow + idle_; }

  using Users =
      boost::intrusive::list<User, boost::intrusive::base_hook<Hook>, boost::intrusive::constant_time_size<false>>;
  Users kept_;  // By since_, the eldest first.
  Timer timer_;
  pool::Duration idle_;
};

}  // namespace pgweir::io
