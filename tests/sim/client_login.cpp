// A client's side of SCRAM.
#include <fmt/format.h>

#include "protocol/message_builder.hpp"
#include "protocol/message_view.hpp"
#include "tests/sim/client.hpp"

namespace pgweir::sim {

void Client::authenticate(std::string_view request) {
  const auto asked = protocol::parse_authentication(request);
  if (!asked) world_.fail(describe() + ": a bad authentication request");
  std::string out;
  switch (asked->kind) {
    case protocol::AuthRequest::Ok:
      if (world_.plan().scram && !scram_) world_.fail(describe() + ": was not asked for its password");
      return;
    case protocol::AuthRequest::Sasl:
      scram_.emplace(world_.crypto(), password_of(fmt::format("user{}", number_)), fmt::format("nonce-{}", ++tokens_));
      protocol::append_sasl_initial_response(out, scram_->mechanism(), scram_->first());
      break;
    case protocol::AuthRequest::SaslContinue: {
      const auto answer = scram_ ? scram_->answer(asked->data) : std::nullopt;
      if (!answer) world_.fail(describe() + ": a bad SASL challenge");
      protocol::append_sasl_response(out, *answer);
      break;
    }
    case protocol::AuthRequest::SaslFinal:
      if (!scram_ || !scram_->verify(asked->data)) world_.fail(describe() + ": the proxy does not know its password");
      return;
    default:
      world_.fail(describe() + ": an unexpected authentication request");
  }
  send(std::move(out));
}

}  // namespace pgweir::sim
