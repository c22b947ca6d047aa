// A server connection that changes from one process to another (online restart).
#include "pool/mutation.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/server_login.hpp"
#include "proxy/core/server_session.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace {

void transfer_report(protocol::StateArchive& archive, std::shared_ptr<const ServerReport>& report,
                     const protocol::TrackedNames& names) {
  bool there = report != nullptr;
  archive(there);
  if (!there) return;
  ServerReport copy;
  if (report != nullptr) copy = *report;
  const std::size_t size = archive.count(copy.untracked.size());
  if (archive.reading()) copy.untracked.resize(size);
  for (auto& [name, value] : copy.untracked) archive(name, value);
  protocol::transfer(archive, copy.tracked, names);
  if (archive.reading() && copy.tracked) report = std::make_shared<const ServerReport>(std::move(copy));
}

}  // namespace

bool ServerSession::at_rest() const {
  return logged_in() && hidden_ == 0 && !discarding_ && !testing_ && !finish_ && !terminated_ && !closed();
}

void ServerSession::transfer(protocol::StateArchive& archive) {
  const protocol::TrackedNames& names = *core_->settings()->tracked;
  archive(target_.host.host, target_.host.port, key_.pid, key_.secret);
  if (!PGWEIR_MUTANT(11)) archive(stream_left_);
  archive(stream_forward_, status_, role_, needs_alignment_, reset_now_, restored_, catalog_seen_, wrote_seen_,
          ended_seen_, mid_request_, flush_wanted_);
  archive(fast_close_, session_used_, used_, dirty_, connected_at_, last_packet_, connect_wall_us_);
  archive(unnamed.client.index, unnamed.client.generation, unnamed.serial);
  protocol::transfer(archive, parameters_.tracked, names);
  protocol::transfer(archive, parameters_.extras);
  archive(parameters_.extras_unknown);
  transfer_report(archive, report_, names);
  ledger_.transfer(archive, core_->statement_table());
  statements_.transfer(archive);
  transfer_buffers(archive);
  if (archive.reading() && !parameters_.tracked) archive.fail();
}

void ServerSession::take_up(pool::ServerId id, ClientSession* client, pool::ClientId client_before) {
  id_ = id;
  lease_ = pool::ServerLease(id);
  // Whose unnamed statement it has is of use only to that client; others than the linked one make their own again.
  if (client != nullptr && unnamed.client == client_before) {
    unnamed.client = client->id();
  } else {
    unnamed = {};
  }
  client_ = client;
  set_role(role_);
  core_->wake(*this);
}

}  // namespace pgweir::core
