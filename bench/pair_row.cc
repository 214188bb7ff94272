// SPDX-License-Identifier: Apache-2.0
#include "bench/pair_row.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/status.h"

namespace weft::bench {
namespace {

constexpr int kBlockTimeoutMs = 10'000;

}  // namespace

bool CheckPayload(const void* data, std::size_t bytes, uint64_t request_id) {
  unsigned char expected;
  FillPayload(&expected, 1, request_id);
  // Every difference is gathered before the one test, so that the compiler can use whole vectors.
  const auto* at = static_cast<const unsigned char*>(data);
  unsigned char difference = 0;
  for (std::size_t i = 0; i < bytes; ++i) difference |= at[i] ^ expected;
  return difference == 0;
}

absl::StatusOr<Mapping> SharedMemory(std::size_t bytes) {
  UniqueFd memory(memfd_create("weft-bench", MFD_CLOEXEC));
  if (!memory.valid()) return absl::ErrnoToStatus(errno, "create shared memory");
  if (posix_fallocate(memory.get(), 0, static_cast<off_t>(bytes)) != 0) {
    return absl::ResourceExhaustedError(absl::StrCat("allocate ", bytes, " bytes of shared memory"));
  }
  return Mapping::Create(memory.get(), bytes, Mapping::Access::kReadWrite);
}

absl::Status PairRow::Setup() {
  WEFT_ASSIGN_OR_RETURN(samples_, SharedMemory(kSamplesMax * sizeof(uint32_t)));
  WEFT_RETURN_IF_ERROR(Prepare());
  auto* samples = reinterpret_cast<uint32_t*>(samples_.data());
  WEFT_ASSIGN_OR_RETURN(
      callee_, Worker::Start({kCalleeCore, kCalleeUid, "bench-callee"}, [this](const Worker::Command&) {
        const uint64_t cpu_before_ns = ProcessCpuNs();
        Worker::Reply reply = Answer();
        reply.cpu_ns = ProcessCpuNs() - cpu_before_ns;
        return reply;
      }));
  WEFT_ASSIGN_OR_RETURN(caller_, Worker::Start({kCallerCore, kCallerUid, "bench-caller"},
                                               [this, samples](const Worker::Command& command) {
                                                 const uint64_t cpu_before_ns = ProcessCpuNs();
                                                 const uint64_t before_ns = NowNs();
                                                 Worker::Reply reply = Call(samples, command.duration_ns);
                                                 reply.cpu_ns = ProcessCpuNs() - cpu_before_ns;
                                                 reply.wall_ns = NowNs() - before_ns;
                                                 return reply;
                                               }));
  return absl::OkStatus();
}

absl::StatusOr<Block> PairRow::RunBlock(uint64_t duration_ns) {
  WEFT_RETURN_IF_ERROR(callee_.Run({.duration_ns = duration_ns}));
  WEFT_RETURN_IF_ERROR(caller_.Run({.duration_ns = duration_ns}));
  WEFT_ASSIGN_OR_RETURN(const Worker::Reply caller, caller_.Finish(kBlockTimeoutMs));
  WEFT_ASSIGN_OR_RETURN(const Worker::Reply callee, callee_.Finish(kBlockTimeoutMs));
  if (caller.errors + callee.errors != 0) {
    return absl::DataLossError(absl::StrCat(spec().name, ": ", caller.errors + callee.errors,
                                            " payloads were not what had been sent"));
  }
  Block block;
  const auto* samples = reinterpret_cast<const uint32_t*>(samples_.data());
  block.samples_ns.assign(samples, samples + caller.samples);
  block.messages = caller.messages;
  block.elapsed_ns = caller.elapsed_ns;
  // Both processes ran for the whole block, warm-up included; messages count only after it. So the CPU time
  // is charged in the same proportion.
  const double counted =
      caller.wall_ns == 0 ? 1 : static_cast<double>(caller.elapsed_ns) / static_cast<double>(caller.wall_ns);
  block.cpu_ns = static_cast<uint64_t>(static_cast<double>(caller.cpu_ns + callee.cpu_ns) * counted);
  AddCounts(caller, callee, &block);
  return block;
}

void PairRow::Teardown() {
  caller_.Kill();
  callee_.Kill();
  Release();
  samples_ = Mapping();
}

}  // namespace weft::bench
