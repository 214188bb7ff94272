// SPDX-License-Identifier: Apache-2.0
// weft-control's memory across restarts: the last good state of each source and the last generation, in one
// file that is replaced by rename. Encoded and written by a thread of its own, piece by piece, because that
// takes longer than all the rest of an edit's way to the routes, and a mesh may be larger than what is left
// of memory.
#ifndef WEFT_CONTROL_PUBLISH_STATE_FILE_H_
#define WEFT_CONTROL_PUBLISH_STATE_FILE_H_

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/model/offer.h"
#include "dataplane/base/fd.h"

namespace weft::control {

struct LastGood {
  uint64_t generation = 0;
  std::vector<SourceOffer> sources;  // Whole
};

// Reads what a StateWriter wrote to `directory`. NOT_FOUND where there is none; DATA_LOSS where it is damaged
// or of another format. Blocks.
absl::StatusOr<LastGood> LoadLastGood(const std::string& directory);

class StateWriter {
 public:
  // Makes `directory` (mode 0750) where it is missing, and checks that it can be written. ALREADY_EXISTS
  // where another writer has it.
  static absl::StatusOr<std::unique_ptr<StateWriter>> Create(const std::string& directory);
  // As Finish()
  ~StateWriter();
  StateWriter(const StateWriter&) = delete;
  StateWriter& operator=(const StateWriter&) = delete;

  // Has `state` written; replaces what still waits, so at most one is kept. Does not block on the disk.
  void Write(LastGood state);
  // Readable from a write that failed until TakeError().
  int error_fd() const { return error_fd_.get(); }
  // The error of the last write, once. OK where it went well or nothing was written since.
  absl::Status TakeError();
  // How the last write went; OK where there was none.
  absl::Status last_error() const;
  // Writes what is waiting, ends the thread, and returns what TakeError() does. Nothing is written any more.
  absl::Status Finish();

 private:
  StateWriter(std::string directory, UniqueFd lock, UniqueFd error_fd);
  void Run();

  std::string directory_;
  UniqueFd lock_;  // Of the directory
  UniqueFd error_fd_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::optional<LastGood> waiting_;  // Under mutex_, as what follows
  absl::Status error_;
  absl::Status last_error_;
  bool stop_ = false;
  std::thread thread_;  // Last: it uses the others.
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_PUBLISH_STATE_FILE_H_
