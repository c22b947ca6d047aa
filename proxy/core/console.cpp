#include "proxy/core/console.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/message_type.hpp"
#include "proxy/core/admin_format.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/gather.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace frontend = protocol::frontend;

namespace {
constexpr std::size_t kCommandMax = 65536;

/// Messages of a client that the console has no answer to. Any other type is no message of a client at all.
bool is_unsupported(char type) {
  return type == frontend::FunctionCall || type == frontend::CopyData || type == frontend::CopyDone ||
         type == frontend::CopyFail;
}

/// The others might close a connection, or change how it is served, while another process is being told about it.
bool suspending_allows(AdminVerb verb) {
  return verb == AdminVerb::Resume || verb == AdminVerb::Shutdown || verb == AdminVerb::WaitClose ||
         verb == AdminVerb::Disable || verb == AdminVerb::Enable;
}

/// Whether there is such an entry, or a database that came by `*`. RESUME and ENABLE ask, since they do not make one.
bool is_registered(WorkerCore& core, std::string_view database) {
  if (core.config().databases.contains(database)) return true;
  PoolLock pools(core.host());
  const auto rows = pools->database_snapshots();
  return std::any_of(rows.begin(), rows.end(), [&](const auto& row) { return row.name == database; });
}

}  // namespace

Console::Console(ClientSession& client, bool admin) : client_(client), admin_(admin) {}

Console::~Console() {
  WorkerCore& core = client_.core();
  if (suspended_) core.host().process_command({ProcessCommand::Kind::AbandonSuspend, {}, {}, core.id(), client_.id()});
  if (switchover_) end_switchover();
  if (token_ == 0) return;
  PoolLock pools(client_.core().host());
  pools->stop_wait(token_);
}

void Console::welcome(std::uint64_t cancel_key) {
  std::string out;
  protocol::append_authentication_ok(out);
  std::vector<std::pair<std::string, std::string>> own;
  const auto& names = *client_.core().settings()->tracked;
  const auto& values = client_.parameters().tracked->values;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i]) own.emplace_back(names.name(i), *values[i]);
  }
  append_console_welcome(out, own);
  char secret[4];
  protocol::store_u32(secret, static_cast<std::uint32_t>(cancel_key));
  protocol::append_backend_key_data(out, static_cast<std::uint32_t>(cancel_key >> 32), {secret, sizeof secret});
  protocol::append_ready_for_query(out, 'I');
  answer(out);
}

/// `out`: whole messages up to ReadyForQuery.
void Console::answer(std::string& out) {
  if (statements_.running()) out = statements_.finish(out);
  send(out);
}

void Console::send(ByteView out) {
  if (!out.empty()) client_.deliver(std::span<const ByteView>(&out, 1));
}

void Console::done(std::string_view tag) {
  std::string out;
  append_console_done(out, tag);
  busy_ = pausing_ = false;
  token_ = 0;
  answer(out);
  client_.core().wake(client_);
}

void Console::error(std::string_view text, std::string_view sqlstate) {
  std::string out;
  append_console_error(out, text, sqlstate);
  // As in PgBouncer, where the console and the sending of errors each write a line.
  WorkerCore& core = client_.core();
  core.log(LogLevel::Error, std::string(text));
  if (core.config().log_pooler_errors) {
    core.log(LogLevel::Warning, client_.log_name() + fmt::format("pooler error: {}", text));
  }
  busy_ = pausing_ = false;
  token_ = 0;
  answer(out);
  client_.core().wake(client_);
}

