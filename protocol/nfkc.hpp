// Unicode normalisation form KC for code points assigned in Unicode 3.2, which is all SASLprep lets through. Decides
// nothing about which code points are allowed.
#pragma once

#include <string>
#include <string_view>

namespace pgweir::protocol {

/// NFKC of `text`. Code points unknown to Unicode 3.2 pass through as if they were letters without decomposition.
[[nodiscard]] std::u32string normalize_nfkc(std::u32string_view text);

}  // namespace pgweir::protocol
