// Where the transactions of a client go whose database has a primary and standbys: reading the first request, asking
// the router, waiting for a host, and running a read again that failed before the client saw anything of it.
#include <fmt/format.h>

#include <algorithm>

#include "pool/mutation.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/message_type.hpp"
#include "protocol/message_view.hpp"
#include "proxy/core/client_login.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/server_login.hpp"
#include "proxy/core/worker_core.hpp"
#include "router/hints.hpp"

namespace pgweir::core {

namespace frontend = protocol::frontend;
using router::RouteKind;
using router::RouteReason;
using router::StatementClass;
using router::Verdict;

namespace {

/// A request that is longer goes to the primary without being looked at.
constexpr std::size_t kScanMax = 32768;
/// No statement that sets pgweir.route is longer.
constexpr std::size_t kRouteCommandMax = 256;

/// The verdict on statements that run one after another in one transaction.
Verdict joined(const Verdict& first, const Verdict& next) {
  if (begins_read_only(first)) {
    const bool fits =
        next.cls == StatementClass::Read ||
        (next.cls == StatementClass::TransactionControl &&
         (next.transaction == router::TransactionKind::End || next.transaction == router::TransactionKind::Savepoint));
    if (fits) return first;
  } else if (first.cls == StatementClass::Read && next.cls == StatementClass::Read) {
    return first;
  }
  return {StatementClass::Unknown, router::ClassReason::MixedStatements};
}

std::uint32_t pack(const Verdict& verdict, router::RouteWish hint) {
  return static_cast<std::uint32_t>(verdict.cls) | static_cast<std::uint32_t>(verdict.reason) << 4U |
         static_cast<std::uint32_t>(verdict.transaction) << 12U | static_cast<std::uint32_t>(verdict.mode) << 16U |
         static_cast<std::uint32_t>(hint) << 20U;
}

void unpack(std::uint32_t value, Verdict& verdict, router::RouteWish& hint) {
  verdict.cls = static_cast<StatementClass>(value & 15U);
  verdict.reason = static_cast<router::ClassReason>(value >> 4U & 255U);
  verdict.transaction = static_cast<router::TransactionKind>(value >> 12U & 15U);
  verdict.mode = static_cast<router::AccessMode>(value >> 16U & 15U);
  hint = static_cast<router::RouteWish>(value >> 20U & 15U);
}

/// What a statement leaves in the session stays on the server where it ran.
bool binds_session(const Verdict& verdict) {
  return verdict.reason == router::ClassReason::TemporaryObject ||
         verdict.reason == router::ClassReason::SessionFunction;
}

bool says_on(std::string_view value) {
  return protocol::equal_ignoring_case(value, "on") || protocol::equal_ignoring_case(value, "true") || value == "1" ||
         protocol::equal_ignoring_case(value, "yes");
}

}  // namespace

// ---- reading the request ----

router::TextRules ClientSession::text_rules() const {
  using Names = protocol::TrackedNames;
  router::TextRules rules;
  if (!parameters_.tracked) return rules;
  const auto& values = parameters_.tracked->values;
  const auto& strings = values[Names::kStandardConformingStrings];
  const auto& encoding = values[Names::kClientEncoding];
  rules.standard_conforming_strings = !strings || *strings == "on";
  rules.client_encoding_is_utf8 = encoding && *encoding == "UTF8";
  return rules;
}

router::RouteRequest ClientSession::look_at(std::string_view sql) const {
  Catalog& catalog = *context_->catalog;
  router::RouteRequest request;
  request.hint = router::find_hint(sql).value_or(router::RouteWish::Auto);
  request.verdict = catalog.statements.classify(sql, catalog.knowledge.get(), text_rules());
  if (PGWEIR_MUTANT(33) && !catalog.knowledge && sql.starts_with("SELECT")) request.verdict.cls = StatementClass::Read;
  return request;
}

// The verdict on a statement that many clients have prepared is kept with it.
router::RouteRequest ClientSession::look_at(protocol::Statement& statement) const {
  const router::TextRules rules = text_rules();
  const std::uint64_t epoch = context_->catalog->epoch << 2U |
                              static_cast<std::uint64_t>(rules.standard_conforming_strings) << 1U |
                              static_cast<std::uint64_t>(rules.client_encoding_is_utf8);
  router::RouteRequest request;
  if (statement.note.epoch == epoch) {
    unpack(statement.note.value, request.verdict, request.hint);
    return request;
  }
  request = look_at(statement.query());
  statement.note = {epoch, pack(request.verdict, request.hint)};
  return request;
}

RequestScan ClientSession::scan(ByteView in) {
  RequestScan result;
  bool first = true, executes = false;
  result.repeatable = true;
  const auto add = [&](const router::RouteRequest& next) {
    if (first) {
      result.request = next;
    } else {
      result.request.verdict = joined(result.request.verdict, next.verdict);
      if (result.request.hint == router::RouteWish::Auto) result.request.hint = next.hint;
    }
    first = false;
  };
  const auto add_unknown = [&] { add({}); };
  std::vector<ByteView> parsed;  // names that this request gives: their statements have been looked at
  const auto add_use = [&](ByteView name) {
    if (std::find(parsed.begin(), parsed.end(), name) != parsed.end()) return;
    const auto* known = statements_ && !name.empty() ? statements_->find(name) : nullptr;
    if (known != nullptr) {
      add(look_at(*known->statement));
    } else if (name.empty() && !unnamed_.empty() && unnamed_.back().kept) {
      add(look_at(unnamed_.back().query));
    } else {
      add_unknown();
    }
  };
  std::size_t pos = 0;
  while (pos < in.size()) {
    protocol::FrameHeader header;
    const auto status = read_frame_header(in.substr(pos), core_->config().max_packet_size, header);
    if (status == protocol::FrameStatus::NeedMore) break;
    if (status == protocol::FrameStatus::BadLength || header.total() > kScanMax || pos + header.total() > kScanMax) {
      result.status = RequestScan::Status::TooLong;
      return result;
    }
    if (in.size() - pos < header.total()) break;
    const ByteView body = in.substr(pos + protocol::kHeaderSize, header.body());
    pos += header.total();
    bool ends = false;
    switch (header.type) {
      case frontend::Query:
        if (const auto query = protocol::parse_query(body)) {
          add(look_at(query->sql));
        } else {
          add_unknown();
        }
        ends = true;
        break;
      case frontend::Parse:
        if (const auto parse = protocol::parse_parse(body)) {
          add(look_at(parse->query));
          parsed.push_back(parse->statement);
          if (const auto command = router::find_route_command(parse->query)) take_route_command(*command);
        } else {
          add_unknown();
        }
        break;
      case frontend::Bind:
        if (const auto names = protocol::two_strings(body)) {
          add_use(names->second);
        } else {
          add_unknown();
        }
        break;
      case frontend::Describe:
        if (const auto target = protocol::parse_target(body); target && target->kind == 'S') add_use(target->name);
        break;
      case frontend::Close:
        result.repeatable = false;  // what it takes away would have to be put back first
        break;
      case frontend::Execute:
        executes = true;
        break;
      case frontend::Flush:
        // The client waits for an answer, and what it sends then belongs to the same transaction.
        result.status = executes ? RequestScan::Status::TooLong : RequestScan::Status::Complete;
        result.size = pos;
        result.repeatable = false;
        return result;
      case frontend::Sync:
        ends = true;
        break;
      default:  // a function call, or nothing that belongs here
        add_unknown();
        ends = true;
        break;
    }
    if (!ends) continue;
    result.status = RequestScan::Status::Complete;
    result.size = pos;
    // Nothing but Sync: any server will do.
    if (first) result.request.verdict = {StatementClass::Read, router::ClassReason::Empty};
    if (result.request.verdict.cls != StatementClass::Read && !PGWEIR_MUTANT(18)) result.repeatable = false;
    return result;
  }
  if (in.size() >= kScanMax) result.status = RequestScan::Status::TooLong;
  return result;
}

// ---- deciding ----

// Where the transaction that begins with `in` is to be served; null: more bytes are needed to say so.
PoolContext* ClientSession::choose_pool(ByteView in) {
  if (!context_->routed()) return context_;
  if (!route_) begin_routing();
  ClientRoute& route = *route_;
  if (!route.scanned) {
    route.request = {};
    route.repeatable_size = 0;
    if (context_->policy.read_write_split && mode_ != PoolMode::Session) {
      const RequestScan found = scan(in);
      if (found.status == RequestScan::Status::NeedMore) return nullptr;
      if (found.status == RequestScan::Status::Complete) {
        route.request = found.request;
        if (found.repeatable) route.repeatable_size = found.size;
      }
      if (route.read_only && route.request.verdict.transaction == router::TransactionKind::Begin &&
          route.request.verdict.mode == router::AccessMode::Default) {
        route.request.verdict.mode = router::AccessMode::ReadOnly;
      }
      if (binds_session(route.request.verdict)) route.session.bound_to_primary = true;
    }
    route.scanned = true;
  }
  return &pool_of(decide_route());
}

router::RouteDecision ClientSession::decide_route() const {
  const ClientRoute& route = *route_;
  const HostGroup& group = *context_->group;
  if (!group.table || route.avoid_version == group.table->version) return {};
  router::RouteRequest request = route.request;
  if (route.primary_only) request.hint = router::RouteWish::Primary;
  router::RouteDecision decision = router::decide(request, route.session, *group.table, context_->policy,
                                                  context_->writes->token(), group.outstanding, core_->random());
  if (decision.kind == RouteKind::Host && decision.host == route.avoid_host) {
    // An answer that was on its way when the server was lost says nothing.
    constexpr router::Duration kOnItsWay{10'000};
    const router::HostState& host = group.table->host(decision.host);
    if (host.last_probe <= route.avoid_since + kOnItsWay) decision.kind = RouteKind::Wait;
  }
  const bool held = group.writes_held && decision.role == HostRole::Primary;
  if (held && decision.kind == RouteKind::Host) decision.kind = RouteKind::Wait;
  return decision;
}

PoolContext& ClientSession::pool_of(const router::RouteDecision& decision) {
  PoolContext* on_host = decision.kind == RouteKind::Host ? core_->context_on(*context_, decision.host) : nullptr;
  route_->decision = decision;
  if (on_host == nullptr) route_->decision.kind = RouteKind::Wait;
  return on_host != nullptr ? *on_host : *context_;
}

void ClientSession::begin_routing() {
  route_ = std::make_unique<ClientRoute>();
  // A session of its own on one server: what it will do there nobody knows.
  route_->session.bound_to_primary = mode_ == PoolMode::Session && context_->policy.read_write_split;
  if (!parameters_.extras) return;
  for (const auto& [name, value] : *parameters_.extras) {
    if (name == "default_transaction_isolation" && protocol::equal_ignoring_case(value, "serializable")) {
      route_->session.serializable = true;
    }
    if (name == "default_transaction_read_only") route_->read_only = says_on(value);
  }
}

// It now waits in, or is served from, `pool`.
void ClientSession::enter_pool(PoolContext& pool) {
  waits_for_host_ = pool.routed() && pool.home == nullptr;
  if (!route_) return;
  route_->pool = &pool;
  count_outstanding(pool.host_id);
}

void ClientSession::count_outstanding(std::optional<router::HostId> host) {
  if (!route_ || context_->group == nullptr) return;
  auto& outstanding = context_->group->outstanding;
  const auto change = [&](const std::optional<router::HostId>& at, bool more) {
    if (!at || static_cast<std::size_t>(*at) >= outstanding.size()) return;
    std::uint32_t& count = outstanding[static_cast<std::size_t>(*at)];
    if (more) {
      ++count;
    } else if (count > 0) {  // the list may have changed in between
      --count;
    }
  };
  change(route_->counted, false);
  route_->counted = host;
  change(route_->counted, true);
}

void ClientSession::count_route() {
  RouteStats& stats = context_->routes;
  const router::RouteDecision& decision = route_->decision;
  const bool read = route_->is_read();
  if (decision.reason == RouteReason::ReadYourWrites && context_->group->demand.read_kept(router_time(core_->now()))) {
    core_->host().positions_wanted(context_->group->name);
  }
  if (decision.role == HostRole::Standby) {
    ++stats.reads_standby;
  } else if (!read) {
    ++stats.writes;
  } else if (decision.reason == RouteReason::NoStandby) {
    ++stats.reads_primary_no_standby;
  } else if (decision.reason == RouteReason::ReadYourWrites) {
    ++stats.reads_primary_read_your_writes;
  } else {
    ++stats.reads_primary_other;
  }
}

// ---- waiting ----

bool ClientSession::waits_in(const HostGroup* group) const {
  if (closed() || !waiting_ || replication_) return false;
  const PoolContext* context = state_ == State::Login ? login_->wanted_pool() : context_;
  if (context == nullptr || (state_ != State::Ready && state_ != State::Login)) return false;
  return group == nullptr || context->group == group;
}

// The hosts, or what is to be known of them, have changed while it waited.
void ClientSession::route_again() {
  if (state_ == State::Login) return login_->route_again();
  PoolContext* target = context_;
  if (context_->routed()) {
    if (!route_) begin_routing();
    if (route_->pool != nullptr && may_still_serve(route_->decision)) return;  // it keeps its place
    // More may be known of its statements.
    route_->scanned = false;
    target = choose_pool(unread());
    if (target == nullptr || target == route_->pool) return;
  } else if (!route_ || route_->pool == nullptr || route_->pool == context_) {
    return;
  }
  stop_waiting();
  acquire_again(*target);
}

bool ClientSession::may_still_serve(const router::RouteDecision& decision) const {
  const std::shared_ptr<const router::HostTable>& table = context_->group->table;
  if (decision.kind != RouteKind::Host || !table || route_->avoid_version == table->version) return false;
  if (route_->pool->host_id != decision.host) return false;  // the list has changed
  if (PGWEIR_MUTANT(15)) return true;
  if (decision.role == HostRole::Primary) return table->primary == decision.host && !context_->group->writes_held;
  return table->host(decision.host).takes_reads();
}

// Keeps its place among those who wait.
void ClientSession::acquire_again(PoolContext& target) {
  if (ask_pool(target, true)) core_->wake(*this);
}

/// The deadline of a client for whom there is no host.
TimePoint ClientSession::route_deadline() const {
  return waiting_ && waits_for_host_ && !PGWEIR_MUTANT(21) ? wait_start_ + core_->config().failover_wait_timeout
                                                           : pool::kNever;
}

std::string ClientSession::no_host_text() const {
  const bool standby = route_ && route_->decision.role == HostRole::Standby;
  const char* wanted = standby ? "standby takes reads" : "host is the primary";
  return fmt::format("failover_wait_timeout: no {} of database \"{}\"", wanted, database_);
}

// ---- a server that was granted ----

// False if the server is not what it was chosen as: it goes, and the client waits until more is known of the host.
bool ClientSession::accepts_role(ServerSession& server) {
  if (!route_ || route_->decision.kind != RouteKind::Host || server.role() == HostRole::Unknown) return true;
  if (server.role() == route_->decision.role || PGWEIR_MUTANT(16)) return true;
  core_->witness(server.context(), router::witness_of(server.role()));
  route_->avoid_version = context_->group->table->version;
  give_up_server(server);
  return false;
}

// What was known of the host when it was chosen may be over by the time the server is ready for the first message, and
// the server may have said so itself when it was tested.
bool ClientSession::still_chosen() {
  if (!context_->routed()) return true;
  if (may_still_serve(route_->decision) || PGWEIR_MUTANT(25)) return accepts_role(*server_);
  give_up_server(*server_);
  return false;
}

// Nothing has been sent: the client keeps its place among those who wait.
void ClientSession::give_up_server(ServerSession& server) {
  {
    PoolLock pools(core_->host());
    pools->recycle_server(server.id(), core_->now(), core_->actions());
  }
  server_ = nullptr;
  server.take_back();
  acquire_again(pool_of(decide_route()));
}

// What is about to be sent may have to be sent again.
void ClientSession::guard(ByteView in) {
  ClientRoute& route = *route_;
  route.begun = true;
  route.executed = in[0] != frontend::Parse && in[0] != frontend::Describe && in[0] != frontend::Close;
  count_route();
  ++route.attempts;
  if (route.repeatable_size == 0) return;
  route.kept.assign(in.substr(0, route.repeatable_size));
  route.guarded = true;
}

// ---- failures ----

router::Retry ClientSession::may_retry(router::FailureKind failure) const {
  if (!route_ || !route_->guarded) return router::Retry::No;
  router::FailedStatement failed;
  failed.failure = failure;
  failed.role = route_->decision.role;
  failed.verdict = route_->request.verdict;
  if (PGWEIR_MUTANT(18)) failed.verdict.cls = StatementClass::Read;
  failed.first_of_transaction = true;
  failed.attempts = route_->attempts;
  return router::may_retry(failed, context_->policy);
}

// The answer to what was sent has begun, or it is not to be sent again.
void ClientSession::end_guard() {
  route_->guarded = false;
  route_->prepared.clear();
}

// A part of the answer had been delivered, so what was taken for a read is not run again; the next one like it must not
// fail, too.
void ClientSession::learn_from_refusal() {
  if (!route_ || route_->again || route_->kept.empty() || route_->decision.role != HostRole::Standby) return;
  if (route_->request.verdict.cls != StatementClass::Read) return;
  ++context_->routes.learned;
  for (const std::string& text : texts_of(std::exchange(route_->kept, {}))) core_->learn_write(*context_, text);
}

void ClientSession::note_prepared(const std::string& name, std::uint64_t serial) {
  if (route_ && route_->guarded) route_->prepared.emplace_back(name, serial);
}

// It failed, and is run again as soon as its server is gone.
void ClientSession::prepare_retry(router::Retry retry) {
  ClientRoute& route = *route_;
  route.again = true;
  ++context_->routes.retries;
  if (retry == router::Retry::OnPrimaryAndLearn) {
    ++context_->routes.learned;
    if (PGWEIR_MUTANT(24)) return;
    route.primary_only = true;
    for (const std::string& text : texts_of(route.kept)) core_->learn_write(*context_, text);
  } else if (retry == router::Retry::OnPrimary || route.decision.role == HostRole::Standby) {
    route.primary_only = true;
  } else {
    route.avoid_host = route.decision.host;
    route.avoid_since = router_time(core_->now());
  }
}

std::vector<std::string> ClientSession::texts_of(ByteView request) {
  std::vector<std::string> texts;
  std::size_t pos = 0;
  protocol::FrameHeader header;
  while (pos < request.size() &&
         read_frame_header(request.substr(pos), core_->config().max_packet_size, header) == protocol::FrameStatus::Ok) {
    const ByteView body = request.substr(pos + protocol::kHeaderSize, header.body());
    pos += header.total();
    if (header.type == frontend::Query) {
      if (const auto query = protocol::parse_query(body)) texts.emplace_back(query->sql);
    } else if (header.type == frontend::Parse) {
      if (const auto parse = protocol::parse_parse(body)) texts.emplace_back(parse->query);
    } else if (header.type == frontend::Bind) {
      const auto names = protocol::two_strings(body);
      if (!names) continue;
      const auto* known = statements_ && !names->second.empty() ? statements_->find(names->second) : nullptr;
      if (known != nullptr) texts.push_back(known->statement->query());
      if (names->second.empty() && !unnamed_.empty()) texts.push_back(unnamed_.back().query);
    }
  }
  return texts;
}

// The server is gone, or free: what the request changed here is undone, and its bytes are the next to be read.
void ClientSession::send_again() {
  ClientRoute& route = *route_;
  route.again = route.guarded = route.begun = route.executed = route.flushed = false;
  segments_done_ = segment_;  // nothing of it is owed any more
  if (statements_ && !PGWEIR_MUTANT(20)) {
    for (auto it = route.prepared.rbegin(); it != route.prepared.rend(); ++it) {
      statements_->undo_add(it->first, it->second);
    }
  }
  route.prepared.clear();
  std::string kept = std::exchange(route.kept, {});
  if (!std::exchange(asks_first_, false)) put_back_input(std::move(kept));
  route.scanned = false;
  route.pool = nullptr;
  count_outstanding(std::nullopt);
  core_->wake(*this);
}

// ---- writes ----

void ClientSession::note_write_end(bool wrote) {
  if (!route_ || context_->group == nullptr) return;
  // A standby that has been promoted meanwhile takes writes, and has said so before its ReadyForQuery.
  const bool promoted = server_ != nullptr && server_->role() == HostRole::Primary && !PGWEIR_MUTANT(30);
  const HostRole role = promoted ? HostRole::Primary : route_->decision.role;
  if (role == HostRole::Standby || (!wrote && !router::counts_as_write(role, route_->request.verdict))) return;
  const router::TimePoint now = router_time(core_->host().clock());
  if (!PGWEIR_MUTANT(12)) route_->session.own_writes.write_acknowledged(now);
  if (!PGWEIR_MUTANT(13)) context_->writes->write_acknowledged(now);
  if (context_->group->demand.write_acknowledged(now)) core_->host().positions_wanted(context_->group->name);
}

// ---- pgweir.route ----

void ClientSession::take_route_command(const router::RouteCommand& command) {
  if (command.kind == router::RouteCommand::Kind::Set && command.valid && !command.local)
    route_->session.wish = command.wish;
  if (command.kind == router::RouteCommand::Kind::Reset) route_->session.wish = router::RouteWish::Auto;
}

// Done: the message was a command about pgweir.route that has been answered here. Hold: it will be when the replies
// before it have come. NeedMore: it is no such command, or the server is to refuse it.
ClientSession::Step ClientSession::answer_route_command(const protocol::FrameHeader& header, ByteView message) {
  if (header.type != frontend::Query || header.total() > kRouteCommandMax) return Step::NeedMore;
  if (message.size() < header.total()) return Step::Hold;
  const auto query = protocol::parse_query(message.substr(protocol::kHeaderSize));
  const auto command = query ? router::find_route_command(query->sql) : std::nullopt;
  if (!command || waiting_) return Step::NeedMore;
  char status = 'I';
  if (server_ != nullptr) {
    const protocol::ReplyLedger& ledger = server_->ledger();
    if (ledger.skipping()) return Step::NeedMore;
    if (!ledger.idle() && ledger.unsynced()) {
      // A query ends what the client has begun without a Sync, so the server has to get it; the replies would never
      // come.
      take_route_command(*command);
      return Step::NeedMore;
    }
    if (!ledger.idle()) return Step::Hold;
    status = server_->transaction_status();
    if (status == 'E') return Step::NeedMore;
  }
  if (!route_) begin_routing();
  using Kind = router::RouteCommand::Kind;
  std::string answer;
  if (command->kind == Kind::Set && !command->valid) {
    protocol::append_error(
        answer, protocol::ErrorText{
                    .severity = "ERROR",
                    .sqlstate = "22023",
                    .message = fmt::format("invalid value for parameter \"pgweir.route\": \"{}\"", command->value),
                    .add_v = true});
  } else if (command->kind == Kind::Show) {
    const protocol::Column column{.name = "pgweir.route"};
    protocol::append_row_description(answer, {&column, 1});
    const std::optional<std::string_view> value = router::to_string(route_->local_wish.value_or(route_->session.wish));
    protocol::append_data_row(answer, {&value, 1});
    protocol::append_command_complete(answer, "SHOW");
  } else {
    if (command->kind != Kind::Set || !command->local) {
      take_route_command(*command);
      route_->local_wish.reset();
    } else if (status == 'T') {
      route_->local_wish = command->wish;
    } else {
      protocol::append_notice(answer, "WARNING", "25P01", "SET LOCAL can only be used in transaction blocks");
    }
    protocol::append_command_complete(answer, command->kind == Kind::Set ? "SET" : "RESET");
  }
  protocol::append_ready_for_query(answer, status);
  send(ByteView(answer));
  return Step::Done;
}

}  // namespace pgweir::core
