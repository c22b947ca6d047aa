#include "tests/sim/client.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "protocol/message_builder.hpp"
#include "protocol/message_view.hpp"

namespace pgweir::sim {

namespace {

const std::array<const char*, 8> kAllowedEnds{
    "server conn crashed?", "terminating connection due to administrator command",
    "query_wait_timeout",   "query timeout",
    "query_timeout",        "idle transaction timeout",
    "transaction timeout",  "client_login_timeout"};

bool counts(char type) {
  return type != 'S' && type != 'N';
}

}  // namespace

Client::Client(World& world, int number, ClientPlan plan)
    : world_(world), number_(number), plan_(std::move(plan)), left_(plan_.requests), since_(world.now()) {}

void Client::cancel_ended() {
  if (!cancel_link_) return;
  cancel_link_->detach_far();
  cancel_link_->far_close(false);
  cancel_link_.reset();
  if (busy_ && link_) compare();
}

Client::~Client() {
  if (cancel_link_) cancel_link_->detach_far();
  if (link_) link_->detach_far();
}

std::string Client::token() {
  return fmt::format("{}{}.{}", plan_.replicates ? "r1." : "c", number_, ++tokens_);
}

void Client::start() {
  world_.at(Duration(world_.rng().between(1, 20'000)), [this] { connect(); });
}

void Client::connect() {
  Rng& rng = world_.rng();
  ++life_;
  has_canceled_ = false;
  in_.clear();
  got_.clear();
  expected_.clear();
  told_.clear();
  startup_.clear();
  if (cancel_link_) {
    cancel_link_->detach_far();
    cancel_link_->far_close(true);
    cancel_link_.reset();
  }
  logged_in_ = refused_ = busy_ = unnamed_copies_ = false;
  const std::string user = world_.plan().scram ? fmt::format("user{}", number_) : "user";
  std::vector<std::pair<std::string_view, std::string_view>> packet{{"user", user}, {"database", plan_.database}};
  const std::array<std::pair<const char*, const char*>, 7> choices{{{"TimeZone", "Europe/Berlin"},
                                                                    {"application_name", "web"},
                                                                    {"DateStyle", "ISO"},
                                                                    {"client_encoding", "utf-8"},
                                                                    {"search_path", "a, b"},
                                                                    {"geqo", "off"},
                                                                    {"statement_timeout", "5"}}};
  for (auto [name, value] : choices) {
    if (!rng.chance(15)) continue;
    if (std::string_view(name) == "DateStyle" && (number_ + life_) % 2 == 0) value = "ISO, DMY";
    startup_[name] = value;
    packet.emplace_back(name, value);
  }
  std::string options;
  if (rng.chance(10)) {
    options = "-c search_path=x -cgeqo=off";
    // What the packet names itself prevails.
    startup_.emplace("search_path", "x");
    startup_.emplace("geqo", "off");
    packet.emplace_back("options", options);
  }
  if (rng.chance(3)) {
    startup_["statement_timeout"] = "bad";
    packet.emplace_back("statement_timeout", "bad");
    refused_ = true;
  }
  owner_ = fmt::format("client{}.{}", number_, life_);
  if (plan_.replicates) {
    packet.emplace_back("replication", rng.chance(50) ? "database" : "true");
    packet.emplace_back("owner", owner_);
  }
  model_ = PgSession();
  model_.start(startup_);
  std::string bytes;
  protocol::append_startup_message(bytes, 196608, packet);
  link_ = world_.connect_client();
  link_->attach_far(this);
  since_ = world_.now();
  world_.trace(fmt::format("client {} connects to {}", number_, plan_.database));
  send(std::move(bytes));
}

void Client::note_sent(const std::string& bytes) {
  if (plan_.replicates && logged_in_) world_.sent_by(owner_) += bytes;
}

void Client::send(std::string bytes) {
  Rng& rng = world_.rng();
  note_sent(bytes);
  if (bytes.size() > 1 && rng.chance(20)) {
    const std::size_t cut = 1 + rng.below(bytes.size() - 1);
    link_->far_send(bytes.substr(0, cut));
    world_.at(Duration(rng.between(1, 2000)), [this, rest = bytes.substr(cut), life = life_] {
      if (life == life_ && link_) link_->far_send(rest);
    });
    return;
  }
  link_->far_send(std::move(bytes));
}

void Client::on_bytes(const std::string& bytes) {
  in_ += bytes;
  const int life = life_;
  for (Message& message : take_messages(in_)) {
    if (life != life_ || done_) return;
    if (message.type == 'S') {
      const auto parameter = protocol::parse_parameter_status(message.body);
      told_[std::string(parameter->name)] = std::string(parameter->value);
      continue;
    }
    if (message.type == 'N') continue;
    if (message.type == 'E') {
      const auto fields = protocol::parse_error_fields(message.body);
      if (fields && fields->severity == "FATAL") return fatal(message);
    }
    if (!logged_in_) {
      login_message(message);
      continue;
    }
    got_.push_back(std::move(message));
    compare();
  }
}

void Client::login_message(const Message& message) {
  switch (message.type) {
    case 'R':
      return authenticate(message.body);
    case 'K':
      key_ = message.body;
      return;
    case 'Z':
      logged_in_ = true;
      if (refused_) world_.fail(describe() + ": logged in with a bad parameter");
      check_parameters();
      since_ = world_.now();
      return next_request();
    default:
      world_.fail(fmt::format("{}: unexpected '{}' during login", describe(), message.type));
  }
}

void Client::check_parameters() {
  for (const auto& [name, value] : told_) {
    if (!PgSession::reported(name)) continue;
    if (value != model_.values().at(name)) {
      world_.fail(fmt::format("{}: was told {}='{}', it is '{}'", describe(), name, value, model_.values().at(name)));
    }
  }
}

/// server_fast_close ends sessions, but only between two transactions.
bool Client::closed_between_transactions(std::string_view text) const {
  if (text != "database configuration changed" || plan_.database != "se") return false;
  if (!world_.plan().settings->config->server_fast_close) return false;
  if (!busy_) return model_.status() == 'I';
  return got_.empty() ? asked_in_ == 'I' : got_.back().type == 'Z' && got_.back().body == "I";
}

void Client::fatal(const Message& message) {
  const auto fields = protocol::parse_error_fields(message.body);
  const std::string text(fields->message);
  world_.trace(fmt::format("{} gets FATAL {}", describe(), text));
  if (world_.plan().kills && (text == kKilled || text == "admin forced disconnect")) {
    // Whatever it is doing.
  } else if (refused_) {
    // Unless it ran out of time before any server could say so.
    const bool right = plan_.replicates ? text == "login failed" : fields->sqlstate == "22023";
    if (!right && text != "query_wait_timeout" && text != "query_timeout")
      world_.fail(describe() + ": refused with " + std::string(fields->sqlstate));
  } else if (plan_.replicates && text == "database configuration changed" && world_.plan().operations > 0) {
    // RECONNECT ends it at once.
  } else if (plan_.replicates && text == "login failed" && world_.disturbed()) {
    // Nobody tries again for it.
  } else if (!closed_between_transactions(text)) {
    const bool known = std::any_of(kAllowedEnds.begin(), kAllowedEnds.end(),
                                   [&](const char* end) { return text.find(end) != std::string::npos; }) ||
                       text.find("server login has been failing") != std::string::npos;
    const bool failure = text.find("timeout") == std::string::npos;
    if (!known || (failure && !world_.disturbed()) || (!failure && !plan_.limits && !world_.disturbed())) {
      world_.fail(fmt::format("{}: unexpected end: {}", describe(), text));
    }
  }
  end_life();
}

void Client::end_life() {
  busy_ = false;
  link_->detach_far();
  link_->far_close(false);
  link_.reset();
  --left_;
  ++life_;
  if (left_ <= 0) {
    done_ = true;
    return;
  }
  world_.at(Duration(world_.rng().between(1, 50'000)), [this] { connect(); });
  since_ = world_.now();
}

void Client::on_end() {
  if (done_ || !link_) return;
  // In the middle of a reply there is no place for an error message.
  const bool reconnected = world_.plan().kills || (plan_.replicates && world_.plan().operations > 0);
  // Closed by server_fast_close, or killed, and the network took longer for the rest than anybody waits for it.
  const bool closed =
      world_.plan().kills || (plan_.database == "se" && world_.plan().settings->config->server_fast_close);
  const bool too_slow = closed && world_.now() - since_ > std::chrono::seconds(5);
  if (too_slow) return end_life();
  if (in_.empty() || !(plan_.limits || world_.disturbed() || reconnected))
    world_.fail(describe() + ": the connection ended without a word");
  end_life();
}

std::string Client::describe() const {
  return fmt::format("client {} ({}) request [{}]", number_, plan_.database, request_);
}

// ---- requests ----

void Client::next_request() {
  busy_ = false;
  world_.at(Duration(world_.rng().between(1, world_.rng().chance(10) ? 300'000 : 3'000)), [this, life = life_] {
    if (life != life_ || done_) return;
    since_ = world_.now();
    if (--left_ <= 0) return leave(true);
    busy_ = true;
    ++requests_;
    got_.clear();
    expected_.clear();
    choose_request();
    world_.trace(describe());
    if (world_.rng().chance(plan_.abrupt)) {
      world_.at(Duration(world_.rng().between(0, 3'000)), [this, life] {
        if (life == life_ && !done_ && link_) leave(false);
      });
    }
    compare();
  });
}

void Client::leave(bool terminate) {
  Rng& rng = world_.rng();
  world_.trace(fmt::format("client {} leaves{}", number_, terminate ? "" : " abruptly"));
  if (terminate && rng.chance(30) && model_.status() != 'E') {
    std::string last;  // a last word without waiting for the answer
    protocol::append_query(last, "ECHO " + token());
    note_sent(last);
    link_->far_send(std::move(last));
  }
  std::string bytes;
  if (terminate) protocol::append_terminate(bytes);
  note_sent(bytes);
  if (!bytes.empty()) link_->far_send(std::move(bytes));
  busy_ = false;
  link_->detach_far();
  link_->far_close(!terminate && rng.chance(50));
  link_.reset();
  ++life_;
  if (left_ <= 0) {
    done_ = true;
    return;
  }
  world_.at(Duration(rng.between(1, 50'000)), [this] { connect(); });
  since_ = world_.now();
}

// Sends `bytes` and notes what a server of our own answers to them.
void Client::expect_from(PgSession& model, const std::string& bytes) {
  Alternative usual;
  asked_in_ = model.status();
  model.input(bytes);
  std::string out;
  for (;;) {
    const PgSession::Step step = model.step();
    out += model.take_output();
    if (step == PgSession::Step::Sleeping) {
      Alternative canceled{{}, model};
      canceled.after.wake(true);
      std::string with_cancel = out + canceled.after.take_output();
      for (Message& message : take_messages(with_cancel)) {
        if (counts(message.type)) canceled.messages.push_back(std::move(message));
      }
      Alternative queued = canceled;  // canceled before it reached a server
      std::erase_if(queued.messages, [](const Message& message) { return message.type == 'T'; });
      expected_.push_back(std::move(canceled));
      expected_.push_back(std::move(queued));
      model.wake(false);
      out += model.take_output();
      continue;
    }
    if (step != PgSession::Step::Progress) break;
  }
  for (Message& message : take_messages(out)) {
    if (counts(message.type)) usual.messages.push_back(std::move(message));
  }
  usual.after = model;
  expected_.insert(expected_.begin(), std::move(usual));
}

void Client::simple(const std::string& sql) {
  unnamed_copies_ = false;
  request_ = sql;
  std::string bytes;
  protocol::append_query(bytes, sql);
  expect_from(model_, bytes);
  if (expected_.size() > 1) expected_.resize(1);
  send(std::move(bytes));
}

void Client::choose_request() {
  Rng& rng = world_.rng();
  if (model_.status() != 'I') return request_in_transaction();
  if (plan_.sleepy && rng.chance(60)) return request_sleep();
  if (plan_.replicates && rng.chance(30)) return request_stream();
  switch (rng.below(14)) {
    case 0:
      if (plan_.transactions) return simple("BEGIN");
      return simple("ECHO " + token());
    case 1:
      return simple(fmt::format("ECHO {}; ECHO {}; {} {}; ECHO {}", token(), token(), rng.chance(50) ? "FAIL" : "ECHO",
                                token(), token()));
    case 2:
    case 3:
      return request_parameters();
    case 4:
    case 5:
    case 6:
    case 7:
      return request_pipeline();
    case 8:
      return request_copy();
    case 9:
      return request_sleep();
    case 10:
      return simple(fmt::format("ROWS {} {} {}", token(), rng.between(1, 5), rng.between(1, 20'000)));
    case 11:
      return simple("");
    case 12:
      if (tokens_ % 3 == 0) return request_function_call();
      return simple("FAIL " + token());
    default:
      return simple("ECHO " + token());
  }
}

void Client::request_in_transaction() {
  Rng& rng = world_.rng();
  switch (rng.below(model_.status() == 'E' ? 4 : 8)) {
    case 0:
    case 1:
      return simple(rng.chance(60) ? "COMMIT" : "ROLLBACK");
    case 2:
    case 3:
      return simple("ECHO " + token());
    case 4:
      if (tokens_ % 3 == 0) return request_function_call();
      return simple("FAIL " + token());
    case 5:
      return simple(fmt::format("SET TimeZone='Zone{}'", rng.below(5)));
    case 6:
      return simple("SHOW TimeZone");
    default:
      return request_pipeline();
  }
}

void Client::request_function_call() {
  request_ = "FunctionCall";
  const char message[] = {'F', 0, 0, 0, 14, 0, 0, 0, 42, 0, 0, 0, 0, 0, 0};
  const std::string bytes(message, sizeof message);
  expect_from(model_, bytes);
  send(bytes);
}

void Client::request_parameters() {
  Rng& rng = world_.rng();
  const std::array<const char*, 9> shown{"TimeZone",          "application_name", "DateStyle",
                                         "client_encoding",   "search_path",      "geqo",
                                         "statement_timeout", "IntervalStyle",    "TimeZone"};
  switch (rng.below(6)) {
    case 0:
      return simple(fmt::format("SET TimeZone='Zone{}'", rng.below(5)));
    case 1:
      return simple(fmt::format("SET application_name='it''s {}'", rng.below(5)));
    case 2:
      // A late cancel request of its own might hit it.
      if (!has_canceled_ && rng.chance(50)) return simple("DISCARD ALL");
      return simple("RESET TimeZone");
    default:
      return simple(fmt::format("SHOW {}", shown[rng.below(shown.size())]));
  }
}

// A pipeline of extended-query messages with one or more Syncs.
void Client::request_pipeline() {
  Rng& rng = world_.rng();
  std::string bytes;
  request_ = "pipeline:";
  const int count = static_cast<int>(rng.between(1, 5));
  const bool own_unnamed = plan_.unnamed_follows && !unnamed_copies_;
  for (int i = 0; i < count; ++i) {
    const std::string name = fmt::format("s{}", rng.below(4));
    switch (plan_.prepared ? rng.below(8) : 0) {
      case 1:
      case 2: {
        const bool wrong = rng.chance(8);
        const std::uint64_t number = wrong ? 0 : rng.below(6);
        const std::string sql = wrong ? "SYNTAX" : fmt::format("{} shared{}", number > 3 ? "READ" : "ECHO", number);
        request_ += " P(" + name + "," + sql + ")";
        protocol::append_parse(bytes, name, sql, {});
        break;
      }
      case 3:
      case 4:
      case 5:
        request_ += " BE(" + name + ")";
        protocol::append_bind_text(bytes, "", name, {});
        if (rng.chance(50)) protocol::append_describe(bytes, 'P', "");
        protocol::append_execute(bytes, "", 0);
        break;
      case 6:
        request_ += " D(" + name + ")";
        protocol::append_describe(bytes, 'S', name);
        break;
      case 7:
        request_ += " C(" + name + ")";
        protocol::append_close(bytes, 'S', name);
        break;
      default:
        if (!own_unnamed || rng.chance(70)) {
          const std::string sql = rng.chance(8) ? "FAIL " + token() : "ECHO " + token();
          request_ += " P(," + sql + ")";
          protocol::append_parse(bytes, "", sql, {});
        }
        request_ += " BE()";
        protocol::append_bind_text(bytes, "", "", {});
        protocol::append_execute(bytes, "", 0);
        break;
    }
    if (rng.chance(15)) {
      protocol::append_flush(bytes);
      request_ += " H";
    }
    if (rng.chance(25) && model_.status() == 'I') {
      protocol::append_sync(bytes);
      request_ += " S";
    }
  }
  protocol::append_sync(bytes);
  request_ += " S";
  if (plan_.prepared && rng.chance(10) && model_.status() == 'I') {
    const std::string sql = fmt::format("{} s{}", rng.chance(50) ? "EXECUTE" : "DEALLOCATE", rng.below(4));
    protocol::append_query(bytes, sql);
    request_ += " Q(" + sql + ")";
  }
  expect_from(model_, bytes);
  send(std::move(bytes));
}

void Client::request_copy() {
  Rng& rng = world_.rng();
  std::string bytes;
  if (rng.chance(40)) return simple(fmt::format("COPYOUT {} {}", token(), rng.between(1, 30)));
  const std::string sql = "COPYIN " + token();
  const bool extended = rng.chance(50);
  if (extended) {
    protocol::append_parse(bytes, "", sql, {});
    protocol::append_bind_text(bytes, "", "", {});
    protocol::append_execute(bytes, "", 0);
    if (rng.chance(50)) protocol::append_sync(bytes);  // ignored by the server: a COPY runs
  } else {
    protocol::append_query(bytes, sql);
  }
  for (std::int64_t i = rng.between(0, 5); i > 0; --i) {
    protocol::append_copy_data(bytes, std::string(static_cast<std::size_t>(rng.between(0, 3000)), 'd'));
  }
  if (rng.chance(80)) {
    protocol::append_copy_done(bytes);
  } else {
    protocol::append_copy_fail(bytes, "no more");
  }
  if (extended) protocol::append_sync(bytes);
  unnamed_copies_ = extended;  // not to be run again without data
  request_ = (extended ? "extended " : "") + sql;
  expect_from(model_, bytes);
  send(std::move(bytes));
}

void Client::request_sleep() {
  const std::string sql = "SLEEP " + token();
  request_ = sql;
  std::string bytes;
  protocol::append_query(bytes, sql);
  expect_from(model_, bytes);
  if (world_.rng().chance(60)) {
    cancel_later();
  } else {
    expected_.resize(1);
  }
  send(std::move(bytes));
}

// CopyBoth mode; all that is to be sent follows without waiting for it to begin.
void Client::request_stream() {
  Rng& rng = world_.rng();
  request_ = "STREAM " + token();
  std::string bytes;
  protocol::append_query(bytes, request_);
  for (std::int64_t i = rng.between(0, 6); i > 0; --i) {
    protocol::append_copy_data(bytes, token() + std::string(static_cast<std::size_t>(rng.between(0, 5000)), 'w'));
  }
  protocol::append_copy_done(bytes);
  expect_from(model_, bytes);
  send(std::move(bytes));
}

void Client::cancel_later() {
  world_.at(Duration(world_.rng().between(1, 200'000)), [this, key = key_, life = life_, request = requests_] {
    if (life != life_ || done_ || request != requests_ || !busy_) return;
    world_.trace(fmt::format("client {} sends a cancel request", number_));
    has_canceled_ = true;
    std::string bytes;
    protocol::append_cancel_request(bytes, protocol::load_u32(key.data()), std::string_view(key).substr(4));
    cancel_link_ = world_.connect_client();
    cancel_link_->attach_far(&cancel_end_);
    cancel_link_->far_send(std::move(bytes));
  });
}

}  // namespace pgweir::sim
