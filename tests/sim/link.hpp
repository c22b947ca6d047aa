// A connection between the pooler and the world outside: two byte pipes of limited capacity that split, merge, delay and
// stall what is written, and that can be closed from either side or reset. The pooler's end is a SimPort, the other end
// a Peer (a client or a PostgreSQL backend).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "tests/sim/world.hpp"

namespace pgweir::sim {

class SimPort;

class Peer {
 public:
  virtual ~Peer() = default;
  /// Bytes or the end of the stream have arrived, or there is room again.
  virtual void on_link() = 0;
};

struct LinkTraits {
  std::size_t capacity = 65536;
  Duration latency{100};
  double stall = 0;  ///< chance that a delivery takes very long
};

class Link : public std::enable_shared_from_this<Link> {
 public:
  Link(World& world, LinkTraits traits, std::string name);

  // ---- the outer end ----
  void attach(Peer* peer) { peer_ = peer; }
  /// Takes what fits.
  std::size_t peer_write(std::string_view bytes);
  [[nodiscard]] std::size_t peer_room() const { return room(to_port_); }
  [[nodiscard]] std::string peer_read(std::size_t most);
  [[nodiscard]] std::size_t peer_readable() const { return to_peer_.arrived; }
  /// Nothing more will come.
  [[nodiscard]] bool peer_at_end() const { return reset_ || (to_peer_.end_arrived && to_peer_.arrived == 0); }
  /// Closes; what was written still arrives.
  void peer_close();
  /// Breaks the connection; bytes under way are lost.
  void reset();

  // ---- the pooler's end ----
  void attach(SimPort* port) { port_ = port; }
  std::size_t port_write(std::string_view bytes);
  [[nodiscard]] std::size_t port_room() const { return room(to_peer_); }
  [[nodiscard]] std::string port_read(std::size_t most);
  [[nodiscard]] std::size_t port_readable() const { return to_port_.arrived; }
  [[nodiscard]] bool port_at_end() const { return to_port_.end_arrived && to_port_.arrived == 0; }
  [[nodiscard]] bool port_end_arrived() const { return to_port_.end_arrived; }
  void port_close();

  [[nodiscard]] bool broken() const { return reset_; }
  [[nodiscard]] bool port_open() const { return port_ != nullptr; }
  [[nodiscard]] bool peer_open() const { return peer_ != nullptr; }
  [[nodiscard]] const std::string& name() const { return name_; }

 private:
  struct Pipe {
    std::string bytes;       ///< the first `arrived` of them can be read
    std::size_t arrived = 0;
    bool ended = false, end_arrived = false, delivering = false;
    bool toward_port = false;
  };

  [[nodiscard]] std::size_t room(const Pipe& pipe) const {
    return pipe.bytes.size() >= traits_.capacity ? 0 : traits_.capacity - pipe.bytes.size();
  }
  std::size_t write(Pipe& pipe, std::string_view bytes);
  std::string read(Pipe& pipe, std::size_t most);
  void deliver_later(Pipe& pipe);
  void deliver(Pipe& pipe);
  void notify_port();
  void notify_peer();
  void notify_peer_later();

  World& world_;
  LinkTraits traits_;
  std::string name_;
  Pipe to_peer_, to_port_;
  bool reset_ = false, notice_pending_ = false;
  Peer* peer_ = nullptr;
  SimPort* port_ = nullptr;
};

}  // namespace pgweir::sim
