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
  startup_ = core.known_startups().find(packet.body);
  if (!startup_) {
    startup_ = read_parameters(packet.body);
    if (!startup_) return;
  } else {
    if (refuse_plaintext()) return;
    if (core.debugs()) log_parameters(packet.body);
  }
  const StartupRequest& request = startup_->request;
  client_.database_ = request.database;
  if (request.user.size() >= kUserNameMax) {
    log_failure(request.user);
    return fail("username too long", "28000");
  }
  client_.user_ = request.user;
  if (packet.minor > 0 || !request.unknown_options.empty()) negotiate(packet.minor);
  check_limits();
}

/// True if the client was told that it has to use TLS.
bool ClientLogin::refuse_plaintext() {
  const Config& config = client_.core_->config();
  if (config.client_tls_sslmode < SslMode::Require || client_.port().is_tls() || client_.address_.is_unix) return false;
  fail("SSL required", "28000");
  return true;
}

/// Null if the client was refused.
std::shared_ptr<KnownStartup> ClientLogin::read_parameters(ByteView body) {
  WorkerCore& core = *client_.core_;
  std::vector<protocol::StartupParameter> parameters;
  if (protocol::parse_startup_parameters(body, parameters) != protocol::StartupStatus::Ok) {
    fail("invalid startup packet layout: expected terminator as last byte", "08P01");
    return nullptr;
  }
  if (refuse_plaintext()) return nullptr;
  if (core.debugs()) log_parameters(body);
  StartupRequest request;
  if (const auto refusal = read_startup(parameters, *core.settings(), request)) {
    fail(refusal->text, refusal->native_sqlstate);
    return nullptr;
  }
  if (core.config().application_name_add_host) {
    add_host(request);
  } else {
    packet_ = std::string(body);
  }
  return std::make_shared<KnownStartup>(std::move(request), core.settings());
}

void ClientLogin::log_parameters(ByteView body) const {
  std::vector<protocol::StartupParameter> parameters;
  if (protocol::parse_startup_parameters(body, parameters) != protocol::StartupStatus::Ok) return;
  for (const auto& [name, value] : parameters) {
    client_.core_->log(LogLevel::Debug, client_.log_name() + fmt::format("got var: {}={}", name, value));
  }
}

/// As the settings are now; a reload may have come since the packet was read.
const KnownStartup& ClientLogin::startup() {
  WorkerCore& core = *client_.core_;
  if (startup_->settings != core.settings()) {
    startup_ = std::make_shared<KnownStartup>(startup_->request, core.settings());
    packet_.clear();  // it was read under others
  }
  return *startup_;
}

// application_name_add_host
void ClientLogin::add_host(StartupRequest& request) const {
  const auto index = protocol::TrackedNames::kApplicationName;
  std::string name = "app";
  for (const auto& [tracked, value] : request.tracked) {
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
  std::erase_if(request.tracked, [&](const auto& entry) { return entry.first == index; });
  request.tracked.emplace_back(index, protocol::clean_application_name(name));
}

// We speak 3.0: newer minor versions and protocol options are declined, as the protocol foresees.
void ClientLogin::negotiate(std::uint16_t minor) {
  (void)minor;
  const auto& unknown = startup_->request.unknown_options;
  const std::vector<std::string_view> names(unknown.begin(), unknown.end());
  std::string message;
  protocol::append_negotiate_protocol_version(message, kProtocol30, names);
  client_.send(ByteView(message));
}

}  // namespace pgweir::core
