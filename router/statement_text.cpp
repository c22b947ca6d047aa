#include "router/statement_text.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

namespace pgweir::router {

namespace {

using std::string_view_literals::operator""sv;

// Markers cannot be mistaken for text: a control character outside of quotes makes the form raw.
constexpr char kMark = '\x01';
constexpr char kRaw = '\x02';

// Classes of bytes, as a table: this pass is all that a statement seen before costs.
enum : std::uint8_t { kBlank = 1, kDigit = 2, kWordStart = 4, kControl = 8 };
constexpr auto kBytes = [] {
  std::array<std::uint8_t, 256> classes{};
  for (std::size_t c = 0; c < classes.size(); ++c) {
    if (c < 0x20 || c == 0x7F) classes[c] = kControl;
    if (c >= '0' && c <= '9') classes[c] = kDigit;
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80) classes[c] = kWordStart;
  }
  // PostgreSQL 15 does not count vertical tab as blank, later versions do: it makes the form raw.
  for (const unsigned char c : {' ', '\t', '\n', '\r', '\f'}) classes[c] = kBlank;
  return classes;
}();

bool is_class(char c, std::uint8_t classes) {
  return (kBytes[static_cast<unsigned char>(c)] & classes) != 0;
}
bool is_digit(char c) {
  return is_class(c, kDigit);
}
bool starts_word(char c) {
  return is_class(c, kWordStart);
}
bool continues_word(char c) {
  return is_class(c, kWordStart | kDigit) || c == '$';
}
bool is_blank(char c) {
  return is_class(c, kBlank);
}
bool equals_word(std::string_view word, std::string_view lower) {
  return std::equal(word.begin(), word.end(), lower.begin(), lower.end(),
                    [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; });
}

// Statements whose literals are expressions. In others a literal may be a file name, an option or a password.
constexpr std::array kPlainStatements = {"select"sv, "with"sv, "values"sv, "table"sv};
// Whatever follows these is a write, or an error on any host; they need no parser, nor a place in the cache.
constexpr std::array kModifyingStatements = {"insert"sv, "update"sv, "delete"sv, "merge"sv};
// After these the parser looks one token ahead, and libpg_query takes a comment for that token: the text does not
// parse.
constexpr std::array kLookAhead = {"not"sv, "nulls"sv, "with"sv, "without"sv, "format"sv};
// The grammar wants a plain integer in parentheses after these, and looks at the one of float.
constexpr std::array kTypesWithModifier = {"float"sv,     "interval"sv, "second"sv,  "time"sv,  "timestamp"sv,
                                           "character"sv, "char"sv,     "varchar"sv, "nchar"sv, "varying"sv};

bool one_of(std::string_view word, std::span<const std::string_view> words) {
  return std::any_of(words.begin(), words.end(), [&](std::string_view other) { return equals_word(word, other); });
}

bool has_high_byte(std::string_view text) {
  std::uint64_t all = 0;
  while (text.size() >= sizeof all) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data(), sizeof word);
    all |= word;
    text.remove_prefix(sizeof word);
  }
  for (const char c : text) all |= static_cast<unsigned char>(c);
  return (all & 0x8080808080808080U) != 0;
}

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if ((lead >= 0x80 && lead < 0xC2) || lead > 0xF4 || length > text.size() - i) return false;
    for (std::size_t k = 1; k < length; ++k) {
      if ((static_cast<unsigned char>(text[i + k]) & 0xC0U) != 0x80) return false;
    }
    if (length > 2) {
      const auto second = static_cast<unsigned char>(text[i + 1]);
      if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) || (lead == 0xF0 && second < 0x90) ||
          (lead == 0xF4 && second > 0x8F)) {
        return false;
      }
    }
    i += length;
  }
  return true;
}

class FormReader {
 public:
  enum class Outcome : std::uint8_t { Done, KeepLiterals, Raw };

