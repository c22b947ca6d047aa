#include "router/hints.hpp"

#include <array>

#include "router/sql_lexer.hpp"

namespace pgweir::router {

namespace {

using std::string_view_literals::operator""sv;

constexpr std::array kWishes = {"auto"sv, "primary"sv, "standby"sv};

bool is_hint_blank(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}
char fold_case(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
bool is_word(char c) {
  c = fold_case(c);
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '$' ||
         static_cast<unsigned char>(c) >= 0x80;
}

bool equals(std::string_view text, std::string_view lower_word) {
  if (text.size() != lower_word.size()) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (fold_case(text[i]) != lower_word[i]) return false;
  }
  return true;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && is_hint_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_hint_blank(text.back())) text.remove_suffix(1);
  return text;
}

std::optional<RouteWish> parse_wish(std::string_view word) {
  for (std::size_t i = 0; i < kWishes.size(); ++i) {
    if (equals(word, kWishes[i])) return static_cast<RouteWish>(i);
  }
  return std::nullopt;
}

// `pgweir : word`, blanks anywhere between.
std::optional<RouteWish> read_comment(std::string_view comment) {
  comment = trim(comment);
  constexpr std::string_view kName = "pgweir";
  if (!equals(comment.substr(0, kName.size()), kName)) return std::nullopt;
  comment = trim(comment.substr(kName.size()));
  if (comment.empty() || comment.front() != ':') return std::nullopt;
  return parse_wish(trim(comment.substr(1)));
}

/// Takes tokens off a text, blanks and comments before them left out.
class Words {
 public:
  explicit Words(std::string_view sql) : sql_(sql) {}

  /// The next word, or "" if something else comes.
  std::string_view word() {
    pos_ = skip_blank(sql_, pos_);
    const std::size_t begin = pos_;
    while (pos_ < sql_.size() && is_word(sql_[pos_])) ++pos_;
    return sql_.substr(begin, pos_ - begin);
  }
  bool sign(char c) {
    const std::size_t next = skip_blank(sql_, pos_);
    if (next >= sql_.size() || sql_[next] != c) return false;
    pos_ = next + 1;
    return true;
  }
  /// A word or the content of a plain string or quoted identifier; nullopt for anything else.
  std::optional<std::string_view> value() {
    for (const char quote : {'\'', '"'}) {
      if (!sign(quote)) continue;
      const std::size_t end = sql_.find(quote, pos_);
      if (end == std::string_view::npos) return std::nullopt;
      const std::string_view content = sql_.substr(pos_, end - pos_);
      pos_ = end + 1;
      if (pos_ < sql_.size() && sql_[pos_] == quote) return std::nullopt;
      return content;
    }
    const std::string_view name = word();
    if (name.empty()) return std::nullopt;
    return name;
  }
  bool route_name() {
    if (!equals(word(), "pgweir") || pos_ >= sql_.size() || sql_[pos_] != '.') return false;
    ++pos_;
    const std::size_t begin = pos_;
    return equals(word(), "route") && pos_ - begin == 5;
  }
  bool at_end() {
    while (sign(';')) continue;
    return skip_blank(sql_, pos_) == sql_.size();
  }

 private:
  std::string_view sql_;
  std::size_t pos_ = 0;
};

std::optional<RouteCommand> read_set(Words words) {
  RouteCommand command;
  command.kind = RouteCommand::Kind::Set;
  Words after_scope = words;
  const std::string_view scope = after_scope.word();
  if (equals(scope, "session") || equals(scope, "local")) {
    command.local = equals(scope, "local");
    words = after_scope;
  }
  if (!words.route_name()) return std::nullopt;
  if (!words.sign('=') && !equals(words.word(), "to")) return std::nullopt;
  const auto value = words.value();
  if (!value || !words.at_end()) return std::nullopt;
  command.value = *value;
  const auto wish = equals(*value, "default") ? RouteWish::Auto : parse_wish(*value);
  command.valid = wish.has_value();
  command.wish = wish.value_or(RouteWish::Auto);
  return command;
}

}  // namespace

std::optional<RouteWish> find_hint(std::string_view sql) {
  std::size_t pos = 0;
  while (pos < sql.size()) {
    if (is_hint_blank(sql[pos])) {
      ++pos;
      continue;
    }
    if (sql[pos] != '/' && sql[pos] != '-') return std::nullopt;
    if (sql.substr(pos, 2) == "--") {
      const std::size_t end = sql.find_first_of("\r\n", pos);
      if (end == std::string_view::npos) return std::nullopt;
      pos = end;
    } else if (sql.substr(pos, 2) == "/*") {
      const std::size_t close = sql.find("*/", pos + 2);
      if (close == std::string_view::npos) return std::nullopt;
      const std::string_view comment = sql.substr(pos + 2, close - pos - 2);
      if (comment.find("/*") != std::string_view::npos) return std::nullopt;  // nested: no hint of ours
      if (const auto wish = read_comment(comment)) return wish;
      pos = close + 2;
    } else {
      return std::nullopt;
    }
  }
  return std::nullopt;
}

std::optional<RouteCommand> find_route_command(std::string_view sql) {
  Words words(sql);
  const std::string_view verb = words.word();
  if (equals(verb, "set")) return read_set(words);
  RouteCommand command;
  if (equals(verb, "show")) {
    command.kind = RouteCommand::Kind::Show;
  } else if (equals(verb, "reset")) {
    command.kind = RouteCommand::Kind::Reset;
  } else {
    return std::nullopt;
  }
  if (!words.route_name() || !words.at_end()) return std::nullopt;
  return command;
}

std::string_view to_string(RouteWish wish) {
  return kWishes[static_cast<std::size_t>(wish)];
}

}  // namespace pgweir::router
