// What makes a connection one for replication: which kind the client asks for, and with what the server connection is
// opened that belongs to it alone. Follows "Streaming Replication Protocol" of the protocol chapter.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pgweir::core {

enum class Replication : std::uint8_t {
  None,
  Logical,   ///< replication=database: a connection to that database, which understands SQL too
  Physical,  ///< replication=true: to the whole cluster
};

/// The value of the start-up parameter `replication`: `database`, or a boolean as PostgreSQL abbreviates them. What is
/// neither means none, as in PgBouncer.
[[nodiscard]] Replication parse_replication(std::string_view value);

/// "no", "database" or "yes", for the log.
[[nodiscard]] std::string_view replication_word(Replication kind);

/// The client's part of the server's start-up packet. A walsender may not understand SET, so nothing can be made up for
/// later.
struct ReplicationStartup {
  Replication kind = Replication::None;
  std::optional<std::string> options;                           ///< as the client sent it
  std::vector<std::pair<std::string, std::string>> parameters;  ///< all its others but user, database, replication
};

}  // namespace pgweir::core
