// SPDX-License-Identifier: Apache-2.0
// A DPDK port in a process of its own (memif_peer_main.cc), for the conformance suite: the two ends of a
// memif do not live in one process (DECISIONS 181). The suite calls it as it calls a port; a stream socket
// carries the calls. What is received is copied to the suite; whether the peer's own frame has kept its
// content is looked at when it is released.
#ifndef WEFT_TESTS_DATAPLANE_PORT_MEMIF_PEER_H_
#define WEFT_TESTS_DATAPLANE_PORT_MEMIF_PEER_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "dataplane/base/check.h"
#include "dataplane/base/fd.h"
#include "dataplane/port/port.h"
#include "tests/dataplane/port/memif_peer_commands.h"
#include "tests/support/mesh.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace weft::port {

class MemifPeer {
 public:
  MemifPeer(const std::string& device, const Address& local, std::size_t datagram_bytes_max)
      : to_send_(datagram_bytes_max) {
    int ends[2];
    WEFT_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    control_.Reset(ends[0]);
    const UniqueFd theirs(ends[1]);
    WEFT_CHECK(fcntl(theirs.get(), F_SETFD, 0) == 0);
    test::ProcessOptions options;
    options.arguments = {test::Program("weft-test-memif-peer"), absl::StrCat(theirs.get()), device,
                         local.ToString(), absl::StrCat(datagram_bytes_max)};
    options.log = directory_ / "log";
    process_.emplace(options);
  }
  ~MemifPeer() {
    uint32_t changed = 0;
    Tell({PeerCommand::kEnd, 0, 0});
    Hear(&changed, sizeof(changed));
    EXPECT_EQ(changed, 0u) << "frames changed while the suite held them";
    EXPECT_EQ(process_->Wait(absl::Seconds(20)), 0) << process_->Output();
  }

  std::size_t Receive(ReceivedDatagram* burst, std::size_t count) {
    Tell({PeerCommand::kReceive, static_cast<uint32_t>(count), 0});
    uint32_t got = 0;
    Hear(&got, sizeof(got));
    for (uint32_t i = 0; i < got; ++i) {
      PeerDatagram datagram;
      Hear(&datagram, sizeof(datagram));
      std::vector<uint8_t>& copy = held_[datagram.frame];
      copy.resize(datagram.bytes);
      Hear(copy.data(), copy.size());
      burst[i] = {copy.data(), datagram.bytes, datagram.frame};
    }
    return got;
  }
  void Release(const ReceivedDatagram* burst, std::size_t count) {
    std::vector<uint32_t> frames;
    for (std::size_t i = 0; i < count; ++i) {
      held_.erase(burst[i].frame);
      frames.push_back(burst[i].frame);
    }
    Tell({PeerCommand::kRelease, static_cast<uint32_t>(count), 0});
    WEFT_CHECK(WriteAll(control_.get(), frames.data(), frames.size() * sizeof(uint32_t)));
  }
  uint8_t* BeginSend() { return to_send_.data(); }
  void FinishSend(uint64_t path, std::size_t bytes) {
    Tell({PeerCommand::kSend, static_cast<uint32_t>(bytes), path});
    WEFT_CHECK(WriteAll(control_.get(), to_send_.data(), bytes));
  }
  void Flush() { Tell({PeerCommand::kFlush, 0, 0}); }
  uint64_t AddPath(const Address& address) {
    Tell({PeerCommand::kAddPath, 0, 0});
    WEFT_CHECK(WriteAll(control_.get(), &address, sizeof(address)));
    uint64_t path = 0;
    Hear(&path, sizeof(path));
    return path;
  }
  Address SourceOf(const ReceivedDatagram& datagram) {
    Tell({PeerCommand::kSourceOf, datagram.frame, 0});
    Address address;
    Hear(&address, sizeof(address));
    return address;
  }
  FrameCounts frames() {
    Tell({PeerCommand::kFrames, 0, 0});
    FrameCounts counts;
    Hear(&counts, sizeof(counts));
    return counts;
  }

 private:
  // A peer that has ended ends the suite, with what it said.
  void Check(bool alive) {
    if (!alive) {
      std::fprintf(stderr, "the peer is gone, with %d: %s\n", process_->Wait(absl::Seconds(20)).value_or(-1),
                   process_->Output().c_str());
    }
    WEFT_CHECK(alive);
  }
  void Tell(const PeerCommand& command) { Check(WriteAll(control_.get(), &command, sizeof(command))); }
  void Hear(void* data, std::size_t bytes) { Check(ReadAll(control_.get(), data, bytes)); }

  test::TemporaryDirectory directory_;
  UniqueFd control_;
  std::optional<test::Process> process_;
  std::map<uint32_t, std::vector<uint8_t>> held_;  // By frame.
  std::vector<uint8_t> to_send_;
};

}  // namespace weft::port

#endif  // WEFT_TESTS_DATAPLANE_PORT_MEMIF_PEER_H_