std::size_t Console::consume(ByteView in) {
  // Some commands end this very connection, and with it this object, though not the session.
  ClientSession& client = client_;
  std::size_t pos = 0;
  while (pos < in.size() && !busy_) {
    protocol::FrameHeader header;
    const auto status = read_frame_header(in.substr(pos), client_.core().config().max_packet_size, header);
    if (status == protocol::FrameStatus::NeedMore) break;
    if (status == protocol::FrameStatus::BadLength) {
      client_.fatal(fmt::format("bad packet header: '{}'", hex_of(in.substr(pos))));
      return in.size();
    }
    if (header.total() > kCommandMax) {
      client_.fatal("incomplete pkt");
      return in.size();
    }
    if (in.size() - pos < header.total()) break;
    const ByteView body = in.substr(pos + protocol::kHeaderSize, header.body());
    pos += header.total();
    switch (header.type) {
      case frontend::Query: {
        if (statements_.skipping()) break;
        // What follows a zero byte is ignored, as in PgBouncer.
        const std::size_t end = body.find('\0');
        if (end == ByteView::npos) {
          client_.fatal("incomplete query");
          return in.size();
        }
        if (client_.core().config().disable_pqexec) {
          client_.fatal("PQexec disallowed");
          return in.size();
        }
        statements_.on_simple_query();
        run(body.substr(0, end));
        break;
      }
      case frontend::Terminate:
        client_.disconnect("client close request");
        return in.size();
      default:
        if (ConsoleStatements::handles(header.type)) {
          extended(header.type, body);
          break;
        }
        if (!is_unsupported(header.type)) {
          client_.fatal("unknown pkt");
          return in.size();
        }
        error(fmt::format("unsupported packet type for admin console: {}", static_cast<int>(header.type)));
        client_.fatal("bad packet");
        return in.size();
    }
    if (client.state() != ClientSession::State::Console) return in.size();
  }
  return pos;
}

void Console::extended(char type, ByteView body) {
  const ConsoleStatements::Step step = statements_.on_message(type, body);
  if (step.next == ConsoleStatements::Next::BadPacket) return client_.fatal("bad packet");
  ClientSession& client = client_;
  send(step.out);
  if (step.next == ConsoleStatements::Next::Run && client.state() == ClientSession::State::Console) run(step.sql);
}

void Console::run(std::string_view sql) {
  if (client_.core().debugs()) client_.core().log(LogLevel::Debug, fmt::format("got admin query: {}", sql));
  ++client_.core().console_stats().xact_count;
  ++client_.core().console_stats().query_count;
  const AdminCommand command = parse_admin_command(sql);
  if (needs_admin(command) && !admin_) return error("admin access needed");
  if (!command.error.empty()) return error(command.error);
  std::string out;
  switch (command.verb) {
    case AdminVerb::Show:
      return show(command);
    case AdminVerb::FakeShow:
      append_fake_show(out, command.argument);
      break;
    case AdminVerb::SetIgnored:
      append_set_ignored(out);
      break;
    default:
      return act(command);
  }
  protocol::append_ready_for_query(out, 'I');
  answer(out);
}

void Console::act(const AdminCommand& command) {
  if (client_.core().suspending() && !suspending_allows(command.verb)) return error("already suspended/paused");
  switch (command.verb) {
    case AdminVerb::Pause:
      return pause(command);
    case AdminVerb::Resume:
      return resume(command);
    case AdminVerb::Kill:
      return kill(command);
    case AdminVerb::KillClient:
      return kill_client(command);
    case AdminVerb::Reconnect:
      return reconnect(command);
    case AdminVerb::Disable:
      return set_disabled(command, true);
    case AdminVerb::Enable:
      return set_disabled(command, false);
    case AdminVerb::WaitClose:
      return wait_close(command);
    case AdminVerb::Shutdown:
      return shut_down(command);
    case AdminVerb::Suspend:
      return suspend(command);
    case AdminVerb::Switchover:
      return switchover(command);
    case AdminVerb::Reload:
    case AdminVerb::Set: {
      if (command.verb == AdminVerb::Reload) log_issued(command);
      hold(command);
      WorkerCore& core = client_.core();
      const auto kind = command.verb == AdminVerb::Set ? ProcessCommand::Kind::Set : ProcessCommand::Kind::Reload;
      core.host().process_command({kind, command.key, command.value, core.id(), client_.id()});
      return;
    }
    default:
      return error("this command is not supported by this version of pgweir");
  }
}

// PgBouncer's line, in PgBouncer's place: before the database is looked for, so also for some commands that fail.
void Console::log_issued(const AdminCommand& command) {
  std::string words = command.verb == AdminVerb::Shutdown ? "SHUTDOWN" : command_tag(command);
  if (command.shutdown == AdminShutdown::WaitForServers) words += " WAIT_FOR_SERVERS";
  if (command.shutdown == AdminShutdown::WaitForClients) words += " WAIT_FOR_CLIENTS";
  if (!command.argument.empty()) words += fmt::format(" '{}'", command.argument);
  client_.core().log(LogLevel::Log, words + " command issued");
}

bool Console::all_paused() {
  PoolLock pools(client_.core().host());
  return pools->all_paused();
}

void Console::hold(const AdminCommand& command) {
  busy_ = true;
  held_tag_ = command_tag(command);
}

