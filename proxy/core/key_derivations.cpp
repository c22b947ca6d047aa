#include "proxy/core/key_derivations.hpp"

#include <algorithm>

namespace pgweir::core {

KeyDerivations::Request KeyDerivations::ask(const KeyWaiter& waiter, KeyQuestion question) {
  const auto known = places_.find(question);
  if (known != places_.end()) {
    jobs_.at(known->second).waiters.push_back(waiter);
    return {*this, known->second, waiter};
  }
  const Place place{std::holds_alternative<pool::ClientId>(waiter), ++last_number_};
  places_.emplace(question, place);
  jobs_.emplace(place, Job{std::move(question), {waiter}});
  return {*this, place, waiter};
}

std::optional<KeyDerivations::Next> KeyDerivations::next() {
  if (under_way_ || jobs_.empty()) return std::nullopt;
  const auto& [place, job] = *jobs_.begin();
  under_way_ = place;
  return Next{place.number, job.question};
}

KeyDerivations::Finished KeyDerivations::finished(std::uint64_t number) {
  if (!under_way_ || under_way_->number != number) return {};
  const auto job = jobs_.find(*under_way_);
  under_way_.reset();
  places_.erase(job->second.question);
  Finished result{std::move(job->second.question), std::move(job->second.waiters)};
  jobs_.erase(job);
  return result;
}

void KeyDerivations::leave(Place place, const KeyWaiter& waiter) {
  const auto job = jobs_.find(place);
  if (job == jobs_.end()) return;  // it has been told
  auto& waiters = job->second.waiters;
  if (const auto it = std::find(waiters.begin(), waiters.end(), waiter); it != waiters.end()) waiters.erase(it);
  // What is under way cannot be stopped, and the Host has one at a time.
  if (!waiters.empty() || place == under_way_) return;
  places_.erase(job->second.question);
  jobs_.erase(job);
}

}  // namespace pgweir::core
