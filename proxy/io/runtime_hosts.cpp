// What the workers hear of the hosts behind the databases, and what of them all workers share.
#include <fmt/format.h>

#include <atomic>
#include <boost/asio/post.hpp>

#include "proxy/io/clock.hpp"
#include "proxy/io/logger.hpp"
#include "proxy/io/runtime.hpp"

namespace pgweir::io {

namespace {

/// For all threads.
class AtomicWriteToken final : public core::SharedWriteToken {
 public:
  void write_acknowledged(router::TimePoint now) override {
    auto known = last_.load();
    const auto fresh = now.time_since_epoch().count();
    while (fresh > known && !last_.compare_exchange_weak(known, fresh)) {
    }
  }
  [[nodiscard]] router::WriteToken token() const override {
    router::WriteToken result;
    result.write_acknowledged(router::TimePoint(router::Duration(last_.load())));
    return result;
  }

 private:
  std::atomic<router::Duration::rep> last_{router::kLongAgo.time_since_epoch().count()};
};

}  // namespace

void Runtime::start_monitor() {
  HostMonitor::Outlets outlets;
  outlets.table = [this](const std::string& group, const std::shared_ptr<const router::HostTable>& table) {
    for (pool::WorkerId id = 0; id < worker_count_; ++id) {
      workers_[0]->post(id, [group, table](core::WorkerCore& there) { there.set_host_table(group, table); });
    }
  };
  outlets.catalog = [this](const std::string& group, const std::string& dbname,
                           const std::shared_ptr<const router::CatalogKnowledge>& knowledge) {
    for (pool::WorkerId id = 0; id < worker_count_; ++id) {
      workers_[0]->post(
          id, [group, dbname, knowledge](core::WorkerCore& there) { there.set_catalog(group, dbname, knowledge); });
    }
  };
  outlets.lookup = [this](const std::string& name, boost::asio::io_context& context, Resolver::Callback reply) {
    const auto post_back = [&context](UniqueFunction answer) { boost::asio::post(context, std::move(answer)); };
    lookup(name, post_back, std::move(reply));
  };
  outlets.members = [this](const std::vector<core::PatroniMember>& members) {
    workers_[0]->post_function([this, members] { take_patroni_hosts(members); });
  };
  monitor_ = std::make_unique<HostMonitor>(std::move(outlets), known_clusters_);
  monitor_->apply(*settings_);
}

std::shared_ptr<const core::Settings> with_patroni_hosts(const std::shared_ptr<const core::Settings>& settings,
                                                         const core::PatroniHosts& hosts) {
  auto config = core::with_patroni_hosts(settings->config, hosts.hosts());
  if (config == settings->config) return settings;
  auto changed = std::make_shared<core::Settings>(*settings);
  changed->config = std::move(config);
  return changed;
}

void Runtime::take_patroni_hosts(const std::vector<core::PatroniMember>& members) {
  (void)patroni_hosts_.update(members);
  use_patroni_hosts();
}

// As a reload would. While the process is suspended nothing is to move.
void Runtime::use_patroni_hosts() {
  if (suspend_ != Suspend::No) return;
  auto settings = with_patroni_hosts(settings_, patroni_hosts_);
  if (settings == settings_) return;
  std::string names;
  for (const core::HostPort& host : patroni_hosts_.hosts()) {
    names += fmt::format("{}{}:{}", names.empty() ? "" : ", ", host.host, host.port);
  }
  log().info("hosts by Patroni: {}", names);
  LoadedConfig loaded;
  loaded.settings = std::move(settings);
  loaded.client_tls = client_tls_;
  apply(std::move(loaded));
}

std::shared_ptr<core::SharedWriteToken> Runtime::shared_writes(const std::string& database) {
  const std::lock_guard lock(shared_writes_mutex_);
  std::shared_ptr<core::SharedWriteToken>& token = shared_writes_[database];
  if (!token) {
    token = std::make_shared<AtomicWriteToken>();
    // What a process before this one was acknowledged counts too.
    token->write_acknowledged(core::router_time(monotonic_now()));
  }
  return token;
}

}  // namespace pgweir::io
