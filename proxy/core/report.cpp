#include "proxy/core/report.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "proxy/core/client_session.hpp"
#include "proxy/core/gather.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace {

std::int64_t wall_of(WorkerCore& core, TimePoint moment) {
  return core.host().wall_clock_us() - (core.now() - moment).count();
}

/// A Unix socket has no ports: PgBouncer shows the one in the name of the server's socket, and its own `listen_port`.
void fill_address(SocketRow& row, const PeerAddress& address, int unix_port, int listen_port) {
  row.addr = address.is_unix ? "unix" : address.host;
  row.port = address.is_unix ? unix_port : address.port;
  row.local_addr = address.is_unix ? "unix" : address.local_host;
  row.local_port = address.is_unix ? listen_port : address.local_port;
}

SocketRow client_row(WorkerCore& core, const ClientSession& client) {
  SocketRow row;
  switch (client.state()) {
    case ClientSession::State::Login:
    case ClientSession::State::Closing:
      row.state = client.cancel_request() ? SocketState::ClWaitingCancelReq
                  : client.waiting()      ? SocketState::ClWaiting
                                          : SocketState::ClLogin;
      break;
    case ClientSession::State::Ready:
      row.state = client.waiting()             ? SocketState::ClWaiting
                  : client.server() != nullptr ? SocketState::ClActive
                                               : SocketState::ClIdle;
      break;
    case ClientSession::State::Console:
      row.state = SocketState::ClActive;
      break;
  }
  row.replication = client.replication();
  row.user = client.user();
  row.database = client.database();
  const int listen_port = core.config().listen_port;
  fill_address(row, client.address(), listen_port, listen_port);
  row.connect_time = client.connect_wall_us();
  row.request_time = wall_of(core, client.last_request());
  if (client.in_query()) row.wait = core.now() - client.query_start();
  row.ptr = row.id = client.number();
  if (client.server() != nullptr) {
    row.link = client.server()->number();
    row.close_needed = false;
  }
  row.remote_pid = static_cast<std::uint64_t>(client.address().pid);
  row.tls = client.port().tls_info();
  row.application_name = client.application_name();
  row.prepared_statements = client.prepared_statements();
  row.recv_pos = row.pkt_avail = client.unread_size();
  row.send_avail = client.unsent_size();
  return row;
}

SocketRow server_row(WorkerCore& core, const ServerSession& server, bool close_needed) {
  SocketRow row;
  row.state = !server.logged_in()                                                     ? SocketState::SvLogin
              : server.testing()                                                      ? SocketState::SvTested
              : server.client() != nullptr                                            ? SocketState::SvActive
              : core.now() - server.last_packet() >= core.config().server_check_delay ? SocketState::SvUsed
                                                                                      : SocketState::SvIdle;
  row.replication = server.replication();
  row.user = server.context().user;
  row.database = server.context().database;
  fill_address(row, server.address(), server.target().host.port, core.config().listen_port);
  row.connect_time = server.connect_wall_us();
  row.request_time = wall_of(core, server.last_packet());
  row.close_needed = close_needed;
  row.ptr = row.id = server.number();
  if (server.client() != nullptr) row.link = server.client()->number();
  row.remote_pid = server.key().pid;
  row.host = server.target().host.host;
  if (server.role() != HostRole::Unknown) row.role = role_name(server.role());
  row.tls = server.port().tls_info();
  const auto index = protocol::TrackedNames::kApplicationName;
  const auto& tracked = server.parameters().tracked;
  if (tracked && tracked->values.size() > index) row.application_name = tracked->values[index].value_or("");
  row.prepared_statements = server.statements().size();
  row.recv_pos = row.pkt_avail = server.unread_size();
  row.send_avail = server.unsent_size();
  return row;
}

/// What the pools know of a cancel request, put into a row of either side.
void fill_cancel(WorkerCore& core, SocketRow& row, pool::CancelId cancel) {
  row.cancel = cancel;
  PoolLock pools(core.host());
  const auto snapshot = pools->cancel_snapshot(cancel);
  if (!snapshot) return;
  if (row.state == SocketState::ClWaitingCancelReq && snapshot->sent) row.state = SocketState::ClActiveCancelReq;
  if (!snapshot->pool) return;
  const auto [database, user] = pools->pool_name(snapshot->pool);
  row.database = database;
  if (row.state == SocketState::SvActiveCancel) row.user = user;
}

/// The connection that has carried a cancel request to its server and waits for the end of it.
SocketRow cancel_row(WorkerCore& core, const CancelConnection& connection) {
  SocketRow row;
  row.state = SocketState::SvActiveCancel;
  const HostPort& host = connection.job().target.host;
  row.addr = host.is_unix() ? "unix" : host.host;
  row.port = host.port;
  row.local_addr = host.is_unix() ? "unix" : "";
  row.connect_time = connection.connect_wall_us();
  row.request_time = core.host().wall_clock_us();
  row.ptr = row.id = connection.number();
  row.tls = connection.port().tls_info();
  return row;
}

