// SPDX-License-Identifier: Apache-2.0
#include "dataplane/agent/store.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/directory_lock.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"

namespace weft::agent {
namespace {

// Before each record: how long it is, of which generation it makes its own, and the first bytes of its
// SHA-256, by which a torn or rotten one is told from a good one.
struct RecordHeader {
  uint64_t bytes;
  uint64_t base_generation;
  uint64_t digest;
};
static_assert(sizeof(RecordHeader) == 24);
constexpr int kWriterNice = 10;

absl::Status WriteAll(int fd, absl::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::ErrnoToStatus(errno, absl::StrCat("write ", path));
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return absl::OkStatus();
}

// NOT_FOUND where there is no file.
absl::StatusOr<std::string> ReadWhole(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
  std::string bytes;
  char buffer[16 * 1024];
  for (;;) {
    const ssize_t got = read(fd.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::ErrnoToStatus(errno, absl::StrCat("read ", path));
    if (got == 0) return bytes;
    bytes.append(buffer, static_cast<std::size_t>(got));
  }
}

uint64_t DigestOf(uint64_t base_generation, absl::string_view record) {
  const Sha256 digest = Sha256Of(absl::StrCat(base_generation, " ", record));
  uint64_t first = 0;
  std::memcpy(&first, digest.data(), sizeof(first));
  return first;
}

absl::Status Rename(const std::string& from, const std::string& to) {
  if (rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("rename ", from, " to ", to));
}

}  // namespace

Store::Store(const std::string& directory, UniqueFd lock, UniqueFd error_fd)
    : lock_(std::move(lock)),
      path_(absl::StrCat(directory, "/routes.pb")),
      log_path_(absl::StrCat(directory, "/routes.log")),
      error_fd_(std::move(error_fd)) {
  // Signals are for the main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { Run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Store::~Store() { (void)Finish(); }

absl::Status Store::Finish() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  return TakeError();
}

absl::StatusOr<std::unique_ptr<Store>> Store::Create(const std::string& directory) {
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("make state directory ", directory));
  }
  if (access(directory.c_str(), W_OK | X_OK) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("write to state directory ", directory));
  }
  WEFT_ASSIGN_OR_RETURN(UniqueFd lock, LockDirectory(directory, "weftd"));
  UniqueFd error_fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!error_fd.valid()) return absl::ErrnoToStatus(errno, "make an eventfd");
  return std::unique_ptr<Store>(new Store(directory, std::move(lock), std::move(error_fd)));
}

absl::StatusOr<Model> Store::Load() {
  Model model;
  const absl::StatusOr<std::string> bytes = ReadWhole(path_);
  if (bytes.ok()) {
    api::Program snapshot;
    if (!snapshot.ParseFromString(*bytes) || !snapshot.snapshot() || !snapshot.last()) {
      return absl::InvalidArgumentError(absl::StrCat(path_, " is damaged"));
    }
    WEFT_RETURN_IF_ERROR(model.Apply(snapshot));
    model.set_generation(snapshot.generation());
    snapshot_bytes_ = bytes->size();
  } else if (!absl::IsNotFound(bytes.status())) {
    return bytes.status();
  }
  WEFT_RETURN_IF_ERROR(Replay(&model));
  saved_ = std::make_shared<const Model>(model);
  return model;
}

