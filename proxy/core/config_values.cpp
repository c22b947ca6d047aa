// Implements config_values.hpp. The units of time are those of the PostgreSQL manual, "Parameter Names and Values"; the
// words of the TLS versions are those of the *_tls_protocols settings.
#include "proxy/core/config_values.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

namespace pgweir::core {
namespace {

using std::chrono::microseconds;

// Longer than any process lives, and short enough that no sum of a few of them overflows.
constexpr double kMaxSeconds = std::numeric_limits<std::int32_t>::max();

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

template <typename Enum>
struct Words;

template <>
struct Words<PoolMode> {
  static constexpr std::array<Word<PoolMode>, 3> list{
      {{"session", PoolMode::Session}, {"transaction", PoolMode::Transaction}, {"statement", PoolMode::Statement}}};
};
template <>
struct Words<AuthType> {
  static constexpr std::array<Word<AuthType>, 9> list{{{"any", AuthType::Any},
                                                       {"trust", AuthType::Trust},
                                                       {"plain", AuthType::Plain},
                                                       {"md5", AuthType::Md5},
                                                       {"cert", AuthType::Cert},
                                                       {"hba", AuthType::Hba},
                                                       {"ldap", AuthType::Ldap},
                                                       {"pam", AuthType::Pam},
                                                       {"scram-sha-256", AuthType::ScramSha256}}};
};
template <>
struct Words<SslMode> {
  static constexpr std::array<Word<SslMode>, 6> list{{{"disable", SslMode::Disable},
                                                      {"allow", SslMode::Allow},
                                                      {"prefer", SslMode::Prefer},
                                                      {"require", SslMode::Require},
                                                      {"verify-ca", SslMode::VerifyCa},
                                                      {"verify-full", SslMode::VerifyFull}}};
};
template <>
struct Words<DhParams> {
  static constexpr std::array<Word<DhParams>, 3> list{
      {{"none", DhParams::None}, {"auto", DhParams::Auto}, {"legacy", DhParams::Legacy}}};
};
template <>
struct Words<LoadBalanceHosts> {
  static constexpr std::array<Word<LoadBalanceHosts>, 2> list{
      {{"round-robin", LoadBalanceHosts::RoundRobin}, {"disable", LoadBalanceHosts::Disable}}};
};
template <>
struct Words<TargetSessionAttrs> {
  static constexpr std::array<Word<TargetSessionAttrs>, 6> list{
      {{"any", TargetSessionAttrs::Any},
       {"read-write", TargetSessionAttrs::ReadWrite},
       {"read-only", TargetSessionAttrs::ReadOnly},
       {"primary", TargetSessionAttrs::Primary},
       {"standby", TargetSessionAttrs::Standby},
       {"prefer-standby", TargetSessionAttrs::PreferStandby}}};
};
template <>
struct Words<ReadYourWrites> {
  static constexpr std::array<Word<ReadYourWrites>, 3> list{
      {{"off", ReadYourWrites::Off}, {"session", ReadYourWrites::Session}, {"database", ReadYourWrites::Database}}};
};
template <>
struct Words<HostSource> {
  static constexpr std::array<Word<HostSource>, 2> list{{{"list", HostSource::List}, {"patroni", HostSource::Patroni}}};
};

template <typename Enum>
std::string_view word_of(Enum value) {
  for (const auto& word : Words<Enum>::list) {
    if (word.value == value) return word.text;
  }
  return {};
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = diagonal + (lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

// A trailing comment is the commonest reason for a number that is none.
std::string got(std::string_view text) {
  const bool comment = text.find_first_of(";#") != std::string_view::npos;
  return fmt::format("got {}{}", quoted(text), comment ? " (a comment needs a line of its own)" : "");
}

std::string not_an_integer(std::string_view text, std::int64_t min, std::int64_t max) {
  if (max == std::numeric_limits<std::int64_t>::max() || max == std::numeric_limits<int>::max()) {
    return fmt::format("expected a whole number, {} or more, {}", min, got(text));
  }
  return fmt::format("expected a whole number from {} to {}, {}", min, max, got(text));
}

// The digits after the sign, in the given base, whole text or nothing.
std::optional<std::int64_t> to_integer(std::string_view text, bool any_base) {
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  int base = 10;
  if (any_base && (text.starts_with("0x") || text.starts_with("0X"))) {
    base = 16;
    text.remove_prefix(2);
  } else if (any_base && text.size() > 1 && text.front() == '0') {
    base = 8;
  }
  if (text.empty() || text.front() == '-') return std::nullopt;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return negative ? -value : value;
}

// A number that is neither negative nor infinite, and the text behind it.
std::optional<std::pair<double, std::string_view>> take_number(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  if (text.empty() || !(text.front() == '.' || (text.front() >= '0' && text.front() <= '9'))) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || !std::isfinite(value)) return std::nullopt;
  return std::pair{value, text.substr(static_cast<std::size_t>(end - text.data()))};
}

struct TimeUnit {
  std::string_view name;
  std::int64_t us;
};
// From the largest: format_duration() takes the first that fits.
constexpr std::array<TimeUnit, 6> kTimeUnits{
    {{"d", 86'400'000'000}, {"h", 3'600'000'000}, {"min", 60'000'000}, {"s", 1'000'000}, {"ms", 1000}, {"us", 1}}};

// Bits of the versions 1.0, 1.1, 1.2 and 1.3; 0 for an unknown word.
unsigned tls_versions(std::string_view word) {
  constexpr std::array<std::pair<std::string_view, unsigned>, 8> kWords{{{"tlsv1.0", 1},
                                                                         {"tlsv1.1", 2},
                                                                         {"tlsv1.2", 4},
                                                                         {"tlsv1.3", 8},
                                                                         {"tlsv1", 15},
                                                                         {"all", 15},
                                                                         {"secure", 12},
                                                                         {"default", 12}}};
  for (const auto& [name, bits] : kWords) {
    if (equal_ignoring_case(word, name)) return bits;
  }
  return 0;
}

std::vector<std::string> split(std::string_view text, std::string_view separators) {
  std::vector<std::string> items;
  while (!text.empty()) {
    const auto end = std::min(text.find_first_of(separators), text.size());
    auto item = text.substr(0, end);
    while (!item.empty() && (item.front() == ' ' || item.front() == '\t')) item.remove_prefix(1);
    while (!item.empty() && (item.back() == ' ' || item.back() == '\t')) item.remove_suffix(1);
    if (!item.empty()) items.emplace_back(item);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return items;
}

}  // namespace

std::string_view to_string(PoolMode value) {
  return word_of(value);
}
std::string_view to_string(AuthType value) {
  return word_of(value);
}
std::string_view to_string(SslMode value) {
  return word_of(value);
}
std::string_view to_string(DhParams value) {
  return word_of(value);
}
std::string_view to_string(LoadBalanceHosts value) {
  return word_of(value);
}
std::string_view to_string(TargetSessionAttrs value) {
  return word_of(value);
}
std::string_view to_string(ReadYourWrites value) {
  return word_of(value);
}
std::string_view to_string(HostSource value) {
  return word_of(value);
}

std::string quoted(std::string_view text) {
  constexpr std::size_t kShown = 60;
  std::string out = "\"";
  for (const char c : text.substr(0, kShown)) out += (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) ? '?' : c;
  out += text.size() > kShown ? "...\"" : "\"";
  return out;
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) { return lower(x) == lower(y); });
}

std::string did_you_mean(std::string_view name, std::span<const std::string_view> known) {
  // Bounds the work for a key of any length: no setting's name is longer.
  if (name.size() > 64) return {};
  std::string_view nearest;
  std::size_t distance = (name.size() < 4 ? 1 : std::max<std::size_t>(2, name.size() / 3)) + 1;
  for (const auto candidate : known) {
    const auto d = edit_distance(name, candidate);
    if (d < distance) {
      nearest = candidate;
      distance = d;
    }
  }
  return nearest.empty() ? std::string{} : fmt::format(" (did you mean \"{}\"?)", nearest);
}

Parsed<std::int64_t> parse_integer(std::string_view text, std::int64_t min, std::int64_t max) {
  const auto value = to_integer(text, true);
  if (!value || *value < min || *value > max) return not_an_integer(text, min, max);
  return *value;
}

Parsed<int> parse_decimal(std::string_view text, int min, int max) {
  const auto value = to_integer(text, false);
  if (!value || *value < min || *value > max) return not_an_integer(text, min, max);
  return static_cast<int>(*value);
}

Parsed<bool> parse_bool(std::string_view text) {
  for (const auto word : {"yes", "on", "true"}) {
    if (equal_ignoring_case(text, word)) return true;
  }
  for (const auto word : {"no", "off", "false"}) {
    if (equal_ignoring_case(text, word)) return false;
  }
  // PgBouncer's booleans are integers: files in the field hold other numbers than 0 and 1.
  if (const auto number = to_integer(text, true)) return *number != 0;
  return fmt::format("expected 0 or 1 (or no, off, false, yes, on, true), {}", got(text));
}

Parsed<Duration> parse_seconds(std::string_view text) {
  const auto number = take_number(text);
  if (!number || !number->second.empty() || number->first > kMaxSeconds) {
    return fmt::format("expected a number of seconds{}, {}", number ? " without a unit" : "", got(text));
  }
  return microseconds(std::llround(number->first * 1e6));
}

Parsed<Duration> parse_duration(std::string_view text, std::string_view default_unit, Duration min, Duration max) {
  const auto refuse = [&] {
    return fmt::format("expected a time from {} to {} (units us, ms, s, min, h, d; {} if none is given), {}",
                       format_duration(min), format_duration(max), default_unit, got(text));
  };
  const auto number = take_number(text);
  if (!number) return refuse();
  auto unit = number->second;
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  if (unit.empty()) unit = default_unit;
  const auto* found = std::find_if(kTimeUnits.begin(), kTimeUnits.end(), [&](auto& u) { return u.name == unit; });
  if (found == kTimeUnits.end()) return refuse();
  const double us = number->first * static_cast<double>(found->us);
  if (us > kMaxSeconds * 1e6) return refuse();
  const microseconds value(std::llround(us));
  if (value < min || value > max) return refuse();
  return value;
}

Parsed<TlsProtocols> parse_tls_protocols(std::string_view text) {
  const auto refuse = [&] {
    auto reason = fmt::format(
        "expected TLS versions such as secure, all or tlsv1.2,tlsv1.3 (tlsv1.0 to tlsv1.3; !x removes x), {}",
        got(text));
    return Parsed<TlsProtocols>(boost::system::in_place_error, std::move(reason));
  };
  unsigned bits = 0;
  for (std::string_view word : split(text, ",:")) {
    const bool removes = word.starts_with('!');
    if (removes) word.remove_prefix(1);
    const unsigned versions = tls_versions(word);
    if (versions == 0) return refuse();
    // "!tlsv1.0" alone means all but that one.
    if (removes && bits == 0) bits = 15;
    bits = removes ? bits & ~versions : bits | versions;
  }
  if (bits == 0) return refuse();
  return TlsProtocols{std::string(text), (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0};
}

NameList parse_list(std::string_view text, ListForm form) {
  return {std::string(text), split(text, form == ListForm::Words ? ", \t" : ",")};
}

template <typename Enum>
Parsed<Enum> parse_word(std::string_view text) {
  std::string words;
  for (const auto& word : Words<Enum>::list) {
    if (equal_ignoring_case(text, word.text)) return word.value;
    words += words.empty() ? "" : ", ";
    words += word.text;
  }
  return fmt::format("expected one of {}, {}", words, got(text));
}

template Parsed<PoolMode> parse_word<PoolMode>(std::string_view);
template Parsed<AuthType> parse_word<AuthType>(std::string_view);
template Parsed<SslMode> parse_word<SslMode>(std::string_view);
template Parsed<DhParams> parse_word<DhParams>(std::string_view);
template Parsed<LoadBalanceHosts> parse_word<LoadBalanceHosts>(std::string_view);
template Parsed<TargetSessionAttrs> parse_word<TargetSessionAttrs>(std::string_view);
template Parsed<ReadYourWrites> parse_word<ReadYourWrites>(std::string_view);
template Parsed<HostSource> parse_word<HostSource>(std::string_view);

std::string format_seconds(Duration value) {
  return fmt::format("{:g}", static_cast<double>(value.count()) / 1e6);
}

std::string format_duration(Duration value) {
  if (value.count() == 0) return "0";
  for (const auto& unit : kTimeUnits) {
    if (value.count() % unit.us == 0) return fmt::format("{}{}", value.count() / unit.us, unit.name);
  }
  return fmt::format("{}us", value.count());
}

}  // namespace pgweir::core
