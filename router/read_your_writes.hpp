// Decides whether a standby already shows what a client, or any client of the database, has written. No query is needed
// for it: a token is the moment a write was acknowledged, and the host table says of each standby up to which moment it
// has replayed everything (HostState::caught_up_to), from the primary's positions that the prober samples anyway.
//
//     client    write ... acknowledged at t
//     prober                  sample of the primary's insert position L, asked at s > t: the write lies before L
//     prober                                  standby has replayed up to L: caught_up_to = s > t, reads may go there
//
// A promotion starts with no samples: on the new timeline a standby counts as caught up only after it has replayed a
// sample of the new primary. So a token needs no timeline of its own.
#pragma once

#include <cstdint>

#include "router/host_table.hpp"
#include "router/statement_class.hpp"
#include "router/time.hpp"

namespace pgweir::router {

/// Setting read_your_writes.
enum class ReadYourWrites : std::uint8_t { Off, Session, Database };

/// When the last write of one session, or of one database, was acknowledged.
class WriteToken {
 public:
  /// `now` must be read from the clock after the bytes that acknowledge the write have been received: not the time at
  /// which the worker woke up. Also to be called when the outcome of a write is unknown.
  void write_acknowledged(TimePoint now) {
    if (now > last_) last_ = now;
  }
  [[nodiscard]] TimePoint last_write() const { return last_; }

  /// True if `host`, a standby, has replayed everything up to this token. Never true by an equal time: the sample might
  /// have been asked in the same microsecond, before the write.
  [[nodiscard]] bool shown_by(const HostState& host) const { return last_ == kLongAgo || host.caught_up_to > last_; }

 private:
  TimePoint last_ = kLongAgo;
};

/// Whether a transaction that ended must be taken for a write. `role` is that of the host it ran on.
[[nodiscard]] inline bool counts_as_write(HostRole role, const Verdict& first_statement) {
  if (role == HostRole::Standby) return false;
  return first_statement.cls != StatementClass::Read && !begins_read_only(first_statement);
}

}  // namespace pgweir::router
