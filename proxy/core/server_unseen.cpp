// Messages of a server that no client sees: what it says while nobody uses it, and the replies to queries of ours.
#include <string>
#include <utility>
#include <vector>

#include "pool/mutation.hpp"
#include "protocol/message_type.hpp"
#include "protocol/message_view.hpp"
#include "proxy/core/client_session.hpp"
#include "proxy/core/server_session.hpp"
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

namespace backend = protocol::backend;

// Nobody is linked and nothing is asked: an idle server (or one being reset, whose replies are hidden). PgBouncer
// throws a server away for any such message; only those that end its usefulness do so here.
ServerSession::Step ServerSession::take_idle_message(const protocol::FrameHeader& header, ByteView message) {
  const bool complete = message.size() == header.total();
  switch (header.type) {
    case backend::NoticeResponse:
    case backend::NotificationResponse:
      return Step::Drop;
    case backend::ParameterStatus: {
      if (!complete) break;
      OutBatch unused;
      return take_parameter_status(message.substr(protocol::kHeaderSize), unused) == Step::Stop ? Step::Stop
                                                                                                : Step::Drop;
    }
    default:
      break;
  }
  std::string reason = "server sent unexpected message while idle";
  if (header.type == backend::ErrorResponse && complete) {
    if (const auto error = protocol::parse_error_fields(message.substr(protocol::kHeaderSize))) {
      reason = "server closed an idle connection: " + std::string(error->message);
    }
  }
  close(reason);
  return Step::Stop;
}

// A query of ours is under way: nothing of it reaches a client but what may come at any time anyway.
ServerSession::Step ServerSession::take_hidden(const protocol::FrameHeader& header, ByteView message) {
  const ByteView body = message.substr(protocol::kHeaderSize);
  const bool complete = message.size() == header.total();
  switch (header.type) {
    case backend::ReadyForQuery: {
      const std::optional<char> status = complete ? protocol::parse_ready_for_query(body) : std::nullopt;
      if (!status) {
        protocol_violation("bad pkt header");
        return Step::Stop;
      }
      status_ = *status;
      hidden_done();
      return closed() || terminated_ ? Step::Stop : Step::Drop;
    }
    case backend::ParameterStatus:
      if (!complete || !take_hidden_parameter(body)) {
        protocol_violation("broken ParameterStatus packet");
        return Step::Stop;
      }
      return Step::Drop;
    case backend::NotificationResponse:
      return client_ != nullptr && client_->state() == ClientSession::State::Ready ? Step::Forward : Step::Drop;
    case backend::ErrorResponse:
      hidden_result_->failed = true;
      if (const auto error = complete ? protocol::parse_error_fields(body) : std::nullopt) {
        hidden_result_->sqlstate = std::string(error->sqlstate);
        hidden_result_->message = std::string(error->message);
        hidden_result_->failure = router::classify_failure(error->sqlstate, error->message, error->routine);
      }
      return Step::Drop;
    case backend::RowDescription:
      hidden_result_->columns = complete ? protocol::parse_row_description(body).value_or(0) : std::uint16_t{0};
      return Step::Drop;
    case backend::DataRow:
      ++hidden_result_->rows;
      if (static_cast<HiddenPurpose>(ledger_.front().purpose) == HiddenPurpose::Lookup && complete) {
        collect_row(body);
      }
      return Step::Drop;
    default:
      return Step::Drop;
  }
}

bool ServerSession::take_hidden_parameter(ByteView body) {
  const auto parameter = protocol::parse_parameter_status(body);
  if (!parameter) return false;
  const auto index = core_->settings()->tracked->find(parameter->name);
  if (!index || *index >= parameters_.tracked->values.size()) {
    if (parameter->name == kHotStandby && !PGWEIR_MUTANT(31)) set_role(role_of(parameter->value));
    return true;
  }
  parameters_.tracked = with_value(parameters_.tracked, *index, parameter->value);
  return true;
}

void ServerSession::collect_row(ByteView body) {
  std::vector<std::optional<ByteView>> columns;
  hidden_result_->row.clear();
  if (!protocol::parse_data_row(body, columns)) return;
  for (const auto& column : columns) {
    hidden_result_->row.push_back(column ? std::optional<std::string>(*column) : std::nullopt);
  }
}

}  // namespace pgweir::core
