// Reads the "x=value,y=value" lists all SCRAM messages are made of (RFC 5802 section 5). Knows the grammar of lists,
// not which attributes a message must have.
#pragma once

#include <optional>
#include <string_view>

namespace pgweir::protocol {

/// Takes attributes off the front of a message in their order. Views point into the message.
class ScramAttributes {
 public:
  explicit ScramAttributes(std::string_view message) : rest_(message) {}

  struct Attribute {
    char name;
    std::string_view value;
  };
  /// The next attribute, whatever its name; nullopt at the end and for text that is no attribute.
  [[nodiscard]] std::optional<Attribute> next() {
    const bool starts_attribute = rest_.size() >= 2 && is_letter(rest_[0]) && rest_[1] == '=';
    if (!starts_attribute) return std::nullopt;
    const char name = rest_[0];
    const auto comma = rest_.find(',');
    const std::string_view value = rest_.substr(2, comma == std::string_view::npos ? comma : comma - 2);
    // A comma at the very end announces an attribute that is not there: leave it, so that at_end() is never true.
    const bool more = comma != std::string_view::npos && comma + 1 < rest_.size();
    rest_ = comma == std::string_view::npos ? std::string_view() : rest_.substr(more ? comma + 1 : comma);
    return Attribute{name, value};
  }

  /// The value of the next attribute if it has this name.
  [[nodiscard]] std::optional<std::string_view> next(char name) {
    const auto attribute = next();
    if (!attribute || attribute->name != name) return std::nullopt;
    return attribute->value;
  }

  /// Reads over optional extensions; true if nothing else follows.
  [[nodiscard]] bool skip_extensions() {
    while (next()) continue;
    return at_end();
  }

  [[nodiscard]] bool at_end() const { return rest_.empty(); }
  /// What has not been taken yet.
  [[nodiscard]] std::string_view rest() const { return rest_; }

 private:
  static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

  std::string_view rest_;
};

}  // namespace pgweir::protocol
