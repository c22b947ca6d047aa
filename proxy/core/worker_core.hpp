// One worker's sessions and what they share: the clock of the current batch, statement table, pool contexts, timers,
// and the carrying out of what PoolManager decides. It routes events between sessions; what a session does with them is
// in client_*.cpp and server_*.cpp. Not thread-safe: everything here runs on its own worker; other workers reach it
// through Host::post.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "protocol/salted_password_cache.hpp"
#include "proxy/core/cancel_connection.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/handover.hpp"
#include "proxy/core/key_derivations.hpp"
#include "proxy/core/pool_context.hpp"
#include "proxy/core/port.hpp"
#include "proxy/core/server_session.hpp"
#include "proxy/core/session_table.hpp"
#include "proxy/core/startup_request.hpp"

namespace pgweir::core {

/// Secrets of the process that every worker shares.
struct ProcessKeys {
  protocol::HashKey statement_hash{};  ///< random, drawn once
  std::string mock_auth_key;           ///< random, for challenges to unknown users
  /// Random, of this process only: which schemas changed before it began is not known, and a server connection that it
  /// takes over may have statements from before that.
  std::uint64_t schema = 0;
};

/// Numbers for SHOW: counted in one place for the whole process by handing out ranges.
enum class ShutdownMode : std::uint8_t { None, WaitForServers, WaitForClients };
/// What clients are told that need a server while the process waits for its servers to be free.
inline constexpr std::string_view kServerShutdown = "server shutting down";

class WorkerCore {
 public:
  WorkerCore(pool::WorkerId id, Host& host, std::shared_ptr<const Settings> settings, const ProcessKeys& keys);
  ~WorkerCore();
  WorkerCore(const WorkerCore&) = delete;
  WorkerCore& operator=(const WorkerCore&) = delete;

  // ---- events from the Host ----
  /// Before each batch of events.
  void set_now(TimePoint now) { now_ = now; }
  /// After each event: carries out decisions that concern other sessions than the one that had the event.
  void run_pending();
  /// There is something for run_pending() to do.
  [[nodiscard]] bool has_pending() const { return !actions_.empty() || !woken_.empty() || leases_.has_grants(); }
  /// After each batch: destroys closed sessions. No reference to a session may be kept across it.
  void end_batch();
  /// A client connected. Refuses it itself if max_client_conn is reached.
  ClientSession& client_accepted(std::unique_ptr<Port> port, PeerAddress address);
  void server_connected(pool::ServerId server, std::unique_ptr<Port> port, PeerAddress address);
  /// `detail` is for the log: the operating system's or the resolver's reason; may be empty.
  void server_connect_failed(pool::ServerId server, const std::string& text, const std::string& detail);
  void cancel_connected(std::uint64_t token, std::unique_ptr<Port> port);
  /// As server_connect_failed.
  void cancel_connect_failed(std::uint64_t token, const std::string& text, const std::string& detail);
  /// Answers to Host::check_password and Host::find_host_name; `name` is empty if there is none that is confirmed.
  /// Nothing happens if the client is gone.
  void password_checked(pool::ClientId client, const PasswordVerdict& verdict);
  void host_name_found(pool::ClientId client, const std::string& name);
  /// The outcome of Host::derive_key.
  void key_derived(std::uint64_t number, const protocol::Sha256Digest& key);
  [[nodiscard]] TimePoint next_deadline() const;
  /// How many events the batch has that begins.
  void begin_batch(int events) { leases_.set_busy(events >= kBusyBatch); }
  /// If there are no events until then, end_batch wants to be called with none.
  [[nodiscard]] TimePoint batch_deadline() const { return frozen_ ? pool::kNever : leases_.deadline(); }
  void on_time(TimePoint now);
  void set_settings(std::shared_ptr<const Settings> settings);
  void set_shutdown(ShutdownMode mode);

