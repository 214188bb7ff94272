// SPDX-License-Identifier: Apache-2.0
// A third core beside those of core_fixture.h: what others get of b where a claims much.
#ifndef WEFT_TESTS_DATAPLANE_TRANSPORT_CLAIM_FIXTURE_H_
#define WEFT_TESTS_DATAPLANE_TRANSPORT_CLAIM_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/dataplane/transport/core_fixture.h"

namespace weft::transport {

inline constexpr uint64_t kPathToC = 3;

class ClaimTest : public TwoCores {
 protected:
  using Filter = std::function<bool(const std::string& wire)>;
  static bool All(const std::string&) { return true; }
  static bool Nothing(const std::string&) { return false; }
  // Announcements and what else carries no segment.
  static bool NoData(const std::string& wire) { return wire.size() < 1'000; }
  static Filter FirstOnly() {
    return [seen = 0](const std::string&) mutable { return ++seen == 1; };
  }

  // A third node, which speaks to b_ too.
  void StartThree(const Config& config) { StartThree(config, config); }
  void StartThree(const Config& config, Config config_a) {
    config_a.coalesce = false;  // So that announcements are told from data by their length.
    Start(config_a, config);
    c_ = std::move(*Core::Create(config));
    c_->SetTenantLimit({0}, 64u << 20);
    c_to_b_ = *c_->AddPeer(kPathToB);
    b_to_c_ = *b_->AddPeer(kPathToC);
    c_->BeginSession(c_to_b_, 9, now_ns_);
    b_->BeginSession(b_to_c_, 9, now_ns_);
    const SealSecret cb = SecretFrom(71), bc = SecretFrom(72);
    const uint32_t at_b = b_->InstallReceiveKey(b_to_c_, 0, cb);
    const uint32_t at_c = c_->InstallReceiveKey(c_to_b_, 0, bc);
    c_->InstallSendKey(c_to_b_, 0, at_b, 0, cb);
    b_->InstallSendKey(b_to_c_, 0, at_c, 0, bc);
  }

  // `from_a` says which of a_'s datagrams reach b_.
  void RunThree(uint64_t ns, const Filter& from_a) {
    for (const uint64_t end = now_ns_ + ns; now_ns_ < end; now_ns_ += 5'000) {
      Pump(*a_, port_a_, now_ns_);
      Pump(*b_, port_b_, now_ns_);
      Pump(*c_, port_c_, now_ns_);
      for (const auto* sent = port_a_.Sent(); sent != nullptr; sent = port_a_.Sent()) {
        const std::string wire(reinterpret_cast<const char*>(sent->data), sent->bytes);
        if (from_a(wire)) port_b_.Deliver(sent->data, sent->bytes);
        port_a_.PopSent();
      }
      for (const auto* sent = port_c_.Sent(); sent != nullptr; sent = port_c_.Sent()) {
        port_b_.Deliver(sent->data, sent->bytes);
        port_c_.PopSent();
      }
      for (const auto* sent = port_b_.Sent(); sent != nullptr; sent = port_b_.Sent()) {
        const std::string wire(reinterpret_cast<const char*>(sent->data), sent->bytes);
        if (sent->path == kPathToC || reaches_a_(wire))
          (sent->path == kPathToC ? port_c_ : port_a_).Deliver(sent->data, sent->bytes);
        port_b_.PopSent();
      }
    }
  }

  uint32_t MostGranted(uint64_t ns) {
    uint32_t most = 0;
    for (const uint64_t end = now_ns_ + ns; now_ns_ < end;) {
      RunThree(5'000, Nothing);
      most = std::max(most, b_->granted_bytes());
    }
    return most;
  }

  SendResult CallFromC(uint32_t bytes, FunctionId function = kEcho) {
    const std::vector<uint8_t> payload(bytes, 7);
    SendOptions options;
    options.peer = c_to_b_;
    options.function = function;
    return c_->TrySend(options, {}, Bytes(payload), now_ns_, nullptr);
  }
  // 60 messages of 50 KB from a to a tenant of b that has memory for one; b has heard of all.
  void AnnounceToATenantWithoutMemory() {
    const FunctionId other = FunctionIdOf("test/other");
    ASSERT_TRUE(b_->SetFunction(other, {2}).ok());
    b_->SetTenantLimit({2}, 64 * 1024);
    const std::vector<uint8_t> payload(50'000, 7);
    SendOptions options;
    options.peer = to_b_;
    options.function = other;
    for (int i = 0; i < 60; ++i)
      ASSERT_EQ(a_->TrySend(options, {}, Bytes(payload), now_ns_, nullptr), SendResult::kOk);
    RunThree(1'000'000, NoData);
  }

  Filter reaches_a_ = All;  // Which of b_'s datagrams reach a_.
  std::unique_ptr<Core> c_;
  PeerIndex c_to_b_, b_to_c_;
  port::MemoryPort port_c_{256, 9000};
};

}  // namespace weft::transport

#endif  // WEFT_TESTS_DATAPLANE_TRANSPORT_CLAIM_FIXTURE_H_
