// Decompose, order, compose: the three steps of Unicode Standard Annex #15, over generated tables.
#include "protocol/nfkc.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace pgweir::protocol {
namespace {

struct CombiningRange {
  char32_t first;
  char32_t last;
  std::uint8_t combining_class;
};

// The mapping of code c is kDecomposed[offset + (c - first) * length] and the next `length` - 1 elements.
struct DecompositionRun {
  char32_t first;
  char32_t last;
  std::uint8_t length;
  std::uint16_t offset;
};

struct Composition {
  char32_t first;
  char32_t second;
  char32_t composed;
};

#include "protocol/nfkc_tables.inc"

// Hangul syllables are composed by arithmetic (section 3.12 of the Unicode Standard).
constexpr char32_t kSyllableBase = 0xAC00;
constexpr char32_t kLeadBase = 0x1100;
constexpr char32_t kVowelBase = 0x1161;
constexpr char32_t kTailBase = 0x11A7;
constexpr char32_t kLeads = 19;
constexpr char32_t kVowels = 21;
constexpr char32_t kTails = 28;
constexpr char32_t kSyllables = kLeads * kVowels * kTails;

template <typename Range, std::size_t size>
const Range* find_range(const Range (&ranges)[size], char32_t code) {
  const auto* found = std::upper_bound(std::begin(ranges), std::end(ranges), code,
                                       [](char32_t value, const Range& range) { return value < range.first; });
  if (found == std::begin(ranges)) return nullptr;
  --found;
  return code <= found->last ? found : nullptr;
}

std::uint8_t combining_class(char32_t code) {
  const auto* range = find_range(kCombiningClasses, code);
  return range ? range->combining_class : std::uint8_t{0};
}

void append_decomposed(std::u32string& out, char32_t code) {
  if (code >= kSyllableBase && code < kSyllableBase + kSyllables) {
    const char32_t index = code - kSyllableBase;
    out += kLeadBase + index / (kVowels * kTails);
    out += kVowelBase + index % (kVowels * kTails) / kTails;
    if (index % kTails != 0) out += kTailBase + index % kTails;
  } else if (const auto* run = find_range(kDecompositions, code)) {
    out.append(kDecomposed + run->offset + (code - run->first) * run->length, run->length);
  } else {
    out += code;
  }
}

// Sorts each run of combining marks by class; marks of one class keep their order.
void order_marks(std::u32string& text) {
  const auto by_class = [](char32_t a, char32_t b) { return combining_class(a) < combining_class(b); };
  const auto is_mark = [](char32_t code) { return combining_class(code) != 0; };
  for (auto begin = text.begin(); begin != text.end();) {
    begin = std::find_if(begin, text.end(), is_mark);
    const auto end = std::find_if_not(begin, text.end(), is_mark);
    std::stable_sort(begin, end, by_class);
    begin = end;
  }
}

/// The primary composite of the pair, or 0.
char32_t compose_pair(char32_t first, char32_t second) {
  if (first >= kLeadBase && first < kLeadBase + kLeads && second >= kVowelBase && second < kVowelBase + kVowels) {
    return kSyllableBase + ((first - kLeadBase) * kVowels + (second - kVowelBase)) * kTails;
  }
  const bool open_syllable =
      first >= kSyllableBase && first < kSyllableBase + kSyllables && (first - kSyllableBase) % kTails == 0;
  if (open_syllable && second > kTailBase && second < kTailBase + kTails) return first + (second - kTailBase);

  const auto* found = std::lower_bound(std::begin(kCompositions), std::end(kCompositions),
                                       Composition{first, second, 0}, [](const Composition& a, const Composition& b) {
                                         return a.first != b.first ? a.first < b.first : a.second < b.second;
                                       });
  if (found == std::end(kCompositions) || found->first != first || found->second != second) return 0;
  return found->composed;
}

std::u32string compose(std::u32string_view text) {
  std::u32string out;
  std::size_t starter = std::u32string::npos;  // where in `out` the last starter stands
  std::uint8_t last_class = 0;                 // of the last element of `out` after the starter
  for (const char32_t code : text) {
    const std::uint8_t code_class = combining_class(code);
    const bool adjacent = starter != std::u32string::npos && starter + 1 == out.size();
    // A mark is blocked from the starter by a kept mark of the same class; a starter by anything kept in between.
    if (starter != std::u32string::npos && (adjacent || (last_class < code_class))) {
      if (const char32_t composed = compose_pair(out[starter], code)) {
        out[starter] = composed;
        continue;
      }
    }
    if (code_class == 0) starter = out.size();
    last_class = code_class;
    out += code;
  }
  return out;
}

}  // namespace

std::u32string normalize_nfkc(std::u32string_view text) {
  std::u32string decomposed;
  decomposed.reserve(text.size());
  for (const char32_t code : text) append_decomposed(decomposed, code);
  order_marks(decomposed);
  return compose(decomposed);
}

}  // namespace pgweir::protocol
