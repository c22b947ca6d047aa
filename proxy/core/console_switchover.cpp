// SWITCHOVER: the planned change of the primary. Whatever needs the primary waits, for all databases with its hosts,
// until what runs there has ended and a standby has replayed all of it; then it is the operator's, or his cluster
// manager's, turn to promote that standby, and everything goes on as soon as it says that it is the primary.
//
//   Holding  --every worker has been told--> Draining --no transaction is left--> Replaying
//            --a standby shows everything--> Promoting --another host is the primary--> over
#include <fmt/format.h>

#include "proxy/core/admin_format.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/console.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

void Console::switchover(const AdminCommand& command) {
  WorkerCore& core = client_.core();
  if (command.argument.empty()) return error("a database is required");
  if (!check_database(command, "switch over")) return;
  const DatabaseConfig& entry = *find_database(core.config(), command.argument);
  if (!is_routed(entry)) {
    return error(
        fmt::format("database {} has no hosts to choose from: it needs read_write_split or "
                    "target_session_attrs",
                    command.argument));
  }
  const std::string group = host_group_name(entry);
  const std::shared_ptr<const router::HostTable> table = core.host_table(group);
  if (!table || !table->primary) return error(fmt::format("no host of database {} is the primary", command.argument));
  if (core.writes_held(group)) return error("another SWITCHOVER of these hosts is under way");
  hold(command);
  switchover_ = std::make_unique<Switchover>();
  switchover_->group = group;
  switchover_->primary = *table->primary;
  switchover_->primary_name = host_name_of(entry.hosts[static_cast<std::size_t>(*table->primary)]);
  // A little less than those who wait have, so that they go on where they were if nothing comes of it.
  switchover_->deadline = core.now() + core.config().failover_wait_timeout * 9 / 10;
  switchover_->workers_to_tell = core.host().worker_count();
  core.schedule(client_, switchover_->deadline);
  core.watch_hosts(client_.id());
  core.post_to_all([group, origin = core.id(), asker = client_.id()](WorkerCore& there) {
    there.hold_writes(group, true);
    there.host().post(origin, [group, asker](WorkerCore& here) {
      ClientSession* client = here.find_client(asker);
      if (client != nullptr && client->console() != nullptr) client->console()->writes_are_held(group);
    });
  });
}

void Console::writes_are_held(const std::string& group) {
  if (!switchover_ || switchover_->group != group || switchover_->step != Switchover::Step::Holding) return;
  if (--switchover_->workers_to_tell > 0) return;
  switchover_->step = Switchover::Step::Draining;
  WorkerCore& core = client_.core();
  std::vector<pool::DatabaseSnapshot> databases;
  {
    PoolLock pools(core.host());
    databases = pools->database_snapshots();
  }
  for (const auto& row : databases) {
    const DatabaseConfig* entry = find_database(core.config(), row.name);
    if (entry == nullptr || !is_routed(*entry) || host_group_name(*entry) != group) continue;
    switchover_->to_drain.push_back(row.name);
  }
  drain_next();
}

// Nothing new begins there, so they may be waited for one after another.
void Console::drain_next() {
  WorkerCore& core = client_.core();
  if (switchover_->to_drain.empty()) {
    switchover_->step = Switchover::Step::Replaying;
    switchover_->drained_at = router_time(core.host().clock());
    return;
  }
  const std::string database = std::move(switchover_->to_drain.back());
  switchover_->to_drain.pop_back();
  token_ = core.next_token();
  PoolLock pools(core.host());
  pools->wait_for(pool::PoolManager::WaitFor::NoActiveServers, database, core.id(), token_, core.now(), core.actions(),
                  switchover_->primary_name);
}

bool Console::hosts_changed(const std::string& group, const std::shared_ptr<const router::HostTable>& table) {
  if (!switchover_) return false;
  if (switchover_->group != group) return true;
  if (table->primary && *table->primary != switchover_->primary) {
    end_switchover();
    done(held_tag_);
    return false;
  }
  if (switchover_->step != Switchover::Step::Replaying) return true;
  for (const router::HostState& host : table->hosts) {
    if (!host.takes_reads() || host.caught_up_to <= switchover_->drained_at) continue;
    switchover_->step = Switchover::Step::Promoting;
    std::string out;
    append_console_notice(
        out, fmt::format("writes are held and standby {} has replayed everything: promote it now", host.name));
    client_.core().log(LogLevel::Log, client_.log_name() + "SWITCHOVER: writes are held and standby " + host.name +
                                          " has replayed everything");
    send(out);
    break;
  }
  return true;
}

TimePoint Console::deadline() const {
  return switchover_ ? switchover_->deadline : pool::kNever;
}

void Console::on_timer(TimePoint now) {
  if (!switchover_ || now < switchover_->deadline) return;
  const Switchover::Step step = switchover_->step;
  const std::string primary = switchover_->primary_name;
  end_switchover();
  const char* missing = step == Switchover::Step::Promoting   ? "no other host has become the primary"
                        : step == Switchover::Step::Replaying ? "no standby has replayed everything"
                                                              : "transactions are still open";
  error(fmt::format("SWITCHOVER given up: {} in time, {} goes on as the primary", missing, primary), "57014");
}

// Whatever waits goes on, with the hosts as they are known here: another worker must not go back to an older picture.
void Console::end_switchover() {
  WorkerCore& core = client_.core();
  const std::string group = std::move(switchover_->group);
  switchover_.reset();
  if (token_ != 0) {
    PoolLock pools(core.host());
    pools->stop_wait(token_);
  }
  token_ = 0;
  const std::shared_ptr<const router::HostTable> table = core.host_table(group);
  core.post_to_all([group, table](WorkerCore& there) {
    const auto known = there.host_table(group);
    if (table && (!known || known->version < table->version)) there.set_host_table(group, table);
    there.hold_writes(group, false);
  });
}

}  // namespace pgweir::core