  /// `out` has room for twice the text: a marker takes two bytes where a digit took one.
  FormReader(std::string_view text, TextForm& form, char* out, bool keep_literals)
      : text_(text), form_(form), out_(out), keep_literals_(keep_literals) {}

  Outcome read() {
    while (pos_ < text_.size() && outcome_ == Outcome::Done && !form_.modifies) step();
    form_.empty = !any_token_;
    return outcome_;
  }
  [[nodiscard]] const char* end() const { return out_; }

 private:
  enum class Last : std::uint8_t { Other, Word, OpenAfterType, Bracket, String };
  // IN (1, 2, 3) and IN (1) are one form: after IN, as many literals and parameters as there are count as the first. An
  // Item is complete: a comma or the closing parenthesis follows.
  enum class InList : std::uint8_t { No, In, Open, Item, Comma };

  void put(char c) { *out_++ = c; }
  void put(std::string_view text) {
    std::memcpy(out_, text.data(), text.size());
    out_ += text.size();
  }
  void put_marker(char kind) {
    put(kMark);
    put(kind);
  }

  // To be asked before a literal that ends at `end` is put: true if it is left out.
  bool in_list(std::size_t end) {
    if (list_ == InList::No) return false;
    while (end < text_.size() && is_blank(text_[end])) ++end;
    const bool complete = at(end) == ',' || at(end) == ')';
    const bool leave_out = complete && list_ == InList::Comma;
    if (!leave_out && list_ == InList::Comma) put(',');
    list_ = complete && (list_ == InList::Open || leave_out) ? InList::Item : InList::No;
    return leave_out;
  }
  void leave_list() {
    if (list_ == InList::Comma) put(',');
    list_ = InList::No;
  }

  char at(std::size_t pos) const { return pos < text_.size() ? text_[pos] : '\0'; }

  void give_up(Outcome outcome) { outcome_ = std::max(outcome_, outcome); }

  void step() {
    const char c = text_[pos_];
    if (is_blank(c)) {
      ++pos_;
      blank_ = true;
    } else if (c == '-' && at(pos_ + 1) == '-') {
      begin_comment();
      pos_ = std::min(text_.find_first_of("\r\n", pos_), text_.size());
    } else if (c == '/' && at(pos_ + 1) == '*') {
      skip_comment();
    } else {
      token(c);
    }
  }

  void begin_comment() {
    blank_ = true;
    if (last_ == Last::Word && one_of(last_word_, kLookAhead)) give_up(Outcome::Raw);
  }

  void skip_comment() {
    std::size_t depth = 0;
    begin_comment();
    while (pos_ < text_.size()) {
      if (text_[pos_] == '/' && at(pos_ + 1) == '*') {
        ++depth;
        pos_ += 2;
      } else if (text_[pos_] == '*' && at(pos_ + 1) == '/') {
        pos_ += 2;
        if (--depth == 0) return;
      } else {
        ++pos_;
      }
    }
    give_up(Outcome::Raw);
  }

  void token(char c) {
    if (is_class(c, kControl)) return give_up(Outcome::Raw);
    if (blank_ && any_token_ && list_ != InList::Item && list_ != InList::Comma) put(' ');
    blank_ = false;
    if (ended_ && c != ';' && !keep_literals_) return give_up(Outcome::KeepLiterals);
    if (c != ';') {
      if (!any_token_ && c != '(' && !starts_word(c)) give_up_literals();
      first_token_ = !any_token_;
      any_token_ = true;
    }
    const Last last = last_;
    last_ = Last::Other;
    if (c == '\'') {
      string(last, pos_, find_quote_end(pos_, c), true);
    } else if (c == '"') {
      leave_list();
      ++form_.tokens;
      copy_to(find_quote_end(pos_, c));
    } else if (c == '$') {
      dollar(last);
    } else if (is_digit(c) || (c == '.' && is_digit(at(pos_ + 1)))) {
      number(last);
    } else if (starts_word(c)) {
      word(last);
    } else {
      sign(c, last);
    }
  }

