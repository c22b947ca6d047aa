#include "proxy/core/handover.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "protocol/state_archive.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/server_session.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace {

constexpr std::size_t kColumns = 15;

template <class Number>
bool read_number(const std::optional<std::string>& text, Number& number) {
  if (!text) return false;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  return error == std::errc{} && end == text->data() + text->size();
}

int digit_of_hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

/// bytea in hex format, as the console sends it; nullopt if it is none.
std::optional<std::string> unhex(const std::optional<std::string>& text) {
  if (!text || text->size() % 2 != 0 || !text->starts_with("\\x")) return std::nullopt;
  std::string bytes;
  bytes.reserve(text->size() / 2);
  for (std::size_t i = 2; i < text->size(); i += 2) {
    const int high = digit_of_hex((*text)[i]), low = digit_of_hex((*text)[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes.push_back(static_cast<char>((high << 4) | low));
  }
  return bytes;
}

std::optional<std::string> digest_text(const protocol::Sha256Digest& digest) {
  return std::string(reinterpret_cast<const char*>(digest.data()), digest.size());
}

void fill_credentials(FdRow& row, const Credentials& known) {
  row.password = known.secret;
  if (!known.scram_keys) return;
  row.scram_client_key = digest_text(known.scram_keys->client_key);
  row.scram_server_key = digest_text(known.scram_keys->server_key);
}

Credentials credentials_in(const FdRow& row) {
  Credentials found;
  found.secret = row.password;
  protocol::ScramKeys keys;
  if (row.scram_client_key && row.scram_client_key->size() == keys.client_key.size() && row.scram_server_key &&
      row.scram_server_key->size() == keys.server_key.size()) {
    std::copy(row.scram_client_key->begin(), row.scram_client_key->end(), keys.client_key.begin());
    std::copy(row.scram_server_key->begin(), row.scram_server_key->end(), keys.server_key.begin());
    found.scram_keys = keys;
  }
  return found;
}

void fill_parameters(FdRow& row, const protocol::ParameterSetPtr& set) {
  using Names = protocol::TrackedNames;
  const auto value = [&](std::size_t index) -> std::optional<std::string> {
    return set && index < set->values.size() ? set->values[index] : std::nullopt;
  };
  row.client_encoding = value(Names::kClientEncoding);
  row.std_strings = value(Names::kStandardConformingStrings);
  row.datestyle = value(Names::kDateStyle);
  row.timezone = value(Names::kTimeZone);
}

void fill_address(FdRow& row, const PeerAddress& address) {
  row.addr = address.is_unix ? "unix" : address.host;
  row.port = address.port;
}

protocol::StateArchive begin_state() {
  protocol::StateArchive archive;
  std::uint32_t format = kHandoverFormat;
  archive(format);
  return archive;
}

/// Behind the format number; nullopt if there is no state or it is in another format.
std::optional<protocol::StateArchive> open_state(const std::optional<std::string>& state) {
  if (!state) return std::nullopt;
  protocol::StateArchive archive(*state);
  std::uint32_t format = 0;
  archive(format);
  if (archive.failed() || format != kHandoverFormat) return std::nullopt;
  return archive;
}

bool fit(const ClientSession& client) {
  if (client.closed() || client.port().is_tls()) return false;
  if (client.silent()) return true;
  return client.state() == ClientSession::State::Ready && client.replication() == Replication::None;
}

bool fit(const ServerSession& server) {
  return server.at_rest() && !server.hung_up() && !server.port().is_tls() && server.replication() == Replication::None;
}

/// Nobody closes the socket of a frozen worker; of another one it might be gone, and its number taken, by the time the
/// row is sent.
std::shared_ptr<const int> descriptor_of(const WorkerCore& core, const Port& port) {
  return core.frozen() ? std::make_shared<const int>(port.descriptor()) : port.duplicate();
}

FdRow client_row(WorkerCore& core, ClientSession& client, bool with_state) {
  FdRow row;
  row.task = "client";
  row.fd = client.port().descriptor();
  row.descriptor = descriptor_of(core, client.port());
  if (client.silent()) return row;
  row.user = client.user();
  row.database = client.database();
  fill_address(row, client.address());
  {
    PoolLock pools(core.host());
    row.cancel = pools->cancel_key(client.id());
  }
  if (client.server() != nullptr) row.link = client.server()->port().descriptor();
  fill_parameters(row, client.parameters().tracked);
  if (client.context() != nullptr) fill_credentials(row, client.context()->credentials);
  if (!with_state) return row;
  protocol::StateArchive archive = begin_state();
  Credentials known = client.context() != nullptr ? client.context()->credentials : Credentials();
  archive(known.password);
  pool::ClientId id = client.id();
  archive(id.index, id.generation);
  client.transfer(archive);
  row.state = archive.take();
  return row;
}

FdRow server_row(WorkerCore& core, ServerSession& server, bool with_state) {
  FdRow row;
  row.task = "server";
  row.fd = server.port().descriptor();
  row.descriptor = descriptor_of(core, server.port());
  row.user = server.context().user;
  row.database = server.context().database;
  fill_address(row, server.address());
  if (server.key().secret.size() == 4) {
    row.cancel = (std::uint64_t{server.key().pid} << 32) | protocol::load_u32(server.key().secret.data());
  }
  if (server.client() != nullptr) row.link = server.client()->port().descriptor();
  fill_parameters(row, server.parameters().tracked);
  fill_credentials(row, server.context().credentials);
  if (!with_state) return row;
  protocol::StateArchive archive = begin_state();
  pool::AdoptedServer known;
  {
    PoolLock pools(core.host());
    known = pools->state_of(server.id());
  }
  std::string host = server.context().host_name;
  archive(known.created, known.last_active, known.close_needed, host);
  server.transfer(archive);
  row.state = archive.take();
  return row;
}

}  // namespace

namespace {

void transfer_process(protocol::StateArchive& archive, ProcessHandover& process) {
  archive(process.statement_hash[0], process.statement_hash[1], process.mock_auth_key);
  const std::size_t clusters = archive.count(process.clusters.size());
  if (!archive.reading()) {
    for (auto& [group, cluster] : process.clusters) {
      std::string name = group;
      archive(name, cluster.timeline, cluster.system_identifier);
    }
    return;
  }
  for (std::size_t i = 0; i < clusters && !archive.failed(); ++i) {
    std::string name;
    router::KnownCluster cluster;
    archive(name, cluster.timeline, cluster.system_identifier);
    process.clusters[name] = cluster;
  }
}

}  // namespace

std::string encode(const ProcessHandover& process) {
  protocol::StateArchive archive = begin_state();
  ProcessHandover copy = process;
  transfer_process(archive, copy);
  return archive.take();
}

std::optional<ProcessHandover> decode_process(const std::string& state) {
  const std::optional<std::string> bytes = state;
  auto archive = open_state(bytes);
  if (!archive) return std::nullopt;
  ProcessHandover process;
  transfer_process(*archive, process);
  return archive->complete() ? std::optional(process) : std::nullopt;
}

bool can_change_over(const ClientSession& client) {
  return fit(client) && (client.server() == nullptr || fit(*client.server()));
}

bool can_change_over(const ServerSession& server) {
  return fit(server) && (server.client() == nullptr || fit(*server.client()));
}

std::vector<FdRow> handover_rows(WorkerCore& core, bool with_state) {
  std::vector<FdRow> rows;
  for (const auto& [id, client] : core.clients()) {
    if (!can_change_over(*client)) continue;
    if (with_state || !client->silent()) rows.push_back(client_row(core, *client, with_state));
  }
  for (const auto& [id, server] : core.servers()) {
    if (can_change_over(*server)) rows.push_back(server_row(core, *server, with_state));
  }
  std::erase_if(rows, [](const FdRow& row) { return row.descriptor == nullptr; });  // no numbers left
  return rows;
}

std::optional<FdRow> read_fd_row(const std::vector<std::optional<std::string>>& values,
                                 std::shared_ptr<const int> descriptor) {
  if (values.size() < kColumns || !values[1]) return std::nullopt;
  FdRow row;
  if (!read_number(values[0], row.fd) || !read_number(values[7], row.link)) return std::nullopt;
  // PgBouncer writes it without a sign although the column's type has one.
  std::int64_t with_sign = 0;
  if (!read_number(values[6], row.cancel)) {
    if (!read_number(values[6], with_sign)) return std::nullopt;
    row.cancel = static_cast<std::uint64_t>(with_sign);
  }
  (void)read_number(values[5], row.port);
  row.task = *values[1];
  row.user = values[2];
  row.database = values[3];
  row.addr = values[4];
  row.client_encoding = values[8];
  row.std_strings = values[9];
  row.datestyle = values[10];
  row.timezone = values[11];
  row.password = values[12];
  row.scram_client_key = unhex(values[13]);
  row.scram_server_key = unhex(values[14]);
  if (values.size() > kColumns) row.state = unhex(values[kColumns]);
  row.descriptor = std::move(descriptor);
  return row;
}

// ---- taking over ----

namespace {

/// What PgBouncer tells of a client, which is idle then.
void read_columns(ClientSession& client, const FdRow& row, const protocol::TrackedNames& names) {
  using Names = protocol::TrackedNames;
  auto set = std::make_shared<protocol::ParameterSet>();
  set->values.resize(names.size());
  set->values[Names::kClientEncoding] = row.client_encoding;
  set->values[Names::kStandardConformingStrings] = row.std_strings;
  set->values[Names::kDateStyle] = row.datestyle;
  set->values[Names::kTimeZone] = row.timezone;
  client.parameters().tracked = std::move(set);
}

bool read_state(ClientSession& client, Newcomer& newcomer, WorkerCore& core) {
  const FdRow& row = newcomer.row;
  auto archive = open_state(row.state);
  if (!archive) {
    read_columns(client, row, *core.settings()->tracked);
    client.begin_anew();
    return row.link == 0;  // whether it is in a transaction, or waits for a reply, nobody has told
  }
  Credentials known;
  (*archive)(known.password);
  (*archive)(newcomer.id_before.index, newcomer.id_before.generation);
  client.transfer(*archive);
  if (known.password)
    core.share_credentials(client.database(), core.pool_user(client.database(), client.user()), known);
  return archive->complete();
}

PoolContext* context_of(const FdRow& row, WorkerCore& core, const std::string& pool_user) {
  if (!row.database) return nullptr;
  core.register_database(*row.database, nullptr);
  PoolContext* context = core.context_for(*row.database, pool_user);
  const Credentials found = credentials_in(row);
  if (context != nullptr && (found.secret || found.scram_keys)) {
    core.share_credentials(context->database, context->user, found);
  }
  return context;
}

}  // namespace

ClientSession* WorkerCore::add_newcomer(Newcomer& newcomer) {
  const FdRow& row = newcomer.row;
  ClientSession& client = client_accepted(std::move(newcomer.port), std::move(newcomer.address));
  if (!row.database) return &client;  // it has not said a word yet
  client.set_names(row.database.value_or(""), row.user.value_or(""));
  const bool understood = read_state(client, newcomer, *this);
  bool bound;
  {
    PoolLock pools(host_);
    // No limit keeps out who was in already; the next login states them.
    const pool::ClientLimits none;
    bound = pools->bind_client(client.id(), client.database(), client.user(), &none) == pool::ClientLimit::Ok &&
            pools->set_cancel_key(client.id(), row.cancel, false);
  }
  if (understood && bound) return &client;
  client.fatal("server conn crashed?", sqlstate("08006"));
  return nullptr;
}

ServerSession* WorkerCore::add_newcomer(Newcomer& newcomer, ClientSession* client, pool::ClientId client_before) {
  const FdRow& row = newcomer.row;
  PoolContext* context = context_of(row, *this, row.user.value_or(""));
  auto archive = open_state(row.state);
  if (context == nullptr || !archive) {
    newcomer.port->close();
    return nullptr;
  }
  pool::AdoptedServer known;
  std::string host;
  (*archive)(known.created, known.last_active, known.close_needed, host);
  // Which host it is on matters here only if it did there, and the other way round.
  if (context->routed() == host.empty()) context = nullptr;
  if (context != nullptr) context = context_named(context->database, context->user, host);
  if (context == nullptr) {
    newcomer.port->close();
    return nullptr;
  }
  auto session = std::make_unique<ServerSession>(*this, std::move(newcomer.port), pool::ServerId{}, *context,
                                                 std::move(newcomer.address), server_target(*context, 0));
  session->transfer(*archive);
  if (!archive->complete()) return nullptr;  // closed with the object
  known.worker = id_;
  known.key = session->key();
  pool::ServerId id;
  {
    PoolLock pools(host_);
    id = pools->adopt_server(context->id, std::move(known), client != nullptr ? client->id() : pool::ClientId{}, now_,
                             actions_);
  }
  ServerSession& server = *servers_.emplace(id, std::move(session)).first->second;
  server.take_up(id, client, client_before);
  return &server;
}

void WorkerCore::take_over(Newcomers newcomers) {
  ClientSession* client = newcomers.client ? add_newcomer(*newcomers.client) : nullptr;
  if (newcomers.client && client == nullptr) {
    if (newcomers.server) newcomers.server->port->close();
    return;
  }
  if (client != nullptr && !newcomers.client->row.database) return;
  PoolContext* context = nullptr;
  if (client != nullptr) {
    context = context_of(newcomers.client->row, *this, pool_user(client->database(), client->user()));
    if (context == nullptr) {
      client->fatal("database removed", sqlstate("57P01"));
      if (newcomers.server) newcomers.server->port->close();
      return;
    }
    PoolLock pools(host_);
    pools->attach_client(client->id(), context->id, now_, actions_);
    pools->note_earlier_logins(context->id);
  }
  const pool::ClientId client_before = client != nullptr ? newcomers.client->id_before : pool::ClientId{};
  ServerSession* server = newcomers.server ? add_newcomer(*newcomers.server, client, client_before) : nullptr;
  if (client == nullptr) return;
  if (newcomers.server && server == nullptr) return client->fatal("server conn crashed?", sqlstate("08006"));
  client->take_up(*context, server);
}

}  // namespace pgweir::core
