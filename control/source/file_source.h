// SPDX-License-Identifier: Apache-2.0
// The file source of weft-control: one mesh file, or a directory of them, watched by inotify. A file is read
// when its writer closes it or when it is moved into place, and used at once, but only if no write came in
// between: no half of an edit is taken for the whole. Errors are believed only when they are still there some
// ms later, since a file that the next edit is just truncating is empty before inotify tells (m: ext4). A
// file that goes away is missed only after a grace time: editors move the old one away before they write the
// new one. Of 10,000 files only those are looked at that an event named. One thread.
#ifndef WEFT_CONTROL_SOURCE_FILE_SOURCE_H_
#define WEFT_CONTROL_SOURCE_FILE_SOURCE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "control/source/mesh_yaml.h"
#include "control/source/module_hash.h"
#include "control/source/source.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"

namespace weft::control {

struct FileSourceOptions {
  std::string path;  // A file or a directory; need not be absolute.
  // Between the disappearance of a file and the report of it. Editors' renames take a few ms.
  uint64_t removal_grace_ns = 200 * kNsPerMs;
};

// Its origins are absolute paths. A change with errors is of a file that cannot be read, or not whole.
class FileSource final : public Source {
 public:
  // Fails where neither the path nor the directory that should hold it exists.
  static absl::StatusOr<std::unique_ptr<FileSource>> Create(FileSourceOptions options);

  // All files that are there now. Once, before anything else: the watch stands already. Blocks for some ms
  // where a file has errors.
  std::vector<SourceChange> Scan();

  // Readable when something happened.
  int fd() const { return inotify_.get(); }
  // Takes what happened. `now_ns` is when the caller saw fd() readable.
  std::vector<SourceChange> OnReadable(uint64_t now_ns);

  // Source
  void AddPollEntries(std::vector<pollfd>* entries) const override;
  std::vector<SourceChange> OnEvents(const std::vector<pollfd>& entries, uint64_t now_ns) override;
  uint64_t wake_ns() const override;
  std::vector<SourceChange> OnTime(uint64_t now_ns) override;
  bool Owns(absl::string_view origin) const override { return absl::StartsWith(origin, "/"); }
  bool ReadsAtStart() const override { return true; }
  std::vector<std::string> TakeNotes() override;
  std::string Name() const override { return directory_ + only_file_; }
  std::string Describe() const override;
  SourceHealth Health() const override;

 private:
  struct File {
    bool known = false;          // It was reported with content.
    bool writing = false;        // Somebody wrote to it and has not closed it yet.
    bool pending = false;        // To be read.
    uint64_t event_ns = 0;       // Of the oldest event that is not reported yet.
    uint64_t confirm_at_ns = 0;  // Not 0: it had errors; read again at this time before they are reported.
    uint64_t gone_at_ns = 0;     // Not 0: reported gone at this time unless it comes back.
  };

  explicit FileSource(uint64_t removal_grace_ns) : removal_grace_ns_(removal_grace_ns) {}

  absl::Status Watch();
  bool Wanted(const std::string& name) const;
  void DrainEvents(uint64_t now_ns);
  void TakeEvent(uint32_t mask, const std::string& name, uint64_t now_ns);
  // Marks what the directory holds as pending, and what it holds no more as gone.
  void ForgetWriters();
  void ListDirectory(uint64_t now_ns);
  void MarkPending(const std::string& name, File* file, uint64_t now_ns);
  void MarkGone(const std::string& name, File* file, uint64_t now_ns);
  std::vector<SourceChange> LoadPending();
  bool LoadOne(const std::string& name, File* file, SourceChange* change);

  uint64_t removal_grace_ns_;
  std::string directory_;  // Absolute, with '/' at its end.
  std::string only_file_;  // Its name; empty: every *.yaml and *.yml of the directory.
  UniqueFd inotify_;
  int watch_ = -1;              // -1: the directory is lost.
  uint64_t rewatch_at_ns_ = 0;  // When to try again then.
  std::map<std::string, File> files_;
  std::set<std::string> pending_;  // Names of all files that are pending, and of some that were
  std::set<std::string> timed_;    // Names of all files that wait for a time, and of some that did
  std::vector<std::string> notes_;
  uint64_t events_ = 0;
  uint64_t last_event_ns_ = 0;
  uint64_t errors_ = 0;
  uint64_t lost_ns_ = 0;
  ModuleHasher hasher_;
};

// Names of the mesh files of `directory`, sorted: *.yaml and *.yml without a leading dot.
absl::StatusOr<std::vector<std::string>> MeshFilesOf(const std::string& directory);

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_FILE_SOURCE_H_
