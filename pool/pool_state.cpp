// Sizes and times of one pool; see the header.
#include "pool/pool_state.hpp"

#include <algorithm>

namespace pgweir::pool {

std::uint32_t PoolState::min_servers() const {
  if (settings.held) return 0;
  if (attached == 0 && (home == nullptr || home->attached == 0) && !settings.forced_user) return 0;
  if (settings.pool_size == 0) return settings.min_pool_size;
  return std::min(settings.min_pool_size, settings.pool_size);
}

std::uint32_t PoolState::uncovered() const {
  if (settings.held) return dedicated.size();
  const std::uint32_t covered = supply();
  return dedicated.size() + (queue.size() > covered ? queue.size() - covered : 0);
}

const ClientSlot* PoolState::first_uncovered() const {
  if (settings.held) return dedicated.at(0);
  const ClientSlot* any = queue.at(supply());
  const ClientSlot* own = dedicated.at(0);
  if (any == nullptr || own == nullptr) return any == nullptr ? own : any;
  return queued_before(*any, *own) ? any : own;
}

std::uint32_t PoolState::logins_max() const {
  // While logins fail one attempt at a time is enough to learn that they succeed again.
  return last_login_failed ? 1 : std::max<std::uint32_t>(settings.max_pool_logins, 1);
}

std::uint32_t PoolState::openable(TimePoint now) const {
  const std::uint32_t wanted = uncovered();
  if (wanted == 0 || login_paused(now) || all_logins() >= logins_max()) return 0;
  const std::uint32_t wanted_now = std::min(wanted, logins_max() - all_logins());
  if (settings.pool_size == 0) return wanted_now;
  if (servers.total < settings.pool_size) return std::min(wanted_now, settings.pool_size - servers.total);
  return reserve_from() <= now ? 1 : 0;
}

TimePoint PoolState::reserve_from() const {
  const bool reserve_left = uses_reserve() && settings.reserve_pool_timeout > Duration::zero() &&
                            servers.total - settings.pool_size < settings.reserve_pool_size;
  const ClientSlot* waiter = reserve_left ? first_uncovered() : nullptr;
  return waiter != nullptr ? waiter->since + settings.reserve_pool_timeout : kNever;
}

bool PoolState::excess() const {
  if (connections.excess() || user.excess()) return true;
  return settings.pool_size != 0 &&
         servers.alive() > std::uint64_t{settings.pool_size} + std::uint64_t{settings.reserve_pool_size};
}

Duration PoolState::lifetime_gap() const {
  return settings.pool_size == 0 ? Duration::zero() : settings.server_lifetime / settings.pool_size;
}

bool PoolState::lifetime_over(const ServerSlot& server, TimePoint now) const {
  if (settings.server_lifetime <= Duration::zero()) return server.used;
  if (now - server.created < settings.server_lifetime) return false;
  return !closed_for_lifetime || now - last_lifetime_close >= lifetime_gap();
}

bool PoolState::needs_check(const ServerSlot& server, TimePoint now) const {
  if (!settings.server_check) return false;
  // A login that has just succeeded is as good as a check, even if every reuse has to be checked.
  if (!server.used && now == server.last_active) return false;
  return now - server.last_active >= settings.server_check_delay;
}

}  // namespace pgweir::pool
