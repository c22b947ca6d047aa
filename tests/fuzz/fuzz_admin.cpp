// Feeds arbitrary text to the console's parser and its pieces to the answers: errors stay short, every answer is a row
// of whole messages, and a command that was understood is understood the same way when written with quotes.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/core/admin_command.hpp"
#include "proxy/core/admin_format.hpp"
#include "tests/fuzz/fuzz_check.hpp"

namespace {

using namespace pgweir::core;
using pgweir::fuzz::check;

void check_framing(std::string_view bytes) {
  while (!bytes.empty()) {
    check(bytes.size() >= 5, "a header");
    std::size_t length = 0;
    for (int i = 1; i <= 4; ++i) length = length << 8 | static_cast<unsigned char>(bytes[static_cast<std::size_t>(i)]);
    check(length >= 4 && length + 1 <= bytes.size(), "a length within the answer");
    bytes.remove_prefix(length + 1);
  }
}

std::string quote(std::string_view text, char mark) {
  std::string quoted(1, mark);
  for (const char c : text) quoted.append(c == mark ? 2 : 1, c);
  return quoted + mark;
}

void check_same(const AdminCommand& command, const std::string& written) {
  const AdminCommand again = parse_admin_command(written);
  check(again.verb == command.verb && again.argument == command.argument && again.client_id == command.client_id,
        "the same verb and argument");
  check(again.key == command.key && again.value == command.value && again.error == command.error,
        "the same key, value and error");
}

void check_requoted(const AdminCommand& command) {
  if (command.verb == AdminVerb::Set || command.verb == AdminVerb::SetIgnored) {
    check(!command.key.empty() && command.key.size() <= 63 && command.value.size() <= 255, "limits of SET");
    check_same(command, "set " + quote(command.key, '"') + '=' + quote(command.value, '\'') + ';');
  } else if (command.verb == AdminVerb::KillClient || command.verb == AdminVerb::Pause) {
    const std::string argument = command.argument.empty() ? "" : ' ' + quote(command.argument, '"');
    check_same(command, command_tag(command) + argument);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(pgweir::fuzz::as_view(data, size));
  const AdminCommand command = parse_admin_command(text);
  check(command.error.size() < 490, "a short error");
  check((command.verb == AdminVerb::Show) == (command.what != ShowWhat::None), "a subject exactly for SHOW");
  check(command.argument.size() <= 63, "limit of arguments");
  const bool refused = command.verb == AdminVerb::Invalid || command.verb == AdminVerb::BadArguments;
  check(!refused || (!command.error.empty() && !needs_admin(command)), "a reason for each refusal");
  check_requoted(command);

  std::string out;
  append_console_error(out, command.error);
  append_console_done(out, command_tag(command));
  append_fake_show(out, command.verb == AdminVerb::FakeShow ? command.argument : "timezone");
  append_console_welcome(out, std::vector<std::pair<std::string, std::string>>{{text, text}});
  SocketRow socket;
  socket.state = static_cast<SocketState>(size % 13);
  socket.user = socket.database = socket.application_name = socket.tls = text;
  append_show_sockets(out, std::vector{socket}, [&](std::int64_t) { return text; });
  append_show_stats(out, std::vector<StatsRow>{{text, {}, {}}});
  check_framing(out);
  return 0;
}
