// Online restart: what one process tells another about its sockets, so that clients and servers change over without
// noticing. The rows are those of SHOW FDS, which PgBouncer understands too; `state` has everything else that our own
// sessions know. Which sockets can change over is decided here: those with TLS cannot, since their keys live in the
// process, nor can replication. Who has connected and said nothing yet goes with a row without names.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "protocol/siphash.hpp"
#include "proxy/core/admin_data.hpp"
#include "proxy/core/port.hpp"

namespace pgweir::core {

class ClientSession;
class ServerSession;
class WorkerCore;

/// Number of the format of `state`. Another one is ignored, and the socket taken over by its other columns.
inline constexpr std::uint32_t kHandoverFormat = 4;

/// What concerns the whole process: the `state` of its listening sockets.
struct ProcessHandover {
  protocol::HashKey statement_hash{};
  std::string mock_auth_key;
  KnownClusters clusters;
};
[[nodiscard]] std::string encode(const ProcessHandover& process);
[[nodiscard]] std::optional<ProcessHandover> decode_process(const std::string& state);

/// True if it can change over, together with its partner. WorkerCore::at_rest() must hold.
[[nodiscard]] bool can_change_over(const ClientSession& client);
[[nodiscard]] bool can_change_over(const ServerSession& server);

/// All rows of one worker's sockets that can change over, with their descriptors and, if wanted, their state.
[[nodiscard]] std::vector<FdRow> handover_rows(WorkerCore& core, bool with_state);

/// A row of SHOW FDS as another process sent it; nullopt if it makes no sense.
[[nodiscard]] std::optional<FdRow> read_fd_row(const std::vector<std::optional<std::string>>& values,
                                               std::shared_ptr<const int> descriptor);

/// A socket that comes from another process.
struct Newcomer {
  FdRow row;
  std::unique_ptr<Port> port;
  PeerAddress address;
  pool::ClientId id_before{};  ///< of a client whose state is known: its id in the other process
};
/// A client, a server, or both, linked with each other, for one worker.
struct Newcomers {
  std::optional<Newcomer> client, server;
};

}  // namespace pgweir::core
