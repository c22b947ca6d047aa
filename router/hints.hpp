// Recognises what a client says about routing itself: a leading comment, and the setting pgweir.route, which PostgreSQL
// does not know and pgweir answers.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "router/router.hpp"

namespace pgweir::router {

/// The wish in a comment before the first word: /* pgweir: primary */, standby or auto, in any case of letters. The
/// first such comment counts; nullopt if there is none.
[[nodiscard]] std::optional<RouteWish> find_hint(std::string_view sql);

struct RouteCommand {
  enum class Kind : std::uint8_t { Set, Reset, Show };
  Kind kind = Kind::Show;
  RouteWish wish = RouteWish::Auto;  ///< of Set; Auto for DEFAULT
  bool local = false;                ///< SET LOCAL: until the end of the transaction
  bool valid = true;                 ///< of Set: false if the value is none of primary, standby, auto
  std::string_view value;            ///< of Set: the value as written, for the error message; a view of the text
};

/// `SET [SESSION | LOCAL] pgweir.route {= | TO} value`, `RESET pgweir.route`, `SHOW pgweir.route`, comments and a
/// closing semicolon allowed. nullopt for every other text, among them texts of several statements.
[[nodiscard]] std::optional<RouteCommand> find_route_command(std::string_view sql);

/// `auto`, `primary`, `standby`: what SHOW pgweir.route answers.
[[nodiscard]] std::string_view to_string(RouteWish wish);

}  // namespace pgweir::router
