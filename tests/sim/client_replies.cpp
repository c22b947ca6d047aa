// Comparing what a client gets with what its reference would have answered.
#include <fmt/format.h>

#include <algorithm>

#include "tests/sim/sim_client.hpp"
#include "tests/sim/simulation.hpp"

namespace pgweir::sim {

void SimClient::collect() {
  for (Message& message : reference_.take_output()) {
    if (message.type != 'S') expected_.push_back(std::move(message));
  }
}

// Lets the reference go on until it has something to say. `canceled`: a cancel request of this client has hit what the
// reference does next.
void SimClient::advance_reference(bool canceled) {
  while (expected_.empty()) {
    switch (reference_.state()) {
      case PgMachine::State::Sleeping:
        reference_.wake(canceled);
        canceled = false;
        break;
      case PgMachine::State::Working:
        if (canceled) {
          reference_.cancel();
          canceled = false;
        } else {
          reference_.advance();
        }
        break;
      case PgMachine::State::Reading: {
        if (pending_.empty()) return;
        Message message = std::move(pending_.front());
        pending_.pop_front();
        const char type = message.type;
        const bool silent = type == 'd' || type == 'c' || type == 'f' || type == 'H' || reference_.skipping();
        if (canceled && !silent && !reference_.copying()) {
          // What came before in this pipeline is answered first; if that is so, nothing is held back.
          reference_.refuse(message);
          canceled = false;
        } else {
          reference_.take(std::move(message));
        }
        break;
      }
      default:
        return;
    }
    collect();
  }
}

bool SimClient::equal(const Message& expected, const Message& got) {
  if (expected.type != got.type) return false;
  if (expected.type != 'E') return expected.body == got.body;
  const std::string wanted = sqlstate_of(expected), have = sqlstate_of(got);
  if (wanted == have) return wanted != "22012" || text_of(expected) == text_of(got);
  // A name taken twice in an aborted transaction: two mistakes, of which we report the other.
  return wanted == "25P02" && have == "42P05";
}

void SimClient::compare(const Message& message) {
  const bool canceled = message.type == 'E' && sqlstate_of(message) == "57014" && cancels_ > 0;
  if (expected_.empty()) advance_reference(false || (canceled && !expected_.size()));
  if (expected_.empty()) {
    world_.fail("replies", fmt::format("{} got {} and expects nothing", state_text(), describe(message)));
  }
  if (!equal(expected_.front(), message)) {
    world_.fail("replies", fmt::format("{} got {}, expected {}", state_text(), describe(message),
                                       describe(expected_.front())));
  }
  if (message.type == 'E') error_in_burst_ = true;
  expected_.pop_front();
  if (message.type == 'Z' && expected_.empty()) check_view();
  since_ = world_.now();
  try_settle();
}

void SimClient::check_view() {
  for (const auto& [name, value] : reference_.told()) {
    if (!PgMachine::reported(name)) continue;
    if (view_[name] != value) {
      world_.fail("parameters",
                  fmt::format("{} was told {}='{}', should be '{}'", state_text(), name, view_[name], value));
    }
  }
}

// Whether everything that was sent has been answered.
void SimClient::try_settle() {
  if (phase_ != Phase::Busy || !expected_.empty() || !out_.empty()) return;
  PgMachine probe = reference_;
  for (const Message& message : pending_) {
    if (probe.state() != PgMachine::State::Reading) return;
    probe.take(message);
    if (!probe.take_output().empty()) return;
  }
  if (probe.state() != PgMachine::State::Reading) return;
  if (!open_pipeline_ && !probe.at_rest() && !probe.copying() && probe.status() == 'I') return;  // a Sync is due
  reference_ = probe;
  pending_.clear();
  if (error_in_burst_ && unnamed_in_burst_) unnamed_doubtful_ = true;
  phase_ = Phase::Idle;
  next_burst();
}

}  // namespace pgweir::sim
