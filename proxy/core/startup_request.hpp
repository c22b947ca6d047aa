// What a client asks for in its start-up packet, and what its worker has found out for those who asked the same before.
// Clients of one application send the same bytes, and what a login needs of the configuration, of the pool and of what
// servers report depends on nothing else: it is looked up once. It decides which start-up parameters are refused. What
// is remembered holds no secret and nothing of a single client.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protocol/session_parameters.hpp"
#include "protocol/startup.hpp"
#include "proxy/core/pool_context.hpp"
#include "proxy/core/replication.hpp"

namespace pgweir::core {

/// Start-up values that RESET and DISCARD ALL go back to, by tracked index.
using StartupOverrides = std::vector<std::pair<std::size_t, std::string>>;

struct StartupRequest {
  std::string database, user;
  Replication replication = Replication::None;
  std::optional<std::string> options;         ///< of a replication connection, as sent
  std::vector<std::string> unknown_options;   ///< _pq_. names for NegotiateProtocolVersion
  StartupOverrides tracked;                   ///< start-up values of tracked parameters
  std::map<std::string, std::string> extras;  ///< other start-up parameters, by lower-case name
};

/// What the client is told.
struct StartupRefusal {
  std::string text;
  std::string_view native_sqlstate;
};

/// Reads the parameters of a packet into `request`. A refusal leaves it as far as it has come.
[[nodiscard]] std::optional<StartupRefusal> read_startup(const std::vector<protocol::StartupParameter>& parameters,
                                                         const Settings& settings, StartupRequest& request);

/// A welcome for everybody who sends one start-up packet, as long as the pool's servers report what they report.
struct KnownWelcome {
  std::shared_ptr<const ServerReport> report;  ///< it was made from; null: there is none yet
  std::uint64_t forgotten = 0;                 ///< PoolContext::forgotten at that time
  bool writable = false;
  protocol::SessionParameters parameters;
  std::shared_ptr<const StartupOverrides> overrides;
  /// All the client is sent. Whoever sends it puts the client's own key into it first.
  std::string text;
  std::size_t key_at = 0;
};

/// What a worker knows of everybody who sends one start-up packet. Made under `settings`, and good for them only.
struct KnownStartup {
  KnownStartup(StartupRequest asked, std::shared_ptr<const Settings> in_force);

  const StartupRequest request;
  const std::shared_ptr<const Settings> settings;
  const DatabaseConfig* entry = nullptr;  ///< null: no such database, or the console
  const std::string* secret = nullptr;    ///< of the user in auth_file; null: not in there
  pool::ClientLimits limits;
  PoolContext* pool = nullptr;  ///< of this database and user, while WorkerCore's contexts are those of `pool_epoch`
  std::uint64_t pool_epoch = 0;
  KnownWelcome welcome;
};

/// The packets that were seen lately. A place for each hash: the newer takes it from the older.
class KnownStartups {
 public:
  /// `body`: of the start-up packet. Null: not known.
  [[nodiscard]] std::shared_ptr<KnownStartup> find(std::string_view body) const {
    const Place& place = places_[place_of(body)];
    return place.body == body ? place.known : nullptr;
  }
  /// Longer ones are not kept.
  void keep(std::string_view body, std::shared_ptr<KnownStartup> known);
  void clear();

 private:
  static constexpr std::size_t kBodyMax = 512;
  struct Place {
    std::string body;
    std::shared_ptr<KnownStartup> known;
  };
  static constexpr std::size_t kPlaces = 64;
  [[nodiscard]] static std::size_t place_of(std::string_view body) {
    return std::hash<std::string_view>()(body) % kPlaces;
  }

  std::array<Place, kPlaces> places_;
};

}  // namespace pgweir::core
