// SPDX-License-Identifier: Apache-2.0
// A veth pair and a BPF file system for the tests of control/bpf. At the end nothing may be left of what a
// test made.
#ifndef WEFT_TESTS_CONTROL_BPF_STEER_FIXTURE_H_
#define WEFT_TESTS_CONTROL_BPF_STEER_FIXTURE_H_

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <set>
#include <string>

#include "control/bpf/steer.h"
#include "tests/bpf/packet_builder.h"
#include "tests/support/bpffs_mount.h"
#include "tests/support/network.h"
#include "tests/support/temporary_directory.h"

namespace weft::control {

class SteerFixture : public testing::Test {
 protected:
  static constexpr uint32_t kKey = 0x70000003;

  void SetUp() override {
    if (!test::VethPair::Privileged()) GTEST_SKIP() << "namespaces and BPF programs need root";
    directory_.emplace();
    bpffs_.emplace(*directory_ / "bpf");
    NewNetwork({});
  }

  void TearDown() override {
    if (!network_.has_value()) return;
    // Whatever the test left pinned ends here; then nothing of it may be alive.
    bpffs_.reset();
    scope_.reset();
    network_.reset();
    for (const uint32_t id : programs_) {
      EXPECT_TRUE(test::Eventually([&] { return !UniqueFd(bpf_prog_get_fd_by_id(id)).valid(); }))
          << "program " << id << " is left";
    }
    for (const uint32_t id : links_) {
      EXPECT_TRUE(test::Eventually([&] { return !UniqueFd(bpf_link_get_fd_by_id(id)).valid(); }))
          << "link " << id << " is left";
    }
  }

  // The test's thread stands in the near namespace of a new pair.
  void NewNetwork(test::VethOptions options) {
    scope_.reset();
    network_.emplace(options);
    scope_.emplace(network_->near());
  }

  SteerOptions Options(SteerConfig config = {}) const {
    return {.bpf_dir = bpffs_->path(), .interface = interface_, .config = config};
  }
  absl::StatusOr<std::unique_ptr<Steer>> Create(SteerConfig config = {}) {
    absl::StatusOr<std::unique_ptr<Steer>> steer = Steer::Create(Options(config));
    NoteIds();
    return steer;
  }

  std::string PinPath(const std::string& name) const {
    return bpffs_->path() + "/steer-" + interface_ + (name.empty() ? "" : "/") + name;
  }
  // The program on the interface; 0: none.
  uint32_t ProgramOn() const {
    uint32_t id = 0;
    bpf_xdp_query_id(network_->near_index(), 0, &id);
    return id;
  }
  uint32_t LinkId() const {
    const UniqueFd link(bpf_obj_get(PinPath("link").c_str()));
    bpf_link_info info{};
    uint32_t bytes = sizeof(info);
    return link.valid() && bpf_obj_get_info_by_fd(link.get(), &info, &bytes) == 0 ? info.id : 0;
  }
  void NoteIds() {
    if (const uint32_t id = ProgramOn(); id != 0) programs_.insert(id);
    if (const uint32_t id = LinkId(); id != 0) links_.insert(id);
  }

  // Sends `count` datagrams of `payload` from the far end to `port` and waits until the kernel has handed
  // over each.
  void SendFromFar(int count, const std::string& payload, uint16_t port = WEFT_STEER_PORT_DEFAULT) {
    const test::InNamespace far(network_->far());
    const UniqueFd sender(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    inet_pton(AF_INET, test::VethPair::kNearAddress, &to.sin_addr);
    for (int i = 0; i < count; ++i) {
      ASSERT_EQ(sendto(sender.get(), payload.data(), payload.size(), 0, reinterpret_cast<sockaddr*>(&to),
                       sizeof(to)),
                static_cast<ssize_t>(payload.size()));
    }
  }
  // A well-formed datagram of `key_id`, as UDP payload.
  static std::string Datagram(uint32_t key_id) {
    const test::PacketBuilder builder(key_id);
    const test::Packet frame = builder.Build();
    return {frame.begin() + static_cast<std::ptrdiff_t>(builder.HeaderBytes()), frame.end()};
  }

  std::string interface_ = test::VethPair::kInterface;
  std::optional<test::TemporaryDirectory> directory_;
  std::optional<test::BpffsMount> bpffs_;
  std::optional<test::VethPair> network_;
  std::optional<test::InNamespace> scope_;
  std::set<uint32_t> programs_;
  std::set<uint32_t> links_;
};

}  // namespace weft::control

#endif  // WEFT_TESTS_CONTROL_BPF_STEER_FIXTURE_H_