  // ---- from other workers, through Host::post ----
  void perform(const pool::Action& action);
  void adopt_server(std::unique_ptr<ServerSession> server, pool::ServerId id);
  /// A cancel request for what `client` does came in on worker `origin`, from `requester`.
  void cancel_client(pool::ClientId client, pool::WorkerId origin, pool::ClientId requester);
  /// Passes a request on to another process, as begin_cancel has decided. On the worker where it came in.
  void pass_cancel(const pool::CancelResult& decided, pool::ClientId requester);
  void cancel_finished(pool::ClientId requester);
  /// The request that `requester` brought is under way.
  void cancel_begun(pool::ClientId requester, pool::CancelId cancel);
  void learn_credentials(const std::string& database, const std::string& user, const Credentials& what);
  /// The outcome of Host::process_command for the console `client`; `error` is empty on success.
  void process_command_done(pool::ClientId client, const std::string& error, const std::string& notice = {});
  /// Closes the client with this SHOW CLIENTS id. False if there is none.
  bool kill_client(std::uint64_t number);
  /// A new snapshot of the hosts of a group (host_group_name): sessions that wait are decided on again. A group that is
  /// new here begins with it.
  void set_host_table(const std::string& group, std::shared_ptr<const router::HostTable> table);
  /// What a process after this one must know of the clusters.
  [[nodiscard]] KnownClusters known_clusters() const;
  /// What is known of the catalogue of `dbname`, a name on the servers of the group. Null: nothing any more.
  void set_catalog(const std::string& group, const std::string& dbname,
                   std::shared_ptr<const router::CatalogKnowledge> catalog);
  /// Ends the statistics period of all pools.
  void end_stats_period(Duration length);
  // ---- online restart (worker_restart.cpp, handover.cpp) ----
  /// SUSPEND begins: logged-in clients are not read any more, so that what is under way comes to rest.
  void set_suspending(bool on);
  /// No login, hidden query, move or cancel request is under way, and nobody is being closed.
  [[nodiscard]] bool at_rest() const;
  /// Closes whatever keeps it from that.
  void drop_restless(std::string_view reason);
  /// The same for server connections that are not logged in yet, those of replication excepted: nobody has them.
  void drop_server_logins(std::string_view reason);
  /// No socket is looked at and no time passes any more, or they are again.
  void set_frozen(bool on);
  /// Other processes have the sockets that can change over, and this one forgets them.
  void forget_changed_over();
  /// Takes in those who come from another process; set_suspending(true) before and false after all of them, so that no
  /// client asks for a server while those that are there are not known yet. What cannot go on, for instance because its
  /// database is gone, is closed with a word to the client.
  void take_over(Newcomers newcomers);

  /// Drops every client at once, as for a removed database; reason as PgBouncer's.
  void drop_clients_of(const std::string& database, const std::string& reason);

