// Implements name_pattern_parser.hpp by recursive descent: alternatives, sequences, repetitions, atoms, brackets.
#include "proxy/core/name_pattern_parser.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace pgweir::core {
namespace {

using Set = NamePattern::CharacterSet;
using Node = PatternNode;

// Each level is a few stack frames here and in the compiler.
constexpr int kMaxNesting = 50;
constexpr int kMaxRepeat = 255;  // PostgreSQL's limit

struct CharacterClass {
  std::string_view name;
  bool (*contains)(unsigned char c);
};

bool is_upper(unsigned char c) {
  return c >= 'A' && c <= 'Z';
}
bool is_lower(unsigned char c) {
  return c >= 'a' && c <= 'z';
}
bool is_alpha(unsigned char c) {
  return is_upper(c) || is_lower(c);
}
bool is_digit(unsigned char c) {
  return c >= '0' && c <= '9';
}
bool is_alnum(unsigned char c) {
  return is_alpha(c) || is_digit(c);
}
bool is_word(unsigned char c) {
  return is_alnum(c) || c == '_';
}
bool is_space(unsigned char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}
bool is_graph(unsigned char c) {
  return c > ' ' && c < 127;
}

// Of ASCII only: PostgreSQL matches these names in the C collation.
constexpr std::array<CharacterClass, 13> kClasses{{
    {"alpha", is_alpha},
    {"digit", is_digit},
    {"alnum", is_alnum},
    {"upper", is_upper},
    {"lower", is_lower},
    {"space", is_space},
    {"word", is_word},
    {"graph", is_graph},
    {"print", [](unsigned char c) { return c == ' ' || is_graph(c); }},
    {"punct", [](unsigned char c) { return is_graph(c) && !is_alnum(c); }},
    {"blank", [](unsigned char c) { return c == ' ' || c == '\t'; }},
    {"cntrl", [](unsigned char c) { return c < ' ' || c == 127; }},
    {"xdigit", [](unsigned char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }},
}};

const CharacterClass* find_class(std::string_view name) {
  const auto* found = std::find_if(kClasses.begin(), kClasses.end(), [&](const auto& c) { return c.name == name; });
  return found == kClasses.end() ? nullptr : found;
}

void add_class(Set& set, const CharacterClass& members, bool complement) {
  for (unsigned char c = 0; c < 128; ++c) {
    if (members.contains(c) != complement) set.ascii.set(c);
  }
  if (complement) set.ranges.emplace_back(128, UINT32_MAX);
}

void add_range(Set& set, std::uint32_t first, std::uint32_t last) {
  for (auto c = first; c <= std::min<std::uint32_t>(last, 127); ++c) set.ascii.set(c);
  if (last > 127) set.ranges.emplace_back(std::max<std::uint32_t>(first, 128), last);
}

class Parser {
 public:
  explicit Parser(std::string_view pattern) : text_(decode_utf8(pattern)) {}

  ParsedPattern parse() {
    out_.root = alternatives(0);
    if (!failed() && !at_end()) fail("a ) without its (");
    return std::move(out_);
  }

 private:
  bool failed() const { return !out_.error.empty(); }
  bool at_end() const { return next_ == text_.size(); }
  bool at(char c, std::size_t ahead = 0) const {
    return next_ + ahead < text_.size() && text_[next_ + ahead] == static_cast<unsigned char>(c);
  }
  bool take(char c) {
    if (!at(c)) return false;
    ++next_;
    return true;
  }
  void fail(std::string reason) {
    if (!failed()) out_.error = std::move(reason);
    next_ = text_.size();  // ends every loop
  }

  static Node leaf(Node::Kind kind, std::uint32_t value = 0) {
    Node node;
    node.kind = kind;
    node.value = value;
    return node;
  }

  Node set_node(Set set) {
    out_.sets.push_back(std::move(set));
    return leaf(Node::Kind::Set, static_cast<std::uint32_t>(out_.sets.size() - 1));
  }

