// One client connection as a machine: after its login it relays messages to the linked server, asking the pool for one
// when a transaction begins, rewriting names of prepared statements and making the server's parameters the client's
// first. Follows "Message Flow" of the protocol chapter from the server's side.
//
//   Login --welcome--> Idle --first message--> Waiting --grant--> Active --server free--> Idle
//                                                                 (session mode: stays Active)
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/message_view.hpp"
#include "protocol/prepared_statements.hpp"
#include "protocol/session_parameters.hpp"
#include "proxy/core/client_route.hpp"
#include "proxy/core/connection.hpp"
#include "proxy/core/pool_context.hpp"
#include "proxy/core/replication.hpp"
#include "proxy/core/server_session.hpp"
#include "proxy/core/startup_request.hpp"
#include "router/hints.hpp"
#include "router/sql_lexer.hpp"

namespace pgweir::core {

class ClientLogin;
class Console;

class ClientSession final : public Connection {
 public:
  enum class State : std::uint8_t {
    Login,    ///< until ReadyForQuery was sent
    Ready,    ///< relaying
    Console,  ///< talks to the admin console
    Closing,  ///< a last message is being sent
  };

  /// Why a client keeps its server although no transaction is open. What it keeps there would be lost on another one.
  enum class PinReason : std::uint8_t {
    None,
    SessionMode,  ///< the pool mode asks for it
    Replication,  ///< the server was opened for it alone
  };

  ClientSession(WorkerCore& core, std::unique_ptr<Port> port, pool::ClientId id, PeerAddress address);
  ~ClientSession() override;

  // ---- events ----
  void on_hangup(const std::string& reason) override;
  void on_tls_ready() override;
  void on_timer(TimePoint now) override;
  void on_woken() override;
  /// A Grant for this client. The server is on this worker and linked by the caller.
  /// True if the client's messages may go to it at once.
  bool on_granted(ServerSession& server, bool needs_check);
  void on_hidden_done(HiddenPurpose purpose, const HiddenResult& result);
  /// The linked server is gone. `sent` says whether bytes of this client may have reached it.
  void on_server_lost(std::string_view reason);
  /// The server went back to the pool.
  void on_server_released();
  /// The pool gave up on it: `reason` as encoded by encode_login_error, or a text of PgBouncer's.
  void on_rejected(std::string_view reason);
  /// KILL, database removed and the like.
  void on_dropped(std::string_view reason);
  /// Something was learned about a pool: a login that waits for just that may be complete.
  void retry_welcome(const PoolContext& pool);
  /// Answers that its login has asked the Host for.
  void on_password_checked(const PasswordVerdict& verdict);
  void on_host_name(const std::string& name);
  void on_key_derived(const KeyQuestion& question, const protocol::Sha256Digest& key);
  /// Accepted beyond max_client_conn.
  void set_over_limit();
  /// Whether it has `context` or is about to.
  [[nodiscard]] bool refers_to(const PoolContext& context) const;
  /// New settings are in force.
  void settings_changed();
  /// A cancel request for a client that waits in a queue, or for a console command.
  /// False: the request has been sent to a server since, to which the cancel has to go.
  [[nodiscard]] bool on_cancel_while_waiting();
  /// The cancel request that came on this connection is under way.
  void cancel_begun(pool::CancelId cancel);
  /// True if its request will be dropped before it is sent to the linked server.
  [[nodiscard]] bool cancel_unsent();

  // ---- online restart (client_handover.cpp) ----
  /// Everything of a Ready client but its server, for another process or from one.
  void transfer(protocol::StateArchive& archive);
  /// Who it is; before transfer().
  void set_names(std::string database, std::string user) {
    database_ = std::move(database);
    user_ = std::move(user);
  }
  /// It has connected and said nothing yet.
  [[nodiscard]] bool silent() const;
  /// Instead of transfer(), for one of whom no more than its names and parameters is known: it is idle.
  void begin_anew();
  /// Goes on, in `context`, as it did in the other process; `server` is the one it was linked to. Its buffers are
  /// looked at when set_suspending() wakes it.
  void take_up(PoolContext& context, ServerSession* server);

  /// Sends a FATAL error and closes.
  void fatal(std::string_view text, std::string_view sqlstate = "08P01");
  /// Closes without a message.
  void disconnect(std::string_view reason);

