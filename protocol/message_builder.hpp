// Appends one message to the end of a string, leaving what is there. Decides only the bytes, never whether a message
// may be sent now, nor how texts are shortened. Follows "Message Formats" of the PostgreSQL manual.
//
// Text arguments end at their first NUL, if they have one, so that no text can smuggle bytes into the framing. A count
// or length that the protocol cannot express is a mistake of the caller and throws std::length_error, after
// which the string ends with half a message and is of no use.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "protocol/wire.hpp"

namespace pgweir::protocol {

// ---- What we send to a client, as a server would ----

void append_authentication_ok(std::string& out);
void append_authentication_cleartext(std::string& out);
/// `salt` has 4 bytes.
void append_authentication_md5(std::string& out, std::string_view salt);
void append_authentication_sasl(std::string& out, std::span<const std::string_view> mechanisms);
void append_authentication_sasl_continue(std::string& out, std::string_view data);
void append_authentication_sasl_final(std::string& out, std::string_view data);

void append_parameter_status(std::string& out, std::string_view name, std::string_view value);
/// `secret` has 4 bytes for protocol 3.0.
void append_backend_key_data(std::string& out, std::uint32_t pid, std::string_view secret);
/// `minor_word` is the whole version number (196608 for 3.0), which is what PostgreSQL sends in this field.
void append_negotiate_protocol_version(std::string& out, std::uint32_t minor_word,
                                       std::span<const std::string_view> options);
/// `status` is 'I', 'T' or 'E'.
void append_ready_for_query(std::string& out, char status);

struct ErrorText {
  std::string_view severity;
  std::string_view sqlstate;
  std::string_view message;
  std::string_view detail = {};  ///< Left out if empty, like hint and routine.
  std::string_view hint = {};
  bool add_v = false;  ///< Repeat the severity in field V, as PostgreSQL does and PgBouncer does not.
  std::string_view routine = {};
};
/// ErrorResponse with fields S, C, M only, which is PgBouncer's shape.
void append_error(std::string& out, std::string_view severity, std::string_view sqlstate, std::string_view message);
void append_error(std::string& out, const ErrorText& text);
void append_notice(std::string& out, std::string_view severity, std::string_view sqlstate, std::string_view message);
void append_notice(std::string& out, const ErrorText& text);

/// A message whose body is there already.
void append_message(std::string& out, char type, std::string_view body);

void append_parse_complete(std::string& out);
void append_bind_complete(std::string& out);
void append_close_complete(std::string& out);
void append_no_data(std::string& out);
/// ParameterDescription of a statement that takes none.
void append_no_parameters(std::string& out);
void append_portal_suspended(std::string& out);
void append_empty_query_response(std::string& out);
void append_command_complete(std::string& out, std::string_view tag);

/// A column of a result that comes from no table, in text format.
struct Column {
  std::string_view name;
  std::uint32_t type_oid = 25;
  std::int16_t type_len = -1;
};
void append_row_description(std::string& out, std::span<const Column> columns);
/// nullopt is SQL null.
void append_data_row(std::string& out, std::span<const std::optional<std::string_view>> values);

// ---- What we send to a server, as a client would ----

/// `version` is the whole number (196608 for 3.0). Parameter names must not be empty: that would end the list.
void append_startup_message(std::string& out, std::uint32_t version,
                            std::span<const std::pair<std::string_view, std::string_view>> parameters);
void append_ssl_request(std::string& out);
void append_cancel_request(std::string& out, std::uint32_t pid, std::string_view secret);

void append_password(std::string& out, std::string_view text);
void append_sasl_initial_response(std::string& out, std::string_view mechanism, std::string_view data);
void append_sasl_response(std::string& out, std::string_view data);

void append_query(std::string& out, std::string_view sql);
/// `parameter_types_raw` is the 16-bit count and the OIDs, as in ParseView; empty stands for a count of zero.
void append_parse(std::string& out, std::string_view name, std::string_view sql, ByteView parameter_types_raw);
/// All parameters and results in text format; nullopt is SQL null.
void append_bind_text(std::string& out, std::string_view portal, std::string_view statement,
                      std::span<const std::optional<std::string_view>> parameters);
/// `kind` is 'S' for a prepared statement, 'P' for a portal.
void append_describe(std::string& out, char kind, std::string_view name);
void append_close(std::string& out, char kind, std::string_view name);
/// `max_rows` 0 means all rows.
void append_execute(std::string& out, std::string_view portal, std::int32_t max_rows);
void append_sync(std::string& out);
void append_flush(std::string& out);
void append_terminate(std::string& out);

void append_copy_data(std::string& out, std::string_view data);
void append_copy_done(std::string& out);
void append_copy_fail(std::string& out, std::string_view reason);

}  // namespace pgweir::protocol
