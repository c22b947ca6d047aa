// Parsers of message bodies; see message_view.hpp for what is decided here.
#include "protocol/message_view.hpp"

#include "protocol/auth_md5.hpp"
#include "protocol/body_reader.hpp"
#include "protocol/startup.hpp"

namespace pgweir::protocol {

namespace {

constexpr std::size_t kOidSize = 4;
constexpr std::size_t kValueLengthSize = 4;
/// Table OID, column number, type OID, type length, type modifier, format code.
constexpr std::size_t kColumnDescriptionSize = 18;

/// One value with its 32-bit length in front, as in Bind and DataRow. nullopt is SQL null, or a failed reader.
std::optional<ByteView> read_value(BodyReader& reader) {
  const std::int32_t length = reader.i32();
  if (length == kNullLength) return std::nullopt;
  // A negative length becomes an impossible size, which the reader refuses.
  return reader.bytes(static_cast<std::size_t>(length));
}

/// A body that is nothing but one NUL-terminated string.
std::optional<ByteView> only_string(ByteView body) {
  BodyReader reader(body);
  const ByteView text = reader.string();
  if (!reader.complete()) return std::nullopt;
  return text;
}

void set_error_field(ErrorFields& fields, char code, ByteView text) {
  switch (code) {
    case 'S':
      fields.severity = text;
      break;
    case 'V':
      fields.severity_v = text;
      break;
    case 'C':
      fields.sqlstate = text;
      break;
    case 'M':
      fields.message = text;
      break;
    case 'D':
      fields.detail = text;
      break;
    case 'H':
      fields.hint = text;
      break;
    case 'R':
      fields.routine = text;
      break;
    default:
      break;  // The manual asks frontends to ignore field types they do not know.
  }
}

/// Calls `each` with every string of a list that ends with an empty one at the very end of `data`.
template <typename Each>
bool for_each_mechanism(ByteView data, Each each) {
  BodyReader reader(data);
  for (;;) {
    const ByteView name = reader.string();
    if (name.empty()) return reader.complete();
    each(name);
  }
}

}  // namespace

std::optional<ParseView> parse_parse(ByteView body) {
  BodyReader reader(body);
  ParseView view;
  view.statement = reader.string();
  view.query = reader.string();
  const std::size_t types_offset = reader.position();
  const std::uint16_t count = reader.u16();
  static_cast<void>(reader.bytes(count * kOidSize));
  if (!reader.complete()) return std::nullopt;
  view.parameter_types_raw = body.substr(types_offset);
  return view;
}

std::optional<BindView> parse_bind(ByteView body) {
  BodyReader reader(body);
  BindView view;
  view.portal = reader.string();
  view.statement = reader.string();
  view.rest_offset = reader.position();
  const std::uint16_t format_count = reader.u16();
  static_cast<void>(reader.bytes(format_count * sizeof(std::uint16_t)));
  const std::uint16_t value_count = reader.u16();
  // One format for all values, none for the default, or one each.
  if (format_count > 1 && format_count != value_count) return std::nullopt;
  for (std::uint16_t i = 0; i < value_count && reader.ok(); ++i) static_cast<void>(read_value(reader));
  const std::uint16_t result_format_count = reader.u16();
  static_cast<void>(reader.bytes(result_format_count * sizeof(std::uint16_t)));
  if (!reader.complete()) return std::nullopt;
  return view;
}

std::optional<std::pair<ByteView, ByteView>> two_strings(ByteView body_prefix) {
  BodyReader reader(body_prefix);
  const ByteView first = reader.string();
  const ByteView second = reader.string();
  if (!reader.ok()) return std::nullopt;
  return std::pair{first, second};
}

std::optional<TargetView> parse_target(ByteView body) {
  BodyReader reader(body);
  TargetView view;
  view.kind = reader.byte();
  view.name = reader.string();
  if (!reader.complete() || (view.kind != 'S' && view.kind != 'P')) return std::nullopt;
  return view;
}

std::optional<ExecuteView> parse_execute(ByteView body) {
  BodyReader reader(body);
  ExecuteView view;
  view.portal = reader.string();
  view.max_rows = reader.i32();
  if (!reader.complete()) return std::nullopt;
  return view;
}

std::optional<QueryView> parse_query(ByteView body) {
  const std::optional<ByteView> sql = only_string(body);
  if (!sql) return std::nullopt;
  return QueryView{*sql};
}

std::optional<ByteView> parse_password(ByteView body) {
  return only_string(body);
}

std::optional<SaslInitialResponseView> parse_sasl_initial_response(ByteView body) {
  BodyReader reader(body);
  SaslInitialResponseView view;
  view.mechanism = reader.string();
  view.data = read_value(reader);
  if (!reader.complete()) return std::nullopt;
  return view;
}

std::optional<ErrorFields> parse_error_fields(ByteView body) {
  BodyReader reader(body);
  ErrorFields fields;
  // A failed read gives a zero code as well, so the loop ends in either case.
  for (char code = reader.byte(); code != '\0'; code = reader.byte()) set_error_field(fields, code, reader.string());
  if (!reader.complete()) return std::nullopt;
  return fields;
}

std::optional<ParameterStatusView> parse_parameter_status(ByteView body) {
  BodyReader reader(body);
  ParameterStatusView view;
  view.name = reader.string();
  view.value = reader.string();
  if (!reader.complete()) return std::nullopt;
  return view;
}

std::optional<BackendKeyDataView> parse_backend_key_data(ByteView body) {
  const std::optional<CancelKey> key = parse_cancel_request(body);
  if (!key) return std::nullopt;
  return BackendKeyDataView{key->pid, key->secret};
}

std::optional<AuthenticationView> parse_authentication(ByteView body) {
  BodyReader reader(body);
  AuthenticationView view;
  view.kind = static_cast<AuthRequest>(reader.u32());
  view.data = reader.rest();
  if (!reader.ok()) return std::nullopt;
  bool fits = true;
  switch (view.kind) {
    case AuthRequest::Ok:
    case AuthRequest::KerberosV5:
    case AuthRequest::CleartextPassword:
    case AuthRequest::Gss:
    case AuthRequest::Sspi:
      fits = view.data.empty();
      break;
    case AuthRequest::Md5Password:
      fits = view.data.size() == kMd5SaltSize;
      break;
    case AuthRequest::Sasl:
      fits = for_each_mechanism(view.data, [](ByteView) {});
      break;
    case AuthRequest::GssContinue:
    case AuthRequest::SaslContinue:
    case AuthRequest::SaslFinal:
      break;
  }
  if (!fits) return std::nullopt;
  return view;
}

std::optional<ByteView> md5_salt(const AuthenticationView& authentication) {
  if (authentication.kind != AuthRequest::Md5Password || authentication.data.size() != kMd5SaltSize)
    return std::nullopt;
  return authentication.data;
}

bool sasl_mechanisms(ByteView data, std::vector<ByteView>& out) {
  out.clear();
  return for_each_mechanism(data, [&out](ByteView name) { out.push_back(name); });
}

std::optional<CommandCompleteView> parse_command_complete(ByteView body) {
  const std::optional<ByteView> tag = only_string(body);
  if (!tag) return std::nullopt;
  return CommandCompleteView{*tag};
}

std::optional<NegotiateView> parse_negotiate_protocol_version(ByteView body) {
  BodyReader reader(body);
  NegotiateView view;
  view.minor = reader.u32();
  const std::uint32_t count = reader.u32();
  // Each option has a terminator at least; this also refuses negative counts, before anything is allocated.
  if (!reader.ok() || count > reader.remaining()) return std::nullopt;
  for (std::uint32_t i = 0; i < count && reader.ok(); ++i) view.options.push_back(reader.string());
  if (!reader.complete()) return std::nullopt;
  return view;
}

std::optional<std::uint16_t> parse_row_description(ByteView body) {
  BodyReader reader(body);
  const std::uint16_t count = reader.u16();
  for (std::uint16_t i = 0; i < count && reader.ok(); ++i) {
    static_cast<void>(reader.string());
    static_cast<void>(reader.bytes(kColumnDescriptionSize));
  }
  if (!reader.complete()) return std::nullopt;
  return count;
}

bool parse_data_row(ByteView body, std::vector<std::optional<ByteView>>& columns) {
  columns.clear();
  BodyReader reader(body);
  const std::uint16_t count = reader.u16();
  if (!reader.ok() || count * kValueLengthSize > reader.remaining()) return false;
  columns.reserve(count);
  for (std::uint16_t i = 0; i < count && reader.ok(); ++i) columns.push_back(read_value(reader));
  return reader.complete();
}

}  // namespace pgweir::protocol
