// SPDX-License-Identifier: Apache-2.0
// One process of a benchmark row: forked from the coordinator, which has one thread, pinned to a core, under
// a user of its own where the coordinator is root, and killed with the coordinator. It obeys fixed-size
// commands on a seqpacket socket and sleeps in between.
#ifndef WEFT_BENCH_WORKER_H_
#define WEFT_BENCH_WORKER_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/base/fd.h"

namespace weft::bench {

// Users of the two sides when the coordinator is root: unprivileged, of no other use on a Debian system
// (60000 to 64999 is reserved for dynamically allocated ones and these are the last), and distinct, so that
// the kernel keeps the two processes apart.
inline constexpr uid_t kCallerUid = 64998;
inline constexpr uid_t kCalleeUid = 64999;

// Allows this process and its children as many descriptors as the system lets it.
void RaiseDescriptorLimit();

// CPU time of all threads of process `pid` so far, in ns; 0 where there is no such process.
uint64_t ProcessCpuNsOf(pid_t pid);

// Drops to `uid` and the group of the same number for good, with no privilege left; false where it could not.
bool BecomeUser(uid_t uid);

// True where processes of separate users can be made.
bool CanSeparateUsers();

// Pins the calling thread to `core` if the machine has it; false where it could not.
bool PinToCore(int core);

class Worker {
 public:
  struct Options {
    int core = 0;            // -1: any.
    uid_t uid = 0;           // Taken on only where CanSeparateUsers().
    const char* name = "w";  // Shown by ps.
  };
  // What a worker is told to do; what `kind`, `bytes` and `number` mean is its body's affair.
  struct Command {
    uint64_t duration_ns = 0;
    uint64_t kind = 0;
    uint64_t bytes = 0;
    uint64_t number = 0;
  };
  // What a worker answers to a command.
  struct Reply {
    uint64_t messages = 0;
    uint64_t samples = 0;
    uint64_t elapsed_ns = 0;
    uint64_t cpu_ns = 0;
    uint64_t errors = 0;     // Payloads that were not what they had to be.
    uint64_t wall_ns = 0;    // All of the body, warm-up included.
    uint64_t extra = 0;      // The body's affair.
    uint64_t total = 0;      // Messages with those of the warm-up.
    char failure[200] = {};  // Why the body could not do what it was told; empty where it could.
  };

  Worker() = default;
  Worker(Worker&& other) noexcept;
  Worker& operator=(Worker&& other) noexcept;
  // Kills the process and reaps it.
  ~Worker();

  // Forks; `body(command)` then runs in the child for each Run, and its reply is sent back.
  static absl::StatusOr<Worker> Start(const Options& options, std::function<Reply(const Command&)> body);

  // Tells the child to run its body; returns once the child has woken and is about to.
  absl::Status Run(const Command& command);
  // Waits until the child's body has returned, at most `timeout_ms`. INTERNAL where it gives a failure.
  absl::StatusOr<Reply> Finish(int timeout_ms);
  void Kill();
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  UniqueFd control_;
};

}  // namespace weft::bench

#endif  // WEFT_BENCH_WORKER_H_
