// Builders of single messages; see message_builder.hpp for what is decided here.
#include "protocol/message_builder.hpp"

#include <limits>
#include <stdexcept>

#include "protocol/message_type.hpp"

namespace pgweir::protocol {

namespace {

std::uint16_t count16(std::size_t count) {
  if (count > std::numeric_limits<std::uint16_t>::max()) throw std::length_error("more than 65535 items in a message");
  return static_cast<std::uint16_t>(count);
}

std::uint32_t length32(std::size_t length) {
  if (length > std::numeric_limits<std::int32_t>::max()) throw std::length_error("message longer than 2 GB");
  return static_cast<std::uint32_t>(length);
}

/// One message at the end of a string. finish() fills in the length word.
class Writer {
 public:
  Writer(std::string& out, char type) : out_(out) {
    out_ += type;
    open_length();
  }
  /// For the untyped first packets.
  explicit Writer(std::string& out) : out_(out) { open_length(); }

  Writer& byte(char value) {
    out_ += value;
    return *this;
  }
  Writer& u16(std::uint16_t value) {
    char raw[sizeof value];
    store_u16(raw, value);
    out_.append(raw, sizeof raw);
    return *this;
  }
  Writer& u32(std::uint32_t value) {
    char raw[sizeof value];
    store_u32(raw, value);
    out_.append(raw, sizeof raw);
    return *this;
  }
  Writer& i32(std::int32_t value) { return u32(static_cast<std::uint32_t>(value)); }
  Writer& bytes(std::string_view value) {
    out_ += value;
    return *this;
  }
  Writer& string(std::string_view text) { return bytes(text.substr(0, text.find('\0'))).byte('\0'); }
  Writer& value(std::optional<std::string_view> data) {
    if (!data) return i32(kNullLength);
    return u32(length32(data->size())).bytes(*data);
  }
  void finish() { store_u32(out_.data() + length_offset_, length32(out_.size() - length_offset_)); }

 private:
  void open_length() {
    length_offset_ = out_.size();
    u32(0);
  }

