// Implements certificate_names.hpp.
#include "proxy/core/certificate_names.hpp"

#include <algorithm>

namespace pgweir::core {
namespace {

// A DNS name has at most 253 bytes and a common name 64 characters; a subject has several parts like the latter.
constexpr std::size_t kNameMax = 256;
constexpr std::size_t kSubjectMax = 2048;

bool has_zero_byte(const std::string& name) {
  return name.find('\0') != std::string::npos;
}

}  // namespace

std::vector<std::string_view> usable_names(const CertificateNames& names, CertificatePart part) {
  std::vector<std::string_view> usable;
  if (std::any_of(names.common_names.begin(), names.common_names.end(), has_zero_byte) ||
      std::any_of(names.dns_names.begin(), names.dns_names.end(), has_zero_byte) || has_zero_byte(names.subject)) {
    return usable;
  }
  const auto add = [&](std::string_view name, std::size_t max) {
    if (!name.empty() && name.size() <= max) usable.push_back(name);
  };
  if (part == CertificatePart::Subject) {
    add(names.subject, kSubjectMax);
    return usable;
  }
  if (names.common_names.size() == 1) add(names.common_names.front(), kNameMax);
  if (part == CertificatePart::AnyName) {
    for (const std::string& name : names.dns_names) {
      if (name.find('*') == std::string::npos) add(name, kNameMax);
    }
  }
  return usable;
}

}  // namespace pgweir::core
