// What has happened to the registers, and whether it should have: the checkers of the routed part of the simulated
// world. They see what the proxy writes to servers, what servers run, what is committed, and what clients were told.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "pool/ids.hpp"
#include "pool/time.hpp"
#include "router/host_table.hpp"

namespace pgweir::sim {

class World;
class Cluster;

/// A place in the history of the cluster.
struct Position {
  std::uint32_t timeline = 0;
  std::uint64_t lsn = 0;
  friend auto operator<=>(const Position&, const Position&) = default;
};

/// A client's connection to the proxy, as far as it asks for read-your-writes.
struct SessionName {
  int client = 0, life = 0;
  friend auto operator<=>(const SessionName&, const SessionName&) = default;
};

/// How fresh a read has to be.
enum class Freshness : std::uint8_t { Any, Session, Database };

/// What a read may not be older than: as much as was acknowledged when its transaction began.
struct Required {
  Freshness freshness = Freshness::Any;
  SessionName session;
  std::string database;
  std::size_t acknowledged = 0;
};

/// Counts, so that runs that prove nothing can be told from those that do.
struct HistoryCounts {
  std::uint64_t reads = 0, reads_on_standby = 0, writes = 0, acknowledged = 0, resent_reads = 0, refused = 0,
                conflicts = 0, promotions = 0, switchovers = 0, incidents = 0, lost_connections = 0, timeouts = 0;
  void add(const HistoryCounts& other);
  [[nodiscard]] std::string text() const;
};

class History {
 public:
  explicit History(World& world, Cluster& cluster) : world_(world), cluster_(cluster) {}

  // ---- what the proxy does ----
  /// It has written a whole message with these marks to a server of `host`. `in_block`: the message, or the transaction
  /// block that it is in, began there before.
  struct Sent {
    char type = 0;
    pool::WorkerId worker = 0;
    int host = 0;
    bool in_block = false;
    bool told_hot_standby = false;
    std::vector<std::string> marks;
  };
  void sent(const Sent& what);
  void table_published(pool::WorkerId worker, const std::shared_ptr<const router::HostTable>& table);
  /// What is known of hosts and catalogue is known no more.
  void proxy_restarted();
  /// How often that has happened.
  [[nodiscard]] int restarts() const { return restarts_; }
  /// From now on, no client is to hear of what happens to the hosts.
  void set_quiet(bool on) { quiet_ = on; }
  [[nodiscard]] bool quiet() const { return quiet_; }
  void catalog_published() { ++catalogs_; }
  /// Every worker knows what is in the catalogue.
  [[nodiscard]] bool catalog_known() const;
  /// Since when the worker has known no primary, if so.
  [[nodiscard]] std::optional<pool::TimePoint> without_primary_since(pool::WorkerId worker) const;
  /// How often the proxy has sent a message with this mark to a server.
  [[nodiscard]] int times_sent(const std::string& mark) const;
  /// It has written the beginning of the message with this mark, or all of it to a connection that is dead.
  void begun(const std::string& mark) { reached_.insert(mark); }
  /// Whether a server has got anything of a message with this mark, as far as the proxy can know.
  [[nodiscard]] bool reached_server(const std::string& mark) const { return reached_.contains(mark); }
  /// The message that carries this mark goes to a database whose clients are not to write.
  void expect_refusal(const std::string& value) { to_be_refused_.insert(value); }
  /// The statement with this mark names what only the catalogue can tell to be harmless.
  void expect_proof(const std::string& mark) { to_be_proven_.insert(mark); }
  /// The proxy has asked for the catalogue to be read again.
  void catalog_asked_for() { ++asked_for_; }
  /// A client knows that it has changed the catalogue, by a statement whose tag the proxy knows.
  void definition_acknowledged();
  /// Its client has its server for longer than a transaction.
  void expect_pinned(const std::string& value) { pinned_.insert(value); }

  // ---- what servers do ----
  void executed(int host, const std::string& value);
  void committed(const std::string& value, Position at);
  void read(int host, bool recovers);

  // ---- what clients see ----
  void acknowledged(const SessionName& session, const std::string& database, int key, const std::string& value);
  [[nodiscard]] Required required(const SessionName& session, const std::string& database, Freshness freshness) const;
  /// The read of a register has shown `value`. Empty: right; else what is wrong with it.
  [[nodiscard]] std::string check_read(int key, const std::string& value, const Required& required) const;

  /// True if `value` is certainly of before `other`, which a client knows to be written.
  [[nodiscard]] bool is_older(const std::string& value, const std::string& other) const;

  /// Of a quiet cluster: values that clients know to be written and that the primary does not have.
  void check_end() const;

  HistoryCounts counts;

 private:
  [[nodiscard]] bool survives(const std::string& value) const;
  void check_allowed(const Sent& what, const std::string& value) const;
  void check_proven(const Sent& what, const std::string& mark) const;

  World& world_;
  Cluster& cluster_;
  std::map<pool::WorkerId, pool::TimePoint> without_primary_;
  std::map<std::string, int> sent_;
  std::map<std::string, int> executed_;  ///< where
  std::map<std::string, Position> committed_;
  struct Acknowledged {
    SessionName session;
    std::string database;
    int key = 0;
    std::string value;
  };
  std::vector<Acknowledged> acknowledged_;
  std::set<std::string> to_be_refused_, pinned_, reached_, to_be_proven_;
  bool quiet_ = false;
  int restarts_ = 0;
  std::size_t catalogs_ = 0;
  std::size_t definitions_ = 0, asked_for_ = 0;
  std::uint32_t highest_timeline_ = 0;  ///< of a primary of a table
  std::uint64_t newest_table_ = 0;
};

}  // namespace pgweir::sim
