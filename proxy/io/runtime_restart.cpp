// SUSPEND and online restart. A suspended process looks at no socket and lets no time pass for its sessions; in that
// state another one can be told everything about them. Coming to rest: clients are not read any more, and all workers
// are stopped at once, again and again until none of them was stopped in the middle of something.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "protocol/message_builder.hpp"
#include "proxy/core/gather.hpp"
#include "proxy/core/handover.hpp"
#include "proxy/io/clock.hpp"
#include "proxy/io/logger.hpp"
#include "proxy/io/runtime.hpp"
#include "proxy/io/service_manager.hpp"

namespace pgweir::io {

namespace {
constexpr std::chrono::milliseconds kTryAgain{2};
/// Server connections that take longer to log in are given up: whoever waits for one does so afterwards.
constexpr std::chrono::seconds kLoginPatience{1};
/// What was dropped at suspend_timeout may take this long to go.
constexpr std::chrono::seconds kLastPatience{1};
}  // namespace

/// Asks `question` on every worker; `done` is told, here, whether all said yes. An answer that comes after the next
/// suspend or resume is not told.
void Runtime::ask_workers(std::function<bool(core::WorkerCore&)> question, std::function<void(bool)> done) {
  core::gather<bool>(workers_[0]->core(), std::move(question),
                     [this, done = std::move(done), round = suspend_round_](core::WorkerCore&, std::vector<bool> said) {
                       if (round == suspend_round_) done(std::find(said.begin(), said.end(), false) == said.end());
                     });
}

// ---- SUSPEND ----

void Runtime::suspend(const core::ProcessCommand& command) {
  if (suspend_ != Suspend::No) return answer(command, "already suspended/paused");
  if (shutdown_ != core::ShutdownMode::None) return answer(command, "pooler is shutting down");
  suspend_ = Suspend::Coming;
  suspend_command_ = command;
  dropped_restless_ = descriptors_sent_ = false;
  ++suspend_round_;
  const auto now = std::chrono::steady_clock::now();
  suspend_until_ = now + config().suspend_timeout;
  drop_logins_at_ = now + kLoginPatience;
  if (!suspend_timer_) suspend_timer_ = std::make_unique<Timer>(workers_[0]->events());
  for (const auto& listener : listeners_) listener->pause();
  set_opening(false);  // or, with server_lifetime = 0, there would be one that logs in at any time
  const auto stop_reading = [](core::WorkerCore& there) {
    there.set_suspending(true);
    return true;
  };
  ask_workers(stop_reading, [this](bool) { try_to_freeze(); });
}

void Runtime::try_to_freeze() {
  const auto freeze = [](core::WorkerCore& there) {
    there.set_frozen(true);
    return there.at_rest();
  };
  ask_workers(freeze, [this](bool at_rest) { frozen(at_rest); });
}

// What was on its way between the workers when they stopped has arrived by now; it may have begun something new.
void Runtime::frozen(bool at_rest) {
  const auto pools_at_rest = [this] {
    core::PoolLock pools(*workers_[0]);
    return pools->at_rest();
  };
  const bool patient = !dropped_restless_ || std::chrono::steady_clock::now() < suspend_until_ + kLastPatience;
  if (!patient) return suspended();
  if (!at_rest || !pools_at_rest()) return try_to_freeze_later();
  ask_workers([](core::WorkerCore& there) { return there.at_rest(); },
              [this, pools_at_rest](bool still) {
                if (still && pools_at_rest()) return suspended();
                try_to_freeze_later();
              });
}

void Runtime::try_to_freeze_later() {
  const auto now = std::chrono::steady_clock::now();
  const bool drop = !dropped_restless_ && now >= suspend_until_;
  const bool drop_logins = now >= drop_logins_at_;
  dropped_restless_ = dropped_restless_ || drop;
  const auto thaw = [drop, drop_logins](core::WorkerCore& there) {
    there.set_frozen(false);
    if (drop_logins) there.drop_server_logins("suspend_timeout");
    if (drop) there.drop_restless("suspend_timeout");
    return true;
  };
  ask_workers(thaw, [this](bool) {
    suspend_timer_->start_after(kTryAgain, [this, round = suspend_round_] {
      if (round == suspend_round_) try_to_freeze();
    });
  });
}

void Runtime::suspended() {
  suspend_ = Suspend::Yes;
  answer(suspend_command_, {});
}

void Runtime::go_on() {
  if (suspend_ == Suspend::No) return;
  suspend_ = Suspend::No;
  descriptors_sent_ = false;
  ++suspend_round_;
  if (suspend_timer_) suspend_timer_->cancel();
  set_opening(true);
  const auto thaw = [](core::WorkerCore& there) {
    there.set_frozen(false);
    there.set_suspending(false);
    return true;
  };
  ask_workers(thaw, [this](bool) { accept_clients(); });
  use_patroni_hosts();
}

std::vector<core::FdRow> Runtime::listening_sockets() const {
  std::vector<core::FdRow> rows;
  const std::string state =
      encode(core::ProcessHandover{keys_.statement_hash, keys_.mock_auth_key, workers_[0]->core().known_clusters()});
  for (const auto& listener : listeners_) {
    const ListenSocket& socket = listener->socket();
    core::FdRow row;
    row.fd = socket.fd();
    row.task = "pooler";
    row.addr = socket.is_unix() ? "unix" : socket.text().substr(0, socket.text().rfind(':'));
    row.port = socket.is_unix() ? config().listen_port : socket.port();
    row.state = state;
    row.descriptor = std::make_shared<const int>(socket.fd());  // this thread closes it, and this thread sends it
    rows.push_back(std::move(row));
  }
  return rows;
}

void Runtime::set_opening(bool on) {
  core::WorkerCore& core = workers_[0]->core();
  {
    core::PoolLock pools(*workers_[0]);
    pools->set_opening(on, core.now(), core.actions());
  }
  core.run_pending();
}

// ---- the process that goes ----

void Runtime::leave_to_successor(const core::ProcessCommand& command) {
  // Its file belongs to the other process now.
  for (const auto& listener : listeners_) listener->give_away();
  listeners_.clear();
  pidfile_.remove();
  set_opening(false);  // nobody who has left is to get a new server
  const auto nobody_left = [](core::WorkerCore& there) {
    there.forget_changed_over();
    return std::none_of(there.clients().begin(), there.clients().end(), [](const auto& one) {
      return !one.second->closed() && one.second->state() != core::ClientSession::State::Console;
    });
  };
  ask_workers(nobody_left, [this, command](bool nobody) {
    if (nobody) return stop();
    serve_what_is_left(command);
  });
}

// Clients with TLS, and those that replicate, cannot change over: they are served until they leave.
void Runtime::serve_what_is_left(const core::ProcessCommand& command) {
  log().info("serving the clients that could not be handed over until they disconnect");
  set_opening(true);
  {
    core::PoolLock pools(*workers_[0]);
    for (const pool::PoolId id : pools->pools()) {
      const auto [database, user] = pools->pool_name(id);
      const core::DatabaseConfig* entry = find_database(config(), database);
      if (entry == nullptr) continue;
      const std::string host = pools->pool_host(id);
      pool::PoolSettings settings = core::pool_settings(config(), *entry, user, host);
      settings.min_pool_size = 0;
      (void)pools->set_pool(database, user, settings, workers_[0]->core().now(), workers_[0]->core().actions(), host);
    }
  }
  workers_[0]->post(command.worker, [client = command.client](core::WorkerCore& there) {
    if (core::ClientSession* console = there.find_client(client)) console->disconnect("database shutdown");
  });
  go_on();
  shut_down(core::ShutdownMode::WaitForClients);
}

// ---- the process that comes ----

std::vector<ListenSocket> Runtime::take_listeners(const std::vector<core::FdRow>& rows, const ListenSpec& spec) {
  std::vector<ListenSocket> sockets;
  bool tcp = false;
  for (const core::FdRow& row : rows) {
    if (row.task != "pooler") continue;
    if (row.state) {
      if (const auto process = core::decode_process(*row.state)) {
        keys_.statement_hash = process->statement_hash;
        keys_.mock_auth_key = process->mock_auth_key;
        known_clusters_ = process->clusters;
      }
    }
    const int fd = ::fcntl(*row.descriptor, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) throw std::system_error(errno, std::generic_category(), "cannot take over a listening socket");
    sockets.push_back(adopt_listener(fd, spec));
    tcp = tcp || !sockets.back().is_unix();
  }
  if (!tcp) {
    for (ListenSocket& socket : open_tcp_listeners(spec, [](const std::string& text) { log().warning("{}", text); })) {
      sockets.push_back(std::move(socket));
    }
  }
  return sockets;
}

// Nobody is served before every socket is in its place, and no server is opened: the limits count those that come.
void Runtime::take_over_sessions(const std::vector<core::FdRow>& rows) {
  set_opening(false);
  const auto hold = [](core::WorkerCore& there) {
    there.set_suspending(true);
    return true;
  };
  ask_workers(hold, [](bool) {});
  std::map<int, const core::FdRow*> servers;
  for (const core::FdRow& row : rows) {
    if (row.task != "server") continue;
    servers[row.fd] = &row;
    if (row.state || row.link != 0) continue;
    // Of a server whose process does not tell what it has seen, nobody knows what the next client would meet.
    std::string terminate;
    protocol::append_terminate(terminate);
    (void)::send(*row.descriptor, terminate.data(), terminate.size(), MSG_NOSIGNAL);
    servers.erase(row.fd);
  }
  pool::WorkerId next = 0;
  const auto worker = [&]() -> Worker& {
    next = static_cast<pool::WorkerId>((next + 1) % worker_count_);
    return *workers_[next];
  };
  for (const core::FdRow& row : rows) {
    if (row.task != "client") continue;
    const auto partner = row.link == 0 ? servers.end() : servers.find(row.link);
    if (partner == servers.end()) {
      worker().take_over(row, std::nullopt);
    } else {
      worker().take_over(row, *partner->second);
      servers.erase(partner);
    }
  }
  for (const auto& [fd, row] : servers) {
    if (row->link == 0) worker().take_over(std::nullopt, *row);
  }
  ask_workers([](core::WorkerCore&) { return true; }, [this](bool) { serve_newcomers(); });
}

void Runtime::serve_newcomers() {
  set_opening(true);
  const auto serve = [](core::WorkerCore& there) {
    there.set_suspending(false);
    return true;
  };
  // Not before: who asks for the next restart would be told that the process is suspended.
  ask_workers(serve, [this](bool) { accept_clients(); });
}

}  // namespace pgweir::io