  [[nodiscard]] State state() const { return state_; }
  [[nodiscard]] pool::ClientId id() const { return id_; }
  [[nodiscard]] ServerSession* server() const { return server_; }
  [[nodiscard]] bool waiting() const { return waiting_; }
  [[nodiscard]] PoolContext* context() const { return context_; }
  [[nodiscard]] const PeerAddress& address() const { return address_; }
  [[nodiscard]] std::uint64_t number() const { return number_; }
  [[nodiscard]] const std::string& database() const { return database_; }
  [[nodiscard]] const std::string& user() const { return user_; }
  [[nodiscard]] TimePoint connected_at() const { return connected_at_; }
  [[nodiscard]] TimePoint last_request() const { return last_request_; }
  [[nodiscard]] TimePoint query_start() const { return query_start_; }
  [[nodiscard]] std::int64_t connect_wall_us() const { return connect_wall_us_; }
  [[nodiscard]] std::string application_name() const;
  [[nodiscard]] std::size_t prepared_statements() const { return statements_ ? statements_->size() : 0; }
  protocol::SessionParameters& parameters() { return parameters_; }
  [[nodiscard]] protocol::ClientStatements* statements() { return statements_.get(); }
  [[nodiscard]] std::string log_name() const;
  [[nodiscard]] Console* console() { return console_.get(); }
  [[nodiscard]] WorkerCore& core() { return *core_; }
  [[nodiscard]] bool in_query() const { return in_query_; }
  /// Set if the connection has brought a cancel request; that is no id where the pools have nothing to do with it.
  [[nodiscard]] std::optional<pool::CancelId> cancel_request() const;
  /// What a server that is opened for this client alone has to be told; null for a client of the pool.
  [[nodiscard]] const std::shared_ptr<const ReplicationStartup>& replication_startup() const { return replication_; }
  [[nodiscard]] Replication replication() const { return replication_ ? replication_->kind : Replication::None; }

  // ---- routing (client_route.cpp) ----
  /// Waits for a server of a database of this group (null: of any), or for one of its hosts to be chosen.
  [[nodiscard]] bool waits_in(const HostGroup* group) const;
  [[nodiscard]] TimePoint waiting_since() const { return wait_start_; }
  [[nodiscard]] bool listed() const { return listed_; }
  void set_listed(bool on) { listed_ = on; }
  /// Its transaction, which has begun, went where it is because that was the primary.
  [[nodiscard]] bool chose_primary() const {
    return route_ && route_->begun && route_->decision.role == HostRole::Primary;
  }
  /// Decides again where it waits.
  void route_again();
  /// What it has sent may be sent again: its server tells it nothing until may_retry() has been asked, or end_guard().
  [[nodiscard]] bool guarded() const { return route_ && route_->guarded; }
  [[nodiscard]] router::Retry may_retry(router::FailureKind failure) const;
  void end_guard();
  /// A read-only error (25006) is delivered to it.
  void learn_from_refusal();
  /// `retry`, as may_retry() has it: what was sent is sent again when the server has been given back or is lost.
  void prepare_retry(router::Retry retry);
  /// It is told an error by a server that was only asked something for it: that is the answer to its request.
  void question_failed() { asks_first_ = false; }
  /// What the server has kept of a statement is out of date. If the client prepares it in this very pipeline, its
  /// Parse, which was answered without the server, has failed after all, and the name is free.
  void forget_untold(std::uint64_t serial);
  /// A Parse of the guarded request has succeeded.
  void note_prepared(const std::string& name, std::uint64_t serial);
  /// ReadyForQuery says that a transaction is over. `wrote`: the server has said so of one of its statements, whatever
  /// the first one was taken for.
  void note_write_end(bool wrote = false);

  // ---- from the server's relay ----
  /// The pool mode and what the client did say that a free server goes back to the pool.
  [[nodiscard]] bool releases_server() const;
  /// It keeps its server between transactions.
  [[nodiscard]] bool keeps_server() const { return pinned_ != PinReason::None; }
  /// Replies for this client.
  void deliver(std::span<const ByteView> pieces);
  /// A tracked parameter changed on the server. `after_reset`: because of RESET or DISCARD ALL, so the client's own
  /// start-up value applies; returns it if the server's value is not to be shown.
  const std::string* take_parameter(std::size_t index, std::string_view value, bool after_reset);
  /// What a request resets is one bit for each tracked parameter, by its index: RESET ALL.
  static constexpr std::uint32_t kResetsAll = ~0U;
  /// What was to be reset has been, by RESET or DISCARD ALL: the start-up values of the parameters whose bits are set
  /// apply again. Those that the client does not expect are told.
  void restore_startup(std::uint32_t which, OutBatch& out);
  /// What became of a Parse of the unnamed statement.
  /// A Sync was answered, or `all` that was owed.
  void segment_done(bool all) {
    segments_done_ = all ? segment_ : segments_done_ + 1;
    settings_open_ = settings_open_ && !all;
  }
  void unnamed_parsed(std::uint32_t serial);
  /// What a server says of it: the types of its parameters, or its result. `schema`: it was asked by us, at that time.
  void unnamed_described(std::uint32_t serial, std::string types);
  void unnamed_described(std::uint32_t serial, std::uint64_t shape, std::optional<std::uint64_t> schema);
  void unnamed_failed(std::uint32_t serial);
  void unnamed_skipped(std::uint32_t serial);
  void count_query_end(TimePoint now, bool transaction_over, Latencies* latencies);

