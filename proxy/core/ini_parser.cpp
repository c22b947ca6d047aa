// Implements the grammar of ini_parser.hpp. The traps that files in the field depend on: a value runs to the end of its
// line (quotes and `;` are part of it), a key may be quoted, and a section header may be followed by more on its line.
#include "proxy/core/ini_parser.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "proxy/core/config_values.hpp"

namespace pgweir::core {
namespace {

constexpr std::string_view kBlanks = " \t\r\v\f";
constexpr std::string_view kInclude = "%include";

std::string_view trim_left(std::string_view text) {
  const auto first = text.find_first_not_of(kBlanks);
  return first == std::string_view::npos ? std::string_view{} : text.substr(first);
}

std::string_view trim(std::string_view text) {
  const auto last = text.find_last_not_of(kBlanks);
  return last == std::string_view::npos ? std::string_view{} : trim_left(text.substr(0, last + 1));
}

bool is_key_character(char c) {
  const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  return letter || c == '_' || c == '.' || c == '-' || c == '*';
}

struct Key {
  std::string name;
  std::string_view rest;  ///< what follows the key on its line
};

// 'any text' as PgBouncer reads it, without an escape; "any text" as its manual has it, where "" is one quote.
std::optional<Key> take_quoted_key(std::string_view text) {
  const char quote = text.front();
  std::string name;
  for (std::size_t i = 1; i < text.size(); ++i) {
    if (text[i] != quote) {
      name += text[i];
    } else if (quote == '"' && i + 1 < text.size() && text[i + 1] == '"') {
      name += text[++i];
    } else {
      return Key{std::move(name), text.substr(i + 1)};
    }
  }
  return std::nullopt;
}

Key take_bare_key(std::string_view text) {
  std::size_t length = 0;
  while (length < text.size() && is_key_character(text[length])) ++length;
  return {std::string(text.substr(0, length)), text.substr(length)};
}

class Reader {
 public:
  explicit Reader(const ReadFile& read_file) : read_file_(read_file) {}

  struct Place {
    const std::string& file;
    int line;
    int depth;
  };

  /// `from` is the line that names the file; line 0 for the first file.
  void read(const std::string& path, const Place& from) {
    ++files_;
    const auto text = read_file_(path);
    if (text.has_error()) {
      return broken(from.file, from.line, {}, fmt::format("cannot read {}: {}", quoted(path), text.error()));
    }
    std::string_view rest = *text;
    for (int line = 1; !rest.empty(); ++line) {
      const auto end = rest.find('\n');
      on_line({path, line, from.depth + (from.line > 0 ? 1 : 0)}, rest.substr(0, end));
      rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
    }
  }

  std::vector<IniItem> take_items() { return std::move(items_); }

 private:
  void on_line(const Place& place, std::string_view line) {
    // A C string would end at a zero byte; anything hidden behind one must not take part silently.
    if (line.find('\0') != std::string_view::npos) {
      return broken(place.file, place.line, {}, "contains a zero byte; expected text");
    }
    for (line = trim(line); !line.empty(); line = trim_left(line)) {
      if (line.front() == '#' || line.front() == ';') return;
      if (line.front() != '[') return on_statement(place, line);
      const auto end = line.find(']');
      if (end == std::string_view::npos) {
        return broken(place.file, place.line, {}, "expected a section header such as [databases]: the ] is missing");
      }
      add(IniItem::Kind::Section, place.file, place.line, std::string(line.substr(1, end - 1)), {});
      line.remove_prefix(end + 1);
    }
  }

  void on_statement(const Place& place, std::string_view line) {
    if (line.front() == '%') return on_directive(place, line);
    std::optional<Key> key;
    if (line.front() == '\'' || line.front() == '"') {
      key = take_quoted_key(line);
      if (!key) return broken(place.file, place.line, {}, "expected a closing quote after the key");
      if (key->name.empty()) return broken(place.file, place.line, {}, "expected a name between the quotes");
    } else {
      key = take_bare_key(line);
      if (key->name.empty()) {
        return broken(place.file, place.line, {},
                      "expected key = value (a key with other characters than letters, digits, _ . - * needs quotes)");
      }
    }
    const auto rest = trim_left(key->rest);
    if (rest.empty() || rest.front() != '=') {
      return broken(place.file, place.line, key->name, "expected = after the key");
    }
    add(IniItem::Kind::Entry, place.file, place.line, std::move(key->name), std::string(trim_left(rest.substr(1))));
  }

  void on_directive(const Place& place, std::string_view line) {
    const auto after = line.substr(std::min(line.size(), kInclude.size()));
    if (!line.starts_with(kInclude) || (!after.empty() && after.front() != ' ' && after.front() != '\t')) {
      return broken(place.file, place.line, {}, "unknown directive; expected %include FILENAME");
    }
    const std::string path(trim(after));
    if (path.empty()) return broken(place.file, place.line, {}, "expected a file name after %include");
    if (place.depth >= kMaxIncludeDepth) {
      return broken(place.file, place.line, {},
                    fmt::format("%include is nested too deep; at most {} levels are read", kMaxIncludeDepth));
    }
    if (files_ >= kMaxFiles) {
      return broken(place.file, place.line, {}, fmt::format("too many files; at most {} are read", kMaxFiles));
    }
    read(path, place);
  }

  void broken(const std::string& file, int line, std::string key, std::string text) {
    add(IniItem::Kind::Broken, file, line, std::move(key), std::move(text));
  }

  void add(IniItem::Kind kind, const std::string& file, int line, std::string key, std::string value) {
    items_.push_back({kind, file, line, std::move(key), std::move(value)});
  }

  const ReadFile& read_file_;
  int files_ = 0;
  std::vector<IniItem> items_;
};

}  // namespace

std::vector<IniItem> parse_ini(const std::string& path, const ReadFile& read_file) {
  Reader reader(read_file);
  reader.read(path, {path, 0, 0});
  return reader.take_items();
}

}  // namespace pgweir::core
