// What a client of the simulated world makes of the replies: they have to be those of its own PostgreSQL.
#include <fmt/format.h>

#include <algorithm>

#include "tests/sim/client.hpp"

namespace pgweir::sim {

bool Client::matches(const std::vector<Message>& expected, bool complete) const {
  if (complete ? got_.size() != expected.size() : got_.size() > expected.size()) return false;
  for (std::size_t i = 0; i < got_.size(); ++i) {
    if (got_[i].type != expected[i].type) return false;
    if (got_[i].type == 'E') {
      if (sqlstate_of(got_[i].body) != sqlstate_of(expected[i].body)) return false;
    } else if (got_[i].body != expected[i].body) {
      return false;
    }
  }
  return true;
}

std::string Client::show(const std::vector<Message>& messages) const {
  std::string text;
  for (const Message& message : messages) {
    text += message.type;
    if (message.type == 'D' && message.body.size() > 6) text += "(" + message.body.substr(6, 30) + ")";
    if (message.type == 'C') text += "(" + message.body.substr(0, message.body.size() - 1) + ")";
    if (message.type == 'E') text += "(" + sqlstate_of(message.body) + ")";
    if (message.type == 'Z') text += "(" + message.body + ")";
    text += ' ';
  }
  return text;
}

void Client::compare() {
  if (busy_ && cancel_link_) return;  // like libpq, which waits for the end of its cancel request
  if (!busy_) {
    if (!got_.empty()) world_.fail(describe() + ": a reply that nobody asked for: " + show(got_));
    return;
  }
  for (Alternative& alternative : expected_) {
    if (!matches(alternative.messages, true)) continue;
    model_ = alternative.after;
    return request_done();
  }
  const bool possible =
      std::any_of(expected_.begin(), expected_.end(), [&](const Alternative& a) { return matches(a.messages, false); });
  if (!possible) {
    world_.fail(fmt::format("{}: got [{}], expected [{}]", describe(), show(got_), show(expected_.front().messages)));
  }
}

void Client::request_done() {
  check_parameters();
  since_ = world_.now();
  got_.clear();
  next_request();
}

}  // namespace pgweir::sim
