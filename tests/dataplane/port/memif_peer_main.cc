// SPDX-License-Identifier: Apache-2.0
// weft-test-memif-peer FD DEVICE ADDRESS BYTES: the other end of a memif, which the conformance suite drives
// by the socket FD (memif_peer.h). It ends with the suite.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "dataplane/base/check.h"
#include "dataplane/port/dpdk_port.h"
#include "tests/dataplane/port/memif_peer_commands.h"

namespace weft::port {
namespace {

// Looks at the port for each question of the suite, which is as long as the question itself takes.
constexpr int kLooks = 64;
constexpr std::size_t kBurst = 64;

class Peer {
 public:
  Peer(int control, std::unique_ptr<DpdkPort> port) : control_(control), port_(std::move(port)) {}

  // False after the last command, or where the suite is gone.
  bool Obey() {
    PeerCommand command;
    if (!ReadAll(control_, &command, sizeof(command))) return false;
    switch (command.kind) {
      case PeerCommand::kReceive:
        return Receive(command.count);
      case PeerCommand::kRelease:
        return Release(command.count);
      case PeerCommand::kSend:
        return Send(command.path, command.count);
      case PeerCommand::kFlush:
        port_->Flush();
        return true;
      case PeerCommand::kAddPath: {
        Address address;
        if (!ReadAll(control_, &address, sizeof(address))) return false;
        const uint64_t path = port_->AddPath(address).value();
        return WriteAll(control_, &path, sizeof(path));
      }
      case PeerCommand::kSourceOf: {
        const Address address = port_->SourceOf(held_.at(command.count).datagram);
        return WriteAll(control_, &address, sizeof(address));
      }
      case PeerCommand::kFrames: {
        const FrameCounts counts = port_->frames();
        return WriteAll(control_, &counts, sizeof(counts));
      }
      case PeerCommand::kEnd:
        (void)WriteAll(control_, &changed_, sizeof(changed_));
        // With its device open, as a weftd that is killed: EAL's thread may fault where a client closes it.
        _exit(0);
      default:
        WEFT_CHECK(false);
    }
  }

 private:
  struct Held {
    ReceivedDatagram datagram;
    std::vector<uint8_t> content;
  };

  bool Receive(std::size_t count) {
    ReceivedDatagram burst[kBurst];
    std::size_t got = 0;
    for (int look = 0; look < kLooks && got == 0; ++look)
      got = port_->Receive(burst, std::min(count, kBurst));
    std::vector<uint8_t> answer;
    const auto append = [&](const void* data, std::size_t bytes) {
      const auto* at = static_cast<const uint8_t*>(data);
      answer.insert(answer.end(), at, at + bytes);
    };
    const auto number = static_cast<uint32_t>(got);
    append(&number, sizeof(number));
    for (std::size_t i = 0; i < got; ++i) {
      const PeerDatagram datagram{burst[i].frame, burst[i].bytes};
      append(&datagram, sizeof(datagram));
      append(burst[i].data, burst[i].bytes);
      held_[burst[i].frame] = {burst[i], {burst[i].data, burst[i].data + burst[i].bytes}};
    }
    return WriteAll(control_, answer.data(), answer.size());
  }

  bool Release(uint32_t count) {
    std::vector<uint32_t> frames(count);
    if (!ReadAll(control_, frames.data(), frames.size() * sizeof(uint32_t))) return false;
    for (const uint32_t frame : frames) {
      const Held& held = held_.at(frame);
      if (std::memcmp(held.datagram.data, held.content.data(), held.content.size()) != 0) ++changed_;
      port_->Release(&held.datagram, 1);
      held_.erase(frame);
    }
    return true;
  }

  bool Send(uint64_t path, uint32_t bytes) {
    uint8_t* out = port_->BeginSend();
    while (out == nullptr) {
      port_->Flush();
      out = port_->BeginSend();
    }
    if (!ReadAll(control_, out, bytes)) return false;
    port_->FinishSend(path, bytes);
    return true;
  }

  const int control_;
  std::unique_ptr<DpdkPort> port_;
  std::map<uint32_t, Held> held_;  // By frame.
  uint32_t changed_ = 0;
};

}  // namespace
}  // namespace weft::port

int main(int argc, char** argv) {
  WEFT_CHECK(argc == 5);
  auto port = weft::port::DpdkPort::Create({.device = {.device = argv[2]},
                                            .local = *weft::port::Address::Parse(argv[3]),
                                            .datagram_bytes_max = static_cast<std::size_t>(atoi(argv[4]))});
  if (!port.ok()) std::fprintf(stderr, "%s\n", port.status().ToString().c_str());
  if (!port.ok()) return 1;
  weft::port::Peer peer(atoi(argv[1]), *std::move(port));
  while (peer.Obey()) {
  }
  return 0;
}