void Console::process_command_done(const std::string& text, const std::string& notice) {
  if (!busy_) return;
  if (!notice.empty()) {
    std::string out;
    append_console_notice(out, notice);
    answer(out);
  }
  if (text.empty()) return done(held_tag_);
  if (held_tag_ == "SUSPEND") suspended_ = false;
  error(text, held_tag_ == "RELOAD" ? "F0000" : "08P01");
}

bool Console::wait_over(std::uint64_t token) {
  if (token_ == 0 || token != token_) return false;
  if (switchover_) {
    token_ = 0;
    drain_next();
    return true;
  }
  done(held_tag_);
  return true;
}

void Console::interrupt() {
  const bool suspending = suspended_ && busy_;
  if (!suspending && (!busy_ || (token_ == 0 && !switchover_))) return;
  WorkerCore& core = client_.core();
  if (suspending) {
    suspended_ = false;
    core.host().process_command({ProcessCommand::Kind::AbandonSuspend, {}, {}, core.id(), client_.id()});
  } else if (switchover_) {
    end_switchover();
  } else {
    PoolLock pools(core.host());
    pools->stop_wait(token_);
    if (pausing_) (void)pools->resume_all(core.now(), core.actions());
  }
  protocol::ErrorText text{.severity = "ERROR", .sqlstate = "57014", .message = "canceled"};
  std::string out;
  protocol::append_error(out, text);
  protocol::append_ready_for_query(out, 'I');
  busy_ = pausing_ = false;
  token_ = 0;
  answer(out);
  core.wake(client_);
}

bool Console::check_database(const AdminCommand& command, const char* verb) {
  WorkerCore& core = client_.core();
  if (command.argument == kConsoleDatabase) {
    error(fmt::format("cannot {} admin db: {}", verb, command.argument));
    return false;
  }
  if (find_database(core.config(), command.argument) == nullptr) {
    error(fmt::format("no such database: {}", command.argument));
    return false;
  }
  core.register_database(command.argument, &client_);
  PoolLock pools(core.host());
  pools->add_database(command.argument);
  return true;
}

void Console::pause(const AdminCommand& command) {
  WorkerCore& core = client_.core();
  if (all_paused()) return error("already suspended/paused");
  log_issued(command);
  if (!command.argument.empty() && !check_database(command, "pause")) return;
  auto result = pool::PoolManager::DatabaseResult::Ok;
  {
    PoolLock pools(core.host());
    if (command.argument.empty()) {
      result = pools->pause_all(core.now(), core.actions());
    } else {
      // A database that is paused may be paused again: the answer then waits for the same servers.
      (void)pools->pause(command.argument, core.now(), core.actions());
    }
  }
  // Another console, on another thread, was faster.
  if (result == pool::PoolManager::DatabaseResult::Already) return error("already suspended/paused");
  hold(command);
  pausing_ = command.argument.empty();
  token_ = core.next_token();
  PoolLock pools(core.host());
  pools->wait_for(pool::PoolManager::WaitFor::NoActiveServers, command.argument, core.id(), token_, core.now(),
                  core.actions());
}

void Console::resume(const AdminCommand& command) {
  WorkerCore& core = client_.core();
  log_issued(command);
  if (!command.argument.empty()) {
    const bool console = command.argument == kConsoleDatabase;
    if (!console && !is_registered(core, command.argument)) {
      return error(fmt::format("no such database: {}", command.argument));
    }
    auto result = pool::PoolManager::DatabaseResult::NotFound;
    if (!console) {
      PoolLock pools(core.host());
      result = pools->resume(command.argument, core.now(), core.actions());
    }
    if (result != pool::PoolManager::DatabaseResult::Ok) {
      return error(fmt::format("database {} is not paused", command.argument));
    }
    return done("RESUME");
  }
  if (core.shutdown() != ShutdownMode::None) return error("pooler is shutting down");
  if (core.suspending()) {
    hold(command);
    core.host().process_command({ProcessCommand::Kind::Resume, {}, {}, core.id(), client_.id()});
    return;
  }
  pool::PoolManager::DatabaseResult result;
  {
    PoolLock pools(core.host());
    result = pools->resume_all(core.now(), core.actions());
  }
  if (result != pool::PoolManager::DatabaseResult::Ok) return error("pooler is not paused/suspended");
  done("RESUME");
}

