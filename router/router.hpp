// Decides where a transaction goes: which host, or that it has to wait for one; and whether a statement that failed may
// be run again elsewhere. Pure and without memory: all it knows are its arguments.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "router/host_table.hpp"
#include "router/read_your_writes.hpp"
#include "router/statement_class.hpp"

namespace pgweir::router {

/// libpq's words of target_session_attrs, as a key of [databases].
enum class TargetSessionAttrs : std::uint8_t { Any, ReadWrite, ReadOnly, Primary, Standby, PreferStandby };

/// nullopt for anything but `any`, `read-write`, `read-only`, `primary`, `standby`, `prefer-standby`.
[[nodiscard]] std::optional<TargetSessionAttrs> parse_target_session_attrs(std::string_view word);
[[nodiscard]] std::string_view to_string(TargetSessionAttrs attrs);

/// What a hint or pgweir.route asks for. Standby goes before the verdict and before read_your_writes, not before what
/// binds the session to the primary; if no standby takes reads, the primary does.
enum class RouteWish : std::uint8_t { Auto, Primary, Standby };

struct RoutePolicy {
  TargetSessionAttrs attrs = TargetSessionAttrs::Any;
  bool read_write_split = false;  ///< routes each transaction; attrs then do not count
  ReadYourWrites read_your_writes = ReadYourWrites::Session;
  bool retry_reads = true;
  bool serializable = false;  ///< default_transaction_isolation on the servers: a standby refuses what begins there
};

/// What the session brings along.
struct SessionRoute {
  RouteWish wish = RouteWish::Auto;  ///< SET pgweir.route
  bool bound_to_primary = false;     ///< temporary tables, session locks, … live there
  bool serializable = false;         ///< default_transaction_isolation; a standby refuses such transactions
  WriteToken own_writes;
};

struct RouteRequest {
  Verdict verdict;                   ///< of the first statement of the transaction
  RouteWish hint = RouteWish::Auto;  ///< of its leading comment; goes before the session's wish
};

enum class RouteKind : std::uint8_t {
  Anywhere,  ///< no routing by role: the pooler's own choice of host
  Host,
  Wait,  ///< no host may take it now; ask again with the next table, up to failover_wait_timeout
};

enum class RouteReason : std::uint8_t {
  NoRouting,
  TargetPrimary,
  TargetStandby,
  HintPrimary,
  HintStandby,
  Statement,     ///< not proven a read: see the verdict's reason
  SessionState,  ///< the session is bound to the primary
  Serializable,
  Read,
  NoStandby,       ///< a read, but no standby takes reads: primary
  ReadYourWrites,  ///< a read, but no standby shows the last write yet: primary
};

[[nodiscard]] std::string_view reason_name(RouteReason reason);

struct RouteDecision {
  RouteKind kind = RouteKind::Wait;
  HostId host{};                      ///< of Host
  HostRole role = HostRole::Unknown;  ///< what it is chosen as: a connection that says otherwise is not used
  RouteReason reason = RouteReason::NoRouting;
};

/// `outstanding`: requests in flight and waiting per host, by HostId; missing ones count as 0. `random`: any number,
/// new for each call. `database_writes`: the token shared by all clients of the database (read_your_writes = database).
[[nodiscard]] RouteDecision decide(const RouteRequest& request, const SessionRoute& session, const HostTable& hosts,
                                   const RoutePolicy& policy, const WriteToken& database_writes,
                                   std::span<const std::uint32_t> outstanding, std::uint64_t random);

enum class FailureKind : std::uint8_t {
  ReadOnlyTransaction,  ///< 25006
  RecoveryConflict,     ///< 40001 'conflict with recovery', or 57P01 to 57P03
  Serializable,         ///< 0A000: no serializable transactions on a hot standby
  ConnectionLost,
  Other,
};

/// What the SQLSTATE, message and routine of an ErrorResponse say. Messages may be translated, routines are not.
[[nodiscard]] FailureKind classify_failure(std::string_view sqlstate, std::string_view message,
                                           std::string_view routine);

/// A statement that failed, as first of its transaction or not.
struct FailedStatement {
  FailureKind failure = FailureKind::Other;
  HostRole role = HostRole::Unknown;  ///< what the host was chosen as
  Verdict verdict;
  bool first_of_transaction = false;  ///< nothing of this transaction came before, not even BEGIN
  bool reply_delivered = false;       ///< a byte of its reply (a row, a RowDescription) reached the client
  bool more_was_sent = false;         ///< later requests of a pipeline are with the server too
  int attempts = 1;                   ///< how often it has been sent
};

enum class Retry : std::uint8_t { No, OnPrimary, OnPrimaryAndLearn, Elsewhere };

/// Whether it may be run again unseen by the client. Only what is proven a read ever is: nothing that may have been a
/// write is sent twice. A statement that only a hint sent to a standby gets its 25006: it may have called functions
/// with effects outside of the database before it was refused.
[[nodiscard]] Retry may_retry(const FailedStatement& failed, const RoutePolicy& policy);

}  // namespace pgweir::router