// Applies what follows `model` in the log, and cuts off what is no record.
absl::Status Store::Replay(Model* model) {
  absl::StatusOr<std::string> log = ReadWhole(log_path_);
  if (absl::IsNotFound(log.status())) log = std::string();
  WEFT_RETURN_IF_ERROR(log.status());
  std::size_t at = 0;
  for (RecordHeader header; at + sizeof(header) <= log->size();) {
    std::memcpy(&header, log->data() + at, sizeof(header));
    if (header.bytes > log->size() - at - sizeof(header)) break;
    const absl::string_view record(log->data() + at + sizeof(header), header.bytes);
    api::Program delta;
    if (DigestOf(header.base_generation, record) != header.digest ||
        !delta.ParseFromArray(record.data(), static_cast<int>(record.size()))) {
      break;
    }
    if (delta.generation() > model->generation()) {
      Model next = *model;
      if (header.base_generation != model->generation() || !next.Apply(delta).ok()) break;
      next.set_generation(delta.generation());
      *model = std::move(next);
    }
    at += sizeof(header) + header.bytes;
    records_.push_back(
        {delta.generation(), log->substr(at - sizeof(header) - header.bytes, sizeof(header) + header.bytes)});
  }
  log_ = UniqueFd(open(log_path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!log_.valid() || ftruncate(log_.get(), static_cast<off_t>(at)) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("open ", log_path_));
  log_bytes_ = at;
  return absl::OkStatus();
}

absl::Status Store::SetAside() {
  WEFT_RETURN_IF_ERROR(Rename(path_, path_ + ".damaged"));
  const absl::Status log = Rename(log_path_, log_path_ + ".damaged");
  return absl::IsNotFound(log) ? absl::OkStatus() : log;
}

absl::Status Store::Save(std::shared_ptr<const Model> model) {
  absl::Status error;
  uint64_t written = 0;
  uint64_t log_bytes_max = 0;
  bool busy = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (std::exchange(failed_, false)) saved_ = nullptr;  // What is on disk is not what was thought to be.
    written = std::exchange(written_generation_, 0);
    log_bytes_max = std::max(kLogBytesMin, snapshot_bytes_);
    busy = writing_ || waiting_ != nullptr;
  }
  if (written != 0) {
    std::erase_if(records_, [written](const Record& record) { return record.generation <= written; });
    error.Update(CutLog());
  }
  std::optional<api::Program> delta;
  if (saved_ != nullptr && model->generation() > saved_->generation())
    delta = model->DeltaFrom(*saved_, kRecordEntriesMax);
  if (delta.has_value()) {
    if (const absl::Status appended = Append(*model, *delta); !appended.ok()) {
      saved_ = nullptr;
      error.Update(appended);
    } else {
      saved_ = model;
    }
  }
  if (saved_ != model || (!busy && log_bytes_ > log_bytes_max)) WriteWhole(std::move(model));
  return error;
}

absl::Status Store::TakeError() {
  const std::lock_guard<std::mutex> lock(mutex_);
  eventfd_t failed = 0;
  (void)eventfd_read(error_fd_.get(), &failed);
  return std::exchange(error_, absl::OkStatus());
}

absl::Status Store::last_error() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return last_error_;
}

// What the log holds from here on builds on `model`.
void Store::WriteWhole(std::shared_ptr<const Model> model) {
  saved_ = model;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_ = std::move(model);
  }
  wake_.notify_one();
}

absl::Status Store::Append(const Model& model, const api::Program& delta) {
  if (!log_.valid()) return absl::FailedPreconditionError(absl::StrCat(log_path_, " is not open"));
  const std::string record = delta.SerializeAsString();
  const uint64_t base = saved_->generation();
  const RecordHeader header{record.size(), base, DigestOf(base, record)};
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof(header));
  bytes += record;
  if (const absl::Status written = WriteAll(log_.get(), bytes, log_path_); !written.ok()) {
    // A torn record would hide those behind it.
    if (ftruncate(log_.get(), static_cast<off_t>(log_bytes_)) != 0) log_.Reset();
    return written;
  }
  log_bytes_ += bytes.size();
  records_.push_back({model.generation(), std::move(bytes)});
  return absl::OkStatus();
}

// Begins the log anew with what follows the snapshot.
absl::Status Store::CutLog() {
  const std::string temporary = log_path_ + ".new";
  UniqueFd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("open ", temporary));
  uint64_t bytes = 0;
  for (const Record& record : records_) {
    WEFT_RETURN_IF_ERROR(WriteAll(fd.get(), record.bytes, temporary));
    bytes += record.bytes.size();
  }
  WEFT_RETURN_IF_ERROR(Rename(temporary, log_path_));
  log_ = std::move(fd);
  log_bytes_ = bytes;
  return absl::OkStatus();
}

absl::Status Store::WriteSnapshot(const Model& model, uint64_t* bytes) const {
  const std::string temporary = path_ + ".new";
  const UniqueFd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("open ", temporary));
  absl::Status status;
  *bytes = 0;
  model.EachSnapshotPart([&](const api::Program& part) {
    if (!status.ok()) return;
    const std::string serialized = part.SerializeAsString();
    *bytes += serialized.size();
    status = WriteAll(fd.get(), serialized, temporary);
  });
  WEFT_RETURN_IF_ERROR(status);
  return Rename(temporary, path_);
}

void Store::Run() {
  // A thread's own on Linux: those who wait for a round go first.
  (void)setpriority(PRIO_PROCESS, 0, kWriterNice);
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || waiting_ != nullptr; });
    if (waiting_ == nullptr) return;
    const std::shared_ptr<const Model> model = std::exchange(waiting_, nullptr);
    writing_ = true;
    lock.unlock();
    uint64_t bytes = 0;
    const absl::Status status = WriteSnapshot(*model, &bytes);
    lock.lock();
    writing_ = false;
    last_error_ = status;
    if (status.ok()) {
      written_generation_ = model->generation();
      snapshot_bytes_ = bytes;
    } else {
      error_ = status;
      failed_ = true;
      (void)eventfd_write(error_fd_.get(), 1);
    }
  }
}

}  // namespace weft::agent
