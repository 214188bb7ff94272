// SPDX-License-Identifier: Apache-2.0
// Calls functions of the mesh for a Propeller worker, as a client of this node that calls as their namespace,
// on a thread of its own: the daemon's loop waits for no function. Each call is made once, with the
// function's own timeout and policy.
#ifndef WEFT_CONTROL_SOURCE_PROPELLER_FUNCTION_CALLER_H_
#define WEFT_CONTROL_SOURCE_PROPELLER_FUNCTION_CALLER_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/base/job_queue.h"
#include "weft/client.h"

namespace weft::control {

struct FunctionCall {
  std::string id;
  std::string function;
  std::string payload;
};

struct FunctionCallEnded {
  std::string id;
  absl::Status status;
  std::string reply;
};

class FunctionCaller {
 public:
  static constexpr std::size_t kReplyBytesMax = 64 * 1024;
  // Functions whose routes are kept between calls; of more, those called longest ago make room.
  static constexpr std::size_t kKnownMax = 256;

  // `run_dir` holds the agent's admin socket; `ns` is called as. Attaches with the first call.
  static absl::StatusOr<std::unique_ptr<FunctionCaller>> Create(std::string run_dir, std::string ns);
  // Gives up what is under way, within some ms unless the agent is being waited for.
  ~FunctionCaller();
  FunctionCaller(const FunctionCaller&) = delete;
  FunctionCaller& operator=(const FunctionCaller&) = delete;

  // Each is answered by TakeDone(). The caller bounds how many there are.
  void Add(FunctionCall call) { queue_.TryAdd(std::move(call)); }
  int done_fd() const { return queue_.done_fd(); }
  std::vector<FunctionCallEnded> TakeDone() { return queue_.TakeDone(); }

 private:
  // Its buffers are lent to the call.
  struct UnderWay {
    FunctionCaller* caller;
    FunctionCall call;
    std::string reply;
    std::list<UnderWay>::iterator self;
  };

  FunctionCaller(std::string run_dir, std::string ns, UniqueFd done_fd);
  void Loop();
  absl::Status Attach();
  absl::Status Begin(UnderWay& call);
  void Note(const std::string& function);
  static void Ended(void* context, const CallResult& result);

  const std::string run_dir_;
  const std::string ns_;
  JobQueue<FunctionCall, FunctionCallEnded> queue_;
  // Its thread's.
  std::list<UnderWay> under_way_;
  std::unique_ptr<Mesh> mesh_;
  absl::flat_hash_map<std::string, uint64_t> known_;  // By name, the number of the last call.
  uint64_t calls_ = 0;
  std::thread thread_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_PROPELLER_FUNCTION_CALLER_H_