  // ---- for the sessions of this worker ----
  [[nodiscard]] TimePoint now() const { return now_; }
  [[nodiscard]] Host& host() { return host_; }
  [[nodiscard]] pool::WorkerId id() const { return id_; }
  /// Runs a copy of the task on every worker, later; of this one too, or not.
  void post_to_all(const Task& task);
  void post_to_others(const Task& task);
  [[nodiscard]] const std::shared_ptr<const Settings>& settings() const { return settings_; }
  [[nodiscard]] const Config& config() const { return *settings_->config; }
  [[nodiscard]] protocol::StatementTable& statement_table() { return statement_table_; }
  /// protocol::settings_hash of a client's parameters. Quick where many clients have the same.
  [[nodiscard]] std::uint64_t settings_hash(const protocol::SessionParameters& parameters);
  [[nodiscard]] protocol::SaltedPasswordCache& password_cache() { return password_cache_; }
  [[nodiscard]] const ProcessKeys& keys() const { return keys_; }
  /// A server has changed the schema of its database, or is about to: for all workers.
  void schema_changed(const std::string& dbname);
  /// A statement is about to be sent that may change it: from now on it counts as unsettled, for all workers.
  void schema_may_change(const std::string& dbname);
  /// One of those changes, told by the worker that saw it. Their order does not matter.
  void note_schema_change(const std::string& dbname, std::uint64_t change);
  /// A number for what is known of them: the same on all workers once each has been told. protocol::Statement::Source.
  [[nodiscard]] std::uint64_t schema_of(const std::string& dbname) const;
  /// The last of those changes was so long ago that everybody has made it, also a standby which lags no more than it
  /// may.
  [[nodiscard]] bool schema_settled(const std::string& dbname) const;
  [[nodiscard]] ShutdownMode shutdown() const { return shutdown_; }
  [[nodiscard]] bool suspending() const { return suspending_; }
  [[nodiscard]] bool frozen() const { return frozen_; }
  [[nodiscard]] OutBatch& batch() { return batch_; }
  [[nodiscard]] pool::Actions& actions() { return actions_; }
  [[nodiscard]] pool::WorkerLeases& leases() { return leases_; }
  /// Whoever waits on this worker for one of its servers of this pool waits in the pools' queue from now on.
  void enqueue_waiting(PoolContext& context);
  /// Memory of a short text that is no longer needed, for the next one; its content means nothing.
  [[nodiscard]] std::string& spare_text() { return spare_text_; }
  /// Resumes the input of a session after the current event.
  void wake(Connection& session) { woken_.push_back(&session); }
  /// The session has closed its port; destroyed at the end of the batch.
  void bury(ClientSession& session);
  void bury(ServerSession& session);
  void bury(CancelConnection& session);
  /// Asks for on_timer at `at` or earlier. Cheap if one is pending already.
  void schedule(Connection& session, TimePoint at) { session.alarm().set(alarms_, at); }
  /// The context of pool (database, pool_user); created, also in PoolManager, if new. Null if the database does not
  /// exist.
  PoolContext* context_for(const std::string& database, const std::string& pool_user);
  /// The same for a client that has sent this packet, as `login_user`; quick if it was asked before.
  PoolContext* login_context(KnownStartup& startup, const std::string& login_user);
  /// The part of `home`, the context of a routed database, on one of its hosts; created as above. Null if there is no
  /// such host.
  PoolContext* context_on(PoolContext& home, router::HostId host);
  /// As context_for; `host` as pools know it, empty for the context of clients.
  PoolContext* context_named(const std::string& database, const std::string& pool_user, const std::string& host);
  /// Tells the prober what a server of this context has let slip.
  void witness(const PoolContext& context, router::Witness witness);
  /// A server of this context says what it is.
  void note_role(const PoolContext& context, HostRole role);
  /// A standby refused this text: it is a write from now on, on every worker.
  void learn_write(const PoolContext& context, const std::string& text);
  /// A standby has refused a transaction of this pool because it would have been serializable.
  void learn_serializable(PoolContext& context);
  void learned(const std::string& group, const std::string& dbname, const std::string& text);
  /// Clients that need the primary of this group wait from now on, or no longer (SWITCHOVER).
  void hold_writes(const std::string& group, bool on);
  [[nodiscard]] bool writes_held(const std::string& group) const;
  [[nodiscard]] std::shared_ptr<const router::HostTable> host_table(const std::string& group) const;
  /// The console wants to hear of new snapshots (Console::hosts_changed) from now on.
  void watch_hosts(pool::ClientId console) { watching_hosts_.push_back(console); }
  /// The client has begun to wait for a server of a routed database.
  void note_routed_waiter(ClientSession& client);
  /// Any number, new for each call.
  [[nodiscard]] std::uint64_t random();
  /// Makes a database that came by `*` known for good; on behalf of `client`, if any. Nothing if it is no such or not
  /// new.
  void register_database(const std::string& database, const ClientSession* client);
  /// The user that servers of `database` are used as: the forced one or the client's.
  [[nodiscard]] std::string pool_user(const std::string& database, const std::string& login_user) const;
  /// Draws and registers a cancel key for a console.
  std::uint64_t new_console_key(pool::ClientId client);
  /// The same for a client whose login is complete; it belongs to the pool from now on.
  std::uint64_t admit_client(pool::ClientId client, pool::PoolId pool);
  /// Of the settings in force.
  [[nodiscard]] KnownStartups& known_startups() { return known_startups_; }
  /// What the console tells and remembers of tracked parameters.
  [[nodiscard]] protocol::ParameterSetPtr console_parameters(
      const std::vector<std::pair<std::size_t, std::string>>& own) const;
  /// New logins to this database (empty: all) have to see a fresh server first.
  void forget_reports(const std::string& database);
  /// A name of [databases] has other addresses now (as text): servers of this worker at one that is gone serve nobody
  /// after their present client.
  void addresses_changed(const std::string& name, const std::vector<std::string>& addresses);
  PoolContext* find_context(pool::PoolId pool);
  [[nodiscard]] ClientSession* find_client(pool::ClientId id);
  [[nodiscard]] ServerSession* find_server(pool::ServerId id);
  /// Starts a request that makes the server stop what `server` is doing, so that its connection ends soon.
  void interrupt_server(const ServerSession& server);
  /// What servers of this pool report and which start-up parameters ("name=value" to the server's spelling) they
  /// accept: kept here, and made known to the other workers. Logins that wait for it go on.
  void share_knowledge(PoolContext& context, const std::shared_ptr<const ServerReport>& report,
                       const ParameterList& accepted);
  void learn(const std::string& database, const std::string& user, const std::shared_ptr<const ServerReport>& report,
             const ParameterList& accepted);
  void share_credentials(const std::string& database, const std::string& user, const Credentials& what);
  void log(LogLevel level, std::string text) { host_.log(level, std::move(text)); }
  /// Lines of these levels are put together only for somebody who wants them; cheap enough for every message.
  [[nodiscard]] bool debugs() const { return verbose_ >= 1; }
  [[nodiscard]] bool noisy() const { return verbose_ >= 2; }
  [[nodiscard]] PoolStats& console_stats() { return console_stats_; }
  [[nodiscard]] const StatsPeriod& console_period() const { return console_period_; }
  /// Names something of this worker that is waited for.
  [[nodiscard]] std::uint64_t next_token() { return ++token_; }
  /// SQLSTATE for an error of our own: 08P01 as PgBouncer, or the proper one with native_sqlstate.
  [[nodiscard]] std::string_view sqlstate(std::string_view native) const {
    return config().native_sqlstate ? native : std::string_view("08P01");
  }
  // ---- keys of passwords (worker_keys.cpp) ----
  /// Has a key derived, for as long as the request lives: the session of `waiter` hears of it by on_key_derived.
  [[nodiscard]] KeyDerivations::Request derive_key(const KeyWaiter& waiter, KeyQuestion question);
  /// The secret made of a plain-text password; null until remember_scram_secret. Valid during the event.
  [[nodiscard]] const protocol::ScramSecret* known_scram_secret(const std::string& user,
                                                                const std::string& password) const;
  void remember_scram_secret(const std::string& user, const std::string& password, protocol::ScramSecret secret);
  [[nodiscard]] const KeyDerivations& key_derivations() const { return key_derivations_; }

