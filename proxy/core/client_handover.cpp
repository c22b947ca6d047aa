// A client that changes from one process to another (online restart).
#include "proxy/core/client_login.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/console.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace {

void transfer_overrides(protocol::StateArchive& archive, std::shared_ptr<const StartupOverrides>& overrides,
                        const protocol::TrackedNames& names) {
  const std::size_t size = archive.count(overrides == nullptr ? 0 : overrides->size());
  if (!archive.reading()) {
    for (std::size_t i = 0; i < size; ++i) {
      auto [index, value] = (*overrides)[i];
      std::string name = names.name(index);
      archive(name, value);
    }
    return;
  }
  StartupOverrides all;
  for (std::size_t i = 0; i < size && !archive.failed(); ++i) {
    std::string name, value;
    archive(name, value);
    if (const auto index = names.find(name)) all.emplace_back(*index, std::move(value));
  }
  if (!all.empty()) overrides = std::make_shared<const StartupOverrides>(std::move(all));
}

// A request that may be sent again, and of whose answer the client has seen nothing, goes along.
void transfer_guard(protocol::StateArchive& archive, ClientRoute& route) {
  archive(route.executed, route.flushed, route.guarded, route.kept, route.attempts, route.primary_only);
  const std::size_t names = archive.count(route.prepared.size());
  if (archive.reading()) route.prepared.resize(names);
  for (auto& [name, serial] : route.prepared) archive(name, serial);
}

}  // namespace

void ClientSession::transfer_route(protocol::StateArchive& archive) {
  bool there = route_ != nullptr;
  archive(there);
  if (!there) return;
  if (archive.reading()) route_ = std::make_unique<ClientRoute>();
  ClientRoute& route = *route_;
  router::TimePoint written = route.session.own_writes.last_write();
  archive(route.session.wish, route.session.bound_to_primary, route.session.serializable, route.read_only, written);
  archive(route.begun, route.decision.kind, route.decision.role, route.decision.reason);
  router::Verdict& verdict = route.request.verdict;
  archive(verdict.cls, verdict.reason, verdict.transaction, verdict.mode);
  transfer_guard(archive, route);
  if (archive.reading()) route.session.own_writes.write_acknowledged(written);
}

void ClientSession::transfer(protocol::StateArchive& archive) {
  const protocol::TrackedNames& names = *core_->settings()->tracked;
  archive(in_query_, in_transaction_, sent_to_server_, stream_forward_, stream_left_);
  bool waited = waiting_ || waited_before_;
  archive(waited, notified_);
  if (archive.reading()) waited_before_ = waited;
  archive(cancel_pending_, skip_to_sync_, output_cut_, mode_, tracks_);
  archive(segment_, segments_done_, changing_segment_, names_changing_, names_cleared_, sql_parse_sent_, asks_first_,
          bound_resets_, bound_name_, settings_open_);
  archive(connected_at_, last_request_, wait_start_, query_start_, transaction_start_, connect_wall_us_);
  protocol::transfer(archive, parameters_.tracked, names);
  protocol::transfer(archive, parameters_.extras);
  transfer_overrides(archive, overrides_, names);
  if (archive.reading() && tracks_) statements_ = std::make_unique<protocol::ClientStatements>();
  if (tracks_) statements_->transfer(archive, core_->statement_table());
  archive(next_unnamed_serial_, unnamed_hidden_, unnamed_hidden_segment_);
  const std::size_t unnamed = archive.count(unnamed_.size());
  if (archive.reading()) unnamed_.resize(unnamed);
  for (Unnamed& one : unnamed_) {
    archive(one.query, one.parameter_types, one.segment, one.serial, one.kept, one.parsed, one.deallocates, one.uses);
    bool told = one.told != nullptr;
    archive(told);
    if (!told) continue;
    if (archive.reading()) one.told = std::make_unique<UnnamedTold>();
    archive(one.told->types, one.told->shape, one.told->changed);
  }
  transfer_route(archive);
  transfer_buffers(archive);
  if (archive.reading() && (!parameters_.tracked || mode_ > PoolMode::Statement)) archive.fail();
}

bool ClientSession::silent() const {
  return state_ == State::Login && !login_->heard();
}

void ClientSession::begin_anew() {
  const PoolContext* context = core_->context_for(database_, core_->pool_user(database_, user_));
  if (context == nullptr) return;  // take_over() finds out too
  mode_ = context->mode;
  tracks_ = context->tracks_statements();
  if (tracks_) statements_ = std::make_unique<protocol::ClientStatements>();
}

void ClientSession::take_up(PoolContext& context, ServerSession* server) {
  login_.reset();
  context_ = &context;
  server_ = server;
  if (!context.routed()) route_.reset();
  if (route_ && server != nullptr) {
    route_->scanned = true;
    route_->pool = &server->context();
    if (server->context().host_id) route_->decision.host = *server->context().host_id;
    count_outstanding(server->context().host_id);
  } else if (route_) {
    route_->end_transaction();
  }
  state_ = State::Ready;
  pinned_ = mode_ == PoolMode::Session ? PinReason::SessionMode : PinReason::None;
  settings_changed();
  core_->schedule(*this, next_deadline());
}

}  // namespace pgweir::core
