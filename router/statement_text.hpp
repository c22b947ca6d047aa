// One pass over a statement's text that tells whether it may be classified at all and brings it to the form under which
// its class is remembered: literals and comments taken out, white space folded. Two texts of the same form have the
// same class; wherever a literal could matter to PostgreSQL's grammar, it stays. Follows "Lexical Structure" of the
// manual.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pgweir::router {

/// PostgreSQL's parser is recursive and takes its time; these bounds keep its stack below 2 MB (it dies somewhere
/// between 10,000 and 30,000 levels on a stack of 8 MB) and its time below some 20 ms.
inline constexpr std::size_t kMaxClassifiedText = 16384;
inline constexpr std::uint32_t kMaxClassifiedTokens = 4000;

enum class TextProblem : std::uint8_t { None, TooLong, TooManyTokens, NulByte, NotUtf8 };

struct TextForm {
  std::string key;           ///< the form; kept between calls so that the buffer is allocated once
  bool empty = false;        ///< nothing but blanks, comments and semicolons
  bool modifies = false;     ///< begins with INSERT, UPDATE, DELETE or MERGE; there is no key then
  bool backslash = false;    ///< means something else if standard_conforming_strings is off
  bool non_ascii = false;    ///< means something else in encodings that are not UTF-8
  std::uint32_t tokens = 0;  ///< words and operator characters, literals and commas not counted: bounds the nesting
  TextProblem problem = TextProblem::None;
};

/// Fills `form` from `text`; of a text with a problem the key is not defined. Linear in the text.
void read_text_form(std::string_view text, TextForm& form);

}  // namespace pgweir::router
