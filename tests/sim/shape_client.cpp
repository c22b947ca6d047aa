#include "tests/sim/shape_client.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "protocol/message_builder.hpp"
#include "protocol/message_view.hpp"

namespace pgweir::sim {

ShapeClient::ShapeClient(World& world, int number, ShapePlan plan)
    : world_(world),
      schema_(*world.schema()),
      number_(number),
      plan_(plan),
      left_(plan.requests),
      since_(world.now()) {}

ShapeClient::~ShapeClient() {
  if (link_) link_->detach_far();
}

std::string ShapeClient::describe() const {
  return fmt::format("client {} request [{}]", number_, request_text_);
}

void ShapeClient::start() {
  world_.at(Duration(world_.rng().between(1, 20'000)), [this] { connect(); });
}

void ShapeClient::connect() {
  ++life_;
  in_.clear();
  got_.clear();
  known_ = {};
  alters_.reset();
  logged_in_ = busy_ = block_ = failed_ = false;
  request_text_ = "login";
  since_ = world_.now();
  link_ = world_.connect_client();
  link_->attach_far(this);
  const std::vector<std::pair<std::string_view, std::string_view>> packet{{"user", "user"}, {"database", "tx"}};
  std::string bytes;
  protocol::append_startup_message(bytes, 196608, packet);
  send(std::move(bytes));
}

void ShapeClient::send(std::string bytes) {
  link_->far_send(std::move(bytes));
}

// What a request ends with, some time after its beginning.
void ShapeClient::send_later(std::string bytes) {
  world_.at(Duration(world_.rng().between(1, 20'000)), [this, bytes = std::move(bytes), life = life_] {
    if (life == life_ && link_) link_->far_send(bytes);
  });
}

void ShapeClient::end_life() {
  if (alters_) schema_.lost(*alters_);
  alters_.reset();
  link_->detach_far();
  link_->far_close(false);
  link_.reset();
  ++life_;
  busy_ = false;
  since_ = world_.now();
  if (--left_ <= 0) {
    done_ = true;
    return;
  }
  world_.at(Duration(world_.rng().between(1, 50'000)), [this] { connect(); });
}

void ShapeClient::end_early(const std::string& why) {
  world_.trace(fmt::format("{}: {}", describe(), why));
  if (!plan_.may_end) world_.fail(fmt::format("{}: {}", describe(), why));
  end_life();
}

void ShapeClient::on_end() {
  if (!done_ && link_) end_early("the connection ended");
}

void ShapeClient::on_bytes(const std::string& bytes) {
  in_ += bytes;
  for (Message& message : take_messages(in_)) {
    if (message.type == 'S' || message.type == 'N') continue;
    if (message.type == 'E') {
      const auto fields = protocol::parse_error_fields(message.body);
      if (fields && fields->severity == "FATAL") return end_early(std::string(fields->message));
    }
    const bool ready = message.type == 'Z';
    got_.push_back(std::move(message));
    if (!ready) continue;
    if (!logged_in_) {
      logged_in_ = true;
    } else if (busy_) {
      take_answer();
    } else {
      world_.fail(describe() + ": an answer that nobody asked for");
    }
    got_.clear();
    next_request();
  }
}

void ShapeClient::next_request() {
  busy_ = false;
  since_ = world_.now();
  Rng& rng = world_.rng();
  world_.at(Duration(rng.between(1, rng.chance(10) ? 200'000 : 4'000)), [this, life = life_] {
    if (life != life_ || done_) return;
    if (left_ <= 1 || world_.rng().chance(1)) {
      std::string bytes;
      protocol::append_terminate(bytes);
      link_->far_send(std::move(bytes));
      return end_life();
    }
    --left_;
    since_ = world_.now();
    busy_ = true;
    choose_request();
    world_.trace(describe());
  });
}

void ShapeClient::choose_request() {
  Rng& rng = world_.rng();
  which_ = static_cast<int>(rng.below(kStatements));
  uses_.clear();
  asked_ = {
      .columns = 0, .certain = schema_.certain(table(which_), world_.now()), .changes = schema_.changes(table(which_))};
  if (failed_ || (block_ && rng.chance(30)) || (!block_ && rng.chance(10))) {
    request_ = Request::Block;
    request_text_ = block_ ? rng.chance(50) ? "ROLLBACK" : "COMMIT" : "BEGIN";
    known_.back() = {};  // a simple query drops the unnamed statement
    std::string bytes;
    protocol::append_query(bytes, request_text_);
    return send(std::move(bytes));
  }
  if (!block_ && rng.chance(3)) return alter();
  if (known_[which_].columns == 0) return prepare();
  if (rng.chance(5)) return close();
  use();
}

// Drivers ask for the result of the statement, or of the portal when they use it for the first time.
void ShapeClient::prepare() {
  request_ = Request::Prepare;
  request_text_ = "prepare " + table(which_);
  std::string bytes;
  protocol::append_close(bytes, 'S', statement(which_));
  protocol::append_parse(bytes, statement(which_), "TABLE " + table(which_), {});
  if (is_unnamed(which_) || world_.rng().chance(50)) {
    protocol::append_describe(bytes, 'S', statement(which_));
  } else {
    const std::string portal = world_.rng().chance(50) ? "" : "p";
    protocol::append_bind_text(bytes, portal, statement(which_), {});
    protocol::append_describe(bytes, 'P', portal);
    protocol::append_execute(bytes, portal, 0);
    uses_ = {which_};
  }
  protocol::append_sync(bytes);
  send(std::move(bytes));
}

void ShapeClient::use() {
  request_ = Request::Use;
  request_text_ = "use";
  std::string bytes;
  for (std::uint64_t left = world_.rng().chance(30) ? 3 : 1; left > 0; --left) {
    int which = static_cast<int>(world_.rng().below(kStatements));
    if (known_[which].columns == 0) which = which_;
    uses_.push_back(which);
    protocol::append_bind_text(bytes, "", statement(which), {});
    protocol::append_execute(bytes, "", 0);
    if (world_.rng().chance(15)) protocol::append_flush(bytes);
  }
  protocol::append_sync(bytes);
  send(std::move(bytes));
}

void ShapeClient::close() {
  request_ = Request::Close;
  request_text_ = "close " + table(which_);
  std::string bytes, rest;
  protocol::append_close(bytes, 'S', statement(which_));
  protocol::append_sync(rest);
  if (world_.rng().chance(50)) {
    send(bytes + rest);
    return;
  }
  send(std::move(bytes));
  send_later(std::move(rest));
}

void ShapeClient::alter() {
  request_ = Request::Alter;
  alters_ = number_ * 10'000 + ++changes_;
  known_.back() = {};
  request_text_ = fmt::format("ALTER {} {} {}", table(which_), world_.rng().between(1, 3), *alters_);
  std::string bytes;
  protocol::append_query(bytes, request_text_);
  send(std::move(bytes));
}

const Message* ShapeClient::find(char type) const {
  const auto it = std::find_if(got_.begin(), got_.end(), [&](const Message& one) { return one.type == type; });
  return it == got_.end() ? nullptr : &*it;
}

// The table, or what was known of it, is not what it was when the statement was prepared.
void ShapeClient::check_error(const Message& error, const Known& before, int number) const {
  const std::string sqlstate = sqlstate_of(error.body);
  const bool changed = !before.certain || schema_.changes(table(number)) != before.changes;
  if (sqlstate != "0A000" || !changed) world_.fail(fmt::format("{}: error {}", describe(), sqlstate));
}

void ShapeClient::take_answer() {
  const char status = got_.back().body.front();
  const Message* error = find('E');
  switch (request_) {
    case Request::Block:
      if (error != nullptr) world_.fail(describe() + " failed");
      break;
    case Request::Alter:
      if (error != nullptr) world_.fail(describe() + " failed");
      schema_.told(table(which_), *alters_, world_.now());
      alters_.reset();
      break;
    case Request::Close:
      if (got_.size() != 2 || got_.front().type != '3') world_.fail(describe() + ": something else came");
      known_[which_] = {};
      break;
    case Request::Prepare:
      if (error != nullptr) {
        check_error(*error, asked_, which_);
      } else {
        take_prepared();
      }
      break;
    case Request::Use:
      take_rows();
      break;
  }
  block_ = status != 'I';
  failed_ = status == 'E';
}

void ShapeClient::take_prepared() {
  const Message* description = find('T');
  if (description == nullptr) world_.fail(describe() + ": it was not described");
  Known& known = known_[which_];
  known = asked_;
  known.columns = protocol::parse_row_description(description->body).value_or(0);
  const std::string uncertain("\xff\xfe", 2);  // the size of the type, see PgSession
  known.certain = known.certain && description->body.find(uncertain) == std::string::npos;
  take_rows();
}

// One row for each use, up to the one that fails.
void ShapeClient::take_rows() {
  std::vector<std::optional<protocol::ByteView>> values;
  std::size_t rows = 0;
  for (const Message& message : got_) {
    if (rows == uses_.size()) break;
    const int which = uses_[rows];
    if (message.type == 'E') {
      check_error(message, known_[which], which);
      known_[which] = {};
    }
    if (message.type != 'D') continue;
    ++rows;
    if (!protocol::parse_data_row(message.body, values)) world_.fail(describe() + ": a bad row");
    const bool certain = known_[which].certain && values.front() == protocol::ByteView("y");
    if (certain && values.size() != known_[which].columns) {
      world_.fail(
          fmt::format("{}: a row of {} columns instead of {}", describe(), values.size(), known_[which].columns));
    }
  }
  if (rows < uses_.size() && find('E') == nullptr) world_.fail(describe() + ": rows are missing");
}

}  // namespace pgweir::sim
