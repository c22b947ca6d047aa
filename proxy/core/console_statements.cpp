#include "proxy/core/console_statements.hpp"

#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <utility>

#include "protocol/body_reader.hpp"
#include "protocol/frame_header.hpp"
#include "protocol/message_builder.hpp"
#include "protocol/message_type.hpp"
#include "protocol/message_view.hpp"
#include "proxy/core/admin_command.hpp"

namespace pgweir::core {

namespace backend = protocol::backend;
namespace frontend = protocol::frontend;

namespace {

/// Statements and portals of one connection; each may hold a command of the largest size.
constexpr std::size_t kMaxNames = 256;
constexpr std::uint16_t kBinary = 1;
constexpr std::uint32_t kBytea = 17, kInt8 = 20, kInt4 = 23, kNumeric = 1700;
/// What follows the name in a column of RowDescription; the format code is last.
constexpr std::size_t kColumnTail = 18;

/// Of the first message of `bytes`; they are whole messages of our own.
std::size_t message_size(ByteView bytes) {
  return 1 + protocol::load_u32(bytes.data() + 1);
}

ByteView body_of(ByteView message) {
  return message.substr(protocol::kHeaderSize);
}

bool returns_rows(std::string_view sql) {
  const AdminCommand command = parse_admin_command(sql);
  return command.error.empty() &&
         (command.verb == AdminVerb::FakeShow || (command.verb == AdminVerb::Show && command.what != ShowWhat::Help));
}

std::uint16_t format_of(const std::vector<std::uint16_t>& formats, std::size_t column) {
  if (formats.empty()) return 0;
  return formats.size() == 1 ? formats[0] : column < formats.size() ? formats[column] : std::uint16_t{0};
}

std::vector<std::uint32_t> column_types(ByteView row_description) {
  protocol::BodyReader reader(body_of(row_description));
  std::vector<std::uint32_t> types(reader.u16());
  for (std::uint32_t& type : types) {
    (void)reader.string();
    const ByteView tail = reader.bytes(kColumnTail);
    if (tail.size() == kColumnTail) type = protocol::load_u32(tail.data() + 6);
  }
  return types;
}

/// The RowDescription with the format codes of a portal in it.
std::string with_formats(ByteView row_description, const std::vector<std::uint16_t>& formats) {
  std::string out(row_description);
  protocol::BodyReader reader(body_of(row_description));
  const std::size_t columns = reader.u16();
  for (std::size_t column = 0; column < columns; ++column) {
    (void)reader.string();
    (void)reader.bytes(kColumnTail);
    if (!reader.ok()) break;
    protocol::store_u16(out.data() + protocol::kHeaderSize + reader.position() - 2, format_of(formats, column));
  }
  return out;
}

void put_u16(std::string& out, std::uint16_t value) {
  char bytes[2];
  protocol::store_u16(bytes, value);
  out.append(bytes, sizeof bytes);
}

/// An integer in the binary form of numeric: digits to the base 10000, the highest first.
std::string binary_numeric(std::int64_t value) {
  constexpr std::uint16_t kNegative = 0x4000;
  std::vector<std::uint16_t> digits;
  for (auto left = value < 0 ? 0 - static_cast<std::uint64_t>(value) : static_cast<std::uint64_t>(value); left != 0;
       left /= 10000) {
    digits.insert(digits.begin(), static_cast<std::uint16_t>(left % 10000));
  }
  std::string out;
  put_u16(out, static_cast<std::uint16_t>(digits.size()));
  put_u16(out, static_cast<std::uint16_t>(digits.empty() ? 0 : digits.size() - 1));
  put_u16(out, value < 0 ? kNegative : std::uint16_t{0});
  put_u16(out, 0);
  for (const std::uint16_t digit : digits) put_u16(out, digit);
  return out;
}

int hex_digit(char c) {
  return c <= '9' ? c - '0' : c - 'a' + 10;
}

/// The text of a value as the console prints it, in the binary form of its type.
std::string to_binary(std::uint32_t type, ByteView text) {
  std::int64_t number = 0;
  char bytes[8];
  switch (type) {
    case kInt4:
    case kInt8:
    case kNumeric:
      std::from_chars(text.data(), text.data() + text.size(), number);
      if (type == kNumeric) return binary_numeric(number);
      protocol::store_u32(bytes, static_cast<std::uint32_t>(static_cast<std::uint64_t>(number) >> 32));
      protocol::store_u32(bytes + 4, static_cast<std::uint32_t>(number));
      return type == kInt8 ? std::string(bytes, 8) : std::string(bytes + 4, 4);
    case kBytea: {
      std::string out;
      for (std::size_t i = 2; i + 1 < text.size(); i += 2) {
        out += static_cast<char>(hex_digit(text[i]) * 16 + hex_digit(text[i + 1]));
      }
      return out;
    }
    default:
      return std::string(text);
  }
}

void append_row(std::string& out, ByteView row, const std::vector<std::uint16_t>& formats,
                const std::vector<std::uint32_t>& types) {
  std::vector<std::optional<ByteView>> columns;
  if (formats.empty() || !protocol::parse_data_row(body_of(row), columns)) {
    out += row;
    return;
  }
  std::vector<std::string> converted(columns.size());
  for (std::size_t i = 0; i < columns.size() && i < types.size(); ++i) {
    if (!columns[i] || format_of(formats, i) != kBinary) continue;
    converted[i] = to_binary(types[i], *columns[i]);
    columns[i] = converted[i];
  }
  protocol::append_data_row(out, columns);
}

ConsoleStatements::Step bad_packet() {
  return {ConsoleStatements::Next::BadPacket, {}, {}};
}

}  // namespace

bool ConsoleStatements::handles(char type) {
  switch (type) {
    case frontend::Parse:
    case frontend::Bind:
    case frontend::Describe:
    case frontend::Execute:
    case frontend::Close:
    case frontend::Flush:
    case frontend::Sync:
      return true;
    default:
      return false;
  }
}

ConsoleStatements::Step ConsoleStatements::on_message(char type, ByteView body) {
  if (failed_ && type != frontend::Sync) return {};
  switch (type) {
    case frontend::Parse:
      return parse(body);
    case frontend::Bind:
      return bind(body);
    case frontend::Describe:
      return describe(body);
    case frontend::Execute:
      return execute(body);
    case frontend::Close:
      return close(body);
    case frontend::Sync:
      return body.empty() ? sync() : bad_packet();
    default:  // Flush: nothing is kept back here.
      return body.empty() ? Step{} : bad_packet();
  }
}

ConsoleStatements::Step ConsoleStatements::parse(ByteView body) {
  const auto message = protocol::parse_parse(body);
  if (!message) return bad_packet();
  const std::string name(message->statement);
  if (!name.empty() && statements_.contains(name)) {
    return fail("42P05", fmt::format("prepared statement \"{}\" already exists", name));
  }
  if (statements_.size() >= kMaxNames) return fail("53400", "too many prepared statements on the console");
  if (AdminCommand command = parse_admin_command(message->query); !command.error.empty()) {
    return fail("08P01", command.error);
  }
  statements_[name] = std::string(message->query);
  Step step;
  protocol::append_parse_complete(step.out);
  return step;
}

ConsoleStatements::Step ConsoleStatements::bind(ByteView body) {
  const auto message = protocol::parse_bind(body);
  if (!message) return bad_packet();
  const auto statement = statements_.find(message->statement);
  if (statement == statements_.end()) {
    return fail("26000", fmt::format("prepared statement \"{}\" does not exist", message->statement));
  }
  if (!message->portal.empty() && portals_.contains(message->portal)) {
    return fail("42P03", fmt::format("cursor \"{}\" already exists", message->portal));
  }
  if (portals_.size() >= kMaxNames) return fail("53400", "too many portals on the console");
  protocol::BodyReader reader(body.substr(message->rest_offset));
  (void)reader.bytes(2UL * reader.u16());  // formats of the parameters
  if (const std::uint16_t parameters = reader.u16(); parameters != 0) {
    return fail("08P01",
                fmt::format("bind message supplies {} parameters, but console commands take none", parameters));
  }
  Portal portal;
  portal.sql = statement->second;
  portal.formats.resize(reader.u16());
  for (std::uint16_t& format : portal.formats) {
    format = reader.u16();
    if (format > kBinary) return fail("22023", fmt::format("unsupported format code: {}", format));
  }
  portals_[std::string(message->portal)] = std::move(portal);
  Step step;
  protocol::append_bind_complete(step.out);
  return step;
}

ConsoleStatements::Step ConsoleStatements::describe(ByteView body) {
  const auto message = protocol::parse_target(body);
  if (!message) return bad_packet();
  Step step;
  if (message->kind == 'S') {
    const auto found = statements_.find(message->name);
    if (found == statements_.end()) {
      return fail("26000", fmt::format("prepared statement \"{}\" does not exist", message->name));
    }
    protocol::append_no_parameters(step.out);
    step.sql = found->second;
    running_ = Running::DescribeStatement;
  } else {
    const auto found = portals_.find(message->name);
    if (found == portals_.end()) return fail("34000", fmt::format("portal \"{}\" does not exist", message->name));
    step.sql = found->second.sql;
    target_ = found->first;
    running_ = Running::DescribePortal;
  }
  if (!returns_rows(step.sql)) {
    running_ = Running::Nothing;
    protocol::append_no_data(step.out);
    return step;
  }
  // Which columns there are is known from running it: a SHOW changes nothing.
  step.next = Next::Run;
  return step;
}

ConsoleStatements::Step ConsoleStatements::execute(ByteView body) {
  const auto message = protocol::parse_execute(body);
  if (!message) return bad_packet();
  const auto found = portals_.find(message->portal);
  if (found == portals_.end()) return fail("34000", fmt::format("portal \"{}\" does not exist", message->portal));
  Step step;
  if (found->second.has_run) {
    fetch(found->second, message->max_rows, step.out);
    return step;
  }
  step.next = Next::Run;
  step.sql = found->second.sql;
  running_ = Running::Execute;
  target_ = found->first;
  max_rows_ = message->max_rows;
  return step;
}

ConsoleStatements::Step ConsoleStatements::close(ByteView body) {
  const auto message = protocol::parse_target(body);
  if (!message) return bad_packet();
  if (message->kind == 'S') {
    if (const auto found = statements_.find(message->name); found != statements_.end()) statements_.erase(found);
  } else if (const auto found = portals_.find(message->name); found != portals_.end()) {
    portals_.erase(found);
  }
  Step step;
  protocol::append_close_complete(step.out);
  return step;
}

ConsoleStatements::Step ConsoleStatements::sync() {
  failed_ = false;
  portals_.clear();  // They live as long as the transaction, which ends here.
  Step step;
  protocol::append_ready_for_query(step.out, 'I');
  return step;
}

ConsoleStatements::Step ConsoleStatements::fail(std::string_view sqlstate, std::string_view text) {
  failed_ = true;
  Step step;
  protocol::append_error(step.out, "ERROR", sqlstate, text);
  return step;
}

void ConsoleStatements::on_simple_query() {
  if (const auto found = statements_.find(std::string_view()); found != statements_.end()) statements_.erase(found);
  portals_.clear();
}

std::string ConsoleStatements::finish(ByteView answer) {
  const Running running = std::exchange(running_, Running::Nothing);
  std::string out, rows;
  ByteView description;
  while (!answer.empty()) {
    const ByteView message = answer.substr(0, message_size(answer));
    answer.remove_prefix(message.size());
    switch (message[0]) {
      case backend::RowDescription:
        description = message;
        break;
      case backend::DataRow:
      case backend::CommandComplete:
        rows += message;
        break;
      case backend::ErrorResponse:
        failed_ = true;
        out += message;
        break;
      case backend::ReadyForQuery:
        break;  // Sync brings it.
      default:
        out += message;
    }
  }
  if (failed_) return out;
  if (running == Running::DescribeStatement) return out += description;
  const auto found = portals_.find(target_);
  if (found == portals_.end()) return out;
  Portal& portal = found->second;
  portal.types = description.empty() ? std::vector<std::uint32_t>() : column_types(description);
  portal.answer = std::move(rows);
  portal.has_run = true;
  if (running == Running::DescribePortal) return out += with_formats(description, portal.formats);
  fetch(portal, max_rows_, out);
  return out;
}

/// Sends what is left of the answer, at most `max_rows` of its rows. CommandComplete stays: executed once more, the
/// portal has no rows left and says so again.
void ConsoleStatements::fetch(Portal& portal, std::int32_t max_rows, std::string& out) {
  std::int32_t sent = 0;
  while (portal.at < portal.answer.size()) {
    const ByteView rest = ByteView(portal.answer).substr(portal.at);
    const ByteView message = rest.substr(0, message_size(rest));
    if (message[0] != backend::DataRow) {
      out += message;
      return;
    }
    if (max_rows > 0 && sent == max_rows) return protocol::append_portal_suspended(out);
    append_row(out, message, portal.formats, portal.types);
    ++sent;
    portal.at += message.size();
  }
}

}  // namespace pgweir::core
