// Asks PAM about a password: authentication and the state of the account, as PostgreSQL does, with one handle for each
// question. A module that wants to hear anything but the password is refused.
#include <netdb.h>
#include <security/pam_appl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "proxy/core/config_values.hpp"
#include "proxy/io/password_checker.hpp"

namespace pgweir::io {

namespace {

struct Conversation {
  const std::string* password = nullptr;
  std::string complaint;  // of a module, for the log
  std::chrono::microseconds delay{};
};

void free_answers(pam_response* answers, int count) {
  for (int i = 0; i < count; ++i) std::free(answers[i].resp);
  std::free(answers);
}

// The answers become libpam's, which frees them.
int converse(int count, const pam_message** messages, pam_response** out, void* data) noexcept {
  if (count <= 0 || count > PAM_MAX_NUM_MSG) return PAM_CONV_ERR;
  auto& conversation = *static_cast<Conversation*>(data);
  auto* answers = static_cast<pam_response*>(std::calloc(static_cast<std::size_t>(count), sizeof(pam_response)));
  if (answers == nullptr) return PAM_BUF_ERR;
  for (int i = 0; i < count; ++i) {
    const char* text = messages[i]->msg != nullptr ? messages[i]->msg : "";
    switch (messages[i]->msg_style) {
      case PAM_PROMPT_ECHO_OFF:
        answers[i].resp = ::strdup(conversation.password->c_str());
        if (answers[i].resp != nullptr) break;
        free_answers(answers, count);
        return PAM_BUF_ERR;
      case PAM_ERROR_MSG:
        conversation.complaint = text;
        break;
      case PAM_TEXT_INFO:
        break;
      default:
        conversation.complaint = std::string("a module asks for more than a password: ") + text;
        free_answers(answers, count);
        return PAM_CONV_ERR;
    }
  }
  *out = answers;
  return PAM_SUCCESS;
}

// Takes the place of the pause that libpam makes after a failure.
void note_delay(int status, unsigned microseconds, void* data) noexcept {
  if (status == PAM_SUCCESS || data == nullptr) return;
  auto& delay = static_cast<Conversation*>(data)->delay;
  delay = std::max(delay, std::chrono::microseconds(microseconds));
}

// The name that the system's resolver has for an address; the address itself if there is none.
std::string host_name(const std::string& address) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(address.c_str(), nullptr, &hints, &found) != 0) return address;
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, ::freeaddrinfo);
  std::array<char, NI_MAXHOST> name{};
  if (::getnameinfo(found->ai_addr, found->ai_addrlen, name.data(), name.size(), nullptr, 0, NI_NAMEREQD) != 0) {
    return address;
  }
  return name.data();
}

}  // namespace

Judgement judge_by_pam(const core::PamQuestion& pam, const core::PasswordQuestion& question) {
  Judgement result;
  Conversation conversation{&question.password, {}, {}};
  const pam_conv callbacks{converse, &conversation};
  pam_handle_t* handle = nullptr;
  int status = ::pam_start(pam.service.c_str(), question.user.c_str(), &callbacks, &handle);
  const auto succeeded = [&](const char* step) {
    if (status == PAM_SUCCESS) return true;
    result.verdict.reason = std::string(step) + ": " + ::pam_strerror(handle, status);
    if (!conversation.complaint.empty()) result.verdict.reason += " (" + core::quoted(conversation.complaint) + ")";
    return false;
  };
  if (!succeeded("pam_start")) return result;
  if (!question.client_host.empty()) {
    const std::string host = pam.use_hostname ? host_name(question.client_host) : question.client_host;
    status = ::pam_set_item(handle, PAM_RHOST, host.c_str());
  }
#ifdef PAM_FAIL_DELAY
  if (status == PAM_SUCCESS) {
    status = ::pam_set_item(handle, PAM_FAIL_DELAY, reinterpret_cast<const void*>(&note_delay));
  }
#endif
  if (succeeded("pam_set_item")) {
    status = ::pam_authenticate(handle, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
    if (succeeded("pam_authenticate")) {
      status = ::pam_acct_mgmt(handle, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
      result.verdict.right = succeeded("pam_acct_mgmt");
    }
  }
  if (!result.verdict.right) result.delay = conversation.delay;
  ::pam_end(handle, status);
  return result;
}

}  // namespace pgweir::io
