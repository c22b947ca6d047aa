// The assertion of the fuzz targets: on in every build type, and a crash that both libFuzzer and CTest notice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string_view>

namespace pgweir::fuzz {

inline void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz check failed: %s\n", what);
  std::abort();
}

/// True if `part` lies within `whole`; an empty view may come from anywhere.
inline bool within(std::string_view whole, std::string_view part) {
  const std::less_equal<const char*> not_after;
  return part.empty() ||
         (not_after(whole.data(), part.data()) && not_after(part.data() + part.size(), whole.data() + whole.size()));
}

inline std::string_view as_view(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace pgweir::fuzz

/// The entry point libFuzzer and replay_main.cpp call; the bytes live until it returns.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
