// Implements auth_file.hpp. Where PostgreSQL and PgBouncer read the same text differently, the reading that cannot
// grant more than was meant is taken: an open quote or a stray comma is a mistake, not the end of a token.
#include "proxy/core/auth_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <tuple>
#include <utility>

#include "proxy/core/config_values.hpp"
#include "proxy/core/ini_parser.hpp"

namespace pgweir::core {
namespace {

constexpr std::string_view kBlanks = " \t\r\v\f";

std::string path_beside(const std::string& file, const std::string& name) {
  const auto slash = file.rfind('/');
  if (name.starts_with('/') || slash == std::string::npos) return name;
  return file.substr(0, slash + 1) + name;
}

// A line as written, after continuation.
struct RawLine {
  std::string text;
  int line = 0;
};

// Takes one line and those that continue it off `text`; `line` is the number of the next line and moves on.
RawLine take_line(std::string_view& text, int& line) {
  RawLine out{{}, line};
  for (bool more = true; more;) {
    const auto end = text.find('\n');
    auto piece = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    ++line;
    while (piece.ends_with('\r')) piece.remove_suffix(1);
    more = piece.ends_with('\\') && !text.empty();
    if (piece.ends_with('\\')) piece.remove_suffix(1);
    // One byte beyond the limit is enough to see that it is too long.
    out.text += piece.substr(0, kMaxAuthLine + 1 - std::min(out.text.size(), kMaxAuthLine + 1));
  }
  return out;
}

// Splits one line. `reason` stays empty if all is well.
class Tokenizer {
 public:
  explicit Tokenizer(std::string_view line) : rest_(line) {}

  std::vector<AuthField> fields() {
    std::vector<AuthField> fields;
    bool after_comma = false;
    while (skip_to_token()) {
      if (rest_.front() == ',') {
        // Blanks around a comma do not end the list, as in PgBouncer.
        if (fields.empty() || after_comma) return fail("expected a name before the comma");
        after_comma = true;
        rest_.remove_prefix(1);
        continue;
      }
      auto token = take_token();
      if (!reason_.empty()) return {};
      if (!after_comma) fields.emplace_back();
      fields.back().push_back(std::move(token));
      after_comma = false;
    }
    if (after_comma) return fail("expected a name after the comma");
    return fields;
  }

  const std::string& reason() const { return reason_; }

 private:
  std::vector<AuthField> fail(std::string reason) {
    reason_ = std::move(reason);
    return {};
  }

  bool skip_to_token() {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(kBlanks), rest_.size()));
    return !rest_.empty() && rest_.front() != '#';
  }

  AuthToken take_token() {
    AuthToken token;
    token.quoted = rest_.front() == '"';
    bool in_quotes = false;
    std::size_t i = 0;
    for (; i < rest_.size(); ++i) {
      const char c = rest_[i];
      if (!in_quotes && (c == ',' || c == '#' || kBlanks.find(c) != std::string_view::npos)) break;
      if (c != '"') {
        token.text += c;
      } else if (in_quotes && rest_.substr(i + 1).starts_with('"')) {
        token.text += rest_[++i];
      } else {
        in_quotes = !in_quotes;
      }
    }
    rest_.remove_prefix(i);
    if (in_quotes) reason_ = "expected a closing quote";
    if (token.text.size() > kMaxAuthToken) reason_ = fmt::format("expected a word of at most {} bytes", kMaxAuthToken);
    return token;
  }

  std::string_view rest_;
  std::string reason_;
};

class Reader {
 public:
  Reader(const AuthFiles& files, std::string first_file) : files_(files), first_file_(std::move(first_file)) {}

  struct Place {
    const std::string& file;
    int line;
  };

  void read(std::string_view text, const std::string& file, std::vector<AuthLine>& out) {
    open_.push_back(file);
    for (int line = 1; !text.empty();) {
      const auto raw = take_line(text, line);
      if (++lines_ > kMaxAuthLines) {
        const auto reason = fmt::format("too much text; at most {} lines are read", kMaxAuthLines);
        if (!std::exchange(is_full_, true)) problem({file, raw.line}, reason);
        break;
      }
      on_line({file, raw.line}, raw.text, out);
      if (is_full_) break;
    }
    open_.pop_back();
  }

  std::vector<Problem> take_problems() {
    if (unlisted_ > 0) problems_.push_back({first_file_, 0, {}, fmt::format("{} more mistakes", unlisted_)});
    return std::move(problems_);
  }

 private:
  void problem(const Place& place, std::string text) {
    ++mistakes_;
    if (problems_.size() < kMaxAuthProblems) {
      problems_.push_back({place.file, place.line, {}, std::move(text)});
    } else {
      ++unlisted_;
    }
  }

