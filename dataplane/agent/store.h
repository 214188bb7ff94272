// SPDX-License-Identifier: Apache-2.0
// The last acknowledged generation on disk: routes.pb in the state directory, one Program message that is a
// snapshot, and routes.log, what came after it, one record a generation. A generation that changes little is
// appended by the caller's thread, some microseconds; one that changes much, and now and then all, is written
// anew by a thread of the store's own, at low priority. routes.pb is written under another name and renamed,
// so that a reader sees the old one or the new one.
#ifndef WEFT_DATAPLANE_AGENT_STORE_H_
#define WEFT_DATAPLANE_AGENT_STORE_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/agent/model.h"
#include "dataplane/base/fd.h"

namespace weft::agent {

class Store {
 public:
  // What one record may change; more is written as a whole.
  static constexpr std::size_t kRecordEntriesMax = 1'000;
  // routes.log may grow to the size of routes.pb, or to this.
  static constexpr uint64_t kLogBytesMin = 1024 * 1024;

  // Keeps `directory`/routes.pb and routes.log. Makes the directory, mode 0700, where it is missing.
  // ALREADY_EXISTS where another store has it.
  static absl::StatusOr<std::unique_ptr<Store>> Create(const std::string& directory);
  // Waits until all is on disk.
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  // The model on disk; an empty one where there is no file. INVALID_ARGUMENT where routes.pb is damaged. What
  // of routes.log is damaged, and what follows it, is forgotten. Before the first Save().
  absl::StatusOr<Model> Load();

  // Renames damaged files to routes.pb.damaged and routes.log.damaged, so that nothing is lost and the next
  // start finds none.
  absl::Status SetAside();

  // `model` is what Load() returned, or came after what was saved last. Nobody changes it any more. Not
  // synced, since all hosts would wait for the disk: after a crash of the kernel the files may be older ones,
  // or damaged, which Load finds, and control programs what is missing. One of more than kRecordEntriesMax
  // changes is written by a thread: a crash before it is done loses it and those after it likewise. After an
  // error, here or of the thread, the next one tries again.
  absl::Status Save(std::shared_ptr<const Model> model);
  // Readable from a failure of the thread until TakeError(), which returns it.
  int error_fd() const { return error_fd_.get(); }
  absl::Status TakeError();
  // How the thread's last write went; OK where there was none.
  absl::Status last_error() const;
  // Writes what is waiting, ends the thread, and returns what TakeError() does. Nothing is saved any more.
  absl::Status Finish();

  const std::string& path() const { return path_; }

 private:
  Store(const std::string& directory, UniqueFd lock, UniqueFd error_fd);

  absl::Status Replay(Model* model);
  absl::Status Append(const Model& model, const api::Program& delta);
  absl::Status CutLog();
  void WriteWhole(std::shared_ptr<const Model> model);
  absl::Status WriteSnapshot(const Model& model, uint64_t* bytes) const;
  void Run();

  const UniqueFd lock_;  // Of the directory; outlives the thread.
  // Of the owner's thread.
  std::string path_;
  std::string log_path_;
  UniqueFd log_;
  uint64_t log_bytes_ = 0;
  std::shared_ptr<const Model> saved_;  // Snapshot and log together; null: unknown.
  struct Record {
    uint64_t generation = 0;
    std::string bytes;
  };
  std::deque<Record>
      records_;  // Behind the snapshot that was written, or is being written: what a new log begins with.

  const UniqueFd error_fd_;
  mutable std::mutex mutex_;  // Of all below
  std::condition_variable wake_;
  std::shared_ptr<const Model> waiting_;
  bool writing_ = false;
  bool stop_ = false;
  absl::Status error_;  // For TakeError()
  absl::Status last_error_;
  bool failed_ = false;  // For Save()
  uint64_t written_generation_ =
      0;  // Of the newest snapshot that was written whole, not yet seen by the owner; 0: none
  uint64_t snapshot_bytes_ = 0;
  std::thread thread_;  // Started last
};

}  // namespace weft::agent

#endif  // WEFT_DATAPLANE_AGENT_STORE_H_
