// SPDX-License-Identifier: Apache-2.0
#include "dataplane/client/ownership.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "dataplane/base/check.h"

namespace weft {

absl::Status Ownership::Prepare() {
  if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0) {
    return absl::UnimplementedError("register for membarrier: the kernel does not offer it");
  }
  return absl::OkStatus();
}

void Ownership::EnterSlowly() {
  for (;;) {
    inside_.store(0, std::memory_order_release);  // [O1]
    keeper_.wait(1, std::memory_order_acquire);
    inside_.store(1, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (keeper_.load(std::memory_order_acquire) == 0) return;  // [O2]
  }
}

bool Ownership::TryKeep() {
  keeper_.store(1, std::memory_order_relaxed);
  WEFT_CHECK(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0);
  if (inside_.load(std::memory_order_acquire) == 0) return true;  // [O1] pairs with Leave
  EndKeep();
  return false;
}

void Ownership::EndKeep() {
  keeper_.store(0, std::memory_order_release);  // [O2] publishes what the keeper did; pairs with Enter
  keeper_.notify_all();
}

}  // namespace weft
