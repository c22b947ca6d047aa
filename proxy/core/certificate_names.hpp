// Whom a client's TLS certificate names: which of the names in it a login may be judged by (auth_type = cert; the
// method cert, clientcert and clientname of auth_hba_file). Decides nothing about the certificate's validity, which TLS
// has checked by then, nor which database users a name may be, which is map_allows() of ident_map.hpp.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pgweir::core {

/// As they stand in the certificate, in its order: any of them may be empty, long, or hold any bytes, zero included.
struct CertificateNames {
  std::vector<std::string> common_names;  ///< of the subject, in UTF-8; empty text for one that cannot be told in it
  std::vector<std::string> dns_names;     ///< of the subjectAltName
  std::string subject;                    ///< the whole of it in the form of RFC 2253
};

enum class CertificatePart : std::uint8_t {
  CommonName,  ///< what PostgreSQL looks at
  AnyName,     ///< the common name or a DNS name, as PgBouncer does for cert
  Subject,     ///< clientname=DN
};

/// The names of that part which are worth something; views into `names`. They are to be compared byte for byte: unlike
/// host names, users differ by case. Left out is what may mislead:
/// - every name of a certificate with a zero byte in any of them, since its CA may have read only what is before it;
/// - the common name if there are several, since each reader takes another for the right one;
/// - DNS names with a wildcard, which name a group of hosts and no user;
/// - empty names, and names that no X.509 profile allows to be so long.
[[nodiscard]] std::vector<std::string_view> usable_names(const CertificateNames& names, CertificatePart part);

}  // namespace pgweir::core