  Node alternatives(int depth) {
    if (depth > kMaxNesting) {
      fail(fmt::format("parentheses nested deeper than {} levels", kMaxNesting));
      return {};
    }
    Node node = leaf(Node::Kind::Alternatives);
    do {
      node.children.push_back(sequence(depth));
    } while (take('|'));
    return node.children.size() == 1 ? std::move(node.children.front()) : std::move(node);
  }

  Node sequence(int depth) {
    Node node = leaf(Node::Kind::Sequence);
    while (!at_end() && !at('|') && !at(')')) node.children.push_back(repeated(depth));
    return node;
  }

  Node repeated(int depth) {
    Node atom = this->atom(depth);
    if (!at_quantifier()) return atom;
    if (atom.kind == Node::Kind::Start || atom.kind == Node::Kind::End) {
      fail("a repetition of ^ or $");
      return atom;
    }
    Node node = leaf(Node::Kind::Repeat);
    read_quantifier(node);
    node.greedy = !take('?');
    if (at_quantifier()) fail("a repetition of a repetition");
    node.children.push_back(std::move(atom));
    return node;
  }

  bool at_digit(std::size_t ahead = 0) const {
    return next_ + ahead < text_.size() && text_[next_ + ahead] < 128 &&
           is_digit(static_cast<unsigned char>(text_[next_ + ahead]));
  }
  // A { that no digit follows stands for itself.
  bool at_quantifier() const { return at('*') || at('+') || at('?') || (at('{') && at_digit(1)); }

  void read_quantifier(Node& node) {
    if (take('*')) return;
    if (take('+')) {
      node.min = 1;
    } else if (take('?')) {
      node.max = 1;
    } else {
      ++next_;
      node.min = number();
      node.max = node.min;
      if (take(',')) node.max = at_digit() ? std::optional(number()) : std::nullopt;
      if (!take('}')) return fail("a repetition such as {2} or {2,4} without its }");
      if (node.min > kMaxRepeat || node.max.value_or(0) > kMaxRepeat) {
        return fail(fmt::format("a repetition of more than {}", kMaxRepeat));
      }
      if (node.max && *node.max < node.min) fail("a repetition whose second number is less than the first");
    }
  }

  int number() {
    int value = 0;
    for (; at_digit(); ++next_) value = std::min(value * 10 + static_cast<int>(text_[next_] - '0'), kMaxRepeat + 1);
    return value;
  }

  Node atom(int depth) {
    const auto c = text_[next_++];
    switch (c) {
      case '(':
        return group(depth);
      case '[':
        return bracket();
      case '.':
        return leaf(Node::Kind::Any);
      case '^':
        return leaf(Node::Kind::Start);
      case '$':
        return leaf(Node::Kind::End);
      case '\\':
        return escape();
      case '*':
      case '+':
      case '?':
        fail("a repetition of nothing");
        return {};
      case '{':
        if (at_digit()) fail("a repetition of nothing");
        return leaf(Node::Kind::Character, c);
      default:
        return leaf(Node::Kind::Character, c);
    }
  }

  Node group(int depth) {
    Node node = leaf(Node::Kind::Group);
    if (take('?')) {
      if (!take(':')) {
        fail("(? without : (embedded options and lookaround are not supported)");
        return node;
      }
    } else {
      node.group = ++out_.groups;
    }
    node.children.push_back(alternatives(depth + 1));
    if (!take(')')) fail("a ( without its )");
    return node;
  }

  // The character that the escape stands for, or nothing if it is one of another kind.
  std::optional<std::uint32_t> escaped_character(std::uint32_t c) {
    if (c >= 128 || !is_alnum(static_cast<unsigned char>(c))) return c;
    constexpr std::string_view kNames = "tnrfv";
    constexpr std::string_view kCodes = "\t\n\r\f\v";
    const auto index = kNames.find(static_cast<char>(c));
    if (index == std::string_view::npos) return std::nullopt;
    return static_cast<unsigned char>(kCodes[index]);
  }

  // \d \w \s and, in capitals, their complements.
  bool add_escaped_class(Set& set, std::uint32_t c) {
    const auto is = [c](char lower, char upper) {
      return c == static_cast<unsigned char>(lower) || c == static_cast<unsigned char>(upper);
    };
    std::string_view name;
    if (is('d', 'D')) name = "digit";
    if (is('w', 'W')) name = "word";
    if (is('s', 'S')) name = "space";
    if (name.empty()) return false;
    add_class(set, *find_class(name), c < 'a');
    return true;
  }

