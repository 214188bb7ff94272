// SPDX-License-Identifier: Apache-2.0
// Who may touch a Mesh right now: the user's thread while it is inside the library, or the keeper thread
// while it is not. Entering and leaving cost the user's thread a store and a load each; the keeper pays for
// both with a membarrier, which it needs only when the agent has spoken while nobody was inside.
#ifndef WEFT_DATAPLANE_CLIENT_OWNERSHIP_H_
#define WEFT_DATAPLANE_CLIENT_OWNERSHIP_H_

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"
#include "dataplane/base/attributes.h"

namespace weft {

// Dekker's protocol with the fence of one side moved into the other (as in the kernel's membarrier(2), whose
// example this is): each side stores its own flag and then reads the other's. The user's thread does so in
// program order only; the keeper's membarrier makes every thread of the process pass a full fence between its
// store and its load, so that at least one of the two sees the other's flag. Both flags are released by
// whoever leaves and acquired by whoever enters, which orders everything that they guard. [O1] user to
// keeper, [O2] keeper to user.
class Ownership {
 public:
  // Registers the process for membarrier; UNIMPLEMENTED on a kernel without it (before 4.14).
  static absl::Status Prepare();

  // The user's thread comes in. Waits, at most for the handling of some agent messages, where the keeper is
  // at work.
  WEFT_HOT void Enter() {
    // Relaxed: ordered by the keeper's membarrier, which also stands in for a processor fence here.
    inside_.store(1, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (keeper_.load(std::memory_order_acquire) != 0) [[unlikely]]  // [O2] pairs with EndKeep
      EnterSlowly();
  }
  WEFT_HOT void Leave() {
    inside_.store(0,
                  std::memory_order_release);  // [O1] publishes all that was done inside; pairs with TryKeep
  }

  // The keeper's thread: false where a user is inside, who will see to the agent then.
  bool TryKeep();
  void EndKeep();

 private:
  void EnterSlowly();

  alignas(kCacheLineBytes) std::atomic<uint32_t> inside_{0};  // Written by the user's thread.
  alignas(kCacheLineBytes) std::atomic<uint32_t> keeper_{0};  // Written by the keeper.
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CLIENT_OWNERSHIP_H_
