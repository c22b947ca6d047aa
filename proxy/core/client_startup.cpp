// The untyped packets that a client begins with, and the parameters in its start-up packet.
#include <fmt/format.h>

#include <algorithm>

#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/message_type.hpp"
#include "protocol/startup.hpp"
#include "proxy/core/client_login.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

using protocol::FirstPacketKind;

namespace {
constexpr std::uint32_t kProtocol30 = 196608;
constexpr std::size_t kUserNameMax = 128;

/// Names in a start-up packet that are no settings. Spelt in another case, as "User", they are settings that do not
/// exist, and must not become the real thing in a packet of ours.
bool is_protocol_parameter(std::string_view lower) {
  return lower == "user" || lower == "database" || lower == "options" || lower == "replication" ||
         lower.substr(0, 5) == "_pq_.";
}
}  // namespace

std::size_t ClientLogin::take_first_packet(ByteView in) {
  WorkerCore& core = *client_.core_;
  const protocol::FirstPacket packet = protocol::parse_first_packet(in, core.config().max_packet_size);
  const bool tls_offered = core.host().tls_available() && !client_.address_.is_unix;
  switch (packet.kind) {
    case FirstPacketKind::NeedMore:
      return 0;
    case FirstPacketKind::DirectTls:
      if (tls_offered && !client_.port().is_tls()) return start_tls(in);
      break;
    case FirstPacketKind::SslRequest:
      if (client_.port().is_tls()) {
        client_.disconnect("SSL request inside TLS");
        return in.size();
      }
      if (!tls_offered) return refuse_encryption(in, packet.size, "received unencrypted data after SSL request");
      if (in.size() > packet.size) {
        fail("received unencrypted data after SSL request", "08P01");
        return in.size();
      }
      client_.send(ByteView("S"));
      (void)start_tls({});
      return packet.size;
    case FirstPacketKind::GssEncRequest:
      return refuse_encryption(in, packet.size, "received unencrypted data after GSSAPI encryption request");
    case FirstPacketKind::CancelRequest:
      take_cancel_request(packet.body);
      return packet.size;
    case FirstPacketKind::ProtocolV2:
      fail("old V2 protocol not supported", "0A000");
      return in.size();
    case FirstPacketKind::Startup:
      take_startup(packet);
      return packet.size;
    case FirstPacketKind::Bad:
      break;
  }
  if (refuse_typed_message(in)) return in.size();
  fail(fmt::format("bad packet header: '{}'", hex_of(in)), "08P01");
  return in.size();
}

// A whole message with a type where the startup packet should be. As in PgBouncer only a password is told of.
bool ClientLogin::refuse_typed_message(ByteView in) {
  protocol::FrameHeader header;
  const auto status = read_frame_header(in, client_.core_->config().max_packet_size, header);
  if (in[0] == '\0' || status != protocol::FrameStatus::Ok || in.size() < header.total()) return false;
  if (header.type == protocol::frontend::PasswordMessage) {
    fail("client password pkt before startup packet", "08P01");
  } else {
    client_.disconnect("unexpected packet before startup");
  }
  return true;
}

std::size_t ClientLogin::start_tls(ByteView in) {
  step_ = Step::Handshake;
  client_.port().start_tls_server(in);
  return in.size();
}

void ClientLogin::tls_ready() {
  if (step_ == Step::Handshake) step_ = Step::FirstPacket;
}

std::size_t ClientLogin::refuse_encryption(ByteView in, std::size_t size, const char* text) {
  if (in.size() > size) {
    fail(text, "08P01");
    return in.size();
  }
  client_.send(ByteView("N"));
  return size;
}

// Never answered; the connection is closed when the request has done what it could.
void ClientLogin::take_cancel_request(ByteView body) {
  const auto key = protocol::parse_cancel_request(body);
  if (!key || key->secret.size() != 4) {
    client_.disconnect("bad cancel request");
    return;
  }
  step_ = Step::Done;
  is_cancel_ = true;
  WorkerCore& core = *client_.core_;
  const std::uint64_t number = (std::uint64_t{key->pid} << 32) | protocol::load_u32(key->secret.data());
  const pool::ClientId requester = client_.id_;
  std::optional<std::pair<pool::ClientId, pool::WorkerId>> owner;
  pool::CancelResult result;
  {
    PoolLock pools(core.host());
    owner = pools->owner_of_key(number);
    if (!owner) result = pools->begin_cancel(number, core.id(), core.now());
  }
  if (owner) {
    // Closed only when it has taken effect: clients take the close for the end of their request.
    core.host().post(owner->second, [target = owner->first, origin = core.id(), requester](WorkerCore& there) {
      there.cancel_client(target, origin, requester);
    });
    return;
  }
  cancel_ = result.cancel;
  if (result.status == pool::CancelStatus::Peer) return core.pass_cancel(result, requester);
  client_.disconnect("cancel request");
}

