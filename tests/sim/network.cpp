// The byte pipes, and the backends at their far end.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/message_view.hpp"
#include "protocol/startup.hpp"
#include "tests/sim/messages.hpp"
#include "tests/sim/world.hpp"

namespace pgweir::sim {

// ---- Link ----

Link::Link(World& world, pool::WorkerId worker)
    : world_(world),
      number_(++world.last_link_),
      worker_(worker),
      capacity_(static_cast<std::size_t>(world.rng().between(16, static_cast<std::int64_t>(world.plan().pipe_max)))) {}

void Link::plan_to_proxy() {
  if (planned_to_proxy_ || proxy_closed_ || !attached_) return;
  planned_to_proxy_ = true;
  world_.at(Duration(world_.rng().between(1, world_.plan().network_max.count())),
            [self = shared_from_this()] { self->deliver_to_proxy(); });
}

void Link::plan_to_far() {
  if (planned_to_far_ || far_closed_) return;
  planned_to_far_ = true;
  world_.at(Duration(world_.rng().between(1, world_.plan().network_max.count())),
            [self = shared_from_this()] { self->deliver_to_far(); });
}

void Link::far_send(std::string bytes) {
  if (far_closed_ || proxy_closed_) return;
  to_proxy_ += bytes;
  plan_to_proxy();
}

void Link::far_close(bool reset) {
  far_closed_ = true;
  far_ = nullptr;
  if (reset) {
    reset_ = true;
    to_proxy_.clear();
  }
  to_far_.clear();
  plan_to_proxy();
  plan_writable();
}

// An orderly end is told to who reads or asks for it; a reset to everybody, like EPOLLHUP.
void Link::tell_end() {
  if (end_told_ || !(read_ || hangup_ || reset_)) return;
  end_told_ = true;
  session_->on_hangup("client unexpected eof");
  world_.settle(worker_);
}

bool Link::is_cut() const {
  return host_ && world_.cluster()->is_cut(*host_);
}

void Link::resume() {
  if (!to_proxy_.empty() || far_closed_) plan_to_proxy();
  if (!to_far_.empty() || proxy_closed_ || half_closed_) plan_to_far();
}

void Link::deliver_to_proxy() {
  planned_to_proxy_ = false;
  if (is_cut()) return;
  if (proxy_closed_ || !attached_ || session_ == nullptr || end_told_) return;
  if (to_proxy_.empty() || !read_) {
    if (far_closed_ && (to_proxy_.empty() || hangup_)) tell_end();
    return;
  }
  const std::size_t most = std::min(to_proxy_.size(), world_.plan().read_max);
  const std::size_t size = world_.rng().chance(70) ? most : 1 + world_.rng().below(most);
  const std::string chunk = to_proxy_.substr(0, size);
  to_proxy_.erase(0, chunk.size());
  if (!to_proxy_.empty()) ++split_deliveries_;
  session_->receive(chunk);
  world_.settle(worker_);
  if (!to_proxy_.empty() || far_closed_) plan_to_proxy();
}

std::size_t Link::write(std::span<const core::ByteView> pieces) {
  world_.check_in_charge("writes to one");
  std::size_t total = 0;
  for (const core::ByteView piece : pieces) total += piece.size();
  if (half_closed_) world_.fail("wrote to a connection whose direction it had ended");
  if (far_closed_ || proxy_closed_) {
    if (host_) note_begun(pieces);
    return total;
  }
  std::size_t room = capacity_ > to_far_.size() ? capacity_ - to_far_.size() : 0;
  if (world_.rng().chance(10)) room /= 2;
  std::size_t accepted = 0;
  for (const core::ByteView piece : pieces) {
    const std::size_t n = std::min(room - accepted, piece.size());
    to_far_.append(piece.substr(0, n));
    accepted += n;
    if (host_ && far_ != nullptr) far_->on_written(piece.substr(0, n));
  }
  if (!to_far_.empty()) plan_to_far();
  if (host_ && accepted > 0 && accepted < total) note_begun(pieces);
  return accepted;
}

// The proxy cannot know that the server is gone, or what became of the beginning of a message.
void Link::note_begun(std::span<const core::ByteView> pieces) {
  std::string bytes;
  for (const core::ByteView piece : pieces) bytes += piece;
  for (const std::string& mark : find_marks(bytes)) world_.cluster()->history().begun(mark);
}

void Link::plan_writable() {
  if (!write_ || planned_writable_ || proxy_closed_ || to_far_.size() >= capacity_) return;
  planned_writable_ = true;
  world_.at(Duration(1), [self = shared_from_this()] { self->tell_writable(); });
}

void Link::tell_writable() {
  planned_writable_ = false;
  if (proxy_closed_ || !attached_ || !write_ || session_ == nullptr) return;
  session_->writable();
  world_.settle(worker_);
  plan_writable();
}

void Link::set_interest(bool read, bool write, bool hangup) {
  read_ = read;
  write_ = write;
  hangup_ = hangup;
  if ((read_ && !to_proxy_.empty()) || far_closed_) plan_to_proxy();
  plan_writable();
}

void Link::close() {
  if (proxy_closed_) return;
  world_.check_in_charge("closes one");
  proxy_closed_ = true;
  session_ = nullptr;
  to_proxy_.clear();
  plan_to_far();
}

void Link::shutdown_write() {
  half_closed_ = true;
  plan_to_far();
}

void Link::set_worker(pool::WorkerId worker) {
  worker_ = worker;
  attached_ = true;
  if (!to_proxy_.empty() || far_closed_) plan_to_proxy();
  plan_writable();
}

void Link::deliver_to_far() {
  planned_to_far_ = false;
  if (far_closed_ || far_ == nullptr) return;
  if (is_cut() || (host_ && world_.cluster()->is_frozen(*host_))) return;
  if (!to_far_.empty()) {
    const std::size_t size = 1 + world_.rng().below(to_far_.size());
    const std::string chunk = to_far_.substr(0, world_.rng().chance(70) ? to_far_.size() : size);
    to_far_.erase(0, chunk.size());
    far_->on_bytes(chunk);
    if (far_closed_) return;
    plan_writable();
  }
  if (!to_far_.empty() || proxy_closed_ || half_closed_) {
    if (to_far_.empty()) {
      if (!far_told_) {
        far_told_ = true;
        far_->on_end();
      }
      return;
    }
    plan_to_far();
  }
}

// ---- Backend ----

Backend::Backend(World& world, std::shared_ptr<Link> link, std::optional<int> host)
    : world_(world), link_(std::move(link)), host_(host) {
  link_->attach_far(this);
  if (!host_) return;
  link_->set_host(*host_);
  world_.cluster()->add_link(*host_, link_);
  world_.cluster()->add_backend(*host_, *this);
}

Backend::~Backend() {
  link_->detach_far();
  if (host_) world_.cluster()->remove_backend(*host_, *this);
}

// What it belongs to for the limits: each host has a pool of its own.
std::string Backend::counted_as() const {
  return host_ ? fmt::format("{}@{}", database_, *host_) : database_;
}

// The checkers look at every whole message behind the start-up packets.
void Backend::on_written(std::string_view bytes) {
  bool began_before = !written_.empty();
  written_ += bytes;
  while (!written_startup_) {
    const protocol::FirstPacket packet = protocol::parse_first_packet(written_, 65535);
    if (packet.kind == protocol::FirstPacketKind::NeedMore) return;
    written_startup_ = packet.kind != protocol::FirstPacketKind::SslRequest;
    written_.erase(0, packet.size);
  }
  protocol::FrameHeader header;
  while (read_frame_header(written_, 1U << 30, header) == protocol::FrameStatus::Ok &&
         written_.size() >= header.total()) {
    History::Sent sent;
    sent.type = header.type;
    sent.worker = link_->worker();
    sent.host = *host_;
    sent.in_block = std::exchange(began_before, false) || !session_.idle() || session_.in_transaction();
    sent.told_hot_standby = session_.hot_standby_told();
    sent.marks = find_marks(std::string_view(written_).substr(5, header.body()));
    if (!sent.marks.empty()) world_.cluster()->history().sent(sent);
    written_.erase(0, header.total());
  }
}

void Backend::on_bytes(const std::string& bytes) {
  if (over_) return;
  if (!started_) {
    startup_ += bytes;
    take_startup();
    return;
  }
  if (scram_) return take_proof(bytes);
  check_received(bytes);
  session_.input(bytes);
  go_on();
}

// What a replicating client's server gets is what the client sent, byte for byte, and at the end a Terminate.
void Backend::check_received(const std::string& bytes) {
  if (owner_.empty()) return;
  received_ += bytes;
  const std::string& sent = world_.sent_by(owner_);
  const auto [differs, unused] = std::mismatch(received_.begin(), received_.end(), sent.begin(), sent.end());
  std::string terminate;
  protocol::append_terminate(terminate);
  if (!terminate.starts_with(std::string(differs, received_.end()))) {
    world_.fail("the server of " + owner_ + " got what its client did not send");
  }
  if (differs != received_.begin()) world_.backend_used(owner_, pid_);
}

// False if the server refuses it.
bool Backend::begin_replication(const Parameters& startup) {
  Parameters settings = startup;
  for (const char* name : {"user", "database", "replication", "owner", "options"}) settings.erase(name);
  std::vector<std::pair<std::string, std::string>> options;
  if (const auto it = startup.find("options"); it != startup.end()) {
    if (!protocol::parse_startup_options(it->second, options)) world_.fail("a backend got bad options");
  }
  Parameters from_options;
  for (const auto& [name, value] : options) from_options[name] = value;
  settings.merge(from_options);  // what the packet names itself prevails
  owner_ = startup.at("owner");
  session_.start(settings);
  return std::none_of(settings.begin(), settings.end(), [](const auto& one) { return one.second == "bad"; });
}

void Backend::take_startup() {
  const protocol::FirstPacket packet = protocol::parse_first_packet(startup_, 65535);
  switch (packet.kind) {
    case protocol::FirstPacketKind::NeedMore:
      return;
    case protocol::FirstPacketKind::SslRequest:
      startup_.erase(0, packet.size);
      link_->far_send("N");
      return;
    case protocol::FirstPacketKind::CancelRequest: {
      const auto key = protocol::parse_cancel_request(packet.body);
      Backend* target = world_.find_backend(key->pid, protocol::load_u32(key->secret.data()));
      world_.trace(fmt::format("cancel request for backend {}", key->pid));
      if (target != nullptr) target->cancel();
      return finish();
    }
    case protocol::FirstPacketKind::Startup:
      break;
    default:
      world_.fail("a backend got a bad first packet");
  }
  std::vector<protocol::StartupParameter> parameters;
  if (protocol::parse_startup_parameters(packet.body, parameters) != protocol::StartupStatus::Ok) {
    world_.fail("a backend got a bad start-up packet");
  }
  Parameters startup;
  for (const auto& parameter : parameters) startup[std::string(parameter.name)] = std::string(parameter.value);
  if (startup.size() != parameters.size()) world_.fail("a backend got a start-up parameter twice");
  database_ = startup["database"];
  if (startup.contains("replication") && !begin_replication(startup)) {
    return refuse("22023", "invalid value for parameter");
  }
  if (host_ && world_.cluster()->host(*host_).starting) return refuse("57P03", "the database system is starting up");
  started_ = counted_ = true;
  pid_ = world_.next_pid();
  if (host_) {
    data_ = std::make_unique<BackendData>(*world_.cluster(), *host_, pid_);
    session_.attach(*data_, world_.cluster()->host(*host_).recovers);
  }
  if (world_.schema() != nullptr) session_.know_schema(*world_.schema(), [this] { return world_.now(); });
  secret_ = static_cast<std::uint32_t>(world_.rng().next());
  world_.trace(fmt::format("backend {} started for {}", pid_, counted_as()));
  world_.backend_started(*this, pid_);
  startup_.erase(0, packet.size);
  if (world_.plan().scram) return ask_for_password();
  welcome();
}

// Its salt is now and then another: somebody has set the password anew.
void Backend::ask_for_password() {
  const std::string salt = fmt::format("salt {}", world_.rng().below(3));
  const auto secret = protocol::make_scram_secret(world_.crypto(), password_of("user"), 4096, salt);
  scram_ = std::make_unique<protocol::ScramServer>(world_.crypto(), secret, false, fmt::format("server-{}", pid_));
  std::string out;
  const std::string_view mechanism = protocol::kScramMechanism;
  protocol::append_authentication_sasl(out, {&mechanism, 1});
  link_->far_send(std::move(out));
}

void Backend::take_proof(const std::string& bytes) {
  startup_ += bytes;
  for (const Message& message : take_messages(startup_)) {
    if (message.type != 'p') world_.fail("a backend that asked for a password got something else");
    std::string out;
    if (const auto initial = protocol::parse_sasl_initial_response(message.body); initial && initial->data) {
      const auto first = scram_->first(initial->mechanism, *initial->data);
      if (!first) world_.fail("a backend got a bad SASLInitialResponse");
      protocol::append_authentication_sasl_continue(out, *first);
      link_->far_send(std::move(out));
      continue;
    }
    const auto result = scram_->final(message.body);
    if (!result.ok) world_.fail("a backend was shown a wrong proof");
    scram_.reset();
    protocol::append_authentication_sasl_final(out, result.server_final);
    link_->far_send(std::move(out));
    return welcome();
  }
}

void Backend::welcome() {
  std::string out;
  protocol::append_authentication_ok(out);
  session_.append_report(out);
  char secret[4];
  protocol::store_u32(secret, secret_);
  protocol::append_backend_key_data(out, pid_, {secret, 4});
  protocol::append_ready_for_query(out, 'I');
  link_->far_send(std::move(out));
  session_.input(std::exchange(startup_, {}));
  go_on();
}

// One message per event, so that time passes between them.
void Backend::go_on() {
  if (over_ || planned_ || sleeping_) return;
  planned_ = true;
  discarding_ = session_.next().starts_with("QDISCARD ALL");
  world_.at(Duration(world_.rng().between(1, discarding_ && world_.rng().chance(30) ? 50'000 : 100)),
            [this] { take_step(); });
}

void Backend::take_step() {
  planned_ = discarding_ = false;
  if (over_ || (host_ && world_.cluster()->is_frozen(*host_))) return;
  if (world_.faults() && world_.rng().per_mille(world_.plan().backend_death)) return die();
  // The tokens of replicating clients begin with r.
  if (owner_.empty() && session_.next().find(" r1.") != std::string::npos) {
    world_.fail("a server of a pool got a replicating client's request");
  }
  if (!session_.next().empty()) world_.trace(fmt::format("backend {} takes {}", pid_, session_.next()));
  const PgSession::Step step = session_.step();
  std::string out = session_.take_output();
  if (!out.empty() && owner_.empty()) out.insert(0, world_.notice());
  if (!out.empty()) link_->far_send(std::move(out));
  if (step == PgSession::Step::Closed) return finish();
  if (step == PgSession::Step::Progress) return go_on();
  if (step != PgSession::Step::Sleeping) return;
  sleeping_ = true;
  const std::uint64_t sleep = ++sleep_;
  world_.at(Duration(world_.rng().between(100, 200'000)), [this, sleep] {
    if (over_ || !sleeping_ || sleep != sleep_) return;
    sleeping_ = false;
    session_.wake(false);
    go_on();
  });
}

void Backend::cancel() {
  if (over_) return;
  if (discarding_) {
    world_.trace(fmt::format("backend {}: DISCARD ALL is canceled", pid_));
    session_.cancel_next();
  }
  if (!sleeping_) return;
  world_.trace(fmt::format("backend {}: {} is canceled", pid_, session_.running()));
  sleeping_ = false;
  ++sleep_;
  session_.wake(true);
  std::string out = session_.take_output();
  if (!out.empty()) link_->far_send(std::move(out));
  go_on();
}

void Backend::commit_done() {
  if (over_) return;
  session_.commit_done();
  std::string out = session_.take_output();
  if (!out.empty()) link_->far_send(std::move(out));
  go_on();
}

void Backend::refuse(std::string_view sqlstate, std::string_view message) {
  std::string refusal;
  protocol::append_error(
      refusal,
      protocol::ErrorText{.severity = "FATAL", .sqlstate = sqlstate, .message = message, .add_v = host_.has_value()});
  link_->far_send(std::move(refusal));
  finish();
}

void Backend::die() {
  refuse("57P01", "terminating connection due to administrator command");
}

void Backend::crash() {
  finish(true);
}

void Backend::on_end() {
  finish();
}

void Backend::finish(bool reset) {
  if (over_) return;
  over_ = true;
  if (host_) world_.cluster()->remove_backend(*host_, *this);
  if (counted_) {
    world_.trace(fmt::format("backend {} ended", pid_));
    world_.backend_ended(pid_);
  }
  link_->far_close(reset);
}

}  // namespace pgweir::sim