  void on_line(const Place& place, std::string_view text, std::vector<AuthLine>& out) {
    if (text.size() > kMaxAuthLine) {
      return problem(place, fmt::format("expected a line of at most {} bytes", kMaxAuthLine));
    }
    // A C string would end at a zero byte; anything hidden behind one must not take part silently.
    if (text.find('\0') != std::string_view::npos) return problem(place, "contains a zero byte; expected text");
    Tokenizer tokenizer(text);
    auto fields = tokenizer.fields();
    if (!tokenizer.reason().empty()) return problem(place, tokenizer.reason());
    if (fields.empty() || on_include(place, fields, out)) return;
    const auto mistakes = mistakes_;
    for (auto& field : fields) expand(place, field);
    // A rule with an incomplete list would be another rule than the one that was written.
    if (mistakes_ == mistakes) out.push_back({place.file, place.line, std::move(fields)});
  }

  // Replaces each @file by the names in it.
  void expand(const Place& place, AuthField& field) {
    const auto names_file = [](const AuthToken& token) {
      return !token.quoted && token.text.size() > 1 && token.text.front() == '@';
    };
    if (std::none_of(field.begin(), field.end(), names_file)) return;
    AuthField out;
    for (auto& token : field) {
      if (!names_file(token)) {
        out.push_back(std::move(token));
        continue;
      }
      std::vector<AuthLine> lines;
      read_file(place, path_beside(place.file, token.text.substr(1)), lines);
      for (auto& line : lines) {
        for (auto& inner : line.fields) std::move(inner.begin(), inner.end(), std::back_inserter(out));
      }
    }
    field = std::move(out);
  }

  // Whether the line was an include directive; then it has been followed.
  bool on_include(const Place& place, const std::vector<AuthField>& fields, std::vector<AuthLine>& out) {
    const auto& word = fields.front().front().text;
    const bool if_exists = word == "include_if_exists";
    if (word != "include" && word != "include_dir" && !if_exists) return false;
    if (fields.size() != 2 || fields[0].size() != 1 || fields[1].size() != 1 || fields[1].front().text.empty()) {
      problem(place, fmt::format("expected one name after {}", word));
      return true;
    }
    const auto path = path_beside(place.file, fields[1].front().text);
    if (word == "include_dir") {
      include_directory(place, path, out);
    } else if (if_exists && !files_.exists) {
      problem(place, "include_if_exists is not supported here");
    } else if (!if_exists || files_.exists(path)) {
      read_file(place, path, out);
    }
    return true;
  }

  // In the order of their names, and only *.conf: editors leave copies behind that must not take part.
  void include_directory(const Place& place, const std::string& path, std::vector<AuthLine>& out) {
    if (!files_.list) return problem(place, "include_dir is not supported here");
    auto listed = files_.list(path);
    if (listed.has_error()) {
      return problem(place, fmt::format("cannot read the directory {}: {}", quoted(path), listed.error()));
    }
    auto& names = *listed;
    std::sort(names.begin(), names.end());
    for (const auto& name : names) {
      const bool hidden = name.starts_with('.');
      if (!hidden && name.ends_with(".conf")) read_file(place, path + (path.ends_with('/') ? "" : "/") + name, out);
    }
  }

  void read_file(const Place& place, const std::string& path, std::vector<AuthLine>& out) {
    if (!files_.read) return problem(place, "other files cannot be read here");
    if (std::find(open_.begin(), open_.end(), path) != open_.end()) {
      return problem(place, fmt::format("{} includes itself", quoted(path)));
    }
    if (open_.size() > kMaxIncludeDepth) {
      return problem(place, fmt::format("files are nested too deep; at most {} levels are read", kMaxIncludeDepth));
    }
    auto known = texts_.find(path);
    if (known == texts_.end()) {
      if (texts_.size() >= kMaxFiles) {
        return problem(place, fmt::format("too many files; at most {} are read", kMaxFiles));
      }
      auto text = files_.read(path);
      if (text.has_error()) return problem(place, fmt::format("cannot read {}: {}", quoted(path), text.error()));
      known = texts_.emplace(path, std::move(*text)).first;
    }
    read(known->second, path, out);
  }

  const AuthFiles& files_;
  std::string first_file_;
  std::vector<std::string> open_;             ///< the files being read, outermost first
  std::map<std::string, std::string> texts_;  ///< a list of users may be named by every rule
  std::vector<Problem> problems_;
  std::size_t mistakes_ = 0;
  std::size_t unlisted_ = 0;
  int lines_ = 0;
  bool is_full_ = false;
};

}  // namespace

AuthText read_auth_text(std::string_view text, const std::string& file, const AuthFiles& files) {
  Reader reader(files, file);
  AuthText out;
  reader.read(text, file, out.lines);
  out.problems = reader.take_problems();
  return out;
}

std::string membership_unsupported(std::string_view what) {
  return fmt::format("{} is not supported: who is a member of a role is known to the server only", what);
}

void sort_problems(std::vector<Problem>& problems) {
  std::stable_sort(problems.begin(), problems.end(), [](const Problem& a, const Problem& b) {
    return std::tie(a.file, a.line) < std::tie(b.file, b.line);
  });
}

}  // namespace pgweir::core
