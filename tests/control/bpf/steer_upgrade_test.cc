// SPDX-License-Identifier: Apache-2.0
// Replacing one version by another, and a crash at each step of it.
#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "control/bpf/bpffs.h"
#include "tests/control/bpf/steer_fixture.h"

namespace weft::control {
namespace {

using testing::HasSubstr;

class Upgrades : public SteerFixture {
 protected:
  // Changes what is pinned beside the maps.
  template <typename Change>
  void ChangeInfo(const Change& change) {
    const UniqueFd info_map(bpf_obj_get(PinPath("maps/info").c_str()));
    weft_steer_info info{};
    const uint32_t index = 0;
    ASSERT_EQ(bpf_map_lookup_elem(info_map.get(), &index, &info), 0);
    change(&info);
    ASSERT_EQ(bpf_map_update_elem(info_map.get(), &index, &info, BPF_ANY), 0);
  }
};

constexpr SteerConfig kOther = {.port = 4811};

TEST_F(Upgrades, MapsOfAnotherLayoutAreRefusedAndKept) {
  auto first = Create();
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE((*first)->table().Allow(kKey, 1'000'000).ok());
  ChangeInfo([](weft_steer_info* info) { ++info->layout; });
  const uint32_t program = ProgramOn();
  const auto second = Create();
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status()));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("not discarded"));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("weft-control --steer-detach weft0"));
  EXPECT_EQ(ProgramOn(), program);
  EXPECT_TRUE((*first)->table().Read(kKey).ok());
}

TEST_F(Upgrades, AnotherConfigurationReplacesTheProgramUnderTheSameLink) {
  auto first = Create();
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE((*first)->table().Allow(kKey, 1'000'000).ok());
  SendFromFar(3, Datagram(kKey));
  ASSERT_TRUE(test::Eventually([&] { return (*first)->table().Read(kKey)->taken == 3; }));
  const uint32_t program = ProgramOn(), link = LinkId();
  auto second = Create(kOther);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ((*second)->origin(), Steer::Origin::kReplaced);
  EXPECT_EQ(LinkId(), link);
  EXPECT_NE(ProgramOn(), program);
  SendFromFar(2, Datagram(kKey), 4811);
  SendFromFar(9, Datagram(kKey));  // Not weft's port any more.
  EXPECT_TRUE(test::Eventually([&] { return (*second)->table().Read(kKey)->taken == 5; }));
  EXPECT_EQ((*first)->table().Read(kKey)->taken, 5u);  // One table
}

TEST_F(Upgrades, NoPacketPassesUncountedWhileProgramsAreReplaced) {
  auto steer = Create();
  ASSERT_TRUE(steer.ok()) << steer.status();
  (*steer)->table().SetComplete();
  std::atomic<int> sent{0};
  std::jthread flood([&](std::stop_token stop) {
    while (!stop.stop_requested()) {
      SendFromFar(100, Datagram(0x1234));
      sent += 100;
    }
  });
  for (int i = 0; i < 20; ++i) {
    ChangeInfo([](weft_steer_info* info) { ++info->program; });  // As another version leaves it
    auto next = Create();
    ASSERT_TRUE(next.ok()) << next.status();
    EXPECT_EQ((*next)->origin(), Steer::Origin::kReplaced);
  }
  flood.request_stop();
  flood.join();
  EXPECT_TRUE(test::Eventually([&] {
    return (*steer)->table().ReadUnknown().drops[WEFT_DROP_UNKNOWN_KEY] == static_cast<uint64_t>(sent.load());
  })) << (*steer)->table().ReadUnknown().drops[WEFT_DROP_UNKNOWN_KEY]
      << " of " << sent.load();
}

// A process that dies within a switch leaves what it had pinned; each state is made here by the same calls.
class Crashes : public SteerFixture {
 protected:
  void SetUp() override {
    SteerFixture::SetUp();
    if (IsSkipped()) return;
    pins_.emplace(bpffs_->path(), interface_);
  }
  void TearDown() override {
    next_.reset();
    SteerFixture::TearDown();
  }
  absl::Status Prepare(const SteerConfig& config, const std::optional<SteerSet>& current) {
    const SteerMaps maps = current.has_value() ? current->maps() : SteerMaps{};
    auto program = SteerProgram::Load(config, current.has_value() ? &maps : nullptr);
    if (!program.ok()) return program.status();
    next_.emplace(*std::move(program));
    weft_steer_info info{};
    info.layout = SteerLayout().value();
    info.program = SteerIdentity(config);
    info.port = config.port;
    return pins_->Prepare(*next_, info);
  }