void ClientLogin::take_startup(const protocol::FirstPacket& packet) {
  WorkerCore& core = *client_.core_;
  if (startup_seen_) return fail("client re-sent startup pkt", "08P01");
  startup_seen_ = true;
  std::vector<protocol::StartupParameter> parameters;
  if (protocol::parse_startup_parameters(packet.body, parameters) != protocol::StartupStatus::Ok) {
    return fail("invalid startup packet layout: expected terminator as last byte", "08P01");
  }
  const Config& config = core.config();
  if (config.client_tls_sslmode >= SslMode::Require && !client_.port().is_tls() && !client_.address_.is_unix) {
    return fail("SSL required", "28000");
  }
  // First of all: what becomes of `options` depends on it, wherever it stands.
  for (const auto& parameter : parameters) {
    if (core.debugs()) {
      core.log(LogLevel::Debug, client_.log_name() + fmt::format("got var: {}={}", parameter.name, parameter.value));
    }
    if (parameter.name == "replication") replication_ = parse_replication(parameter.value);
  }
  // Then the command line, over which what the packet names itself prevails.
  for (const auto& parameter : parameters) {
    if (parameter.name == "options" && !take_parameter(parameter.name, parameter.value)) return;
  }
  std::string_view user, database;
  for (const auto& parameter : parameters) {
    if (parameter.name == "user") {
      user = parameter.value;
    } else if (parameter.name == "database") {
      database = parameter.value;
    } else if (parameter.name != "options" && !take_parameter(parameter.name, parameter.value)) {
      return;
    }
  }
  if (user.empty()) return fail("no username supplied", "28000");
  if (core.config().application_name_add_host) add_host();
  client_.database_ = std::string(database.empty() ? user : database);
  if (user.size() >= kUserNameMax) {
    log_failure(user);
    return fail("username too long", "28000");
  }
  client_.user_ = std::string(user);
  if (packet.minor > 0 || !unknown_options_.empty()) negotiate(packet.minor);
  check_limits();
}

// application_name_add_host
void ClientLogin::add_host() {
  const auto index = protocol::TrackedNames::kApplicationName;
  std::string name = "app";
  for (const auto& [tracked, value] : tracked_) {
    if (tracked == index) name = value;
  }
  const PeerAddress& from = client_.address_;
  if (from.is_unix) {
    WorkerCore& core = *client_.core_;
    name += fmt::format(" - unix({}@{}):{}", from.pid, core.host().host_name(), core.config().listen_port);
  } else {
    const bool v6 = from.host.find(':') != std::string::npos;
    name += v6 ? fmt::format(" - [{}]:{}", from.host, from.port) : fmt::format(" - {}:{}", from.host, from.port);
  }
  std::erase_if(tracked_, [&](const auto& entry) { return entry.first == index; });
  tracked_.emplace_back(index, protocol::clean_application_name(name));
}

bool ClientLogin::take_parameter(std::string_view name, std::string_view value) {
  const Config& config = client_.core_->config();
  if (name == "replication") return true;  // seen by take_startup
  if (name == "options") {
    if (replication_ == Replication::None) return take_options(value);
    options_ = std::string(value);
    return true;
  }
  if (name.substr(0, 5) == "_pq_.") {
    if (unknown_options_.size() < 64) unknown_options_.emplace_back(name);
    return true;
  }
  if (config.ignore_startup_parameters.contains(name)) return true;
  return keep_parameter(name, value, "unsupported startup parameter: {}");
}

bool ClientLogin::take_options(std::string_view options) {
  const Config& config = client_.core_->config();
  std::vector<std::pair<std::string, std::string>> parsed;
  if (!protocol::parse_startup_options(options, parsed)) {
    if (config.ignore_startup_parameters.contains("options")) return true;
    fail("unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed", "0A000");
    return false;
  }
  const bool known_only = config.ignore_startup_parameters.contains("options");
  for (const auto& [name, value] : parsed) {
    if (config.ignore_startup_parameters.contains(name)) continue;
    if (known_only && !client_.core_->settings()->tracked->find(name)) continue;
    if (!keep_parameter(name, value, "unsupported startup parameter in options: {}")) return false;
  }
  return true;
}

bool ClientLogin::keep_parameter(std::string_view name, std::string_view value, const char* refusal) {
  if (!protocol::valid_parameter_name(name) || extras_.size() >= 256) {
    fail(fmt::format(fmt::runtime(refusal), name.substr(0, 64)), "42704");
    return false;
  }
  const auto index = client_.core_->settings()->tracked->find(name);
  if (!index) {
    const std::string lower = protocol::to_lower(name);
    if (is_protocol_parameter(lower)) {
      fail(fmt::format(fmt::runtime(refusal), name.substr(0, 64)), "42704");
      return false;
    }
    extras_[lower] = std::string(value);
    return true;
  }
  std::erase_if(tracked_, [&](const auto& entry) { return entry.first == *index; });
  tracked_.emplace_back(*index, *index == protocol::TrackedNames::kApplicationName
                                    ? protocol::clean_application_name(value)
                                    : std::string(value));
  return true;
}

// We speak 3.0: newer minor versions and protocol options are declined, as the protocol foresees.
void ClientLogin::negotiate(std::uint16_t minor) {
  (void)minor;
  const std::vector<std::string_view> names(unknown_options_.begin(), unknown_options_.end());
  std::string message;
  protocol::append_negotiate_protocol_version(message, kProtocol30, names);
  client_.send(ByteView(message));
}

}  // namespace pgweir::core
