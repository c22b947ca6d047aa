// Message bodies: whatever the bytes, every view lies inside them, and a body that was accepted is byte for byte what
// the builder makes of its fields. Every parser sees every input, since a body carries no type.
#include <string>
#include <vector>

#include "protocol/message_builder.hpp"
#include "protocol/message_view.hpp"
#include "tests/fuzz/fuzz_check.hpp"

namespace pgweir::protocol {
namespace {

using fuzz::check;
using fuzz::within;

/// Checks that `append` makes a message with this body.
template <typename Append>
void check_rebuilt(ByteView body, const char* what, Append append) {
  std::string message;
  append(message);
  check(ByteView(message).substr(kHeaderSize) == body, what);
}

void check_extended_query(ByteView body) {
  if (const auto view = parse_parse(body)) {
    check_rebuilt(body, "Parse rebuilt", [&](std::string& out) {
      append_parse(out, view->statement, view->query, view->parameter_types_raw);
    });
  }
  const auto names = two_strings(body);
  if (names) check(within(body, names->first) && within(body, names->second), "names within the body");
  if (const auto view = parse_bind(body)) {
    check(names && names->first == view->portal && names->second == view->statement, "the same names");
    check(view->rest_offset == view->portal.size() + view->statement.size() + 2, "offset behind the names");
  }
  if (const auto view = parse_target(body)) {
    check_rebuilt(body, "Describe rebuilt", [&](std::string& out) { append_describe(out, view->kind, view->name); });
  }
  if (const auto view = parse_execute(body)) {
    check_rebuilt(body, "Execute rebuilt",
                  [&](std::string& out) { append_execute(out, view->portal, view->max_rows); });
  }
}

void check_other_client_messages(ByteView body) {
  if (const auto view = parse_query(body)) {
    check_rebuilt(body, "Query rebuilt", [&](std::string& out) { append_query(out, view->sql); });
  }
  if (const auto text = parse_password(body)) {
    check_rebuilt(body, "PasswordMessage rebuilt", [&](std::string& out) { append_password(out, *text); });
  }
  const auto sasl = parse_sasl_initial_response(body);
  if (sasl && sasl->data) {
    check_rebuilt(body, "SASLInitialResponse rebuilt",
                  [&](std::string& out) { append_sasl_initial_response(out, sasl->mechanism, *sasl->data); });
  }
}

void check_login_replies(ByteView body) {
  if (const auto view = parse_authentication(body)) {
    check(within(body, view->data), "authentication data within the body");
    if (const auto salt = md5_salt(*view)) {
      check_rebuilt(body, "MD5 request rebuilt", [&](std::string& out) { append_authentication_md5(out, *salt); });
    }
    std::vector<ByteView> mechanisms;
    if (view->kind == AuthRequest::Sasl) {
      check(sasl_mechanisms(view->data, mechanisms), "mechanisms were checked");
      check_rebuilt(body, "SASL request rebuilt",
                    [&](std::string& out) { append_authentication_sasl(out, mechanisms); });
    }
  }
  if (const auto view = parse_parameter_status(body)) {
    check_rebuilt(body, "ParameterStatus rebuilt",
                  [&](std::string& out) { append_parameter_status(out, view->name, view->value); });
  }
  if (const auto view = parse_backend_key_data(body)) {
    check_rebuilt(body, "BackendKeyData rebuilt",
                  [&](std::string& out) { append_backend_key_data(out, view->pid, view->secret); });
  }
  if (const auto view = parse_negotiate_protocol_version(body)) {
    check_rebuilt(body, "NegotiateProtocolVersion rebuilt",
                  [&](std::string& out) { append_negotiate_protocol_version(out, view->minor, view->options); });
  }
}

void check_query_replies(ByteView body) {
  if (const auto fields = parse_error_fields(body)) {
    for (const ByteView field : {fields->severity, fields->severity_v, fields->sqlstate, fields->message,
                                 fields->detail, fields->hint, fields->routine}) {
      check(within(body, field) && field.find('\0') == ByteView::npos, "error field within the body");
    }
  }
  if (const auto status = parse_ready_for_query(body)) {
    check_rebuilt(body, "ReadyForQuery rebuilt", [&](std::string& out) { append_ready_for_query(out, *status); });
  }
  if (const auto view = parse_command_complete(body)) {
    check_rebuilt(body, "CommandComplete rebuilt", [&](std::string& out) { append_command_complete(out, view->tag); });
  }
  if (const auto count = parse_row_description(body)) check(body.size() >= 2 + *count * 19U, "columns fit");
  std::vector<std::optional<ByteView>> columns;
  if (parse_data_row(body, columns)) {
    check_rebuilt(body, "DataRow rebuilt", [&](std::string& out) { append_data_row(out, columns); });
  }
}

}  // namespace
}  // namespace pgweir::protocol

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pgweir::protocol;
  const ByteView body = pgweir::fuzz::as_view(data, size);
  check_extended_query(body);
  check_other_client_messages(body);
  check_login_replies(body);
  check_query_replies(body);
  return 0;
}