  std::unique_ptr<ClientSession> next_in_place;  ///< SessionTable's

 private:
  friend class ClientLogin;
  enum class Step { Done, NeedMore, Hold };

  std::size_t consume(ByteView in) override;
  void on_output_drained() override;
  [[nodiscard]] std::uint8_t wanted_events() const override;
  [[nodiscard]] bool wants_input() const;

  // relay (client_relay.cpp)
  std::size_t relay(ByteView in);
  void refuse_header(protocol::FrameStatus status, ByteView in);
  std::size_t pass_over(const protocol::FrameHeader& header, ByteView message);
  void flush_to_server(OutBatch& out);
  bool prepare_server(const protocol::FrameHeader& header, ByteView rest, OutBatch& out);
  bool acquire(PoolContext& target);
  bool ask_pool(PoolContext& target, bool again);
  void stop_waiting();
  /// `epoch`: of the board when the pools granted it; none if this worker did.
  bool acquired(const pool::AcquireResult& result, const std::string& error, std::optional<std::uint64_t> epoch = {});
  bool align();
  [[nodiscard]] bool gated() const;
  [[nodiscard]] bool held_at_gate(char type) const;
  bool left_for_another(char type);

  // routing (client_route.cpp)
  void transfer_route(protocol::StateArchive& archive);
  [[nodiscard]] router::TextRules text_rules() const;
  [[nodiscard]] router::RouteRequest look_at(std::string_view sql) const;
  [[nodiscard]] router::RouteRequest look_at(protocol::Statement& statement) const;
  RequestScan scan(ByteView in);
  PoolContext* choose_pool(ByteView in);
  [[nodiscard]] router::RouteDecision decide_route() const;
  PoolContext& pool_of(const router::RouteDecision& decision);
  void begin_routing();
  void enter_pool(PoolContext& pool);
  void count_outstanding(std::optional<router::HostId> host);
  void count_route();
  [[nodiscard]] bool may_still_serve(const router::RouteDecision& decision) const;
  void acquire_again(PoolContext& target);
  [[nodiscard]] TimePoint route_deadline() const;
  [[nodiscard]] std::string no_host_text() const;
  bool accepts_role(ServerSession& server);
  bool still_chosen();
  void give_up_server(ServerSession& server);
  void guard(ByteView in);
  void send_again();
  [[nodiscard]] std::vector<std::string> texts_of(ByteView request);
  void take_route_command(const router::RouteCommand& command);
  Step answer_route_command(const protocol::FrameHeader& header, ByteView message);