  void give_up_literals() {
    if (!keep_literals_) give_up(Outcome::KeepLiterals);
  }

  void copy_to(std::size_t end) {
    if (end == std::string_view::npos) return give_up(Outcome::Raw);
    put(text_.substr(pos_, end - pos_));
    pos_ = end;
  }

  // One past the closing quote; a doubled quote belongs to the content.
  std::size_t find_quote_end(std::size_t open, char quote) const {
    for (std::size_t i = open + 1; i < text_.size(); ++i) {
      if (text_[i] != quote) continue;
      if (at(i + 1) != quote) return i + 1;
      ++i;
    }
    return std::string_view::npos;
  }

  // Strings that follow each other are one string or an error, depending on what stands between them: such a text keeps
  // every byte.
  void string(Last last, std::size_t begin, std::size_t end, bool replace) {
    if (end == std::string_view::npos || last == Last::String) return give_up(Outcome::Raw);
    if (replace && !keep_literals_) {
      if (!in_list(end)) put_marker('S');
    } else {
      leave_list();
      put(text_.substr(begin, end - begin));
    }
    pos_ = end;
    last_ = Last::String;
  }

  void dollar(Last last) {
    std::size_t end = pos_ + 1;
    if (is_digit(at(end))) {  // a parameter
      while (is_digit(at(end))) ++end;
      if (end < text_.size() && continues_word(text_[end])) return give_up(Outcome::Raw);
      if (!in_list(end)) return copy_to(end);
      pos_ = end;
      return;
    }
    if (end < text_.size() && starts_word(text_[end])) {
      while (end < text_.size() && continues_word(text_[end]) && text_[end] != '$') ++end;
    }
    if (at(end) != '$') return give_up(Outcome::Raw);
    const std::string_view tag = text_.substr(pos_, end + 1 - pos_);
    const std::size_t close = text_.find(tag, end + 1);
    string(last, pos_, close == std::string_view::npos ? close : close + tag.size(), true);
  }

  void number(Last last) {
    std::size_t end = pos_;
    while (is_digit(at(end))) ++end;
    const std::size_t whole = end - pos_;
    bool plain = whole > 0;
    bool fraction = false;
    if (plain && at(end) == '.' && is_digit(at(end + 1))) {
      fraction = true;
      ++end;
      while (is_digit(at(end))) ++end;
    }
    if (end < text_.size() && (continues_word(text_[end]) || text_[end] == '.')) plain = false;
    if (!plain || keep_literals_ || last == Last::OpenAfterType || last == Last::Bracket) {
      while (end < text_.size() && (continues_word(text_[end]) || text_[end] == '.')) ++end;
      leave_list();
      return copy_to(end);
    }
    if (!in_list(end)) put_marker(fraction || whole > 9 ? 'F' : 'I');
    pos_ = end;
  }

  void word(Last last) {
    std::size_t end = pos_;
    while (end < text_.size() && continues_word(text_[end])) ++end;
    const std::string_view word = text_.substr(pos_, end - pos_);
    if (!any_word_ && !keep_literals_) {
      if (last == Last::Other && first_token_ && one_of(word, kModifyingStatements)) {
        form_.modifies = true;
        return;
      }
      if (!one_of(word, kPlainStatements)) return give_up(Outcome::KeepLiterals);
    }
    any_word_ = true;
    if (word.size() == 1 && at(end) == '\'' && prefixed_string(word.front(), last, end)) return;
    if (equals_word(word, "u") && at(end) == '&' && (at(end + 1) == '\'' || at(end + 1) == '"')) {
      return give_up(Outcome::Raw);  // what it says depends on UESCAPE, which may follow
    }
    ++form_.tokens;
    leave_list();
    copy_to(end);
    if (word.size() == 2 && !keep_literals_ && equals_word(word, "in")) list_ = InList::In;
    last_ = Last::Word;
    last_word_ = word;
  }

