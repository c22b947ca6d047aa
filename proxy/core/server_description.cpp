// What servers say of the results of shared statements: what clients are told of them, and whether it still holds.
#include <utility>

#include "protocol/message_type.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/server_session.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace backend = protocol::backend;
using protocol::ReplyEntry;
using protocol::ReplyKind;

namespace {
/// A description that is longer is passed on unread: its statement stays one of which nothing was told.
constexpr std::size_t kDescriptionMax = 65536;
}  // namespace

// What a transaction has changed nobody else sees before it ends, and what was changed on the primary a standby sees
// later: then the number is one of this server alone.
std::uint64_t ServerSession::schema_now() const {
  constexpr std::uint64_t spread = 0x9e3779b97f4a7c15;
  const bool behind = role_ == HostRole::Standby && !core_->schema_settled(context_->dbname);
  return core_->schema_of(context_->dbname) + (behind || catalog_seen_ ? (number_ + 1) * spread : 0);
}

// What is said of a shared statement is what its client goes by from now on, and what this server gives to others too.
// A question of ours is about servers that would parse it now.
ServerSession::Step ServerSession::take_description(const protocol::FrameHeader& header, ByteView message) {
  const ReplyEntry& front = ledger_.front();
  const bool hidden = front.kind == ReplyKind::HiddenDescribe;
  if (!hidden && front.kind != ReplyKind::Describe) return unexpected(header.type);
  const bool complete = message.size() == header.total();
  if (!complete && header.total() <= kDescriptionMax) return Step::NeedMore;
  const ByteView body = message.substr(protocol::kHeaderSize);
  const Step step = hidden ? Step::Drop : Step::Forward;
  if (header.type == backend::ParameterDescription) {
    if (hidden || !complete) return step;
    if (!front.statement) {
      client_->unnamed_described(front.purpose, std::string(body));
    } else if (front.statement->told_types.empty()) {
      front.statement->told_types = std::string(body);
    }
    return step;
  }
  const std::uint64_t shape = complete ? protocol::result_shape(body) : 0;
  if (!front.statement) {
    client_->unnamed_described(front.purpose, shape, hidden ? std::optional(front.change->schema) : std::nullopt);
    ledger_.drop_front();
    return step;
  }
  protocol::Statement& statement = *front.statement;
  if (hidden) {
    statement.result = {front.change->schema, shape};
    statements_.describe(statement.key(), shape != 0 ? shape : protocol::kAnyShape);
  } else if (shape != 0) {
    const bool fresh = statements_.describe(statement.key(), shape) == 0U;
    if (fresh && statement.result.schema == 0) statement.result = {statement.schema(), shape};
    auto* known = client_->statements()->find(front.change->client_name);
    if (known != nullptr && known->serial == front.name_serial) known->shape = shape;
  }
  ledger_.drop_front();
  return step;
}

}  // namespace pgweir::core
