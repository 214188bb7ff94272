// SPDX-License-Identifier: Apache-2.0
// weft-control's memory across restarts: the last good state of each source and the last generation, in one
// file that is replaced by rename. Written by a thread of its own, because a disk can take longer than all
// the rest of an edit's way to the routes.
#ifndef WEFT_CONTROL_PUBLISH_STATE_FILE_H_
#define WEFT_CONTROL_PUBLISH_STATE_FILE_H_

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/model/merge.h"

namespace weft::control {

struct LastGood {
  uint64_t generation = 0;
  std::vector<SourceMesh> sources;
};

// Reads what a StateWriter wrote to `directory`. NOT_FOUND where there is none; DATA_LOSS where it is damaged
// or of another format. Blocks.
absl::StatusOr<LastGood> LoadLastGood(const std::string& directory);

// The bytes of a state file.
std::string EncodeLastGood(uint64_t generation, const std::map<std::string, SourceMesh>& sources);

class StateWriter {
 public:
  // Makes `directory` (mode 0750) where it is missing, and checks that it can be written.
  static absl::StatusOr<std::unique_ptr<StateWriter>> Create(const std::string& directory);
  // Writes what is waiting, then ends the thread.
  ~StateWriter();
  StateWriter(const StateWriter&) = delete;
  StateWriter& operator=(const StateWriter&) = delete;

  // Has `bytes` written; replaces what still waits, so at most one is kept. Does not block on the disk.
  void Write(std::string bytes);
  // The error of the last write, once. OK where it went well or nothing was written since.
  absl::Status TakeError();

 private:
  explicit StateWriter(std::string directory);
  void Run();

  std::string directory_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::optional<std::string> waiting_;  // Under mutex_, as what follows
  absl::Status error_;
  bool stop_ = false;
  std::thread thread_;  // Last: it uses the others.
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_PUBLISH_STATE_FILE_H_