  // E'…', whose escapes may be errors, and B'…', X'…', N'…'.
  bool prefixed_string(char prefix, Last last, std::size_t open) {
    const auto lower = static_cast<char>(prefix | 0x20);
    if (lower == 'b' || lower == 'x' || lower == 'n') {
      string(last, pos_, find_quote_end(open, '\''), false);
      return true;
    }
    if (lower != 'e') return false;
    bool escapes = false;
    std::size_t end = std::string_view::npos;
    for (std::size_t i = open + 1; i < text_.size(); ++i) {
      if (text_[i] == '\\') {
        escapes = true;
        ++i;
      } else if (text_[i] == '\'') {
        if (at(i + 1) != '\'') {
          end = i + 1;
          break;
        }
        ++i;
      }
    }
    string(last, pos_, end, !escapes);
    return true;
  }

  void sign(char c, Last last) {
    ++pos_;
    if (c == ',' && list_ == InList::Item) {
      list_ = InList::Comma;
      return;
    }
    const bool opens_list = c == '(' && list_ == InList::In;
    leave_list();
    if (opens_list) list_ = InList::Open;
    if (c == ';') ended_ = any_token_;
    if (c != ',' && c != '.') ++form_.tokens;
    put(c);
    if (c == '(' && last == Last::Word && one_of(last_word_, kTypesWithModifier)) last_ = Last::OpenAfterType;
    if (c == '[') last_ = Last::Bracket;
  }

  std::string_view text_;
  TextForm& form_;
  char* out_;
  const bool keep_literals_;
  std::size_t pos_ = 0;
  bool blank_ = false;
  bool any_token_ = false;
  bool first_token_ = false;
  bool any_word_ = false;
  bool ended_ = false;
  Last last_ = Last::Other;
  InList list_ = InList::No;
  std::string_view last_word_;
  Outcome outcome_ = Outcome::Done;
};

// What cannot be read as tokens is counted as if each byte that could be one were one.
std::uint32_t count_raw_tokens(std::string_view text) {
  std::uint32_t tokens = 0;
  bool in_word = false;
  for (const char c : text) {
    const bool word = continues_word(c);
    if (word ? !in_word : !is_blank(c)) ++tokens;
    in_word = word;
  }
  return tokens;
}

}  // namespace

// Flattened, so that the reader lives in registers: its bytes of output could else be its own members.
[[gnu::flatten]] void read_text_form(std::string_view text, TextForm& form) {
  form.tokens = 0;
  form.empty = false;
  form.modifies = false;
  form.problem = TextProblem::None;
  if (text.size() > kMaxClassifiedText) {
    form.problem = TextProblem::TooLong;
    return;
  }
  form.backslash = text.find('\\') != std::string_view::npos;
  form.non_ascii = has_high_byte(text);
  if (text.find('\0') != std::string_view::npos) {
    form.problem = TextProblem::NulByte;
    return;
  }
  if (form.non_ascii && !is_utf8(text)) {
    form.problem = TextProblem::NotUtf8;
    return;
  }
  form.key.resize(2 * text.size() + 1);
  FormReader reader(text, form, form.key.data(), false);
  auto outcome = reader.read();
  const char* end = reader.end();
  if (form.modifies) {
    form.key.clear();
    return;
  }
  if (outcome == FormReader::Outcome::KeepLiterals) {
    form.key.front() = kMark;
    form.tokens = 0;
    FormReader keeper(text, form, form.key.data() + 1, true);
    outcome = keeper.read();
    end = keeper.end();
  }
  if (outcome == FormReader::Outcome::Done) {
    form.key.resize(static_cast<std::size_t>(end - form.key.data()));
  } else {
    form.key.assign(1, kRaw);
    form.key.append(text);
    form.tokens = count_raw_tokens(text);
    form.empty = false;
  }
  if (form.tokens > kMaxClassifiedTokens) form.problem = TextProblem::TooManyTokens;
}

}  // namespace pgweir::router
