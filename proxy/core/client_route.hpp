// What a client of a routed database has beside its session: where its present transaction goes and why, and what it
// takes to send the first request of it again, elsewhere, as long as the client has seen nothing of the answer. What is
// decided is the router's business; this keeps the question and the answer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pool/mutation.hpp"
#include "protocol/wire.hpp"
#include "router/router.hpp"

namespace pgweir::core {

struct PoolContext;

/// A request as far as it decides where it goes: a simple query, or a pipeline up to its Sync (or to a Flush that asks
/// for nothing but what statements are).
struct RequestScan {
  enum class Status : std::uint8_t {
    NeedMore,  ///< the end is not there yet
    Complete,
    TooLong,  ///< it goes to the primary unseen
  };
  Status status = Status::NeedMore;
  std::size_t size = 0;  ///< bytes, if it is complete
  router::RouteRequest request;
  bool repeatable = false;  ///< nothing in it would be there twice if it were sent twice
};

struct ClientRoute {
  router::SessionRoute session;
  bool read_only = false;  ///< default_transaction_read_only, from the start-up packet

  std::optional<router::RouteWish> local_wish;  ///< SET LOCAL: shown, but where it runs is decided already

  // Of the present transaction, from its first message until its server is given back.
  bool scanned = false;  ///< `request` is that of the next bytes
  router::RouteRequest request;
  router::RouteDecision decision;
  PoolContext* pool = nullptr;            ///< where it waits or is served
  std::optional<router::HostId> counted;  ///< the host that has it among its outstanding ones
  std::size_t repeatable_size = 0;        ///< bytes that are to be kept once they are sent; 0: none

  // Of a request that has been sent and may be sent again: nothing of its answer has reached the client.
  bool begun = false;     ///< the first message is with the server
  bool executed = false;  ///< something was sent that runs, or makes what can be run on this server only
  bool flushed = false;   ///< the client has asked for the answers to what was sent
  bool guarded = false;
  std::string kept;  ///< the request; until the end of the transaction, to learn from
  std::vector<std::pair<std::string, std::uint64_t>> prepared;  ///< names it has given, by serial, and confirmed

  // Of one that is being sent again.
  int attempts = 0;                          ///< how often it has been sent
  bool again = false;                        ///< its bytes are to be looked at again when the server is gone
  bool primary_only = false;                 ///< no standby any more
  std::optional<router::HostId> avoid_host;  ///< it lost its server there ...
  router::TimePoint avoid_since{};           ///< ... at this time: wait until the host is known to have answered since
  std::uint64_t avoid_version = 0;           ///< the snapshot of the hosts that proved wrong: wait for another

  [[nodiscard]] bool is_read() const { return !router::counts_as_write(router::HostRole::Primary, request.verdict); }
  void end_transaction() {
    scanned = PGWEIR_MUTANT(23) && scanned;
    begun = executed = flushed = guarded = again = primary_only = false;
    kept.clear();
    prepared.clear();
    repeatable_size = 0;
    attempts = 0;
    avoid_version = 0;
    avoid_host.reset();
    local_wish.reset();
    pool = nullptr;
  }
};

}  // namespace pgweir::core
