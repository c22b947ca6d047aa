// Read-only views over the body of one complete message (what follows the five header bytes). Decides whether a body is
// well formed, not whether the message is welcome. Nothing is copied: every view lives as long as the body it was taken
// from. All functions answer nullopt (or false) for a malformed body. Follows "Message Formats" of the PostgreSQL
// manual; 16-bit counts are unsigned, as PostgreSQL itself reads them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "protocol/message_type.hpp"
#include "protocol/wire.hpp"

namespace pgweir::protocol {

// ---- Messages of a client ----

struct ParseView {
  ByteView statement;
  ByteView query;
  ByteView parameter_types_raw;  ///< 16-bit count and that many type OIDs, as on the wire.
};
[[nodiscard]] std::optional<ParseView> parse_parse(ByteView body);

struct BindView {
  ByteView portal;
  ByteView statement;
  std::size_t rest_offset = 0;  ///< Where the format codes start in the body.
};
/// Checks the whole message, so it is linear in the number of parameters; two_strings() is enough for the names.
[[nodiscard]] std::optional<BindView> parse_bind(ByteView body);

/// The portal and statement names of a Bind of which only the first bytes are here. nullopt if they are not complete.
[[nodiscard]] std::optional<std::pair<ByteView, ByteView>> two_strings(ByteView body_prefix);

/// Describe and Close.
struct TargetView {
  char kind = 'S';  ///< 'S' for a prepared statement, 'P' for a portal.
  ByteView name;
};
[[nodiscard]] std::optional<TargetView> parse_target(ByteView body);

struct ExecuteView {
  ByteView portal;
  std::int32_t max_rows = 0;  ///< Zero and below mean all rows.
};
[[nodiscard]] std::optional<ExecuteView> parse_execute(ByteView body);

struct QueryView {
  ByteView sql;
};
[[nodiscard]] std::optional<QueryView> parse_query(ByteView body);

/// PasswordMessage: the text without its terminator.
[[nodiscard]] std::optional<ByteView> parse_password(ByteView body);

struct SaslInitialResponseView {
  ByteView mechanism;
  std::optional<ByteView> data;  ///< Absent if the client sent length -1.
};
[[nodiscard]] std::optional<SaslInitialResponseView> parse_sasl_initial_response(ByteView body);

// ---- Messages of a server ----

/// Fields of ErrorResponse and NoticeResponse; those not sent are empty, unknown ones are passed over.
struct ErrorFields {
  ByteView severity;    ///< 'S', possibly translated.
  ByteView severity_v;  ///< 'V', never translated.
  ByteView sqlstate;
  ByteView message;
  ByteView detail;
  ByteView hint;
  ByteView routine;
};
[[nodiscard]] std::optional<ErrorFields> parse_error_fields(ByteView body);

struct ParameterStatusView {
  ByteView name;
  ByteView value;
};
[[nodiscard]] std::optional<ParameterStatusView> parse_parameter_status(ByteView body);

struct BackendKeyDataView {
  std::uint32_t pid = 0;
  ByteView secret;  ///< 4 to 256 bytes.
};
[[nodiscard]] std::optional<BackendKeyDataView> parse_backend_key_data(ByteView body);

/// Transaction status: 'I', 'T' or 'E'.
[[nodiscard]] inline std::optional<char> parse_ready_for_query(ByteView body) {
  if (body.size() != 1 || (body[0] != 'I' && body[0] != 'T' && body[0] != 'E')) return std::nullopt;
  return body[0];
}

struct AuthenticationView {
  AuthRequest kind = AuthRequest::Ok;  ///< May hold a number that is no enumerator, for requests we do not know.
  ByteView data;                       ///< What follows the request code.
};
/// For the requests we know, `data` is checked: empty, a 4-byte salt, or a list of mechanisms.
[[nodiscard]] std::optional<AuthenticationView> parse_authentication(ByteView body);
/// The 4-byte salt of AuthenticationMD5Password; nullopt for other requests.
[[nodiscard]] std::optional<ByteView> md5_salt(const AuthenticationView& authentication);
/// Splits the data of AuthenticationSASL into `out`, replacing what was there.
[[nodiscard]] bool sasl_mechanisms(ByteView data, std::vector<ByteView>& out);

struct CommandCompleteView {
  ByteView tag;
};
[[nodiscard]] std::optional<CommandCompleteView> parse_command_complete(ByteView body);

struct NegotiateView {
  std::uint32_t minor = 0;  ///< The word as sent; PostgreSQL sends the whole version number here (196608 for 3.0).
  std::vector<ByteView> options;
};
[[nodiscard]] std::optional<NegotiateView> parse_negotiate_protocol_version(ByteView body);

/// The number of columns; every column description is checked.
[[nodiscard]] std::optional<std::uint16_t> parse_row_description(ByteView body);

/// Splits a DataRow into `columns`, replacing what was there; SQL nulls are nullopt.
[[nodiscard]] bool parse_data_row(ByteView body, std::vector<std::optional<ByteView>>& columns);

}  // namespace pgweir::protocol
