// SPDX-License-Identifier: Apache-2.0
// The file source of weft-control: one mesh file, or a directory of them, watched by inotify. A file is read
// when its writer closes it or when it is moved into place, and used at once, but only if no write came in
// between: no half of an edit is taken for the whole. Errors are believed only when they are still there some
// ms later, since a file that the next edit is just truncating is empty before inotify tells (m: ext4). A
// file that goes away is missed only after a grace time: editors move the old one away before they write the
// new one. One thread.
#ifndef WEFT_CONTROL_SOURCE_FILE_SOURCE_H_
#define WEFT_CONTROL_SOURCE_FILE_SOURCE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "control/source/mesh_yaml.h"
#include "control/source/module_hash.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"

namespace weft::control {

struct FileSourceOptions {
  std::string path;  // A file or a directory; need not be absolute.
  // Between the disappearance of a file and the report of it. Editors' renames take a few ms.
  uint64_t removal_grace_ns = 200 * kNsPerMs;
};

// One file has another content, or has none any more.
struct FileChange {
  std::string path;       // Absolute
  uint64_t event_ns = 0;  // When inotify told; the end of the grace time for a file that is gone.
  bool gone = false;
  LoadedMesh loaded;  // Unless gone. A file that cannot be read at all has only errors.
};

class FileSource {
 public:
  // Fails where neither the path nor the directory that should hold it exists.
  static absl::StatusOr<std::unique_ptr<FileSource>> Create(FileSourceOptions options);

  // All files that are there now. Once, before anything else: the watch stands already. Blocks for some ms
  // where a file has errors.
  std::vector<FileChange> Scan();

  // Readable when something happened.
  int fd() const { return inotify_.get(); }
  // Takes what happened. `now_ns` is when the caller saw fd() readable.
  std::vector<FileChange> OnReadable(uint64_t now_ns);
  // CLOCK_MONOTONIC time at which OnTime() wants to be called; 0: never.
  uint64_t wake_ns() const;
  std::vector<FileChange> OnTime(uint64_t now_ns);

  // What an operator should read in the log, since the last call: "… is a symbolic link", "the directory is
  // gone".
  std::vector<std::string> TakeNotes();
  // "/etc/weft/mesh.d (12 files)"
  std::string Describe() const;

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
  void ListDirectory(uint64_t now_ns);
  void MarkPending(File* file, uint64_t now_ns);
  std::vector<FileChange> LoadPending();
  bool LoadOne(const std::string& name, File* file, FileChange* change);

  uint64_t removal_grace_ns_;
  std::string directory_;  // Absolute, with '/' at its end.
  std::string only_file_;  // Its name; empty: every *.yaml and *.yml of the directory.
  UniqueFd inotify_;
  int watch_ = -1;              // -1: the directory is lost.
  uint64_t rewatch_at_ns_ = 0;  // When to try again then.
  bool load_again_ = false;     // A file changed as fast as it was read.
  std::map<std::string, File> files_;
  std::vector<std::string> notes_;
  ModuleHasher hasher_;
};

// Names of the mesh files of `directory`, sorted: *.yaml and *.yml without a leading dot.
absl::StatusOr<std::vector<std::string>> MeshFilesOf(const std::string& directory);

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_FILE_SOURCE_H_
