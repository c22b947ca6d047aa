// What the workers hear of the hosts behind the databases, and what of them all workers share.
#include <atomic>

#include "proxy/io/clock.hpp"
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
    for (const auto& worker : workers_) {
      worker->post_function([&worker = *worker, group, table] {
        worker.core().set_host_table(group, table);
        worker.core().run_pending();
      });
    }
  };
  outlets.catalog = [this](const std::string& group, const std::string& dbname,
                           const std::shared_ptr<const router::CatalogKnowledge>& knowledge) {
    for (const auto& worker : workers_) {
      worker->post_function([&worker = *worker, group, dbname, knowledge] {
        worker.core().set_catalog(group, dbname, knowledge);
        worker.core().run_pending();
      });
    }
  };
  outlets.lookup = [this](const std::string& name, boost::asio::io_context& context, Resolver::Callback reply) {
    lookup(name, context, std::move(reply));
  };
  monitor_ = std::make_unique<HostMonitor>(std::move(outlets));
  monitor_->apply(*settings_);
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
