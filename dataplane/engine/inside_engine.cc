// SPDX-License-Identifier: Apache-2.0
#include "dataplane/engine/inside_engine.h"

#include <sys/epoll.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/status.h"
#include "dataplane/engine/port_paths.h"

namespace weft::engine {
namespace {

// What this host's messages may hold in the transport, and as much again on their way to it: two of 16 MiB
// each way, in blocks of twice their size. Nothing is taken before it is needed.
constexpr uint64_t kMessageBytes = 128u << 20;
constexpr uint32_t kFunctionsMax = 1024;

NodeEngineOptions OptionsOf(const api::InsideEngine& given, std::shared_ptr<UniqueFd> agent,
                            SteeredPort* port) {
  NodeEngineOptions options;
  transport::Config& transport = options.transport;
  transport.memory_bytes = kMessageBytes;
  transport.messages_in_max = transport.messages_out_max = 4096;
  transport.functions_max = kFunctionsMax;
  transport.datagram_bytes_max = given.datagram_bytes_max();
  transport.key_generation_first = given.key_generation();
  transport.key_index_bits = given.key_index_bits();
  transport.key_index_first = given.key_index_first();
  transport.key_indices = given.key_indices();
  options.tenant_limits.assign(1, kMessageBytes);
  // One connection: where the agent closes it, it gives another engine to the host.
  options.connect = [agent = std::move(agent)]() -> absl::StatusOr<UniqueFd> {
    if (!agent->valid()) return absl::UnavailableError("the agent has not given another connection");
    return std::move(*agent);
  };
  options.paths = PathsOf(port);
  return options;
}

}  // namespace

absl::StatusOr<std::unique_ptr<InsideEngine>> InsideEngine::Create(const api::InsideEngine& given,
                                                                   UniqueFd agent, UniqueFd socket,
                                                                   UniqueFd twin, Poller* poller) {
  port::UdpPort::Options udp;
  udp.socket = std::move(socket);
  udp.twin = std::move(twin);
  udp.datagram_bytes_max = given.datagram_bytes_max();
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<port::UdpPort> kernel, port::UdpPort::Create(std::move(udp)));
  auto port = std::make_unique<SteeredPort>(std::move(kernel));
  auto held = std::make_shared<UniqueFd>(std::move(agent));
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<NodeEngine> engine,
                        NodeEngine::Create(OptionsOf(given, std::move(held), port.get())));
  std::unique_ptr<InsideEngine> inside(
      new InsideEngine(std::move(port), std::move(engine), poller, given.datagram_bytes_max()));
  NodeEngine* const raw = inside->engine_.get();
  WEFT_RETURN_IF_ERROR(poller->AddFd(raw->wait_fd(), EPOLLIN, [raw](uint32_t) { raw->Look(); }));
  if (inside->port_->sleep_fd() >= 0) {
    // Its packets are taken by the next turn.
    WEFT_RETURN_IF_ERROR(poller->AddFd(inside->port_->sleep_fd(), EPOLLIN, [](uint32_t) {}));
  }
  raw->Start();
  return inside;
}

InsideEngine::InsideEngine(std::unique_ptr<SteeredPort> port, std::unique_ptr<NodeEngine> engine,
                           Poller* poller, std::size_t datagram_bytes_max)
    : port_(std::move(port)),
      engine_(std::move(engine)),
      worker_(*engine_, *port_, /*poll_time_ns=*/0, /*hosts_first=*/true),
      poller_(poller),
      datagram_bytes_max_(datagram_bytes_max) {}

InsideEngine::~InsideEngine() {
  worker_.TakeLeave();
  poller_->RemoveFd(engine_->wait_fd());
  if (port_->sleep_fd() >= 0) poller_->RemoveFd(port_->sleep_fd());
  if (port_->xdp() != nullptr) poller_->RemoveFd(port_->xdp()->sleep_fd());
}

absl::Status InsideEngine::TakeXdp(const api::XdpSocket& given, std::vector<UniqueFd> fds) {
  if (fds.size() != 5 && fds.size() != 6)
    return absl::InvalidArgumentError(
        absl::StrCat("an AF_XDP socket came with ", fds.size(), " descriptors"));
  port::AfXdpPort::Given parts;
  parts.xsk = {std::move(fds[0]), std::move(fds[1]), given.frame_bytes()};
  parts.routes = {std::move(fds[2]), std::move(fds[3]), std::move(fds[4]),
                  fds.size() == 6 ? std::move(fds[5]) : UniqueFd()};
  WEFT_ASSIGN_OR_RETURN(const port::Address local, port::Address::Parse(given.address()));
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<port::AfXdpPort> xdp,
                        port::AfXdpPort::Adopt({.interface = given.interface(),
                                                .queue = given.queue(),
                                                .local = local,
                                                .datagram_bytes_max = datagram_bytes_max_,
                                                .receive_frames = given.receive_frames(),
                                                .send_frames = given.send_frames()},
                                               std::move(parts)));
  WEFT_RETURN_IF_ERROR(poller_->AddFd(xdp->sleep_fd(), EPOLLIN, [](uint32_t) {}));
  absl::Status changed = ChangePort(std::move(xdp));
  // A peer that is reached by another interface, say, and is so by UDP.
  if (!changed.ok()) (void)ChangePort(nullptr);
  return changed;
}

// `xdp`, which the poller watches, or null: the UDP socket alone.
absl::Status InsideEngine::ChangePort(std::unique_ptr<port::AfXdpPort> xdp) {
  return engine_->ChangeWays([&] {
    if (const std::unique_ptr<port::AfXdpPort> former = port_->Change(std::move(xdp)); former != nullptr)
      poller_->RemoveFd(former->sleep_fd());
  });
}

bool InsideEngine::PrepareSleep(uint64_t* wake_ns) {
  const uint64_t now_ns = engine_->NowNs();
  const uint64_t due_ns = engine_->WakeNs(now_ns);
  if (due_ns <= now_ns) return false;
  const bool idle = port_->PrepareSleep();
  if (port_->lost()) {  // Its interface has been deleted: the agent gives another one, if there is one.
    if (idle) port_->EndSleep();
    (void)ChangePort(nullptr);
    lost_xdp_ = true;
    return false;
  }
  if (!idle) return false;
  *wake_ns = std::min(*wake_ns, due_ns);
  return true;
}

}  // namespace weft::engine