  std::string& out_;
  std::size_t length_offset_ = 0;
};

Writer authentication(std::string& out, AuthRequest request) {
  Writer writer(out, backend::Authentication);
  writer.u32(static_cast<std::uint32_t>(request));
  return writer;
}

void append_report(std::string& out, char type, const ErrorText& text) {
  Writer writer(out, type);
  writer.byte('S').string(text.severity);
  if (text.add_v) writer.byte('V').string(text.severity);
  writer.byte('C').string(text.sqlstate);
  writer.byte('M').string(text.message);
  if (!text.detail.empty()) writer.byte('D').string(text.detail);
  if (!text.hint.empty()) writer.byte('H').string(text.hint);
  if (!text.routine.empty()) writer.byte('R').string(text.routine);
  writer.byte('\0').finish();
}

void append_empty(std::string& out, char type) {
  Writer(out, type).finish();
}

}  // namespace

void append_authentication_ok(std::string& out) {
  authentication(out, AuthRequest::Ok).finish();
}

void append_authentication_cleartext(std::string& out) {
  authentication(out, AuthRequest::CleartextPassword).finish();
}

void append_authentication_md5(std::string& out, std::string_view salt) {
  authentication(out, AuthRequest::Md5Password).bytes(salt).finish();
}

void append_authentication_sasl(std::string& out, std::span<const std::string_view> mechanisms) {
  Writer writer = authentication(out, AuthRequest::Sasl);
  for (const std::string_view mechanism : mechanisms) writer.string(mechanism);
  writer.byte('\0').finish();
}

void append_authentication_sasl_continue(std::string& out, std::string_view data) {
  authentication(out, AuthRequest::SaslContinue).bytes(data).finish();
}

void append_authentication_sasl_final(std::string& out, std::string_view data) {
  authentication(out, AuthRequest::SaslFinal).bytes(data).finish();
}

void append_parameter_status(std::string& out, std::string_view name, std::string_view value) {
  Writer(out, backend::ParameterStatus).string(name).string(value).finish();
}

void append_backend_key_data(std::string& out, std::uint32_t pid, std::string_view secret) {
  Writer(out, backend::BackendKeyData).u32(pid).bytes(secret).finish();
}

void append_negotiate_protocol_version(std::string& out, std::uint32_t minor_word,
                                       std::span<const std::string_view> options) {
  Writer writer(out, backend::NegotiateProtocolVersion);
  writer.u32(minor_word).u32(length32(options.size()));
  for (const std::string_view option : options) writer.string(option);
  writer.finish();
}

void append_ready_for_query(std::string& out, char status) {
  Writer(out, backend::ReadyForQuery).byte(status).finish();
}

void append_error(std::string& out, std::string_view severity, std::string_view sqlstate, std::string_view message) {
  append_report(out, backend::ErrorResponse, {.severity = severity, .sqlstate = sqlstate, .message = message});
}

void append_error(std::string& out, const ErrorText& text) {
  append_report(out, backend::ErrorResponse, text);
}

void append_notice(std::string& out, std::string_view severity, std::string_view sqlstate, std::string_view message) {
  append_report(out, backend::NoticeResponse, {.severity = severity, .sqlstate = sqlstate, .message = message});
}

void append_notice(std::string& out, const ErrorText& text) {
  append_report(out, backend::NoticeResponse, text);
}

void append_parse_complete(std::string& out) {
  append_empty(out, backend::ParseComplete);
}

void append_message(std::string& out, char type, std::string_view body) {
  Writer(out, type).bytes(body).finish();
}

void append_bind_complete(std::string& out) {
  append_empty(out, backend::BindComplete);
}

void append_close_complete(std::string& out) {
  append_empty(out, backend::CloseComplete);
}

void append_no_data(std::string& out) {
  append_empty(out, backend::NoData);
}

void append_no_parameters(std::string& out) {
  Writer(out, backend::ParameterDescription).u16(0).finish();
}

void append_portal_suspended(std::string& out) {
  append_empty(out, backend::PortalSuspended);
}

void append_empty_query_response(std::string& out) {
  append_empty(out, backend::EmptyQueryResponse);
}

void append_command_complete(std::string& out, std::string_view tag) {
  Writer(out, backend::CommandComplete).string(tag).finish();
}

void append_row_description(std::string& out, std::span<const Column> columns) {
  constexpr std::uint32_t kNoTable = 0;
  constexpr std::uint16_t kNoColumnNumber = 0;
  constexpr std::int32_t kNoTypeModifier = -1;
  constexpr std::uint16_t kTextFormat = 0;
  Writer writer(out, backend::RowDescription);
  writer.u16(count16(columns.size()));
  for (const Column& column : columns) {
    writer.string(column.name).u32(kNoTable).u16(kNoColumnNumber).u32(column.type_oid);
    writer.u16(static_cast<std::uint16_t>(column.type_len)).i32(kNoTypeModifier).u16(kTextFormat);
  }
  writer.finish();
}

void append_data_row(std::string& out, std::span<const std::optional<std::string_view>> values) {
  Writer writer(out, backend::DataRow);
  writer.u16(count16(values.size()));
  for (const std::optional<std::string_view>& value : values) writer.value(value);
  writer.finish();
}

void append_startup_message(std::string& out, std::uint32_t version,
                            std::span<const std::pair<std::string_view, std::string_view>> parameters) {
  Writer writer(out);
  writer.u32(version);
  for (const auto& [name, value] : parameters) writer.string(name).string(value);
  writer.byte('\0').finish();
}

void append_ssl_request(std::string& out) {
  Writer(out).u32(kSslRequestCode).finish();
}

void append_cancel_request(std::string& out, std::uint32_t pid, std::string_view secret) {
  Writer(out).u32(kCancelRequestCode).u32(pid).bytes(secret).finish();
}

void append_password(std::string& out, std::string_view text) {
  Writer(out, frontend::PasswordMessage).string(text).finish();
}

void append_sasl_initial_response(std::string& out, std::string_view mechanism, std::string_view data) {
  Writer(out, frontend::PasswordMessage).string(mechanism).value(data).finish();
}

void append_sasl_response(std::string& out, std::string_view data) {
  Writer(out, frontend::PasswordMessage).bytes(data).finish();
}

void append_query(std::string& out, std::string_view sql) {
  Writer(out, frontend::Query).string(sql).finish();
}

void append_parse(std::string& out, std::string_view name, std::string_view sql, ByteView parameter_types_raw) {
  Writer writer(out, frontend::Parse);
  writer.string(name).string(sql);
  if (parameter_types_raw.empty()) {
    writer.u16(0);
  } else {
    writer.bytes(parameter_types_raw);
  }
  writer.finish();
}

void append_bind_text(std::string& out, std::string_view portal, std::string_view statement,
                      std::span<const std::optional<std::string_view>> parameters) {
  constexpr std::uint16_t kAllText = 0;  // No format codes at all.
  Writer writer(out, frontend::Bind);
  writer.string(portal).string(statement).u16(kAllText).u16(count16(parameters.size()));
  for (const std::optional<std::string_view>& parameter : parameters) writer.value(parameter);
  writer.u16(kAllText).finish();
}

void append_describe(std::string& out, char kind, std::string_view name) {
  Writer(out, frontend::Describe).byte(kind).string(name).finish();
}

void append_close(std::string& out, char kind, std::string_view name) {
  Writer(out, frontend::Close).byte(kind).string(name).finish();
}

void append_execute(std::string& out, std::string_view portal, std::int32_t max_rows) {
  Writer(out, frontend::Execute).string(portal).i32(max_rows).finish();
}

void append_sync(std::string& out) {
  append_empty(out, frontend::Sync);
}

void append_flush(std::string& out) {
  append_empty(out, frontend::Flush);
}

void append_terminate(std::string& out) {
  append_empty(out, frontend::Terminate);
}

void append_copy_data(std::string& out, std::string_view data) {
  Writer(out, frontend::CopyData).bytes(data).finish();
}

void append_copy_done(std::string& out) {
  append_empty(out, frontend::CopyDone);
}

void append_copy_fail(std::string& out, std::string_view reason) {
  Writer(out, frontend::CopyFail).string(reason).finish();
}

}  // namespace pgweir::protocol