  void fail_escape(std::uint32_t c) {
    if (is_digit(static_cast<unsigned char>(c))) return fail("a back reference, which is not supported");
    fail(fmt::format("the unknown or unsupported escape \\{}", static_cast<char>(c)));
  }

  Node escape() {
    if (at_end()) {
      fail("a backslash at the end");
      return {};
    }
    const auto c = text_[next_++];
    if (const auto character = escaped_character(c)) return leaf(Node::Kind::Character, *character);
    if (c == 'A') return leaf(Node::Kind::Start);
    if (c == 'Z') return leaf(Node::Kind::End);
    Set set;
    if (add_escaped_class(set, c)) return set_node(std::move(set));
    fail_escape(c);
    return {};
  }

  Node bracket() {
    Set set;
    set.negated = take('^');
    for (bool first = true; first || !at(']'); first = false) {
      if (at_end()) {
        fail("a [ without its ]");
        return {};
      }
      bracket_item(set);
    }
    ++next_;
    return failed() ? Node{} : set_node(std::move(set));
  }

  void bracket_item(Set& set) {
    if (at('[') && at(':', 1)) return named_class(set);
    if (at('\\') && next_ + 1 < text_.size() && add_escaped_class(set, text_[next_ + 1])) {
      next_ += 2;
      return;
    }
    const auto first = bracket_character();
    if (failed()) return;
    // A minus before the closing bracket stands for itself.
    if (!at('-') || at(']', 1)) return add_range(set, first, first);
    ++next_;
    if (at_end()) return fail("a [ without its ]");
    const auto last = bracket_character();
    if (failed()) return;
    if (last < first) return fail("a range between brackets whose end comes before its start");
    add_range(set, first, last);
  }

  std::uint32_t bracket_character() {
    if (at('[') && (at('=', 1) || at('.', 1) || at(':', 1))) {
      fail("a collating element between brackets, which is not supported");
      return 0;
    }
    const auto c = text_[next_++];
    if (c != '\\') return c;
    if (at_end()) {
      fail("a [ without its ]");
      return 0;
    }
    const auto escaped = text_[next_++];
    const auto character = escaped_character(escaped);
    if (!character) fail_escape(escaped);
    return character.value_or(0);
  }

  void named_class(Set& set) {
    next_ += 2;
    std::string name;
    for (; !at_end() && !at(':'); ++next_) name += text_[next_] < 128 ? static_cast<char>(text_[next_]) : '?';
    const auto* members = find_class(name);
    if (!members || !at(']', 1)) return fail("an unknown class between brackets; expected one such as [:alpha:]");
    next_ += 2;
    add_class(set, *members, false);
  }

  std::vector<std::uint32_t> text_;
  std::size_t next_ = 0;
  ParsedPattern out_;
};

// The length of the valid sequence that starts `text`, and its value; length 0 if there is none.
std::pair<std::size_t, std::uint32_t> first_character(std::string_view text) {
  const auto byte = [text](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])); };
  const auto lead = byte(0);
  if (lead < 0x80) return {1, lead};
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return {0, 0};
  auto value = lead & (0xffU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {0, 0};
    value = value << 6 | (byte(i) & 0x3f);
  }
  constexpr std::array<std::uint32_t, 5> kLeast{0, 0, 0x80, 0x800, 0x10000};
  if (value < kLeast[length] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) return {0, 0};
  return {length, value};
}

}  // namespace

ParsedPattern parse_pattern(std::string_view pattern) {
  return Parser(pattern).parse();
}

std::vector<std::uint32_t> decode_utf8(std::string_view text) {
  constexpr std::uint32_t kBeyondUnicode = 0x110000;
  std::vector<std::uint32_t> out;
  out.reserve(text.size());
  while (!text.empty()) {
    const auto [length, value] = first_character(text);
    out.push_back(length > 0 ? value : kBeyondUnicode + static_cast<unsigned char>(text.front()));
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return out;
}

}  // namespace pgweir::core
