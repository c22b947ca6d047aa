// Asks one host again and again what it is: keeps a connection of its own, sends router::probe_query() at intervals and
// at once when told to, never two at a time. What the answers mean is HostTracker's business.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/system/result.hpp>
#include <functional>
#include <memory>
#include <random>
#include <string>

#include "proxy/io/libpq_connection.hpp"
#include "proxy/io/resolver.hpp"
#include "router/host_tracker.hpp"

namespace pgweir::io {

/// Reads the row of router::probe_query(), or says what is wrong with it.
[[nodiscard]] boost::system::result<router::ProbeAnswer, std::string> read_probe(const PGresult* rows);

/// All calls and callbacks on the thread of the io_context. A callback must not destroy the object.
class HostProber {
 public:
  struct Timing {
    pool::Duration interval{};
    pool::Duration timeout{};  ///< for connection and answer together
  };
  struct Callbacks {
    std::function<void(const router::ProbeAnswer& answer, router::TimePoint sent_at)> answered;
    std::function<void(router::ProbeFailure failure, const std::string& text, router::TimePoint sent_at)> failed;
    /// The connection broke while nothing was asked.
    std::function<void()> lost;
    /// A standby hides the timeline that it streams from this user; at most once per connection.
    std::function<void()> lacks_monitor_role;
  };

  /// `lookup`: for hosts with a name; its answers come on this thread.
  HostProber(boost::asio::io_context& context, core::HostPort host, core::MonitorLogin login, Timing timing,
             NameLookup lookup, Callbacks callbacks);
  HostProber(const HostProber&) = delete;
  HostProber& operator=(const HostProber&) = delete;

  /// The first probe.
  void start();
  /// A probe that begins after this call, soon: at most one every 20 ms.
  void probe_now();
  /// The next probe begins within `delay`.
  void probe_within(pool::Duration delay);
  /// The next probe begins within `delay`, and the one after it will be asked for in the same way: without being told
  /// so it waits half an interval longer than usual.
  void follow_within(pool::Duration delay);
  void set_timing(Timing timing) { timing_ = timing; }
  /// A name has other addresses now, as text: begins a new connection if this is about the host, and the one it has
  /// leads to an address that is gone.
  void addresses_changed(const std::string& name, const std::vector<std::string>& addresses);
  /// Begins a new connection if it differs.
  void set_login(const core::MonitorLogin& login);

 private:
  void schedule(std::chrono::steady_clock::time_point at);
  void begin();
  void connect(const std::string& address);
  void connected(const LibpqFailure* failure);
  void ask();
  void answered(const PGresult* rows, const LibpqFailure* failure);
  void ask_for_rights();
  void fail(const LibpqFailure& failure);
  void finish(pool::Duration pause);
  void connect_anew();
  [[nodiscard]] pool::Duration jittered(pool::Duration interval);
  [[nodiscard]] std::string explain(const LibpqFailure& failure) const;

  core::HostPort host_;
  core::MonitorLogin login_;
  Timing timing_;
  NameLookup lookup_;
  Callbacks callbacks_;
  LibpqConnection connection_;
  std::string address_;  // that it leads to
  boost::asio::steady_timer next_;
  boost::asio::steady_timer deadline_;
  std::chrono::steady_clock::time_point due_{};
  std::chrono::steady_clock::time_point begun_{};  // the last probe
  router::TimePoint sent_at_ = router::kLongAgo;
  bool busy_ = false;
  bool following_ = false;
  bool again_ = false;  // somebody asked for a probe while one was under way
  bool stale_ = false;  // the connection is to be closed after this probe
  bool rights_known_ = false;
  std::minstd_rand random_;
  std::chrono::steady_clock::time_point wish_{};  // probe_within() while one was under way
  std::shared_ptr<char> alive_;                   // what the timers have queued may outlive the object
  std::shared_ptr<char> round_;                   // what is left of an earlier probe finds it gone
};

}  // namespace pgweir::io
