// SPDX-License-Identifier: Apache-2.0
// Two transport cores that know each other's keys, for rows and micro-benchmarks of what is between them. The
// keys are not secret: they only have to cost what keys cost.
#ifndef WEFT_BENCH_ENGINE_PAIR_H_
#define WEFT_BENCH_ENGINE_PAIR_H_

#include <memory>
#include <utility>

#include "dataplane/base/check.h"
#include "dataplane/base/random.h"
#include "dataplane/transport/core.h"

namespace weft::bench {

inline constexpr FunctionId kEchoFunction{42};
inline constexpr FunctionId kStopFunction{43};

struct EngineEnd {
  std::unique_ptr<transport::Core> core;
  transport::PeerIndex peer;
  uint32_t key_id = 0;  // Under which the peer sends to this end.
};

inline transport::SealSecret BenchSecret(uint64_t seed) {
  Random random(seed);
  transport::SealSecret secret;
  for (auto& byte : secret.key) byte = static_cast<uint8_t>(random.Next());
  for (auto& byte : secret.iv) byte = static_cast<uint8_t>(random.Next());
  return secret;
}

// `paths`: what each end's port calls the way to the other.
inline std::pair<EngineEnd, EngineEnd> MakeEnginePair(const transport::Config& config, uint64_t path_of_first,
                                                      uint64_t path_of_second) {
  EngineEnd first, second;
  for (EngineEnd* end : {&first, &second}) {
    end->core = std::move(*transport::Core::Create(config));
    end->core->SetTenantLimit({0}, config.memory_bytes);
    WEFT_CHECK(end->core->SetFunction(kEchoFunction, {0}).ok() &&
               end->core->SetFunction(kStopFunction, {0}).ok());
  }
  first.peer = *first.core->AddPeer(path_of_first);
  second.peer = *second.core->AddPeer(path_of_second);
  first.core->BeginSession(first.peer, 1, 1);
  second.core->BeginSession(second.peer, 1, 1);
  const transport::SealSecret there = BenchSecret(1), back = BenchSecret(2);
  second.key_id = second.core->InstallReceiveKey(second.peer, 0, there);
  first.key_id = first.core->InstallReceiveKey(first.peer, 0, back);
  first.core->InstallSendKey(first.peer, 0, second.key_id, 0, there);
  second.core->InstallSendKey(second.peer, 0, first.key_id, 0, back);
  return {std::move(first), std::move(second)};
}

}  // namespace weft::bench

#endif  // WEFT_BENCH_ENGINE_PAIR_H_
