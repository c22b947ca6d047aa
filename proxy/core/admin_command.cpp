// The console's grammar and its tables of commands; see admin_command.hpp for what is decided here.
#include "proxy/core/admin_command.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

namespace pgweir::core {

namespace {

constexpr std::size_t kVerbMax = 15;
constexpr std::size_t kArgumentMax = 63;
constexpr std::size_t kValueMax = 255;
/// Bytes of a wrong command that its error repeats, chosen so that the whole text stays below 490 bytes.
constexpr std::size_t kEchoMax = 450;

char to_lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool is_word_char(char c) {
  const char lower = to_lower(c);
  return (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

bool same_word(std::string_view left, std::string_view right) {
  return std::equal(left.begin(), left.end(), right.begin(), right.end(),
                    [](char a, char b) { return to_lower(a) == to_lower(b); });
}

/// Reads the pieces of a command from left to right. A function that does not find its piece takes nothing.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  /// True if there was at least one.
  bool blanks() {
    const std::size_t count = std::min(rest_.find_first_not_of(" \t\r\n"), rest_.size());
    rest_.remove_prefix(count);
    return count > 0;
  }

  bool symbol(char c) {
    if (!rest_.starts_with(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }

  std::optional<std::string> bare_word() {
    const auto end = std::find_if_not(rest_.begin(), rest_.end(), is_word_char);
    if (end == rest_.begin()) return std::nullopt;
    std::string word(rest_.begin(), end);
    rest_.remove_prefix(word.size());
    return word;
  }

  /// A doubled quote inside stands for one.
  std::optional<std::string> quoted(char quote) {
    if (!rest_.starts_with(quote)) return std::nullopt;
    std::string text;
    for (std::size_t start = 1;;) {
      const std::size_t end = rest_.find(quote, start);
      if (end == std::string_view::npos) return std::nullopt;
      text += rest_.substr(start, end - start);
      if (end + 1 == rest_.size() || rest_[end + 1] != quote) {
        rest_.remove_prefix(end + 1);
        return text;
      }
      text += quote;
      start = end + 2;
    }
  }

  std::optional<std::string> word() {
    if (rest_.starts_with('"')) return quoted('"');
    return bare_word();
  }

  std::optional<std::string> value() {
    if (rest_.starts_with('\'')) return quoted('\'');
    return word();
  }

  /// The end of the command with at most one semicolon.
  bool end() {
    blanks();
    if (symbol(';')) blanks();
    return rest_.empty();
  }

 private:
  std::string_view rest_;
};

struct Words {
  std::string verb;
  std::optional<std::string> argument;
};

/// `SET key = value` and `SET key TO value`, after the word SET.
struct Assignment {
  std::string key, value;
};

std::optional<Words> match_words(std::string_view sql) {
  Scanner scanner(sql);
  scanner.blanks();
  auto verb = scanner.word();
  if (!verb) return std::nullopt;
  Words words{std::move(*verb), std::nullopt};
  if (scanner.blanks()) words.argument = scanner.word();
  if (!scanner.end()) return std::nullopt;
  return words;
}

bool match_assignment_sign(Scanner& scanner) {
  const bool apart = scanner.blanks();
  if (scanner.symbol('=')) {
    scanner.blanks();
    return true;
  }
  const auto word = apart ? scanner.bare_word() : std::nullopt;
  return word && same_word(*word, "to") && scanner.blanks();
}

std::optional<Assignment> match_set(std::string_view sql) {
  Scanner scanner(sql);
  scanner.blanks();
  const auto verb = scanner.bare_word();
  if (!verb || !same_word(*verb, "set") || !scanner.blanks()) return std::nullopt;
  auto key = scanner.word();
  if (!key || !match_assignment_sign(scanner)) return std::nullopt;
  auto value = scanner.value();
  if (!value || !scanner.end()) return std::nullopt;
  return Assignment{std::move(*key), std::move(*value)};
}

struct VerbName {
  std::string_view name;
  AdminVerb verb;
};
constexpr VerbName kVerbs[] = {
    {"show", AdminVerb::Show},
    {"select", AdminVerb::Show},
    {"pause", AdminVerb::Pause},
    {"resume", AdminVerb::Resume},
    {"reload", AdminVerb::Reload},
    {"suspend", AdminVerb::Suspend},
    {"kill", AdminVerb::Kill},
    {"kill_client", AdminVerb::KillClient},
    {"reconnect", AdminVerb::Reconnect},
    {"disable", AdminVerb::Disable},
    {"enable", AdminVerb::Enable},
    {"wait_close", AdminVerb::WaitClose},
    {"switchover", AdminVerb::Switchover},
    {"shutdown", AdminVerb::Shutdown},
};

struct ShowName {
  std::string_view name;
  ShowWhat what;
};
constexpr ShowName kShows[] = {
    {"help", ShowWhat::Help},
    {"version", ShowWhat::Version},
    {"state", ShowWhat::State},
    {"databases", ShowWhat::Databases},
    {"pools", ShowWhat::Pools},
    {"peer_pools", ShowWhat::PeerPools},
    {"peers", ShowWhat::Peers},
    {"users", ShowWhat::Users},
    {"clients", ShowWhat::Clients},
    {"servers", ShowWhat::Servers},
    {"sockets", ShowWhat::Sockets},
    {"active_sockets", ShowWhat::ActiveSockets},
    {"stats", ShowWhat::Stats},
    {"stats_totals", ShowWhat::StatsTotals},
    {"stats_averages", ShowWhat::StatsAverages},
    {"totals", ShowWhat::Totals},
    {"latency", ShowWhat::Latency},
    {"hosts", ShowWhat::Hosts},
    {"routes", ShowWhat::Routes},
    {"lists", ShowWhat::Lists},
    {"mem", ShowWhat::Mem},
    {"dns_hosts", ShowWhat::DnsHosts},
    {"dns_zones", ShowWhat::DnsZones},
    {"config", ShowWhat::Config},
    {"fds", ShowWhat::Fds},
    {"handover", ShowWhat::Handover},
};

const FakeSetting* find_fake_setting(std::string_view name) {
  const auto found = std::find_if(kFakeSettings.begin(), kFakeSettings.end(),
                                  [&](const FakeSetting& setting) { return same_word(setting.name, name); });
  return found == kFakeSettings.end() ? nullptr : &*found;
}

/// Cuts before a whole UTF-8 character, so that the client can still decode the message.
std::string_view cut_text(std::string_view text, std::size_t max) {
  if (text.size() <= max) return text;
  std::size_t end = max;
  for (int back = 0; back < 3 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80; ++back) --end;
  return text.substr(0, end);
}

AdminCommand invalid(std::string_view sql) {
  const std::string_view echo = cut_text(sql, kEchoMax);
  AdminCommand command;
  command.error = "invalid command '";
  command.error += echo;
  if (echo.size() < sql.size()) command.error += "...";
  command.error += "', use SHOW HELP;";
  return command;
}

AdminCommand bad_arguments() {
  AdminCommand command;
  command.verb = AdminVerb::BadArguments;
  command.error = "bad arguments";
  return command;
}

AdminCommand make_set(Assignment&& assignment) {
  if (assignment.key.empty() || assignment.key.size() > kArgumentMax || assignment.value.size() > kValueMax) {
    return bad_arguments();
  }
  AdminCommand command;
  command.verb = find_fake_setting(assignment.key) ? AdminVerb::SetIgnored : AdminVerb::Set;
  command.key = std::move(assignment.key);
  command.value = std::move(assignment.value);
  return command;
}

AdminCommand make_show(std::string_view name, std::string_view sql) {
  AdminCommand command;
  const auto* found = std::find_if(std::begin(kShows), std::end(kShows),
                                   [&](const ShowName& show) { return same_word(show.name, name); });
  if (found != std::end(kShows)) {
    command.verb = AdminVerb::Show;
    command.what = found->what;
    return command;
  }
  if (const FakeSetting* setting = find_fake_setting(name)) {
    command.verb = AdminVerb::FakeShow;
    command.argument = setting->name;
    return command;
  }
  return invalid(sql);
}

AdminCommand make_shutdown(std::string_view how, std::string_view sql) {
  AdminCommand command;
  command.verb = AdminVerb::Shutdown;
  if (how.empty()) return command;
  if (same_word(how, "wait_for_servers")) {
    command.shutdown = AdminShutdown::WaitForServers;
  } else if (same_word(how, "wait_for_clients")) {
    command.shutdown = AdminShutdown::WaitForClients;
  } else {
    return invalid(sql);
  }
  return command;
}

void read_client_id(AdminCommand& command) {
  const std::string& text = command.argument;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), command.client_id);
  if (text.empty() || failure != std::errc{} || end != text.data() + text.size()) {
    command.error = "invalid client pointer supplied";
  }
}

AdminCommand make_action(AdminVerb verb, std::string&& argument, std::string_view sql) {
  const bool takes_none = verb == AdminVerb::Reload || verb == AdminVerb::Suspend;
  if (takes_none && !argument.empty()) return invalid(sql);
  AdminCommand command;
  command.verb = verb;
  command.argument = std::move(argument);
  const bool needs_database = verb == AdminVerb::Disable || verb == AdminVerb::Enable;
  if (needs_database && command.argument.empty()) command.error = "a database is required";
  if (verb == AdminVerb::KillClient) read_client_id(command);
  return command;
}

AdminCommand make_command(Words&& words, std::string_view sql) {
  if (words.verb.size() > kVerbMax) return bad_arguments();
  // An empty name in quotes is what a script with an unset variable sends: KILL "" must not mean KILL of everything.
  if (words.argument && (words.argument->empty() || words.argument->size() > kArgumentMax)) return bad_arguments();
  const auto* found = std::find_if(std::begin(kVerbs), std::end(kVerbs),
                                   [&](const VerbName& verb) { return same_word(verb.name, words.verb); });
  if (found == std::end(kVerbs)) return invalid(sql);
  std::string argument = std::move(words.argument).value_or(std::string());
  if (found->verb == AdminVerb::Show) return make_show(argument, sql);
  if (found->verb == AdminVerb::Shutdown) return make_shutdown(argument, sql);
  return make_action(found->verb, std::move(argument), sql);
}

}  // namespace

AdminCommand parse_admin_command(std::string_view sql) {
  sql = sql.substr(0, sql.find('\0'));
  if (auto assignment = match_set(sql)) return make_set(std::move(*assignment));
  if (auto words = match_words(sql)) return make_command(std::move(*words), sql);
  return invalid(sql);
}

bool needs_admin(const AdminCommand& command) {
  switch (command.verb) {
    case AdminVerb::Show:
      return command.what == ShowWhat::Fds || command.what == ShowWhat::Handover;
    case AdminVerb::FakeShow:
    case AdminVerb::SetIgnored:
    case AdminVerb::Invalid:
    case AdminVerb::BadArguments:
      return false;
    default:
      return true;
  }
}

std::string command_tag(const AdminCommand& command) {
  switch (command.verb) {
    case AdminVerb::Show:
    case AdminVerb::FakeShow:
      return "SHOW";
    case AdminVerb::Set:
      return "SET " + command.key + '=' + command.value;
    case AdminVerb::SetIgnored:
      return "SET";
    case AdminVerb::Shutdown:
      return command.shutdown == AdminShutdown::Now ? "" : "SHUTDOWN";
    case AdminVerb::Invalid:
    case AdminVerb::BadArguments:
      return "";
    default:
      break;
  }
  const auto* found = std::find_if(std::begin(kVerbs), std::end(kVerbs),
                                   [&](const VerbName& verb) { return verb.verb == command.verb; });
  std::string tag(found->name);
  std::transform(tag.begin(), tag.end(), tag.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
  return tag;
}

}  // namespace pgweir::core
