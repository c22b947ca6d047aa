// One server connection as a machine: logs in, then relays replies to the linked client, hiding what is ours, and
// decides when the server is free for the next client. Follows "Message Flow" of the protocol chapter from the client's
// side. Linking and unlinking is asked for by ClientSession and done through WorkerCore; limits and queues belong to
// pool::PoolManager.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "protocol/frame_header.hpp"
#include "protocol/prepared_statements.hpp"
#include "protocol/reply_ledger.hpp"
#include "protocol/session_parameters.hpp"
#include "proxy/core/connection.hpp"
#include "proxy/core/pool_context.hpp"
#include "proxy/core/replication.hpp"

namespace pgweir::core {

class ClientSession;
class ServerLogin;

/// What a hidden query is run for.
enum class HiddenPurpose : std::uint8_t {
  Connect,   ///< connect_query, part of the login; its errors are logged only
  Align,     ///< make the parameters those of the client
  Check,     ///< server_check_query before use
  Reset,     ///< server_reset_query after use
  Rollback,  ///< the client left in mid-transaction
  Lookup,    ///< auth_query
};

/// How a hidden query ended.
struct HiddenResult {
  bool failed = false;
  std::string sqlstate, message;
  router::FailureKind failure = router::FailureKind::Other;
  std::uint16_t columns = 0;
  std::vector<std::optional<std::string>> row;  ///< of Lookup: the last row
  std::size_t rows = 0;
};

class ServerSession final : public Connection {
 public:
  ServerSession(WorkerCore& core, std::unique_ptr<Port> port, pool::ServerId id, PoolContext& context,
                PeerAddress address, ServerTarget target);
  ~ServerSession() override;

  // ---- events ----
  void on_hangup(const std::string& reason) override;
  void on_tls_ready() override;
  void on_key_derived(const KeyQuestion& question, const protocol::Sha256Digest& key);
  void on_timer(TimePoint now) override;
  void on_woken() override;

  // ---- from WorkerCore and ClientSession ----
  /// `started`: when the connect began, for server_connect_timeout.
  void start_login(TimePoint started);
  /// The server is opened for one client, which replicates. Before start_login.
  void dedicate(std::shared_ptr<const ReplicationStartup> startup) { replication_ = std::move(startup); }
  [[nodiscard]] Replication replication() const { return replication_ ? replication_->kind : Replication::None; }
  /// The pool granted this server to `client`.
  void link(ClientSession& client);
  [[nodiscard]] ClientSession* client() const { return client_; }
  /// The linked client is gone (`by_terminate`: it said so). Ends in the pool, in a rollback, or in a close.
  void client_left(bool by_terminate);
  /// True when a message of the linked client may be sent now: nothing of ours is under way.
  [[nodiscard]] bool accepts_messages() const { return hidden_ == 0 && !has_unsent() && !ledger_.full(); }
  /// Sends our own SQL; on_hidden_done of the client or of this follows.
  void run_hidden(std::string_view sql, HiddenPurpose purpose);
  /// Runs the SQL of an alignment, after which the server has `extras`, whether the client is still there or not.
  void run_alignment(std::string_view sql, protocol::ExtraParametersPtr extras) {
    aligning_extras_ = std::move(extras);
    run_hidden(sql, HiddenPurpose::Align);
  }
  /// auth_query with its one parameter; ends like a hidden query.
  void run_lookup(std::string_view sql, std::string_view user);
  /// A query of ours is under way.
  [[nodiscard]] bool runs_hidden() const { return hidden_ > 0; }
  /// Gives the replies of ours whose turn has come, after the client's relay added some.
  void answer_local_now();
  /// The client has sent only the beginning of a message so far: nothing else may be put behind it.
  void set_mid_request(bool cut) { mid_request_ = cut; }
  /// Nothing at all stands in the way of the linked client's next message; otherwise it depends on what it is.
  [[nodiscard]] bool at_ease() const {
    return hidden_ == 0 && !needs_alignment_ && flush_wanted_ && !ledger_.full() && !has_unsent();
  }
  /// Sends what a client's relay gathered.
  void forward(std::span<const ByteView> pieces);
  /// Gives the server back to the pool, after the reset query where one is due; unlinks the client.
  void give_back();
  /// give_back() as soon as what has been read is dealt with.
  void finish_after_input();
  /// The client to which it was granted does not want it; nothing has been sent.
  void take_back();
  /// Closes for good. `reason` goes to the log. `kind` says what it means for the pool.
  void close(std::string_view reason, pool::CloseKind kind = pool::CloseKind::Normal, std::string_view message = {});
  /// server_fast_close: closes as soon as the linked client, which keeps it, is between transactions. The client goes
  /// too, unless nothing of it has reached the server.
  void close_between_transactions();
  /// The linked client is being closed for `reason`; the server goes with it, whatever it is doing.
  void drop_client(std::string_view reason);
  /// Its host is no longer what it was chosen as, or cannot be reached: nothing more is sent there.
  void lose_host();
  /// As close(), for a server that works on something nobody waits for any more. `interrupt` makes it stop; otherwise
  /// it may finish, keeping its permit until then.
  void abandon(std::string_view reason, bool interrupt);
  /// The server is idle and not linked: on its way to another worker.
  void prepare_move();
  void arrive(WorkerCore& core, PoolContext& context);

