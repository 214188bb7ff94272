// SPDX-License-Identifier: Apache-2.0
#include "control/source/file_source.h"

#include <dirent.h>
#include <limits.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "dataplane/base/status.h"
#include "dataplane/config/yaml.h"

namespace weft::control {
namespace {

// IN_MODIFY is for noticing that a file is being written, never a reason to read it.
constexpr uint32_t kWatchMask = IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE |
                                IN_DELETE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
// Files of a directory that are read at most; more are an error that is noted.
constexpr std::size_t kFilesMax = 20'000;
// Rounds of reading files that change meanwhile, before other work of the thread gets its turn.
constexpr int kRoundsMax = 4;
// After which errors are believed. Truncating a file takes tens of us, ms on a busy machine.
constexpr uint64_t kConfirmNs = 50 * kNsPerMs;
constexpr uint64_t kRewatchNs = kNsPerSecond;

bool IsDirectory(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

bool IsMeshFileName(absl::string_view name) {
  return !absl::StartsWith(name, ".") && (absl::EndsWith(name, ".yaml") || absl::EndsWith(name, ".yml"));
}

absl::StatusOr<std::string> Absolute(const std::string& path) {
  if (path.empty()) return absl::InvalidArgumentError("the path of the mesh files is empty");
  if (path.front() == '/') return path;
  char buffer[PATH_MAX];
  if (getcwd(buffer, sizeof(buffer)) == nullptr)
    return absl::ErrnoToStatus(errno, "find the working directory");
  return absl::StrCat(buffer, "/", path);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> MeshFilesOf(const std::string& directory) {
  DIR* stream = opendir(directory.c_str());
  if (stream == nullptr) return absl::ErrnoToStatus(errno, absl::StrCat("open directory ", directory));
  std::vector<std::string> names;
  while (const dirent* entry = readdir(stream)) {
    if (IsMeshFileName(entry->d_name)) names.emplace_back(entry->d_name);
  }
  closedir(stream);
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<std::unique_ptr<FileSource>> FileSource::Create(FileSourceOptions options) {
  WEFT_ASSIGN_OR_RETURN(std::string path, Absolute(options.path));
  auto source = std::unique_ptr<FileSource>(new FileSource(options.removal_grace_ns));
  if (IsDirectory(path)) {
    source->directory_ = absl::EndsWith(path, "/") ? path : path + "/";
  } else {
    const std::size_t slash = path.rfind('/');
    source->directory_ = path.substr(0, slash + 1);
    source->only_file_ = path.substr(slash + 1);
    if (source->only_file_.empty())
      return absl::NotFoundError(absl::StrCat("directory ", path, " does not exist"));
  }
  source->inotify_ = UniqueFd(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!source->inotify_.valid()) return absl::ErrnoToStatus(errno, "create an inotify instance");
  WEFT_RETURN_IF_ERROR(source->Watch());
  return source;
}

absl::Status FileSource::Watch() {
  watch_ = inotify_add_watch(inotify_.get(), directory_.c_str(), kWatchMask);
  if (watch_ < 0) return absl::ErrnoToStatus(errno, absl::StrCat("watch directory ", directory_));
  lost_ns_ = 0;
  return absl::OkStatus();
}

bool FileSource::Wanted(const std::string& name) const {
  return only_file_.empty() ? IsMeshFileName(name) : name == only_file_;
}

std::vector<SourceChange> FileSource::Scan() {
  ListDirectory(NowNs());
  std::vector<SourceChange> changes = LoadPending();
  const bool suspects = std::any_of(files_.begin(), files_.end(),
                                    [](const auto& entry) { return entry.second.confirm_at_ns != 0; });
  if (suspects) {
    // What is not in the first scan would count as removed.
    timespec pause{0, kConfirmNs};
    nanosleep(&pause, nullptr);
    std::vector<SourceChange> more = OnTime(NowNs());
    std::move(more.begin(), more.end(), std::back_inserter(changes));
  }
  return changes;
}

void FileSource::MarkPending(const std::string& name, File* file, uint64_t now_ns) {
  if (!file->pending) file->event_ns = now_ns;
  file->pending = true;
  file->gone_at_ns = 0;
  pending_.insert(name);
}

void FileSource::MarkGone(const std::string& name, File* file, uint64_t now_ns) {
  if (file->gone_at_ns != 0) return;
  file->gone_at_ns = now_ns + removal_grace_ns_;
  timed_.insert(name);
}

// The events that would have said that they have closed their files are lost.
void FileSource::ForgetWriters() {
  for (auto& [name, file] : files_) file.writing = false;
}

void FileSource::ListDirectory(uint64_t now_ns) {
  std::vector<std::string> names;
  if (!only_file_.empty()) {
    struct stat info;
    if (lstat((directory_ + only_file_).c_str(), &info) == 0) {
      names.push_back(only_file_);
    } else if (!files_.contains(only_file_)) {
      notes_.push_back(absl::StrCat(directory_, only_file_, " does not exist yet; waiting for it"));
    }
  } else if (absl::StatusOr<std::vector<std::string>> listed = MeshFilesOf(directory_); listed.ok()) {
    names = *std::move(listed);
  } else {
    notes_.emplace_back(listed.status().message());
    return;
  }
  if (names.size() > kFilesMax) {
    notes_.push_back(absl::StrCat(directory_, " holds ", names.size(), " files; only the first ", kFilesMax,
                                  " by name are read"));
    names.resize(kFilesMax);
  }
  for (const std::string& name : names) MarkPending(name, &files_[name], now_ns);
  for (auto& [name, file] : files_) {
    if (!std::binary_search(names.begin(), names.end(), name)) MarkGone(name, &file, now_ns);
  }
}

void FileSource::AddPollEntries(std::vector<pollfd>* entries) const { entries->push_back({fd(), POLLIN, 0}); }

std::vector<SourceChange> FileSource::OnEvents(const std::vector<pollfd>& entries, uint64_t now_ns) {
  for (const pollfd& entry : entries) {
    if (entry.fd == fd() && entry.revents != 0) return OnReadable(now_ns);
  }
  return {};
}

std::vector<SourceChange> FileSource::OnReadable(uint64_t now_ns) {
  DrainEvents(now_ns);
  return LoadPending();
}

void FileSource::DrainEvents(uint64_t now_ns) {
  alignas(inotify_event) char buffer[16 * 1024];
  for (;;) {
    const ssize_t count = read(inotify_.get(), buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    for (ssize_t at = 0; at < count;) {
      inotify_event event;
      std::memcpy(&event, buffer + at, sizeof(event));
      const char* name = buffer + at + sizeof(event);
      if ((event.mask & IN_Q_OVERFLOW) != 0) {
        notes_.emplace_back("the kernel's queue of file events overflowed; reading all files again");
        ForgetWriters();
        ListDirectory(now_ns);
      } else if (event.wd == watch_) {
        TakeEvent(event.mask, event.len > 0 ? std::string(name) : std::string(), now_ns);
      }
      at += static_cast<ssize_t>(sizeof(event) + event.len);
    }
  }
}

void FileSource::TakeEvent(uint32_t mask, const std::string& name, uint64_t now_ns) {
  if ((mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT)) != 0) {
    notes_.push_back(absl::StrCat("directory ", directory_, " is gone; keeping the last good state"));
    if ((mask & IN_MOVE_SELF) != 0) inotify_rm_watch(inotify_.get(), watch_);
    watch_ = -1;
    ++errors_;
    lost_ns_ = now_ns;
    rewatch_at_ns_ = now_ns;  // At once: another may have been moved into its place.
    return;
  }
  // Kubernetes replaces all files of a mounted ConfigMap at once, by moving the link `..data`.
  if (name == "..data" && (mask & (IN_MOVED_TO | IN_CREATE)) != 0) return ListDirectory(now_ns);
  if (!Wanted(name) || (mask & IN_ISDIR) != 0) return;
  auto it = files_.find(name);
  if (it == files_.end()) {
    if (files_.size() >= kFilesMax) return ListDirectory(now_ns);  // Notes it.
    it = files_.emplace(name, File()).first;
  }
  File& file = it->second;
  // A second look counts only where nothing happened since the first.
  if ((mask & ~IN_ATTRIB) != 0) file.confirm_at_ns = 0;
  if ((mask & (IN_DELETE | IN_MOVED_FROM)) != 0) {
    file.pending = file.writing = false;
    MarkGone(name, &file, now_ns);
  } else if ((mask & IN_MODIFY) != 0) {
    file.writing = true;
  } else if ((mask & IN_CREATE) != 0) {
    // A link has its content at once. Anything else was opened for writing, and will be closed.
    struct stat info;
    const bool link =
        lstat((directory_ + name).c_str(), &info) == 0 && (S_ISLNK(info.st_mode) || info.st_nlink > 1);
    file.gone_at_ns = 0;
    file.writing = !link;
    if (link) MarkPending(name, &file, now_ns);
  } else if ((mask & IN_ATTRIB) != 0) {
    // Its mode may have made it readable. It also tells of an unlink, which IN_DELETE tells better.
    if (!file.writing && file.gone_at_ns == 0) MarkPending(name, &file, now_ns);
  } else {
    file.writing = false;
    MarkPending(name, &file, now_ns);
  }
}

std::vector<SourceChange> FileSource::LoadPending() {
  std::vector<SourceChange> changes;
  for (int round = 0; round < kRoundsMax && !pending_.empty(); ++round) {
    // LoadOne may find more, also the same file again.
    for (const std::string& name : std::exchange(pending_, {})) {
      const auto file = files_.find(name);
      if (file == files_.end() || !file->second.pending) continue;
      SourceChange change;
      if (LoadOne(name, &file->second, &change)) changes.push_back(std::move(change));
    }
  }
  return changes;
}

bool FileSource::LoadOne(const std::string& name, File* file, SourceChange* change) {
  const std::string path = directory_ + name;
  file->pending = false;
  absl::StatusOr<std::string> text = ReadSmallFile(path);
  // Any write between the event and the end of the read has told by now. Its close will bring us back, or
  // has.
  DrainEvents(NowNs());
  if (file->writing || file->pending) return false;
  const uint64_t confirm_at_ns = std::exchange(file->confirm_at_ns, 0);
  change->origin = path;
  change->event_ns = file->event_ns;
  if (absl::IsNotFound(text.status())) {
    MarkGone(name, file, NowNs());
    return false;
  }
  if (text.ok()) {
    LoadedMesh loaded = LoadMesh(*text, path, &hasher_);
    change->errors = std::move(loaded.errors);
    if (change->errors.empty()) change->offer = OfferOf(loaded.mesh);
  } else {
    change->errors = {std::string(text.status().message())};
  }
  if (!change->errors.empty() && (confirm_at_ns == 0 || NowNs() < confirm_at_ns)) {
    file->confirm_at_ns = confirm_at_ns != 0 ? confirm_at_ns : NowNs() + kConfirmNs;
    timed_.insert(name);
    return false;
  }
  file->known = true;
  change->cause = name;
  if (!change->errors.empty()) ++errors_;
  ++events_;
  last_event_ns_ = change->event_ns;
  struct stat info;
  if (only_file_ == name && lstat(path.c_str(), &info) == 0 && S_ISLNK(info.st_mode)) {
    notes_.push_back(absl::StrCat(
        path, " is a symbolic link: edits of its target are seen only when the link is replaced"));
  }
  return true;
}

uint64_t FileSource::wake_ns() const {
  if (!pending_.empty()) return 1;
  // While the directory itself is away, no file of it counts as removed.
  if (watch_ < 0) return rewatch_at_ns_;
  uint64_t wake_ns = 0;
  for (const std::string& name : timed_) {
    const auto found = files_.find(name);
    if (found == files_.end()) continue;
    const File& file = found->second;
    for (const uint64_t at_ns : {file.gone_at_ns, file.writing ? 0 : file.confirm_at_ns}) {
      if (at_ns != 0 && (wake_ns == 0 || at_ns < wake_ns)) wake_ns = at_ns;
    }
  }
  return wake_ns;
}

std::vector<SourceChange> FileSource::OnTime(uint64_t now_ns) {
  if (watch_ < 0 && now_ns >= rewatch_at_ns_) {
    if (Watch().ok()) {
      notes_.push_back(absl::StrCat("directory ", directory_, " is back"));
      ForgetWriters();
      ListDirectory(now_ns);
    } else {
      rewatch_at_ns_ = now_ns + kRewatchNs;
    }
  }
  for (const std::string& name : timed_) {
    const auto file = files_.find(name);
    if (file == files_.end() || file->second.confirm_at_ns == 0 || file->second.confirm_at_ns > now_ns)
      continue;
    // Not while it is being written: the close will have it read.
    if (file->second.writing) continue;
    file->second.pending = true;
    pending_.insert(name);
  }
  std::vector<SourceChange> changes = LoadPending();
  for (auto it = timed_.begin(); it != timed_.end();) {
    const auto file = files_.find(*it);
    const bool gone = watch_ >= 0 && file != files_.end() && file->second.gone_at_ns != 0 &&
                      file->second.gone_at_ns <= now_ns;
    // One that was never reported just goes, as an editor's temporary name does.
    if (gone && file->second.known) {
      SourceChange& change = changes.emplace_back();
      change.origin = directory_ + file->first;
      change.event_ns = file->second.gone_at_ns;
      change.cause = file->first;
      change.gone = true;
    }
    const bool waits =
        !gone && file != files_.end() && (file->second.gone_at_ns != 0 || file->second.confirm_at_ns != 0);
    if (gone) files_.erase(file);
    it = waits ? std::next(it) : timed_.erase(it);
  }
  return changes;
}

std::vector<std::string> FileSource::TakeNotes() { return std::exchange(notes_, {}); }

SourceHealth FileSource::Health() const {
  SourceHealth health;
  health.synced = watch_ >= 0;
  health.events = events_;
  health.last_event_ns = last_event_ns_;
  health.errors = errors_;
  health.lost_ns = lost_ns_;
  if (!health.synced) health.problem = absl::StrCat("directory ", directory_, " is gone");
  return health;
}

std::string FileSource::Describe() const {
  if (!only_file_.empty()) return directory_ + only_file_;
  return absl::StrCat(directory_, " (", files_.size(), files_.size() == 1 ? " file)" : " files)");
}

}  // namespace weft::control
