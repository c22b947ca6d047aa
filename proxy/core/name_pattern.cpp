// Implements name_pattern.hpp: the tree becomes a program, and the program runs on all its possible places at once
// (Thompson's construction with the order of preference kept, known from Pike's editor sam).
#include "proxy/core/name_pattern.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "proxy/core/config_values.hpp"
#include "proxy/core/name_pattern_parser.hpp"

namespace pgweir::core {
namespace {

using Instruction = NamePattern::Instruction;
using Kind = Instruction::Kind;
using Node = PatternNode;

// Turns the tree into instructions. Stops growing at the limit, so that nested counts cannot take memory.
class Compiler {
 public:
  std::vector<Instruction> compile(const Node& root) {
    emit(root);
    add(Kind::Match);
    return std::move(program_);
  }
  bool is_too_long() const { return too_long_; }

 private:
  std::uint32_t here() const { return static_cast<std::uint32_t>(program_.size()); }

  std::uint32_t add(Kind kind, std::uint32_t value = 0, std::uint32_t second = 0) {
    if (program_.size() >= NamePattern::kMaxInstructions) {
      too_long_ = true;
      return 0;
    }
    program_.push_back({kind, value, second});
    return here() - 1;
  }

  void emit(const Node& node) {
    if (too_long_) return;
    switch (node.kind) {
      case Node::Kind::Character:
        add(Kind::Character, node.value);
        break;
      case Node::Kind::Any:
        add(Kind::Any);
        break;
      case Node::Kind::Set:
        add(Kind::Set, node.value);
        break;
      case Node::Kind::Start:
        add(Kind::Start);
        break;
      case Node::Kind::End:
        add(Kind::End);
        break;
      case Node::Kind::Sequence:
        for (const auto& child : node.children) emit(child);
        break;
      case Node::Kind::Alternatives:
        emit_alternatives(node);
        break;
      case Node::Kind::Group:
        emit_group(node);
        break;
      case Node::Kind::Repeat:
        emit_repeat(node);
        break;
    }
  }

  void emit_alternatives(const Node& node) {
    std::vector<std::uint32_t> jumps;
    for (std::size_t i = 0; i + 1 < node.children.size(); ++i) {
      const auto split = add(Kind::Split, here() + 1);
      emit(node.children[i]);
      jumps.push_back(add(Kind::Jump));
      program_[split].second = here();
    }
    emit(node.children.back());
    for (const auto jump : jumps) program_[jump].value = here();
  }

  // Only the first group is ever asked for.
  void emit_group(const Node& node) {
    const bool captures = node.group == 1;
    if (captures) add(Kind::OpenGroup);
    emit(node.children.front());
    if (captures) add(Kind::CloseGroup);
  }

  void emit_repeat(const Node& node) {
    const auto& child = node.children.front();
    for (int i = 0; i < node.min && !too_long_; ++i) emit(child);
    if (!node.max) {
      const auto split = add_split(node.greedy);
      emit(child);
      add(Kind::Jump, split);
      return leave_at_end(split, node.greedy);
    }
    std::vector<std::uint32_t> splits;
    for (int i = node.min; i < *node.max && !too_long_; ++i) {
      splits.push_back(add_split(node.greedy));
      emit(child);
    }
    for (const auto split : splits) leave_at_end(split, node.greedy);
  }

  // A choice between going on with the next instruction and leaving; the place to leave for is set later.
  std::uint32_t add_split(bool greedy) {
    const auto next = here() + 1;
    return greedy ? add(Kind::Split, next, 0) : add(Kind::Split, 0, next);
  }
  void leave_at_end(std::uint32_t split, bool greedy) {
    (greedy ? program_[split].second : program_[split].value) = here();
  }

  std::vector<Instruction> program_;
  bool too_long_ = false;
};

constexpr std::size_t kNowhere = static_cast<std::size_t>(-1);

// One place in the program, with what the first group has matched on the way there.
struct Thread {
  std::uint32_t at = 0;
  std::size_t group_begin = kNowhere;
  std::size_t group_end = kNowhere;
};

class Matcher {
 public:
  Matcher(const std::vector<Instruction>& program, const std::vector<NamePattern::CharacterSet>& sets,
          const std::vector<std::uint32_t>& text)
      : program_(program), sets_(sets), text_(text), seen_(program.size(), kNowhere) {}