  // ---- online restart (server_handover.cpp) ----
  /// Everything of a server that has logged in but its client, for another process or from one.
  void transfer(protocol::StateArchive& archive);
  /// Logged in by another process.
  void take_up(pool::ServerId id, ClientSession* client, pool::ClientId client_before);
  /// Nothing of ours is under way on it, and it is not being given back or closed.
  [[nodiscard]] bool at_rest() const;
  [[nodiscard]] bool hung_up() const { return hung_up_; }

  [[nodiscard]] bool needs_alignment() const { return needs_alignment_; }
  void set_aligned() { needs_alignment_ = false; }
  void mark_used(bool in_session_mode) {
    used_ = true;
    session_used_ = in_session_mode;
  }
  /// True once each time the ledger has become full: a Flush then makes the server send the replies it may be holding
  /// back, without which the client would wait for ever.
  [[nodiscard]] bool wants_flush();
  void demand_alignment() { needs_alignment_ = true; }

  protocol::ReplyLedger& ledger() { return ledger_; }
  [[nodiscard]] const protocol::ReplyLedger& ledger() const { return ledger_; }
  protocol::ServerStatements& statements() { return statements_; }
  [[nodiscard]] const protocol::ServerStatements& statements() const { return statements_; }
  protocol::ServerParameters& parameters() { return parameters_; }
  [[nodiscard]] const protocol::ServerParameters& parameters() const { return parameters_; }
  [[nodiscard]] const std::shared_ptr<const ServerReport>& report() const { return report_; }
  [[nodiscard]] char transaction_status() const { return status_; }
  [[nodiscard]] pool::ServerId id() const { return id_; }
  [[nodiscard]] pool::PoolId pool() const { return pool_; }
  [[nodiscard]] pool::ServerLease& lease() { return lease_; }
  [[nodiscard]] PoolContext& context() const { return *context_; }
  [[nodiscard]] const PeerAddress& address() const { return address_; }
  [[nodiscard]] const ServerTarget& target() const { return target_; }
  [[nodiscard]] const pool::BackendKey& key() const { return key_; }
  [[nodiscard]] bool logged_in() const { return login_ == nullptr; }
  /// Where the times of this server's clients are counted: of this worker. Set once it has logged in.
  [[nodiscard]] HostRole role() const { return role_; }
  [[nodiscard]] Latencies* latencies() const { return latencies_; }
  /// No transaction is open, and nothing is owed.
  [[nodiscard]] bool between_transactions() const { return status_ == 'I' && ledger_.idle() && !copy_both_; }
  /// It has been asked what the result of a statement is, and nothing has been sent since.
  [[nodiscard]] bool is_asked() const {
    return !ledger_.empty() && ledger_.newest().kind == protocol::ReplyKind::HiddenDescribe;
  }
  /// A number for the schema that a text meets here which is sent now, as far as is known.
  [[nodiscard]] std::uint64_t schema_now() const;
  [[nodiscard]] bool testing() const { return testing_; }
  /// CopyData goes both ways: replication.
  [[nodiscard]] bool streaming() const { return copy_both_; }
  /// The client has got only the beginning of a reply so far.
  [[nodiscard]] bool mid_message() const { return stream_left_ > 0 && stream_forward_; }
  /// Terminate was sent; only its end is waited for.
  [[nodiscard]] bool ending() const { return terminated_; }
  [[nodiscard]] TimePoint connected_at() const { return connected_at_; }
  [[nodiscard]] TimePoint last_packet() const { return last_packet_; }
  [[nodiscard]] std::uint64_t number() const { return number_; }
  [[nodiscard]] std::int64_t connect_wall_us() const { return connect_wall_us_; }
  /// Undoes what a message changed in the statement tables, because the server skipped it.
  void undo(protocol::ReplyEntry& entry);
  /// DISCARD ALL or DEALLOCATE ALL ran: the server has no prepared statements any more.
  void statement_tables_cleared();
  [[nodiscard]] std::string log_name() const;
  /// At the level of noise; the caller has asked whether that is wanted.
  void log_packet(char type, std::size_t length) const;

  /// Unnamed statement on the server: of which client, and which of its Parses.
  struct UnnamedOwner {
    pool::ClientId client{};
    std::uint32_t serial = 0;
    friend bool operator==(const UnnamedOwner&, const UnnamedOwner&) = default;
  };
  UnnamedOwner unnamed{};

