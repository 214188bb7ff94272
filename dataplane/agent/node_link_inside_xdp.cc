// SPDX-License-Identifier: Apache-2.0
// NodeLink: AF_XDP sockets of engines inside hosts, where the settings allow a tenant to send any frame.
// weftd makes and binds them, each on a queue of its own; the host uses them, also while weftd is gone. weftd
// keeps a descriptor to enter the socket into the program's map, so whatever ends its use has to take it out
// again: what is redirected to a socket that nobody reads is lost. All on the key thread, closing included,
// which waits for the kernel.
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

// It gets one at weft-control's next answer.
void NodeLink::AddInsideXdp(uint16_t worker, const std::string& host, uint16_t slot) {
  InsideXdp& xdp = inside_xdp_[worker];
  xdp.host = host;
  xdp.slot = slot;
}

void NodeLink::SteerInside(std::shared_ptr<const SteerMaps> maps) {
  maps_ = std::move(maps);
  const std::array<uint32_t, 2> here = {maps_->keys_id, maps_->xsks_id};
  for (auto& [worker, xdp] : inside_xdp_) {
    if (xdp.interface_index != maps_->interface_index) {
      LeaveInsideXdp(&xdp);
      MakeInsideXdp(worker, &xdp);
    } else if (xdp.taken && xdp.entered_in != here) {
      EnterInsideXdp(&xdp);
    }
  }
}

// The one that goes with its port, else another that nobody has; the next one where the last try found that
// busy. 0: none is left.
uint32_t NodeLink::QueueForInside(const InsideXdp& xdp) const {
  const uint32_t queues = port::QueuesOf(config_.interface);
  if (queues <= workers_) return 0;
  const uint32_t first = xdp.queue == 0 ? workers_ + xdp.slot - 1u : xdp.queue + 1;
  for (uint32_t i = 0; i < queues - workers_; ++i) {
    const uint32_t queue = workers_ + (first - workers_ + i) % (queues - workers_);
    if (std::none_of(inside_xdp_.begin(), inside_xdp_.end(),
                     [&](const auto& entry) { return &entry.second != &xdp && entry.second.queue == queue; }))
      return queue;
  }
  return 0;
}

absl::StatusOr<UniqueFd> NodeLink::OpenInsideXdp(const InsideXdp& xdp, api::XdpSocket* given,
                                                 std::vector<UniqueFd>* fds) const {
  if (xdp.queue == 0) {
    return absl::UnavailableError(absl::StrCat(config_.interface, " has ", port::QueuesOf(config_.interface),
                                               " queues, and each of them another socket"));
  }
  WEFT_ASSIGN_OR_RETURN(port::Address local, port::Address::Parse(config_.listen));
  local.port = static_cast<uint16_t>(local.port + xdp.slot);
  const port::AfXdpPort::Options options{.interface = config_.interface,
                                         .queue = xdp.queue,
                                         .local = local,
                                         .datagram_bytes_max = DatagramBytesMax(config_, local.is_ipv4())};
  WEFT_ASSIGN_OR_RETURN(port::AfXdpPort::Given made, port::AfXdpPort::Make(options));
  UniqueFd socket = DuplicateFd(made.xsk.socket.get());
  if (!socket.valid()) return absl::ErrnoToStatus(errno, "keep an AF_XDP socket");
  given->set_interface(config_.interface);
  given->set_queue(xdp.queue);
  given->set_address(local.ToString());
  given->set_frame_bytes(made.xsk.frame_bytes);
  given->set_receive_frames(options.receive_frames);
  given->set_send_frames(options.send_frames);
  for (UniqueFd* const fd : {&made.xsk.socket, &made.xsk.memory, &made.routes.requests, &made.routes.events,
                             &made.routes.plain4, &made.routes.plain6}) {
    if (fd->valid()) fds->push_back(std::move(*fd));  // There may be no IPv6.
  }
  return socket;
}

void NodeLink::MakeInsideXdp(uint16_t worker, InsideXdp* xdp) {
  xdp->queue = QueueForInside(*xdp);
  InsideMail mail{.worker = worker};
  absl::StatusOr<UniqueFd> opened = OpenInsideXdp(*xdp, &mail.xdp, &mail.xdp_fds);
  // An interface that is down, or a queue that is not free, is tried again a second later.
  if (!absl::IsUnavailable(opened.status())) xdp->interface_index = maps_->interface_index;
  if (!opened.ok()) {
    const std::string problem(opened.status().message());
    if (problem != xdp->problem)
      spdlog::warn("the engine inside host {} gets no AF_XDP socket: {}", xdp->host, problem);
    xdp->problem = problem;
    return;
  }
  xdp->problem.clear();
  xdp->socket = *std::move(opened);
  mail.xdp.set_number(++xdp->number);
  door_->Post(std::move(mail));
}

void NodeLink::TakeInsideXdp(uint16_t worker, uint64_t number, const std::string& problem) {
  ToKeys([this, worker, number, problem] {
    const auto found = inside_xdp_.find(worker);
    if (found == inside_xdp_.end() || found->second.number != number) return;
    InsideXdp& xdp = found->second;
    if (!xdp.socket.valid()) return;  // Said before, of the same one.
    if (!problem.empty()) {
      spdlog::warn("host {} does not use its AF_XDP socket: {}", xdp.host, problem);
      return LeaveInsideXdp(&xdp);
    }
    if (xdp.taken) return;
    xdp.taken = true;
    EnterInsideXdp(&xdp);
  });
}

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
  const std::string problem(entered.message());
  if (entered.ok()) {
    if (xdp->entered_in == std::array<uint32_t, 2>{}) ++inside_by_af_xdp_;
    xdp->entered_in = {maps_->keys_id, maps_->xsks_id};
    spdlog::info("the engine inside host {} has packets by AF_XDP, {} queue {}", xdp->host, config_.interface,
                 xdp->queue);
  } else if (problem != xdp->problem) {
    spdlog::error("the engine inside host {} gets packets by UDP alone: {}", xdp->host, problem);
  }
  xdp->problem = problem;
}

// What is for it is the kernel's again.
void NodeLink::LeaveInsideXdp(InsideXdp* xdp) {
  if (std::exchange(xdp->entered_in, {}) != std::array<uint32_t, 2>{}) {
    --inside_by_af_xdp_;
    absl::StatusOr<port::SteerTable> table =
        port::SteerTable::Map(maps_->keys.get(), maps_->drops.get(), maps_->cpus);
    if (table.ok()) table->ClearInside(xdp->slot);
  }
  xdp->taken = false;
  xdp->socket.Reset();
}

void NodeLink::RemoveInsideXdp(uint16_t worker) {
  const auto found = inside_xdp_.find(worker);
  if (found == inside_xdp_.end()) return;
  LeaveInsideXdp(&found->second);
  inside_xdp_.erase(found);
}

}  // namespace weft::agent