  [[nodiscard]] const SessionTable<ClientSession>& clients() const { return clients_; }
  [[nodiscard]] const std::unordered_map<pool::ServerId, std::unique_ptr<ServerSession>>& servers() const {
    return servers_;
  }
  [[nodiscard]] const std::map<pool::PoolId, std::unique_ptr<PoolContext>>& contexts() const { return contexts_; }
  [[nodiscard]] const std::map<std::string, HostGroup, std::less<>>& host_groups() const { return host_groups_; }
  /// What a host of a routed database is, as far as is known: a word of SHOW.
  [[nodiscard]] std::string_view role_of_host(const DatabaseConfig& database, const HostPort& host) const;
  [[nodiscard]] const std::unordered_map<std::uint64_t, std::unique_ptr<CancelConnection>>& cancels() const {
    return cancels_;
  }
  [[nodiscard]] std::size_t known_credentials() const { return credentials_.size(); }

 private:
  /// From so many events at once on a worker has so much to do that it is worth while to keep servers for its clients.
  static constexpr int kBusyBatch = 4;

  ClientSession* add_newcomer(Newcomer& newcomer);
  ServerSession* add_newcomer(Newcomer& newcomer, ClientSession* client, pool::ClientId client_before);
  void connect_timeout(pool::ServerId server);
  void start_cancel(const pool::CancelResult& decided, pool::WorkerId origin, pool::ClientId requester);
  void open_cancel(CancelConnection::Job job);
  void connect_cancel(CancelConnection& connection);
  [[nodiscard]] CancelConnection* find_cancel(pool::CancelId cancel);
  void forget_pool(pool::PoolId pool);
  [[nodiscard]] bool in_use(const PoolContext& context) const;
  void perform_local(const pool::Action& action);
  void open_server(const pool::Action& action);
  void grant(const pool::Action& action);
  void carry_out(const pool::WorkerLeases::Grant& grant);
  /// The client has waited for the server, which is its now.
  void hand_over(ServerSession& server, ClientSession& client, bool needs_check);
  void enqueue(const pool::WorkerLeases::Overdue& clients);
  void answer_offers();
  void settle_leases();
  void move_server(const pool::Action& action);
  void remember(PoolContext& context, const std::shared_ptr<const ServerReport>& report, const ParameterList& accepted);
  void derive_next();
  [[nodiscard]] std::uint64_t draw_cancel_key();

