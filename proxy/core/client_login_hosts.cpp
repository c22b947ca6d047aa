// Which host a login to a routed database gets its server from.
#include "proxy/core/client_login.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

PoolContext& ClientLogin::pool_to_ask() {
  WorkerCore& core = *client_.core_;
  asked_ = wanted_;
  if (!wanted_->routed() || !wanted_->group->table) return *asked_;
  // What a server reports is the same on all of them but for its role, which is not passed on.
  router::RouteRequest request;
  request.verdict = {router::StatementClass::Read, router::ClassReason::Select};
  const router::RouteDecision decision = router::decide(request, {}, *wanted_->group->table, wanted_->policy, {},
                                                        wanted_->group->outstanding, core.random());
  if (decision.kind == router::RouteKind::Host) {
    if (PoolContext* on_host = core.context_on(*wanted_, decision.host)) asked_ = on_host;
  }
  return *asked_;
}

void ClientLogin::route_again() {
  if (wanted_ == nullptr || client_.replication_) return;
  PoolContext* before = asked_;
  const bool waits_well = before != wanted_ && before->host_id && wanted_->routed() && wanted_->group->table &&
                          wanted_->group->table->host(*before->host_id).health == router::HostHealth::Up;
  if (waits_well || &pool_to_ask() == before) {
    asked_ = before;
    return;
  }
  client_.stop_waiting();
  client_.acquire_again(*asked_);
}

}  // namespace pgweir::core
