// Requests of routed databases that may be run again elsewhere as long as the client has seen nothing of the answer.
#include "protocol/message_builder.hpp"
#include "protocol/message_type.hpp"
#include "protocol/message_view.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/server_session.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace backend = protocol::backend;

namespace {
/// An error that is longer is passed on without being looked at.
constexpr std::size_t kErrorMax = 65536;
/// No more than this is held back of an answer that has not begun yet.
constexpr std::size_t kHeldBackMax = 16384;
}  // namespace

// What the first bytes of an answer mean for a request that may be run again: whatever only says that it was understood
// is held back until something is known of how it went.
ServerSession::Weighed ServerSession::weigh(ByteView in) {
  std::size_t pos = 0;
  protocol::FrameHeader header;
  while (pos < in.size() &&
         read_frame_header(in.substr(pos), core_->config().max_packet_size, header) == protocol::FrameStatus::Ok) {
    switch (header.type) {
      case backend::CloseComplete:
        if (!is_asked()) return Weighed::Deliver;
        break;
      case backend::ParseComplete:
      case backend::BindComplete:
      case backend::ParameterDescription:
      case backend::RowDescription:
      case backend::NoData:
      case backend::NoticeResponse:
      case backend::NotificationResponse:
      case backend::ParameterStatus:
        break;
      case backend::ErrorResponse: {
        if (in.size() - pos < header.total() && header.total() <= kErrorMax) return Weighed::Undecided;
        const ByteView body = in.substr(pos, header.total()).substr(protocol::kHeaderSize);
        const auto error = protocol::parse_error_fields(body);
        if (!error) return Weighed::Deliver;
        const router::Retry retry =
            client_->may_retry(router::classify_failure(error->sqlstate, error->message, error->routine));
        if (retry == router::Retry::No) return Weighed::Deliver;
        const bool fatal = error->severity_v == "FATAL" || error->severity_v == "PANIC";
        if (fatal) {
          hung_up_ = true;
          return Weighed::Lost;
        }
        if (error->sqlstate == "25006") core_->witness(*context_, router::Witness::ReadOnlyError);
        client_->prepare_retry(retry);
        return Weighed::Retry;
      }
      default:
        return Weighed::Deliver;
    }
    pos += header.total();
  }
  return in.size() > kHeldBackMax ? Weighed::Deliver : Weighed::Undecided;
}

// A question of ours has failed, behind which no Sync was sent.
void ServerSession::end_question() {
  std::string sync;
  protocol::append_sync(sync);
  ledger_.push(protocol::ReplyKind::HiddenSync);
  const ByteView piece = sync;
  forward({&piece, 1});
}

// The server ends while it owes the answer to a request that may be run again.
void ServerSession::take_back_request() {
  if (!discarding_) {
    const router::Retry retry = client_->may_retry(router::FailureKind::ConnectionLost);
    if (retry == router::Retry::No) return;
    client_->prepare_retry(retry);
  }
  while (!ledger_.empty()) {
    const std::size_t before = ledger_.size();
    ledger_.fail([this](protocol::ReplyEntry& entry) { undo(entry); });
    if (ledger_.size() == before) ledger_.drop_front();
  }
}

}  // namespace pgweir::core
