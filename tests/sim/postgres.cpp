#include "tests/sim/postgres.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "protocol/message_builder.hpp"
#include "protocol/startup.hpp"

namespace pgweir::sim {

namespace {

std::string encode(const Message& message) {
  std::string bytes(protocol::kHeaderSize, '\0');
  bytes[0] = message.type;
  protocol::store_u32(bytes.data() + 1, static_cast<std::uint32_t>(message.body.size() + 4));
  return bytes + message.body;
}

}  // namespace

Backend::Backend(Postgres& postgres, std::shared_ptr<Link> link, std::uint32_t pid)
    : postgres_(postgres),
      world_(postgres.world()),
      link_(std::move(link)),
      pid_(pid),
      secret_(static_cast<std::uint32_t>(postgres.world().random.next())) {
  link_->attach(this);
  if (postgres.traits().slow_settings) machine_.make_slow();
}

void Backend::on_link() {
  if (!gone_) work_later();
}

void Backend::work_later() {
  if (planned_ || gone_) return;
  planned_ = true;
  world_.after(world_.random.delay(postgres_.traits().work), [this] {
    planned_ = false;
    if (!gone_) work();
  });
}

// A backend is one process: it does one thing at a time, and while it writes it does not read.
void Backend::work() {
  if (link_->broken()) return sleeping_ ? void() : crash();
  if (!out_.empty()) {
    out_.erase(0, link_->peer_write(out_));
    if (!out_.empty()) {
      if (!link_->port_open()) crash();  // EPIPE
      return;
    }
  }
  if (finishing_) return finish();
  if (sleeping_) return;
  read();
  if (gone_ || finishing_) return;
  if (!started_ && !take_first_packet()) {
    if (!gone_ && link_->peer_at_end()) finish();
    return;
  }
  step();
}

void Backend::read() {
  in_ += link_->peer_read(8192);
}

bool Backend::take_first_packet() {
  const protocol::FirstPacket packet = protocol::parse_first_packet(in_, 65535);
  switch (packet.kind) {
    case protocol::FirstPacketKind::NeedMore:
      return false;
    case protocol::FirstPacketKind::SslRequest:
      in_.erase(0, packet.size);
      write("N");
      return false;
    case protocol::FirstPacketKind::CancelRequest: {
      const auto key = protocol::parse_cancel_request(packet.body);
      const std::uint32_t pid = key->pid, secret = protocol::load_u32(key->secret.data());
      in_.clear();
      // The process that answers it signals first and closes then; the requester need not wait for either.
      finishing_ = true;
      world_.after(world_.random.delay(postgres_.traits().connect), [this, pid, secret] {
        postgres_.signal(pid, secret);
        work_later();
      });
      planned_ = true;  // nothing else happens until then
      world_.after(postgres_.traits().connect + Duration(1), [this] {
        planned_ = false;
        if (!gone_) work_later();
      });
      return false;
    }
    case protocol::FirstPacketKind::Startup: {
      const std::string body(packet.body);
      const std::size_t size = packet.size;
      log_in(body);
      if (gone_ || finishing_) return false;
      in_.erase(0, size);
      return true;
    }
    default:
      world_.fail("server input", "bad first packet");
  }
}

void Backend::log_in(std::string_view body) {
  std::vector<protocol::StartupParameter> parameters;
  if (protocol::parse_startup_parameters(body, parameters) != protocol::StartupStatus::Ok) {
    world_.fail("server input", "bad start-up packet");
  }
  Values startup;
  for (const auto& parameter : parameters) {
    if (parameter.name == "database") {
      database_ = std::string(parameter.value);
    } else if (parameter.name == "user") {
      user_ = std::string(parameter.value);
    } else {
      startup[std::string(parameter.name)] = std::string(parameter.value);
    }
  }
  if (postgres_.sessions() >= postgres_.traits().connections_max) {
    postgres_.note_disturbance();
    return send_fatal("53300", "sorry, too many clients already");
  }
  if (world_.random.chance(postgres_.traits().login_failure)) {
    postgres_.note_disturbance();
    switch (world_.random.between(0, 3)) {
      case 0:
        return send_fatal("28P01", "password authentication failed for user");
      case 1:
        return send_fatal("53300", "sorry, too many clients already");
      case 2:
        return send_fatal("57P03", "the database system is starting up");
      default:
        return crash();
    }
  }
  started_ = true;
  std::string out;
  if (const auto refused = machine_.start(startup)) {
    out = encode(*refused);
    finishing_ = true;
    return write(out);
  }
  world_.trace(fmt::format("backend {} starts for {}/{}", pid_, database_, user_));
  protocol::append_authentication_ok(out);
  for (const Message& message : machine_.report()) out += encode(message);
  char secret[4];
  protocol::store_u32(secret, secret_);
  protocol::append_backend_key_data(out, pid_, std::string_view(secret, sizeof secret));
  protocol::append_ready_for_query(out, 'I');
  write(out);
}

void Backend::write(const std::string& bytes) {
  out_ += bytes;
  work_later();
}

void Backend::step() {
  for (Message& message : take_messages(in_)) messages_.push_back(std::move(message));
  switch (machine_.state()) {
    case PgMachine::State::Reading:
      if (messages_.empty()) {
        if (link_->peer_at_end() && link_->peer_readable() == 0) finish();
        if (link_->peer_readable() > 0) work_later();
        return;
      }
      world_.trace(fmt::format("backend {} takes {}", pid_, describe(messages_.front())));
      if (world_.random.chance(postgres_.traits().death)) return crash();
      if (world_.random.chance(postgres_.traits().shutdown)) return terminate();
      machine_.take(std::move(messages_.front()));
      messages_.pop_front();
      break;
    case PgMachine::State::Working:
      machine_.advance();
      break;
    default:
      break;
  }
  for (const Message& message : machine_.take_output()) out_ += encode(message);
  switch (machine_.state()) {
    case PgMachine::State::Ended:
      if (machine_.broken()) world_.fail("server input", fmt::format("backend {} got a message out of place", pid_));
      finishing_ = true;
      break;
    case PgMachine::State::Dead:
      postgres_.note_disturbance();
      world_.trace(fmt::format("backend {} dies", pid_));
      finishing_ = true;
      break;
    case PgMachine::State::Sleeping: {
      sleeping_ = true;
      const std::uint64_t number = ++sleep_;
      world_.after(world_.random.delay(postgres_.traits().sleep) + Duration(1), [this, number] {
        if (gone_ || !sleeping_ || number != sleep_) return;
        sleeping_ = false;
        machine_.wake(false);
        for (const Message& message : machine_.take_output()) out_ += encode(message);
        work_later();
      });
      break;
    }
    default:
      break;
  }
  work_later();
}

void Backend::cancel() {
  if (gone_ || !sleeping_) return;
  world_.trace(fmt::format("backend {}: {} is canceled", pid_, machine_.running()));
  postgres_.on_canceled(pid_, machine_.running());
  sleeping_ = false;
  machine_.wake(true);
  for (const Message& message : machine_.take_output()) out_ += encode(message);
  work_later();
}

void Backend::terminate() {
  if (gone_ || finishing_ || !started_) return;
  postgres_.note_disturbance();
  sleeping_ = false;
  send_fatal("57P01", "terminating connection due to administrator command");
}

void Backend::send_fatal(const char* sqlstate, const char* text) {
  world_.trace(fmt::format("backend {}: {}", pid_, text));
  std::string bytes;
  protocol::append_error(
      bytes, protocol::ErrorText{.severity = "FATAL", .sqlstate = sqlstate, .message = text, .add_v = true});
  finishing_ = true;
  write(bytes);
}

void Backend::crash() {
  if (!link_->broken() && link_->port_open()) postgres_.note_disturbance();
  world_.trace(fmt::format("backend {} crashes", pid_));
  if (world_.random.chance(0.5)) link_->reset();
  finish();
}

void Backend::finish() {
  if (gone_) return;
  gone_ = true;
  link_->peer_close();
  world_.trace(fmt::format("backend {} ends", pid_));
  postgres_.reap(pid_);
}

// ---- Postgres ----

Postgres::Postgres(World& world, PostgresTraits traits, LinkTraits link_traits)
    : world_(world), traits_(traits), link_traits_(link_traits) {}

void Postgres::connect(std::function<void(std::shared_ptr<Link>)> connected) {
  world_.after(world_.random.delay(traits_.connect) + Duration(1), [this, connected = std::move(connected)] {
    if (world_.random.chance(traits_.refuse)) {
      disturbed_ = true;
      connected(nullptr);
      return;
    }
    const std::uint32_t pid = ++last_pid_;
    auto link = std::make_shared<Link>(world_, link_traits_, fmt::format("link of backend {}", pid));
    backends_.emplace(pid, std::make_unique<Backend>(*this, link, pid));
    connected(link);
  });
}

void Postgres::stop_faults() {
  traits_.refuse = traits_.login_failure = traits_.death = traits_.shutdown = 0;
}

std::size_t Postgres::sessions() const {
  return static_cast<std::size_t>(
      std::count_if(backends_.begin(), backends_.end(), [](const auto& entry) { return entry.second->is_session() && !entry.second->gone(); }));
}

void Postgres::signal(std::uint32_t pid, std::uint32_t secret) {
  const auto it = backends_.find(pid);
  if (it != backends_.end() && it->second->secret() == secret) it->second->cancel();
}

void Postgres::reap(std::uint32_t pid) {
  // Its own events may be under way: the object stays until they have found it gone.
  world_.after(std::chrono::seconds(3), [this, pid] { backends_.erase(pid); });
}

}  // namespace pgweir::sim