  /// The match as the thread that ended in it. With `any`, the first that shows up instead of the preferred one.
  std::optional<Thread> run(bool any) {
    std::optional<Thread> best;
    for (std::size_t position = 0; position <= text_.size(); ++position) {
      if (!best) follow(Thread{}, position);
      if (threads_.empty() && best) break;
      auto current = std::exchange(threads_, {});
      for (const auto& thread : current) {
        const auto& instruction = program_[thread.at];
        if (instruction.kind == Kind::Match) {
          best = thread;
          if (any) return best;
          break;  // the threads after this one are less preferred
        }
        if (position < text_.size() && accepts(instruction, text_[position])) {
          follow({thread.at + 1, thread.group_begin, thread.group_end}, position + 1);
        }
      }
    }
    return best;
  }

 private:
  bool accepts(const Instruction& instruction, std::uint32_t c) const {
    switch (instruction.kind) {
      case Kind::Character:
        return instruction.value == c;
      case Kind::Any:
        return true;
      case Kind::Set:
        return sets_[instruction.value].contains(c);
      default:
        return false;
    }
  }

  // Follows everything that takes no character; each instruction counts once per position, for its preferred thread.
  void follow(Thread start, std::size_t position) {
    pending_.push_back(start);
    while (!pending_.empty()) {
      auto thread = pending_.back();
      pending_.pop_back();
      if (seen_[thread.at] == position) continue;
      seen_[thread.at] = position;
      const auto& instruction = program_[thread.at];
      switch (instruction.kind) {
        case Kind::Split:
          pending_.push_back({instruction.second, thread.group_begin, thread.group_end});
          [[fallthrough]];
        case Kind::Jump:
          thread.at = instruction.value;
          break;
        case Kind::Start:
          if (position != 0) continue;
          ++thread.at;
          break;
        case Kind::End:
          if (position != text_.size()) continue;
          ++thread.at;
          break;
        case Kind::OpenGroup:
          thread = {thread.at + 1, position, kNowhere};
          break;
        case Kind::CloseGroup:
          thread = {thread.at + 1, thread.group_begin, position};
          break;
        default:
          threads_.push_back(thread);
          continue;
      }
      pending_.push_back(thread);
    }
  }

  const std::vector<Instruction>& program_;
  const std::vector<NamePattern::CharacterSet>& sets_;
  const std::vector<std::uint32_t>& text_;
  std::vector<Thread> threads_;    ///< at the current position, most preferred first
  std::vector<Thread> pending_;    ///< follow()'s stack
  std::vector<std::size_t> seen_;  ///< per instruction: the last position at which it was reached
};

// The bytes of the characters [begin, end).
std::string slice(std::string_view text, std::size_t begin, std::size_t end) {
  const auto characters = decode_utf8(text);
  const auto bytes_of = [](std::uint32_t c) -> std::size_t {
    if (c < 0x80 || c > 0x10ffff) return 1;
    return c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  };
  std::size_t first = 0;
  std::size_t length = 0;
  for (std::size_t i = 0; i < end; ++i) (i < begin ? first : length) += bytes_of(characters[i]);
  return std::string(text.substr(first, length));
}

}  // namespace

bool NamePattern::CharacterSet::contains(std::uint32_t c) const {
  const bool listed = c < 128 ? ascii[c] : std::any_of(ranges.begin(), ranges.end(), [c](const auto& range) {
    return c >= range.first && c <= range.second;
  });
  return listed != negated;
}

boost::system::result<NamePattern, std::string> NamePattern::compile(std::string_view pattern) {
  if (pattern.size() > kMaxLength) {
    return fmt::format("expected a regular expression of at most {} bytes", kMaxLength);
  }
  auto parsed = parse_pattern(pattern);
  if (!parsed.error.empty()) {
    return fmt::format("expected a regular expression, {} contains {}", quoted(pattern), parsed.error);
  }
  Compiler compiler;
  NamePattern out;
  out.program_ = compiler.compile(parsed.root);
  if (compiler.is_too_long()) {
    return fmt::format("expected a smaller regular expression, {} repeats too much", quoted(pattern));
  }
  out.sets_ = std::move(parsed.sets);
  out.groups_ = parsed.groups;
  return out;
}

bool NamePattern::matches(std::string_view name) const {
  const auto text = decode_utf8(name);
  return Matcher(program_, sets_, text).run(true).has_value();
}

std::optional<NamePattern::Match> NamePattern::find(std::string_view name) const {
  const auto text = decode_utf8(name);
  const auto thread = Matcher(program_, sets_, text).run(false);
  if (!thread) return std::nullopt;
  if (thread->group_end == kNowhere) return Match{};
  return Match{slice(name, thread->group_begin, thread->group_end)};
}

}  // namespace pgweir::core