  std::optional<SteerPins> pins_;
  std::optional<SteerProgram> next_;
};

TEST_F(Crashes, BeforeTheFirstAttachNothingIsLost) {
  ASSERT_TRUE(MakeDirectory(pins_->directory()).ok());
  ASSERT_TRUE(Prepare({}, std::nullopt).ok());
  auto steer = Create();
  ASSERT_TRUE(steer.ok()) << steer.status();
  EXPECT_EQ((*steer)->origin(), Steer::Origin::kAttached);
  EXPECT_NE(access(PinPath("next").c_str(), F_OK), 0);
}

TEST_F(Crashes, BetweenTheFirstLinkAndItsCommit) {
  ASSERT_TRUE(MakeDirectory(pins_->directory()).ok());
  ASSERT_TRUE(Prepare({}, std::nullopt).ok());
  {
    auto link = AttachXdp(*next_, interface_, network_->near_index());
    ASSERT_TRUE(link.ok()) << link.status();
    ASSERT_TRUE(pins_->PinLink(link->fd.get()).ok());
  }
  auto steer = Create();
  ASSERT_TRUE(steer.ok()) << steer.status();
  EXPECT_EQ((*steer)->origin(), Steer::Origin::kReused);
}

TEST_F(Crashes, WithHalfASetPinned) {
  ASSERT_TRUE(Create().ok());
  ASSERT_TRUE(Prepare(kOther, pins_->Current().value()).ok());
  ASSERT_TRUE(Unpin(PinPath("next/program")).ok());
  ASSERT_TRUE(Unpin(PinPath("next/xsks")).ok());
  auto steer = Create();
  ASSERT_TRUE(steer.ok()) << steer.status();
  EXPECT_EQ((*steer)->origin(), Steer::Origin::kReused);
  EXPECT_NE(access(PinPath("next").c_str(), F_OK), 0);
}

TEST_F(Crashes, BeforeTheLinkIsUpdatedTheOldSetStays) {
  auto first = Create();
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE((*first)->table().Allow(kKey, 1'000'000).ok());
  const uint32_t program = ProgramOn();
  ASSERT_TRUE(Prepare(kOther, pins_->Current().value()).ok());
  next_.reset();
  auto steer = Create();
  ASSERT_TRUE(steer.ok()) << steer.status();
  EXPECT_EQ((*steer)->origin(), Steer::Origin::kReused);
  EXPECT_EQ(ProgramOn(), program);
  EXPECT_TRUE((*steer)->table().Read(kKey).ok());
}

TEST_F(Crashes, AfterTheLinkIsUpdatedTheNewSetIsInForce) {
  auto first = Create();
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE((*first)->table().Allow(kKey, 1'000'000).ok());
  ASSERT_TRUE(Prepare(kOther, pins_->Current().value()).ok());
  ASSERT_TRUE(UpdateLink(pins_->Link()->get(), *next_).ok());
  next_.reset();
  NoteIds();
  const uint32_t program = ProgramOn();
  auto steer = Create(kOther);
  ASSERT_TRUE(steer.ok()) << steer.status();
  EXPECT_EQ((*steer)->origin(), Steer::Origin::kReused);
  EXPECT_EQ(ProgramOn(), program);
  EXPECT_TRUE((*steer)->table().Read(kKey).ok());
}

TEST_F(Crashes, WithTheOldSetHalfRemoved) {
  ASSERT_TRUE(Create().ok());
  ASSERT_TRUE(Prepare(kOther, pins_->Current().value()).ok());
  ASSERT_TRUE(UpdateLink(pins_->Link()->get(), *next_).ok());
  ASSERT_TRUE(Unpin(PinPath("maps/info")).ok());
  ASSERT_TRUE(Unpin(PinPath("maps/keys")).ok());
  auto steer = Create(kOther);
  ASSERT_TRUE(steer.ok()) << steer.status();
  EXPECT_EQ((*steer)->origin(), Steer::Origin::kReused);
}

TEST_F(Upgrades, TwoLayoutsOfTheSameObjectAreEqualAndIdentitiesTellConfigurationsApart) {
  EXPECT_EQ(SteerLayout().value(), SteerLayout().value());
  EXPECT_NE(SteerLayout().value(), 0u);
  EXPECT_EQ(SteerIdentity({.port = 1}), SteerIdentity({.port = 1}));
  EXPECT_NE(SteerIdentity({.port = 1}), SteerIdentity({.port = 2}));
}

}  // namespace
}  // namespace weft::control