  Step take_message(const protocol::FrameHeader& header, ByteView message, OutBatch& out);
  Step take_query(const protocol::FrameHeader& header, ByteView message, OutBatch& out);
  void note_text(std::string_view sql);
  [[nodiscard]] bool replies_known();
  void ask_for_replies();
  std::optional<Step> take_statement_sql(ByteView body, OutBatch& out);
  std::optional<Step> make_within_pipeline(protocol::StatementPtr& statement, OutBatch& out);
  std::optional<Step> take_statement_sql_parse(const protocol::ParseView& view, OutBatch& out);
  bool take_statement_sql_use(protocol::ReplyEntry& entry, OutBatch& out);
  [[nodiscard]] std::uint32_t resets_of(std::string_view sql) const;
  std::optional<Step> take_deallocate_among(ByteView sql, const router::StatementNameUse& use, OutBatch& out);
  void make_deallocated(OutBatch& out);
  void free_name(const std::string& name, protocol::ReplyEntry& entry);
  void push_hidden(protocol::ReplyKind kind);
  void add_hidden_sync(OutBatch& out);
  Step take_parse(const protocol::FrameHeader& header, ByteView message, OutBatch& out);
  Step take_named_parse(const protocol::ParseView& view, OutBatch& out);
  void take_unnamed_parse(const protocol::ParseView* view);
  void drop_unnamed() {
    unnamed_.clear();
    unnamed_hidden_ = false;
  }
  [[nodiscard]] std::uint32_t drop_unnamed_unless_skipped() {
    if (!unnamed_.empty() && server_->ledger().may_skip()) return mark_unnamed_dropped();
    drop_unnamed();
    return 0;
  }
  std::uint32_t mark_unnamed_dropped();
  [[nodiscard]] std::uint32_t next_unnamed_serial();
  [[nodiscard]] bool names_settled();
  void note_names_changing();
  Step take_duplicate_parse(const protocol::ParseView& view, protocol::StatementPtr existing, OutBatch& out);
  void push_mistake(const protocol::ErrorText& error);
  Step take_bind(const protocol::FrameHeader& header, ByteView message, OutBatch& out);
  Step take_unnamed_use(protocol::ReplyKind kind, ByteView message, OutBatch& out);
  Step take_target(const protocol::FrameHeader& header, ByteView message, OutBatch& out);
  bool describe_bound(const protocol::TargetView& target);
  void push_describe(protocol::StatementPtr statement, ByteView name, std::uint64_t serial);
  Step take_named_describe(ByteView name, OutBatch& out);
  Step take_named_close(ByteView name);
  void pass(ByteView message, OutBatch& out) {
    out.add(message);
    stream_forward_ = true;
  }
  void push_entry(protocol::ReplyEntry&& entry) {
    if (!server_->ledger().try_push(entry)) push_skippable(std::move(entry));
  }
  void push_skippable(protocol::ReplyEntry&& entry);
  void push_resetting(protocol::ReplyKind kind, std::uint32_t resets, std::uint32_t unnamed_serial);
  void add_mistake(OutBatch& out, const protocol::ErrorText& error);
  void add_mistake(OutBatch& out, std::string_view sqlstate, std::string_view text);
  [[nodiscard]] std::uint64_t reading_now();
  [[nodiscard]] protocol::StatementPtr as_read_now(const protocol::StatementPtr& statement);
  /// `statement` is another one afterwards if it has to be made under other settings than it was prepared under.
  bool ensure_on_server(protocol::StatementPtr& statement, OutBatch& out, bool quiet);
  std::optional<Step> prepare_use(protocol::ClientStatements::Registration& known, bool& told, OutBatch& out);
  std::optional<Step> make_usable(protocol::ClientStatements::Registration& known, bool& told, OutBatch& out);
  std::optional<Step> check_result(const protocol::ClientStatements::Registration& known, const std::uint64_t* there,
                                   OutBatch& out);
  std::optional<Step> make_unnamed(const ServerSession::UnnamedOwner& mine, OutBatch& out);
  Step describe_hidden(std::string_view name, protocol::ReplyEntry entry, bool first, OutBatch& out);
  Step refuse_result(OutBatch& out);
  Step ask_for_result(const protocol::StatementPtr& statement, const std::uint64_t* there, OutBatch& out);
  [[nodiscard]] bool will_be_skipped() const;
  void make_on_server(const protocol::Statement& statement, std::uint64_t shape, OutBatch& out, bool quiet);
  void push_close_on_server(const protocol::Hash128& key, OutBatch& out);
  void evict_statements(OutBatch& out);
  void count_query_start();
  void log_packet(const protocol::FrameHeader& header) const;
  void log_duration(const char* what, Duration length) const;
  bool drop_cancelled(const protocol::FrameHeader& header);
  std::size_t close_alone(ByteView in);
  void take_spelling(const protocol::ParameterSet& server);

  void log_closing(std::string_view reason);
  void leave();
  void finish_closing();
  [[nodiscard]] TimePoint next_deadline() const;
  [[nodiscard]] TimePoint wait_deadline() const;
  [[nodiscard]] TimePoint query_deadline() const;
  [[nodiscard]] TimePoint login_query_deadline() const;
  [[nodiscard]] TimePoint transaction_deadline() const;
  bool check_wait_timeout(TimePoint now);
  bool check_wait_limits(TimePoint now);
  bool check_query_limits(TimePoint now);
  void become_ready(PoolContext& context);

  /// A client may not name more statements than this; PostgreSQL would run out of memory, we must not.
  static constexpr std::size_t kStatementsMax = 100'000;