 private:
  friend class ServerLogin;
  enum class Step { Forward, Drop, NeedMore, Stop };

  std::size_t consume(ByteView in) override;
  void on_output_drained() override;
  [[nodiscard]] std::uint8_t wanted_events() const override;

  std::size_t relay(ByteView in);
  enum class Weighed { Undecided, Deliver, Retry, Lost };
  [[nodiscard]] Weighed weigh(ByteView in);
  void take_back_request();
  void end_question();
  [[nodiscard]] std::size_t result_size(ByteView in, std::uint32_t max_packet_size) const;
  Step take_message(const protocol::FrameHeader& header, ByteView message, OutBatch& out);
  Step take_reply(const protocol::FrameHeader& header, ByteView message);
  Step take_description(const protocol::FrameHeader& header, ByteView message);
  Step unexpected(char type);
  Step take_ready(ByteView body, OutBatch& out);
  Step take_error(ByteView body, OutBatch& out);
  bool tell_renamed(ByteView body, const protocol::Statement& statement, std::uint64_t name_serial, OutBatch& out);
  Step take_parameter_status(ByteView body, OutBatch& out);
  Step take_command_complete(ByteView body);
  void note_reset(std::uint32_t possibly, std::uint32_t surely);
  Step take_idle_message(const protocol::FrameHeader& header, ByteView message);
  Step take_hidden(const protocol::FrameHeader& header, ByteView message);
  bool take_hidden_parameter(ByteView body);
  void collect_row(ByteView body);
  void confirm(const protocol::ReplyEntry& entry) {
    if (entry.unnamed_serial != 0 || entry.change) confirm_change(entry);
  }
  void confirm_change(const protocol::ReplyEntry& entry);
  void answer_local(OutBatch& out) {
    if (!ledger_.empty() && protocol::needs_no_reply(ledger_.front().kind)) answer_in_place(out);
  }
  void answer_in_place(OutBatch& out);
  void hidden_done();
  void set_role(HostRole role);
  void protocol_violation(const char* what);
  [[nodiscard]] bool release_if_free();
  void flush_to_client(OutBatch& out);
  void release(pool::ReleaseKind kind);

  // What every transaction touches comes first, so that it lies in few cache lines.
  pool::ServerId id_;
  char status_ = 'I';
  HostRole role_ = HostRole::Unknown;
  std::uint8_t hidden_ = 0;  ///< hidden queries under way
  bool stream_forward_ = false;
  bool needs_alignment_ = false;
  bool flush_wanted_ = true;
  bool mid_request_ = false;
  bool copy_both_ = false;
  bool terminated_ = false;    ///< Terminate was sent, waiting for the end
  bool finish_ = false;        ///< give it back once the input is read
  bool fast_close_ = false;    ///< close between two transactions of the client
  bool discarding_ = false;    ///< what comes is the rest of a request that is run again elsewhere
  bool catalog_seen_ = false;  ///< a statement of the transaction changed the schema
  bool wrote_seen_ = false;    ///< ... or may have changed data, whatever the first one was taken for
  bool ended_seen_ = false;    ///< COMMIT or ROLLBACK, and nothing since
  bool testing_ = false;
  bool session_used_ = false;      ///< used_ by a client in session mode
  bool used_ = false;              ///< a client's messages went to it since the last reset
  bool finish_when_done_ = false;  ///< closing, but what runs may finish
  bool hung_up_ = false;           ///< the socket is dead: nothing can be sent
  bool host_lost_ = false;
  std::uint32_t reset_now_ = 0;  ///< tracked parameters that may have been reset since the last ReadyForQuery
  std::uint32_t restored_ = 0;   ///< those surely reset in this transaction: the client's go back when it commits
  std::size_t stream_left_ = 0;  ///< bytes of the current message still to come
  ClientSession* client_ = nullptr;
  protocol::ReplyLedger ledger_;
  PoolContext* context_;
  pool::ServerLease lease_;
  Latencies* latencies_ = nullptr;
  std::unique_ptr<ServerLogin> login_;
  std::shared_ptr<const ReplicationStartup> replication_;  ///< null: it serves the clients of its pool
  TimePoint last_packet_{}, testing_since_{};
  protocol::ServerParameters parameters_;
  std::string dirty_;  ///< why it must not serve another client; empty: it may
  protocol::ServerStatements statements_;

  pool::PoolId pool_;  ///< the context belongs to a worker, this does not
  PeerAddress address_;
  ServerTarget target_;
  std::shared_ptr<const ServerReport> report_;
  pool::BackendKey key_;
  std::unique_ptr<HiddenResult> hidden_result_;
  protocol::ExtraParametersPtr aligning_extras_;
  TimePoint closing_at_{}, connected_at_{}, login_since_{};
  std::int64_t connect_wall_us_ = 0;
  std::uint64_t number_ = 0;
};

}  // namespace pgweir::core