void link_cancels(std::vector<SocketRow>& rows) {
  std::map<pool::CancelId, SocketRow*> carriers;
  for (SocketRow& row : rows) {
    if (row.cancel && row.state == SocketState::SvActiveCancel) carriers[row.cancel] = &row;
  }
  for (SocketRow& row : rows) {
    const auto carrier = row.cancel ? carriers.find(row.cancel) : carriers.end();
    if (carrier == carriers.end() || carrier->second == &row) continue;
    row.link = carrier->second->ptr;
    carrier->second->link = row.ptr;
  }
}

void join(WorkerReport& all, WorkerReport part) {
  std::move(part.sockets.begin(), part.sockets.end(), std::back_inserter(all.sockets));
  for (const auto& [database, row] : part.stats) {
    StatsRow& sum = all.stats[database];
    sum.database = database;
    sum.total += row.total;
    sum.period.begin += row.period.begin;
    sum.period.end += row.period.end;
    sum.period.length_us = std::max(sum.period.length_us, row.period.length_us);
  }
  for (const auto& [database, routes] : part.routes) all.routes[database] += routes;
  for (const auto& [key, latency] : part.latencies) all.latencies[key] += latency;
  std::move(part.dns.hosts.begin(), part.dns.hosts.end(), std::back_inserter(all.dns.hosts));
  std::move(part.dns.zones.begin(), part.dns.zones.end(), std::back_inserter(all.dns.zones));
  all.dns.queries += part.dns.queries;
  all.dns.waiting += part.dns.waiting;
  all.memory.credentials = std::max(all.memory.credentials, part.memory.credentials);  // all workers know the same
  all.memory.requests += part.memory.requests;
  all.memory.buffers += part.memory.buffers;
  all.memory.buffer_bytes += part.memory.buffer_bytes;
  all.memory.statements += part.memory.statements;
}

MemoryUse memory_use(const WorkerCore& core) {
  MemoryUse use;
  use.credentials = core.known_credentials();
  const auto count_buffers = [&use](const Connection& connection) {
    for (const std::size_t size : {connection.unread_size(), connection.unsent_size()}) {
      if (size == 0) continue;
      ++use.buffers;
      use.buffer_bytes += size;
    }
  };
  for (const auto& [id, client] : core.clients()) count_buffers(*client);
  for (const auto& [id, server] : core.servers()) {
    count_buffers(*server);
    use.requests += server->ledger().size();
    use.statements += server->statements().size();
  }
  return use;
}

}  // namespace

WorkerReport make_report(WorkerCore& core, ReportExtra extra) {
  WorkerReport report;
  const std::string console(kConsoleDatabase);
  report.stats[console] = {console, core.console_stats(), core.console_period()};
  for (const auto& [id, context] : core.contexts()) {
    StatsRow& row = report.stats[context->database];
    row.database = context->database;
    row.total += context->stats;
    if (context->routed() && context->home == nullptr) report.routes[context->database] += context->routes;
    row.period.begin += context->period.begin;
    row.period.end += context->period.end;
    row.period.length_us = std::max(row.period.length_us, context->period.length_us);
    if (extra == ReportExtra::Latencies) {
      report.latencies.insert(context->latencies.begin(), context->latencies.end());
    }
  }
  if (extra == ReportExtra::Memory) report.memory = memory_use(core);
  if (extra == ReportExtra::Names) report.dns = core.host().dns_report();
  if (extra != ReportExtra::Sockets) return report;
  for (const auto& [id, client] : core.clients()) {
    if (client->closed()) continue;
    report.sockets.push_back(client_row(core, *client));
    if (const auto cancel = client->cancel_request()) fill_cancel(core, report.sockets.back(), *cancel);
  }
  for (const auto& [token, connection] : core.cancels()) {
    // One that interrupts a server being closed is nobody's request.
    if (!connection->sent() || connection->closed() || !connection->job().cancel) continue;
    report.sockets.push_back(cancel_row(core, *connection));
    fill_cancel(core, report.sockets.back(), connection->job().cancel);
  }
  PoolLock pools(core.host());
  for (const auto& [id, server] : core.servers()) {
    if (server->closed()) continue;
    report.sockets.push_back(server_row(core, *server, pools->close_needed(id)));
    if (pools->being_canceled(id)) report.sockets.back().state = SocketState::SvBeingCanceled;
  }
  return report;
}

void collect_reports(WorkerCore& core, ReportExtra extra, std::function<void(WorkerCore&, WorkerReport)> done) {
  gather<WorkerReport>(
      core, [extra](WorkerCore& there) { return make_report(there, extra); },
      [done = std::move(done)](WorkerCore& here, std::vector<WorkerReport> parts) {
        WorkerReport all;
        for (WorkerReport& part : parts) join(all, std::move(part));
        link_cancels(all.sockets);
        done(here, std::move(all));
      });
}

}  // namespace pgweir::core
