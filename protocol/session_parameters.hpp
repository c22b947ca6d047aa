// Parameters that follow a client from server to server: which the server reports and we track (the five fixed ones and
// `track_extra_parameters`), which the client set in its start-up packet beyond those, and the SQL that makes a server
// agree with a client. Follows "Asynchronous Operations" (ParameterStatus) and "Start-up" of the protocol chapter.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protocol/siphash.hpp"
#include "protocol/state_archive.hpp"
#include "protocol/wire.hpp"

namespace pgweir::protocol {

/// Names tracked through ParameterStatus, in the spelling of the server's reports. At most 32.
class TrackedNames {
 public:
  /// The fixed five, then `extra` (duplicates are dropped, at most 27 taken).
  explicit TrackedNames(const std::vector<std::string>& extra);
  [[nodiscard]] std::optional<std::size_t> find(std::string_view name) const;  ///< ignoring case
  [[nodiscard]] const std::string& name(std::size_t index) const { return names_[index]; }
  [[nodiscard]] std::size_t size() const { return names_.size(); }

  static constexpr std::size_t kDateStyle = 0, kClientEncoding = 1, kTimeZone = 2, kStandardConformingStrings = 3,
                               kApplicationName = 4;

 private:
  std::vector<std::string> names_;
};

/// Values of the tracked parameters; unset ones were never reported. Immutable once shared.
struct ParameterSet {
  std::vector<std::optional<std::string>> values;
  friend bool operator==(const ParameterSet&, const ParameterSet&) = default;
};
/// Shared between sessions, and between workers when a server moves. Two equal pointers mean equal values, so that the
/// comparison at each server assignment is usually one of pointers.
using ParameterSetPtr = std::shared_ptr<const ParameterSet>;

/// A copy of `set` in which one value is different; `set` itself if it is not.
[[nodiscard]] ParameterSetPtr with_value(const ParameterSetPtr& set, std::size_t index, std::string_view value);

/// Untracked parameters that were set through the start-up packet, by lower-case name in ascending order.
using ExtraParameters = std::vector<std::pair<std::string, std::string>>;
using ExtraParametersPtr = std::shared_ptr<const ExtraParameters>;  ///< null: none

/// One side's parameters.
struct SessionParameters {
  ParameterSetPtr tracked{};
  ExtraParametersPtr extras{};
};

/// What a server is known to have.
struct ServerParameters : SessionParameters {
  /// Some client may have changed untracked parameters by SET; only matters where extras are compared.
  bool extras_unknown = false;
};

/// For another process, whose configuration may track other parameters: by name. Those it does not track are dropped.
void transfer(StateArchive& archive, ParameterSetPtr& set, const TrackedNames& names);
void transfer(StateArchive& archive, ExtraParametersPtr& extras);

/// Both have the same values because they share them; mostly true, and the quickest way to be aligned().
[[nodiscard]] inline bool same_pointers(const SessionParameters& client, const ServerParameters& server) {
  return client.tracked == server.tracked && client.extras == server.extras &&
         (!server.extras_unknown || client.extras == nullptr);
}

/// True if nothing has to be set on the server. Cheap when the pointers agree.
[[nodiscard]] bool aligned(const SessionParameters& client, const ServerParameters& server);

/// The SQL (one simple query) that makes the server's parameters the client's. Only parameters that both sides know are
/// set. Empty: nothing to do. nullopt: a value of the fixed five cannot be quoted safely (backslash together with
/// non-ASCII bytes, whose meaning depends on the encoding).
[[nodiscard]] std::optional<std::string> alignment_sql(const TrackedNames& names, const SessionParameters& client,
                                                       const ServerParameters& server);

/// A number for all of them that may have a say in what a text means when a server parses it: the same for equal ones,
/// in every process with this key. Of the tracked ones only application_name certainly has none.
[[nodiscard]] std::uint64_t settings_hash(const HashKey& key, const TrackedNames& names,
                                          const SessionParameters& parameters);

/// A name that a start-up parameter may have: identifier characters and dots. Anything else cannot be a PostgreSQL
/// parameter and is not put into SQL.
[[nodiscard]] bool valid_parameter_name(std::string_view name);

/// application_name as the server stores it: non-ASCII and control bytes replaced by '?'.
[[nodiscard]] std::string clean_application_name(std::string_view value);

[[nodiscard]] bool equal_ignoring_case(std::string_view a, std::string_view b);
[[nodiscard]] std::string to_lower(std::string_view text);

}  // namespace pgweir::protocol