  // What every transaction touches comes first, so that it lies in few cache lines.
  pool::ClientId id_;
  State state_ = State::Login;
  bool waiting_ = false;  ///< in the pool's queue
  bool in_query_ = false, in_transaction_ = false;
  bool sent_to_server_ = false;  ///< bytes of this client went to the linked server
  bool stream_forward_ = false;
  bool cancel_pending_ = false;  ///< the next request was cancelled while it waited
  bool skip_to_sync_ = false;    ///< the rest of a cancelled pipeline is dropped
  bool tracks_ = false;          ///< named statements are ours to manage
  bool has_deadlines_ = false;   ///< some timeout of queries or transactions is on
  bool names_changing_ = false;  ///< Parse or Close of names await their replies
  bool unnamed_hidden_ = false;  ///< a hidden Parse of it was sent ...
  bool sql_parse_sent_ = false;  ///< a hidden Parse for a simple query that waits for it
  bool asks_first_ = false;      ///< the server was asked something before the request, all of which is still unread
  bool settings_open_ = false;   ///< what was sent may change settings, unless nothing is owed any more
  bool waited_before_ = false;   ///< in the queue of the process that it was taken over from: it keeps its place
  bool waits_for_host_ = false;  ///< waiting_, for a database none of whose hosts could be chosen
  bool notified_ = false;        ///< query_wait_notify was sent for this wait
  PinReason pinned_ = PinReason::None;
  PoolMode mode_ = PoolMode::Session;  ///< as at login: a reload changes it for later clients
  std::uint32_t segment_ = 0;          ///< number of Syncs so far
  std::size_t stream_left_ = 0;
  ServerSession* server_ = nullptr;
  PoolContext* context_ = nullptr;
  std::unique_ptr<ClientRoute> route_;  ///< null until the first request to a routed database
  TimePoint last_request_{}, wait_start_{}, query_start_{}, transaction_start_{};
  Duration idle_timeout_{};
  std::uint64_t segments_done_ = 0;  ///< parts of the pipeline, up to their Sync, that were answered
  std::unique_ptr<protocol::ClientStatements> statements_;
  protocol::SessionParameters parameters_;

  /// What the client was told of an unnamed statement.
  struct UnnamedTold {
    std::string types;         ///< of its parameters; empty: nothing
    std::uint64_t shape = 0;   ///< of its result; 0: nothing
    std::uint64_t schema = 0;  ///< the number of one with which it has this result
    bool changed = false;      ///< the server has it with another one
  };
  /// An unnamed statement of the client, kept so that it can follow to another server.
  struct Unnamed {
    std::string query, parameter_types;
    std::uint64_t segment = 0;
    std::uint32_t serial = 0;
    bool kept = false;                    ///< false: too long to be kept, or there is none
    bool parsed = false;                  ///< ParseComplete was seen
    bool deallocates = false;             ///< it is a DEALLOCATE ...
    std::string uses{};                   ///< ... or else an EXECUTE, of the client's statement of this name
    std::unique_ptr<UnnamedTold> told{};  ///< null: nothing, so far
  };
  [[nodiscard]] UnnamedTold* told_of_unnamed(std::uint32_t serial);
  /// The latest is the one that counts. Those before it are there while its Parse may still be skipped.
  std::vector<Unnamed> unnamed_;
  std::uint64_t unnamed_hidden_segment_ = 0;  ///< in which part of the pipeline a hidden Parse of it was sent
  std::uint64_t changing_segment_ = 0;
  std::uint32_t next_unnamed_serial_ = 1;
  std::uint32_t bound_resets_ = 0;  ///< what the statement resets that was bound last
  std::string bound_name_;          ///< its name, if something is to be learnt from a description
  bool names_cleared_ = false;      ///< something was sent that may empty the server of prepared statements
  bool listed_ = false;             ///< WorkerCore's bookkeeping: among those who wait for hosts
  bool left_ = false;               ///< the pools know that it is gone
  bool terminated_ = false;         ///< it sent Terminate
  bool output_cut_ = false;         ///< what the client got last is half a message: nothing may be appended

  std::shared_ptr<const StartupOverrides> overrides_;  ///< null: none
  std::unique_ptr<ClientLogin> login_;
  std::unique_ptr<Console> console_;
  std::shared_ptr<const ReplicationStartup> replication_;
  PeerAddress address_;
  std::string database_, user_;
  Duration wait_timeout_{};
  TimePoint closing_at_{};
  TimePoint connected_at_{};
  std::int64_t connect_wall_us_ = 0;
  std::uint64_t number_ = 0;
};

}  // namespace pgweir::core