  HostGroup& host_group(const std::string& name);
  Catalog& catalog_of(HostGroup& group, const std::string& dbname);
  PoolContext* add_context(std::unique_ptr<PoolContext> context, const DatabaseConfig& entry);
  void join_group(PoolContext& context);
  static void take_isolation(PoolContext& context);
  /// All stood still, and goes on: what was heard of the hosts meanwhile takes effect.
  void take_up_hosts();
  void role_changed(HostGroup& group, router::HostId host);
  void drop_lost_servers(HostGroup& group);
  void end_login_pauses(const HostGroup& group);
  void route_again(const HostGroup* group);
  /// Which of the database's hosts the next server of this context is opened on: an index, to be taken modulo.
  /// `turn`: of the addresses of an entry that is not routed, as the pools count them.
  /// Nothing: no host is known to be what it has to be.
  [[nodiscard]] std::optional<std::size_t> host_for_server(PoolContext& context, std::uint64_t turn);

  pool::WorkerId id_;
  Host& host_;
  std::shared_ptr<const Settings> settings_;
  ProcessKeys keys_;
  void share_schema_change(const std::string& dbname, std::uint64_t change);

  struct Schema {
    std::uint64_t number = 0;  ///< the sum of its changes
    TimePoint changed{};       ///< the last of them
  };
  std::unordered_map<std::string, Schema> schemas_;  ///< of databases whose schema has changed; bounded
  TimePoint any_schema_changed_{};                   ///< of one that is not there, for want of room
  ShutdownMode shutdown_ = ShutdownMode::None;
  bool suspending_ = false, frozen_ = false;
  int verbose_;  ///< of the settings
  TimePoint now_{};
  protocol::StatementTable statement_table_;
  struct HashedSettings {
    protocol::SessionParameters of;
    std::shared_ptr<const protocol::TrackedNames> names;
    std::uint64_t hash = 0;
  } hashed_settings_;  ///< the last that was asked for
  protocol::SaltedPasswordCache password_cache_;
  std::unordered_map<std::string, protocol::ScramSecret> scram_secrets_;
  KeyDerivations key_derivations_;  ///< before the sessions, whose logins have requests in it
  KnownStartups known_startups_;
  std::uint64_t contexts_epoch_ = 0;  ///< counts the contexts that have gone
  OutBatch batch_;
  std::string spare_text_;
  pool::Actions actions_, performing_;
  pool::WorkerLeases leases_;
  std::vector<pool::WorkerLeases::Grant> granting_;
  LeaseTeller lease_teller_{leases_, now_, actions_};
  std::vector<pool::PoolId> offers_, offering_;  ///< OfferIdle, answered at the end of the batch
  std::vector<Connection*> woken_, waking_;
  pool::DeadlineHeap alarms_;  ///< before those who have places in it
  PoolStats console_stats_;    ///< of its clients on this worker
  StatsPeriod console_period_;
  std::uint64_t token_ = 0;
  std::uint64_t random_ = 0;
  std::vector<pool::ClientId> routed_waiters_;  ///< of routed databases; some of them have gone on meanwhile
  std::vector<pool::ClientId> watching_hosts_;  ///< consoles; some of them no longer do

  std::map<std::string, HostGroup, std::less<>> host_groups_;
  std::map<pool::PoolId, std::unique_ptr<PoolContext>> contexts_;
  std::unordered_map<std::string, PoolContext*> context_by_name_;  ///< "database\0user"
  SessionTable<ClientSession> clients_;
  std::unordered_map<pool::ServerId, std::unique_ptr<ServerSession>> servers_;
  struct Connecting {
    Connecting(pool::ServerId server, pool::PoolId of, ServerTarget to, TimePoint now,
               std::shared_ptr<const ReplicationStartup> dedicated)
        : alarm(server), pool(of), target(std::move(to)), started(now), replication(std::move(dedicated)) {}
    Alarm alarm;
    pool::PoolId pool;
    ServerTarget target;
    TimePoint started;
    std::shared_ptr<const ReplicationStartup> replication;  ///< null: for the clients of the pool
  };
  std::unordered_map<pool::ServerId, Connecting> connecting_;
  std::unordered_map<std::string, Credentials> credentials_;  ///< by "database\0user"
  std::unordered_map<std::uint64_t, std::unique_ptr<CancelConnection>> cancels_;
  std::uint64_t next_token_ = 1;
  std::size_t next_peer_host_ = 0;
  std::vector<std::unique_ptr<Connection>> graveyard_;
};

}  // namespace pgweir::core
