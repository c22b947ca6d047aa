// Drives a fuzz target where libFuzzer is missing: replays corpus files, then a fixed number of seeded mutations of
// them. Run N depends on the seed, N and the corpus only, so one run can be repeated alone.
//
//   fuzz_NAME [--runs=N] [--seed=S] [--only=N] [--save=FILE] [--trace] [corpus file or folder]...
//
// --trace prints each run before it starts, --only repeats one run without the rest, --save keeps its input.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "tests/fuzz/fuzz_check.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::size_t kInputSizeMax = 4096;
constexpr std::size_t kMutationsMax = 6;

struct Options {
  std::uint64_t runs = 20000;
  std::uint64_t seed = 1;
  std::optional<std::uint64_t> only;
  std::string save;
  bool trace = false;
  std::vector<std::filesystem::path> paths;
};

bool read_number(std::string_view text, std::uint64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size();
}

bool read_option(std::string_view argument, Options& options) {
  const auto value_of = [argument](std::string_view name) { return argument.substr(name.size()); };
  if (argument.starts_with("--runs=")) return read_number(value_of("--runs="), options.runs);
  if (argument.starts_with("--seed=")) return read_number(value_of("--seed="), options.seed);
  if (argument.starts_with("--only=")) return read_number(value_of("--only="), options.only.emplace());
  if (argument.starts_with("--save=")) {
    options.save = value_of("--save=");
    return true;
  }
  if (argument == "--trace") {
    options.trace = true;
    return true;
  }
  options.paths.emplace_back(argument);
  return !argument.starts_with("--") && std::filesystem::exists(options.paths.back());
}

Bytes read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// All corpus files, in an order that does not depend on the file system.
std::vector<std::filesystem::path> corpus_files(const std::vector<std::filesystem::path>& paths) {
  std::vector<std::filesystem::path> files;
  for (const std::filesystem::path& path : paths) {
    if (!std::filesystem::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

class Mutator {
 public:
  Mutator(std::uint64_t seed, const std::vector<Bytes>& corpus) : random_(seed), corpus_(corpus) {}

  Bytes input() {
    Bytes bytes = corpus_.empty() ? Bytes{} : corpus_[below(corpus_.size())];
    const std::size_t mutations = 1 + below(kMutationsMax);
    for (std::size_t i = 0; i < mutations; ++i) mutate(bytes);
    bytes.resize(std::min(bytes.size(), kInputSizeMax));
    return bytes;
  }

 private:
  std::size_t below(std::size_t limit) { return static_cast<std::size_t>(random_() % limit); }
  std::uint8_t any_byte() { return static_cast<std::uint8_t>(random_()); }
  Bytes::iterator place(Bytes& bytes) { return bytes.begin() + static_cast<std::ptrdiff_t>(below(bytes.size() + 1)); }

  void mutate(Bytes& bytes) {
    const std::size_t kind = below(8);
    if (bytes.empty() || kind == 0) {
      bytes.insert(place(bytes), any_byte());
    } else if (kind == 1) {
      bytes[below(bytes.size())] ^= static_cast<std::uint8_t>(1U << below(8));
    } else if (kind == 2) {
      bytes[below(bytes.size())] = any_byte();
    } else if (kind == 3) {
      overwrite_number(bytes);
    } else if (kind == 4) {
      bytes.erase(place(bytes), bytes.end());
    } else if (kind == 5) {
      erase_part(bytes);
    } else if (kind == 6) {
      const Bytes part = part_of(bytes);
      bytes.insert(place(bytes), part.begin(), part.end());
    } else if (!corpus_.empty()) {
      const Bytes part = part_of(corpus_[below(corpus_.size())]);
      bytes.insert(place(bytes), part.begin(), part.end());
    }
  }

  /// Puts a number at the edge of some length or count check over 1, 2 or 4 bytes.
  void overwrite_number(Bytes& bytes) {
    static constexpr std::array<std::uint32_t, 12> kNumbers = {
        0, 1, 2, 3, 4, 5, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff};
    const std::uint32_t number =
        below(2) == 0 ? kNumbers[below(kNumbers.size())] : static_cast<std::uint32_t>(bytes.size() + below(9) - 4);
    const std::size_t width = std::size_t{1} << below(3);
    const std::size_t at = below(bytes.size());
    for (std::size_t i = 0; i < width && at + i < bytes.size(); ++i) {
      bytes[at + i] = static_cast<std::uint8_t>(number >> (8 * (width - 1 - i)));
    }
  }

  void erase_part(Bytes& bytes) {
    const std::size_t from = below(bytes.size());
    const std::size_t count = 1 + below(std::min<std::size_t>(bytes.size() - from, 16));
    const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(from);
    bytes.erase(first, first + static_cast<std::ptrdiff_t>(count));
  }

  Bytes part_of(const Bytes& bytes) {
    if (bytes.empty()) return {};
    const std::size_t from = below(bytes.size());
    const std::size_t count = 1 + below(std::min<std::size_t>(bytes.size() - from, 64));
    const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(from);
    return {first, first + static_cast<std::ptrdiff_t>(count)};
  }

  std::mt19937_64 random_;
  const std::vector<Bytes>& corpus_;
};

/// A copy without spare room, so that AddressSanitizer sees a read past the end.
void run_one(const Bytes& input) {
  const auto exact = std::make_unique<std::uint8_t[]>(input.size());
  std::copy(input.begin(), input.end(), exact.get());
  LLVMFuzzerTestOneInput(exact.get(), input.size());
}

void run_mutations(const Options& options, const std::vector<Bytes>& corpus) {
  const std::uint64_t first = options.only.value_or(0);
  const std::uint64_t end = options.only ? first + 1 : options.runs;
  for (std::uint64_t run = first; run < end; ++run) {
    if (options.trace) std::fprintf(stderr, "run %llu\n", static_cast<unsigned long long>(run));
    std::seed_seq mixed{options.seed, run};
    std::array<std::uint32_t, 2> words{};
    mixed.generate(words.begin(), words.end());
    const Bytes input = Mutator((std::uint64_t{words[0]} << 32) | words[1], corpus).input();
    if (options.only && !options.save.empty()) {
      std::ofstream file(options.save, std::ios::binary);
      file.write(reinterpret_cast<const char*>(input.data()), static_cast<std::streamsize>(input.size()));
    }
    run_one(input);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    if (read_option(argv[i], options)) continue;
    std::fprintf(stderr, "not an option, file or folder: %s\n", argv[i]);
    return 2;
  }
  std::vector<Bytes> corpus;
  for (const std::filesystem::path& file : corpus_files(options.paths)) {
    if (options.trace) std::fprintf(stderr, "file %s\n", file.c_str());
    corpus.push_back(read_file(file));
    if (!options.only) run_one(corpus.back());
  }
  run_one({});
  run_mutations(options, corpus);
  std::printf("%zu corpus files, seed %llu, %llu runs\n", corpus.size(), static_cast<unsigned long long>(options.seed),
              static_cast<unsigned long long>(options.only ? 1 : options.runs));
  return 0;
}
