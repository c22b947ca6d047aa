// Watches the hosts of all databases that are routed by role, on threads of its own, which no client's traffic can hold
// up. One HostTracker for each list of hosts decides what the probes mean; the workers get its snapshots.
#pragma once

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "proxy/core/host_group.hpp"
#include "proxy/core/host_reporter.hpp"
#include "proxy/core/monitor_plan.hpp"
#include "proxy/io/catalog_reader.hpp"
#include "proxy/io/host_prober.hpp"
#include "proxy/io/patroni_client.hpp"

namespace pgweir::io {

class HostMonitor {
 public:
  /// On the monitor's thread.
  using PublishTable = std::function<void(const std::string& group, std::shared_ptr<const router::HostTable> table)>;
  struct Outlets {
    PublishTable table;
    CatalogReader::Publish catalog;
    CatalogReader::LookupFrom lookup;
    PatroniClient::Members members;  ///< only for databases that take their hosts from there
  };

  /// `known`: what a process before this one knew.
  explicit HostMonitor(Outlets outlets, core::KnownClusters known = {});
  HostMonitor(const HostMonitor&) = delete;
  HostMonitor& operator=(const HostMonitor&) = delete;
  /// Nothing is published any more. Whoever may still call witness() must have ended.
  ~HostMonitor();

  /// One thread at a time: what to watch from now on. The first time that there is something, the threads start.
  void apply(const core::Settings& settings);

  /// Any thread, cheap: see core::Host.
  void witness(const std::string& group, router::HostId host, router::Witness witness);
  void positions_wanted(const std::string& group);
  void catalog_changed(const std::string& group, const std::string& dbname);
  /// Any thread: a name has other addresses now, as text.
  void addresses_changed(const std::string& name, const std::vector<std::string>& addresses);

 private:
  struct Group;
  struct Note {
    std::string group;
    router::HostId host;
    router::Witness witness;
    friend bool operator==(const Note&, const Note&) = default;
  };

  void take_plan(core::MonitorPlan plan);
  void make_group(const std::string& name, const core::MonitoredGroup& what);
  void change_group(Group& group, const core::MonitoredGroup& what);
  void drop_group(Group& group);
  void take_notes();
  void begin_round(Group& group);
  void answered(Group& group, router::HostId host, const router::ProbeAnswer& answer, router::TimePoint sent_at);
  void lacks_monitor_role(Group& group, router::HostId host);
  void take_members(const std::vector<core::PatroniMember>& members);
  void tell_unlisted(const core::PatroniMember& member) const;
  void settle(Group& group);
  void hurry(Group& group);
  void follow_primary(Group& group, pool::Duration delay);
  void publish(Group& group);
  void publish_soon(Group& group);
  [[nodiscard]] HostProber::Timing timing() const { return {plan_.interval, plan_.timeout}; }

  Outlets outlets_;
  const core::KnownClusters known_;
  boost::asio::io_context context_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  CatalogReader catalogs_;
  PatroniClient patroni_;
  std::vector<core::PatroniMember> members_;  // as Patroni said last
  core::MonitorPlan plan_;
  std::map<std::string, std::unique_ptr<Group>> groups_;
  std::mutex mutex_;
  std::vector<Note> notes_;          // under mutex_: what the workers have seen
  std::vector<std::string> wanted_;  // under mutex_: groups whose positions they ask for
  std::thread thread_;
};

}  // namespace pgweir::io
