// The legal changes of a server connection's state.
#include "pool/slots.hpp"

#include <array>

namespace pgweir::pool {

namespace {

constexpr std::uint8_t set_of() {
  return 0;
}

template <class... States>
constexpr std::uint8_t set_of(ServerState first, States... rest) {
  return static_cast<std::uint8_t>((1U << static_cast<unsigned>(first)) | set_of(rest...));
}

using enum ServerState;

// Active -> Active is a direct hand-over to a waiter on the same worker; Moving -> Moving happens when the client it
// was moved for has left and the next waiter lives on yet another worker.
constexpr std::array<std::uint8_t, kServerStates> kLegal = {
    /* Login     */ set_of(Idle, Active, Moving, Closing),
    /* Idle      */ set_of(Active, Moving, Closing),
    /* Active    */ set_of(Idle, Active, Testing, Canceling, Moving, Closing),
    /* Testing   */ set_of(Idle, Active, Canceling, Moving, Closing),
    /* Canceling */ set_of(Idle, Active, Moving, Closing),
    /* Moving    */ set_of(Idle, Active, Moving, Closing),
    /* Closing   */ set_of(),
};

}  // namespace

bool legal_transition(ServerState from, ServerState to) {
  return ((kLegal[static_cast<std::size_t>(from)] >> static_cast<unsigned>(to)) & 1U) != 0;
}

}  // namespace pgweir::pool
