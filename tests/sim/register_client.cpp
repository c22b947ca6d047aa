#include "tests/sim/register_client.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "protocol/message_builder.hpp"
#include "protocol/message_view.hpp"

namespace pgweir::sim {

namespace {

/// What the network, buffers and other clients may cost beside the two waits.
constexpr Duration kServerPatience = std::chrono::seconds(20);
/// The same, of one that waits for nothing but a host.
constexpr Duration kHostPatience = std::chrono::seconds(3);
/// A read that has failed so often is not sent again.
constexpr int kAttemptsMax = 3;

// The columns of a DataRow, or of a line in a CopyData; null shows as empty.
std::vector<std::string> columns_in(char type, const std::string& body) {
  std::vector<std::optional<protocol::ByteView>> columns;
  std::vector<std::string> result;
  if (type == 'd') {
    for (std::size_t from = 0, to = 0; to != std::string::npos; from = to + 1) {
      to = body.find('\t', from);
      result.push_back(body.substr(from, to == std::string::npos ? to : to - from));
    }
    return result;
  }
  if (!protocol::parse_data_row(body, columns)) return result;
  for (const auto& column : columns) result.emplace_back(column.value_or(""));
  return result;
}

bool same_error(const std::string& a, const std::string& b) {
  return sqlstate_of(a) == sqlstate_of(b);
}

// Rows are alike if they carry the same mark; the value is for check_values, unless the reference knows it.
bool same_row(char type, const std::string& got, const std::string& expected) {
  const auto mine = columns_in(type, got);
  const auto theirs = columns_in(type, expected);
  if (mine.size() != theirs.size()) return false;
  for (std::size_t i = 0; i < mine.size(); ++i) {
    if (theirs[i] != "?" && mine[i] != theirs[i]) return false;
  }
  return true;
}

bool is_loss(std::string_view text) {
  return text.find("server conn crashed?") != std::string::npos ||
         text.find("terminating connection") != std::string::npos;
}

}  // namespace

RegisterClient::RegisterClient(World& world, int number, RegisterPlan plan)
    : world_(world),
      cluster_(*world.cluster()),
      number_(number),
      plan_(std::move(plan)),
      left_(plan_.requests),
      since_(world.now()) {}

RegisterClient::~RegisterClient() {
  if (link_) link_->detach_far();
}

std::string RegisterClient::describe() const {
  return fmt::format("client {} ({}) request [{}]", number_, plan_.database, request_);
}

std::string RegisterClient::mark(char kind) {
  marks_.push_back(fmt::format("{}{}.{}", kind, number_, ++tokens_));
  return marks_.back();
}

void RegisterClient::start() {
  world_.at(Duration(world_.rng().between(1, 200'000)), [this] { connect(); });
}

void RegisterClient::connect() {
  ++life_;
  in_.clear();
  unsent_.clear();
  got_.clear();
  outcomes_.clear();
  required_.reset();
  marks_.clear();
  request_ = "login";
  logged_in_ = busy_ = false;
  wish_ = Wish::Auto;
  copied_in_ = late_data_ = false;
  reference_ = Reference();
  reference_.session.know("pgweir.route", "auto");
  reference_.session.start({});
  std::string bytes;
  const std::vector<std::pair<std::string_view, std::string_view>> packet{{"user", "user"},
                                                                          {"database", plan_.database}};
  protocol::append_startup_message(bytes, 196608, packet);
  link_ = world_.connect_client();
  link_->attach_far(this);
  since_ = world_.now();
  world_.trace(fmt::format("client {} connects to {}", number_, plan_.database));
  send(std::move(bytes));
}

void RegisterClient::send(std::string bytes) {
  Rng& rng = world_.rng();
  if (!unsent_.empty()) {  // an answer may come before the whole of a COPY is sent
    unsent_ += bytes;
    return;
  }
  if (bytes.size() > 1 && rng.chance(20)) {
    const std::size_t cut = 1 + rng.below(bytes.size() - 1);
    in_pieces_ = true;
    link_->far_send(bytes.substr(0, cut));
    unsent_ = bytes.substr(cut);
    world_.at(Duration(rng.between(1, 2000)), [this, life = life_] {
      if (life == life_ && link_) link_->far_send(std::exchange(unsent_, {}));
    });
    return;
  }
  link_->far_send(std::move(bytes));
}

void RegisterClient::on_bytes(const std::string& bytes) {
  in_ += bytes;
  const int life = life_;
  for (Message& message : take_messages(in_)) {
    if (life != life_ || done_) return;
    if (message.type == 'S' || message.type == 'N') continue;
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

void RegisterClient::login_message(const Message& message) {
  if (message.type == 'R' || message.type == 'K') return;
  if (message.type != 'Z') world_.fail(fmt::format("{}: unexpected '{}' during login", describe(), message.type));
  logged_in_ = true;
  next_request();
}

// ---- requests ----

void RegisterClient::next_request() {
  busy_ = false;
  since_ = world_.now();
  Rng& rng = world_.rng();
  world_.at(Duration(rng.between(1, rng.chance(20) ? 300'000 : 5'000)), [this, life = life_] {
    if (life != life_ || done_) return;
    since_ = world_.now();
    if (--left_ <= 0) return leave(true);
    busy_ = true;
    got_.clear();
    outcomes_.clear();
    marks_.clear();
    reads_.clear();
    own_.clear();
    lone_read_ = in_pieces_ = false;
    process_ = cluster_.history().restarts();
    splits_before_ = link_->split_deliveries();
    late_data_ = std::exchange(copied_in_, false);
    defines_ = false;
    request_.clear();
    asked_in_ = reference_.session.status();
    if (asked_in_ == 'I') {
      read_only_ = false;
      cursors_.clear();
      required_ = cluster_.history().required({number_, life_}, plan_.server_database, plan_.freshness);
      choose_request();
    } else {
      request_in_block();
    }
    world_.trace(describe());
    if (world_.rng().chance(plan_.abrupt)) {
      world_.at(Duration(world_.rng().between(0, 3'000)), [this, life] {
        if (life == life_ && !done_ && link_) leave(false);
      });
    }
    compare();
  });
}

// ---- what may come of a request ----

RegisterClient::Outcome RegisterClient::run(const std::string& bytes, const ReferenceData::Course& course) const {
  Outcome outcome{{}, reference_};
  Reference& after = outcome.after;
  after.data.set_course(course);
  after.session.input(bytes);
  std::string out;
  while (after.session.step() == PgSession::Step::Progress) out += after.session.take_output();
  out += after.session.take_output();
  for (Message& message : take_messages(out)) {
    if (message.type != 'S' && message.type != 'N') outcome.messages.push_back(std::move(message));
  }
  return outcome;
}

void RegisterClient::expect(const std::string& bytes) {
  using Course = ReferenceData::Course;
  outcomes_.push_back(run(bytes, {}));
  const int statements = outcomes_.front().after.data.statements();
  if (plan_.follows || wish_ == Wish::Standby) outcomes_.push_back(run(bytes, Course{.recovers = true}));
  // Its RowDescription may have reached the client before it was refused; then it cannot be run again.
  const bool sneaks = std::any_of(marks_.begin(), marks_.end(), [](const auto& one) { return one.front() == 'y'; });
  if (sneaks) outcomes_.push_back(run(bytes, {.fails = {{0, Failure{"25006", "", false, true}}}}));
  if (cluster_.plan().conflicts == 0) return;
  // Each statement may do well, be canceled, or be canceled behind its RowDescription.
  int courses = 1;
  for (int i = 0; i < statements; ++i) courses *= 3;
  for (int number = 1; number < courses; ++number) {
    Course course;
    for (int i = 0, rest = number; i < statements; ++i, rest /= 3) {
      if (rest % 3 > 0) course.fails[i] = {"40001", "", false, rest % 3 == 2};
    }
    outcomes_.push_back(run(bytes, course));
  }
}

bool RegisterClient::matches(const std::vector<Message>& expected, bool complete) const {
  if (complete ? got_.size() != expected.size() : got_.size() > expected.size()) return false;
  for (std::size_t i = 0; i < got_.size(); ++i) {
    const Message& got = got_[i];
    const Message& other = expected[i];
    if (got.type != other.type) return false;
    const bool row = got.type == 'D' || got.type == 'd';
    const bool same = got.type == 'E' ? same_error(got.body, other.body)
                      : row           ? same_row(got.type, got.body, other.body)
                                      : got.body == other.body;
    if (!same) return false;
  }
  return true;
}

std::string RegisterClient::show(const std::vector<Message>& messages) const {
  std::string text;
  for (const Message& message : messages) {
    text += message.type;
    if (message.type == 'D') text += fmt::format("({})", fmt::join(columns_in('D', message.body), ","));
    if (message.type == 'd') text += fmt::format("({})", message.body.substr(0, 20));
    if (message.type == 'C') text += "(" + message.body.substr(0, message.body.size() - 1) + ")";
    if (message.type == 'E') {
      const auto fields = protocol::parse_error_fields(message.body);
      if (fields) text += fmt::format("({} {})", fields->sqlstate, fields->message);
    }
    if (message.type == 'Z') text += "(" + message.body + ")";
    text += ' ';
  }
  return text;
}

void RegisterClient::compare() {
  if (!busy_) {
    if (!got_.empty()) world_.fail(describe() + ": a reply that nobody asked for: " + show(got_));
    return;
  }
  for (const Outcome& outcome : outcomes_) {
    if (!matches(outcome.messages, true)) continue;
    check_values(outcome);
    check_conflict();
    reference_ = outcome.after;
    if (defines_ && !reference_.data.committed().empty()) cluster_.history().definition_acknowledged();
    for (const auto& [key, value] : reference_.data.committed()) {
      cluster_.history().acknowledged({number_, life_}, plan_.server_database, key, value);
    }
    return request_done();
  }
  const bool possible =
      std::any_of(outcomes_.begin(), outcomes_.end(), [&](const Outcome& one) { return matches(one.messages, false); });
  if (!possible) {
    world_.fail(fmt::format("{}: got [{}], expected [{}]", describe(), show(got_), show(outcomes_.front().messages)));
  }
}

void RegisterClient::check_values(const Outcome& outcome) const {
  for (std::size_t i = 0; i < got_.size(); ++i) {
    if (got_[i].type != 'D' && got_[i].type != 'd') continue;
    const auto columns = columns_in(got_[i].type, got_[i].body);
    // A transaction that has written the register sees its own value, and the reference has compared it.
    if (columns.size() < 2 || columns_in(got_[i].type, outcome.messages[i].body).front() != "?") continue;
    const auto read =
        std::find_if(reads_.begin(), reads_.end(), [&](const Read& one) { return one.mark == columns[1]; });
    if (read != reads_.end()) check_value(*read, columns[0], outcome);
  }
}

void RegisterClient::check_value(const Read& read, const std::string& value, const Outcome& outcome) const {
  const History& history = cluster_.history();
  Required required = *required_;
  if (read.any_age) required.freshness = Freshness::Any;
  const std::string wrong = history.check_read(read.key, value, required);
  if (!wrong.empty()) world_.fail(describe() + ": " + wrong);
  if (required.freshness == Freshness::Any) return;
  for (const auto& [key, own] : outcome.after.data.committed()) {
    const auto last = own_.begin() + static_cast<std::ptrdiff_t>(read.own);
    if (key != read.key || std::find(own_.begin(), last, own) == last || !history.is_older(value, own)) continue;
    world_.fail(fmt::format("{}: {} shows {}, although {} was written before", describe(), read.mark, value, own));
  }
}

// Of one read that fails on a standby before anything of its reply was there, the client never hears.
void RegisterClient::check_conflict() const {
  const bool sneaks = std::any_of(marks_.begin(), marks_.end(), [](const auto& one) { return one.front() == 'y'; });
  if (sneaks && reference_.session.status() == 'I' && cluster_.history().times_sent(marks_.front()) > 1 &&
      std::any_of(got_.begin(), got_.end(), [](const Message& one) { return one.type == 'E'; })) {
    world_.fail(describe() + ": refused although it is known to write");
  }
  // What one process has sent the next one cannot send again.
  if (!lone_read_ || !plan_.retries || process_ != cluster_.history().restarts()) return;
  if (got_.front().type != 'E' || sqlstate_of(got_.front().body) != "40001") return;
  if (cluster_.history().times_sent(marks_.front()) < kAttemptsMax) {
    world_.fail(describe() + ": a recovery conflict, though it could have been run again");
  }
}

void RegisterClient::request_done() {
  if (reference_.session.status() == 'I') required_.reset();
  next_request();
}

// ---- the end of a connection ----

bool RegisterClient::was_sent() const {
  return std::any_of(marks_.begin(), marks_.end(),
                     [&](const std::string& one) { return cluster_.history().reached_server(one); });
}

// Whether something that is lost can have been the server of this request.
bool RegisterClient::may_be_lost() const {
  if (plan_.pinned || reference_.session.status() != 'I') return true;
  // If it failed, its data may still be on the way, and what comes behind them waits there.
  if (late_data_ || copied_in_) return true;
  if (!busy_) return false;
  // Its beginning without a mark may be under way if it came in pieces and the proxy does not wait for all of it.
  if (!was_sent()) return !plan_.split && (in_pieces_ || link_->split_deliveries() > splits_before_);
  const bool to_be_retried =
      lone_read_ && plan_.retries && got_.empty() && in_.empty() && process_ == cluster_.history().restarts();
  return !to_be_retried || cluster_.history().times_sent(marks_.front()) >= kAttemptsMax;
}

void RegisterClient::fatal(const Message& message) {
  const auto fields = protocol::parse_error_fields(message.body);
  const std::string text(fields->message);
  world_.trace(fmt::format("{} gets FATAL {} {}", describe(), fields->sqlstate, text));
  const Duration waited = world_.now() - since_;
  HistoryCounts& counts = cluster_.history().counts;
  if (text.find("timeout") != std::string::npos) {
    ++counts.timeouts;
    const Duration least = std::min(plan_.host_wait, plan_.server_wait);
    if (waited < least) {
      world_.fail(fmt::format("{}: {} after only {} us", describe(), text, waited.count()));
    }
  } else if (is_loss(text)) {
    ++counts.lost_connections;
    if (cluster_.history().quiet() && fields->sqlstate != "40001")
      world_.fail(describe() + ": hears of a switchover: " + text);
    if (!may_be_lost()) {
      const char* when = !busy_       ? "while it is idle"
                         : was_sent() ? "though its read could have been run again"
                                      : "that did not have its request";
      world_.fail(fmt::format("{}: hears of a lost server {}: {}", describe(), when, text));
    }
  } else {
    world_.fail(fmt::format("{}: unexpected end: {} {}", describe(), fields->sqlstate, text));
  }
  end_life();
}

void RegisterClient::on_end() {
  if (done_ || !link_) return;
  // In the middle of a reply there is no place for an error message.
  if (in_.empty() || !was_sent()) world_.fail(describe() + ": the connection ended without a word");
  end_life();
}

void RegisterClient::end_life() {
  busy_ = false;
  link_->detach_far();
  link_->far_close(false);
  link_.reset();
  --left_;
  ++life_;
  since_ = world_.now();
  if (left_ <= 0) {
    done_ = true;
    return;
  }
  world_.at(Duration(world_.rng().between(1, 50'000)), [this] { connect(); });
}

void RegisterClient::leave(bool terminate) {
  Rng& rng = world_.rng();
  world_.trace(fmt::format("client {} leaves{}", number_, terminate ? "" : " abruptly"));
  std::string bytes;
  if (terminate) protocol::append_terminate(bytes);
  if (!bytes.empty()) link_->far_send(std::exchange(unsent_, {}) + bytes);
  busy_ = false;
  link_->detach_far();
  link_->far_close(!terminate && rng.chance(50));
  link_.reset();
  ++life_;
  since_ = world_.now();
  if (left_ <= 0) {
    done_ = true;
    return;
  }
  world_.at(Duration(rng.between(1, 50'000)), [this] { connect(); });
}

void RegisterClient::check_deadline() const {
  const bool waits = !done_ && link_ && (busy_ || !logged_in_) && !was_sent() && reference_.session.status() == 'I';
  if (waits && world_.now() - since_ > plan_.host_wait + plan_.server_wait + kServerPatience) {
    world_.fail(describe() + ": waits for a server beyond its deadline");
  }
  // What writes is not held up by anything but the missing primary, once it is there.
  const auto without = waits ? cluster_.history().without_primary_since(link_->worker()) : std::nullopt;
  if (!without || own_.empty() || !writes() || world_.plan().operations > 0 || link_->still_arrives()) return;
  if (world_.now() - std::max(since_, *without) > plan_.host_wait + kHostPatience) {
    world_.fail(describe() + ": waits for a primary beyond its deadline");
  }
}

}  // namespace pgweir::sim
