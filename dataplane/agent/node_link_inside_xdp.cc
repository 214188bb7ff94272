// SPDX-License-Identifier: Apache-2.0
// NodeLink: AF_XDP sockets of engines inside hosts, where the settings allow a tenant to send any frame.
// weftd makes and binds them, each on a queue of its own; the host uses them, also while weftd is gone.
#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/node_link.h"
#include "dataplane/base/status.h"
#include "dataplane/port/af_xdp_port.h"
#include "dataplane/port/next_hop.h"
#include "dataplane/port/steer_table.h"
#include "dataplane/port/xsk.h"
#include "spdlog/spdlog.h"

namespace weft::agent {

static_assert(NodeLink::kInsideMax == WEFT_STEER_INSIDE_MAX, "a slot has its place in the program's table");

// Under mutex_. The first one that no worker and no other engine has.
uint32_t NodeLink::QueueForInside() const {
  uint32_t queue = workers_;
  while (std::any_of(inside_xdp_.begin(), inside_xdp_.end(),
                     [queue](const auto& entry) { return entry.second.queue == queue; }))
    ++queue;
  return queue;
}

void NodeLink::SteerInside(std::shared_ptr<const SteerMaps> maps) {
  struct Wanting {
    uint16_t worker, slot;
    uint32_t queue;
  };
  std::vector<Wanting> wanting;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    maps_ = maps;
    for (auto& [worker, xdp] : inside_xdp_) {
      if (xdp.interface_index != maps->interface_index) {
        if (xdp.queue == 0) xdp.queue = QueueForInside();
        wanting.push_back({worker, xdp.slot, xdp.queue});
      } else if (xdp.taken && xdp.entered_in != maps->xsks_id) {
        EnterInsideXdp(&xdp);
      }
    }
  }
  for (const auto& [worker, slot, queue] : wanting) MakeInsideXdp(worker, slot, queue, *maps);
}

absl::StatusOr<UniqueFd> NodeLink::OpenInsideXdp(uint16_t slot, uint32_t queue, InsideMail* mail) const {
  if (const uint32_t queues = port::QueuesOf(config_.interface); queue >= queues) {
    return absl::FailedPreconditionError(
        absl::StrCat("it would have queue ", queue, ", and ", config_.interface, " has ", queues));
  }
  WEFT_ASSIGN_OR_RETURN(port::Address local, port::Address::Parse(config_.listen));
  local.port = static_cast<uint16_t>(local.port + slot);
  WEFT_ASSIGN_OR_RETURN(
      port::AfXdpPort::Given made,
      port::AfXdpPort::Make({.interface = config_.interface,
                             .queue = queue,
                             .local = local,
                             .datagram_bytes_max = DatagramBytesMax(config_, local.is_ipv4())}));
  UniqueFd socket = DuplicateFd(made.xsk.socket.get());
  if (!socket.valid()) return absl::ErrnoToStatus(errno, "keep an AF_XDP socket");
  mail->xdp.set_interface(config_.interface);
  mail->xdp.set_queue(queue);
  mail->xdp.set_frame_bytes(made.xsk.frame_bytes);
  mail->xdp.set_address(local.ToString());
  for (UniqueFd* const fd : {&made.xsk.socket, &made.xsk.memory, &made.routes.requests, &made.routes.events,
                             &made.routes.plain4, &made.routes.plain6}) {
    if (fd->valid()) mail->xdp_fds.push_back(std::move(*fd));  // There may be no IPv6.
  }
  return socket;
}

// Waits up to 200 ms where the queue's last owner has just gone.
void NodeLink::MakeInsideXdp(uint16_t worker, uint16_t slot, uint32_t queue, const SteerMaps& maps) {
  InsideMail mail{.worker = worker};
  absl::StatusOr<UniqueFd> opened = OpenInsideXdp(slot, queue, &mail);
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = inside_xdp_.find(worker);
  if (found == inside_xdp_.end()) return;  // It left meanwhile.
  InsideXdp& xdp = found->second;
  // An interface that is down, or the former owner of its queue, are tried again a second later.
  if (!absl::IsUnavailable(opened.status())) xdp.interface_index = maps.interface_index;
  xdp.taken = false;
  if (!opened.ok()) {
    const std::string problem(opened.status().message());
    if (problem != xdp.problem)
      spdlog::warn("the engine inside host {} gets no AF_XDP socket: {}", xdp.host, problem);
    xdp.problem = problem;
    return;
  }
  xdp.problem.clear();
  xdp.socket = *std::move(opened);
  door_->Post(std::move(mail));
}

void NodeLink::TakeInsideXdp(uint16_t worker, const std::string& problem) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = inside_xdp_.find(worker);
  if (found == inside_xdp_.end() || !found->second.socket.valid()) return;
  InsideXdp& xdp = found->second;
  if (!problem.empty()) {
    spdlog::warn("host {} does not use its AF_XDP socket: {}", xdp.host, problem);
    xdp.socket.Reset();
    return;
  }
  xdp.taken = true;
  EnterInsideXdp(&xdp);
}

// Under mutex_.
void NodeLink::EnterInsideXdp(InsideXdp* xdp) {
  const auto enter = [&]() -> absl::Status {
    WEFT_RETURN_IF_ERROR(
        port::EnterSocket(maps_->xsks.get(), port::SteerTable::SocketOf(xdp->slot), xdp->socket.get()));
    WEFT_ASSIGN_OR_RETURN(port::SteerTable table,
                          port::SteerTable::Map(maps_->keys.get(), maps_->drops.get(), maps_->cpus));
    table.SetInside(xdp->slot, xdp->queue);
    return absl::OkStatus();
  };
  const absl::Status entered = enter();
  xdp->entered_in = maps_->xsks_id;
  if (entered.ok()) {
    return spdlog::info("the engine inside host {} has packets by AF_XDP, {} queue {}", xdp->host,
                        config_.interface, xdp->queue);
  }
  spdlog::error("the engine inside host {} gets packets by UDP alone: {}", xdp->host,
                std::string(entered.message()));
}

void NodeLink::RemoveInsideXdp(uint16_t worker) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = inside_xdp_.find(worker);
  if (found == inside_xdp_.end()) return;
  if (found->second.entered_in != 0 && maps_ != nullptr) {
    absl::StatusOr<port::SteerTable> table =
        port::SteerTable::Map(maps_->keys.get(), maps_->drops.get(), maps_->cpus);
    if (table.ok()) table->ClearInside(found->second.slot);
  }
  inside_xdp_.erase(found);
}

std::size_t NodeLink::InsideByAfXdp() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<std::size_t>(std::count_if(inside_xdp_.begin(), inside_xdp_.end(),
                                                [](const auto& entry) { return entry.second.taken; }));
}

}  // namespace weft::agent