void Console::kill(const AdminCommand& command) {
  WorkerCore& core = client_.core();
  if (all_paused()) return error("already suspended/paused");
  log_issued(command);
  std::vector<std::string> databases;
  if (!command.argument.empty()) {
    if (!check_database(command, "kill")) return;
    databases.push_back(command.argument);
  }
  {
    // A database that is paused by itself may be killed.
    PoolLock pools(core.host());
    if (command.argument.empty()) {
      for (const auto& [name, entry] : core.config().databases) databases.push_back(name);
      for (const auto& row : pools->database_snapshots()) databases.push_back(row.name);
      std::sort(databases.begin(), databases.end());
      databases.erase(std::unique(databases.begin(), databases.end()), databases.end());
    }
    for (const std::string& name : databases) {
      pools->add_database(name);
      pools->kill(name, "database removed", core.now(), core.actions());
    }
  }
  done("KILL");
}

void Console::kill_client(const AdminCommand& command) {
  WorkerCore& core = client_.core();
  hold(command);
  gather<int>(
      core, [number = command.client_id](WorkerCore& there) { return there.kill_client(number) ? 1 : 0; },
      [asker = client_.id()](WorkerCore& here, const std::vector<int>& found) {
        const bool any = std::find(found.begin(), found.end(), 1) != found.end();
        here.process_command_done(asker, any ? "" : "client not found");
      });
}

void Console::reconnect(const AdminCommand& command) {
  WorkerCore& core = client_.core();
  log_issued(command);
  if (!command.argument.empty() && !check_database(command, "reconnect")) return;
  {
    PoolLock pools(core.host());
    pools->reconnect(command.argument, core.now(), core.actions());
  }
  core.post_to_all([database = command.argument](WorkerCore& there) { there.forget_reports(database); });
  done("RECONNECT");
}

void Console::set_disabled(const AdminCommand& command, bool disabled) {
  WorkerCore& core = client_.core();
  if (command.argument.empty()) return error("a database is required");
  log_issued(command);
  if (!disabled && command.argument != kConsoleDatabase && !is_registered(core, command.argument)) {
    return error(fmt::format("no such database: {}", command.argument));
  }
  if (!check_database(command, disabled ? "disable" : "enable")) return;
  {
    PoolLock pools(core.host());
    (void)pools->set_disabled(command.argument, disabled, core.now());
  }
  done(disabled ? "DISABLE" : "ENABLE");
}

void Console::wait_close(const AdminCommand& command) {
  WorkerCore& core = client_.core();
  log_issued(command);
  if (!command.argument.empty() && command.argument == kConsoleDatabase) {
    return error(fmt::format("cannot wait in admin db: {}", command.argument));
  }
  if (!command.argument.empty() && !check_database(command, "wait in")) return;
  hold(command);
  token_ = core.next_token();
  PoolLock pools(core.host());
  pools->wait_for(pool::PoolManager::WaitFor::NoCloseNeeded, command.argument, core.id(), token_, core.now(),
                  core.actions());
}

void Console::suspend(const AdminCommand& command) {
  WorkerCore& core = client_.core();
  bool paused, database_paused;
  {
    PoolLock pools(core.host());
    paused = pools->all_paused();
    const auto databases = pools->database_snapshots();
    database_paused = std::any_of(databases.begin(), databases.end(), [](const auto& one) { return one.paused; });
  }
  if (paused) return error("already suspended/paused");
  if (database_paused) return error("cannot suspend with paused databases");
  if (core.shutdown() != ShutdownMode::None) return error("pooler is shutting down");
  log_issued(command);
  hold(command);
  suspended_ = true;
  core.host().process_command({ProcessCommand::Kind::Suspend, {}, {}, core.id(), client_.id()});
}

void Console::shut_down(const AdminCommand& command) {
  WorkerCore& core = client_.core();
  log_issued(command);
  auto kind = ProcessCommand::Kind::ShutdownNow;
  if (command.shutdown == AdminShutdown::WaitForServers) kind = ProcessCommand::Kind::ShutdownWaitForServers;
  if (command.shutdown == AdminShutdown::WaitForClients) kind = ProcessCommand::Kind::ShutdownWaitForClients;
  if (kind != ProcessCommand::Kind::ShutdownNow) done("SHUTDOWN");
  core.host().process_command({kind, {}, {}, core.id(), client_.id()});
}

}  // namespace pgweir::core
