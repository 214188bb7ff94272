// SPDX-License-Identifier: Apache-2.0
#include "control/publish/state_file.h"

#include <fcntl.h>
#include <google/protobuf/message_lite.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "control/publish/state.pb.h"
#include "dataplane/base/directory_lock.h"
#include "dataplane/base/durable_file.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

constexpr uint32_t kStateFormat = 2;
// Of the entries of one record, which then takes one more; and what no record of ours is longer than.
constexpr std::size_t kPieceBytes = 64 * 1024;
constexpr uint32_t kRecordBytesMax = 1024 * 1024;
constexpr std::size_t kLengthBytes = 4;
constexpr int kWriterNice = 10;

std::string PathOf(const std::string& directory) { return directory + "/state.pb"; }

// A file is records, each after its length in 4 bytes, little-endian; one of no bytes ends them. Behind it
// stands the seal of all, which tells a torn or rotten file from a good one: SHA-256 of the seal before, and
// the record.
class Seal {
 public:
  void Add(absl::string_view record) {
    const Sha256 next = Sha256Of(absl::StrCat(bytes(), record));
    value_ = next;
  }
  absl::string_view bytes() const { return {reinterpret_cast<const char*>(value_.data()), value_.size()}; }

 private:
  Sha256 value_{};
};

class RecordWriter {
 public:
  explicit RecordWriter(const AppendBytes& append) : append_(append) {}

  absl::Status Add(const google::protobuf::MessageLite& message) {
    const std::string record = message.SerializeAsString();
    seal_.Add(record);
    WEFT_RETURN_IF_ERROR(append_(LengthOf(record.size())));
    return append_(record);
  }
  absl::Status Finish() { return append_(absl::StrCat(LengthOf(0), seal_.bytes())); }

 private:
  static std::string LengthOf(std::size_t size) {
    std::string bytes(kLengthBytes, '\0');
    for (std::size_t i = 0; i < kLengthBytes; ++i) bytes[i] = static_cast<char>(size >> (8 * i) & 0xff);
    return bytes;
  }

  const AppendBytes& append_;
  Seal seal_;
};

class RecordReader {
 public:
  explicit RecordReader(int fd) : fd_(fd) {}

  // False at the end, whose seal is right, and where it is not: damaged() tells.
  bool Next(std::string* record) {
    std::string length(kLengthBytes, '\0');
    uint32_t size = 0;
    if (!Read(&length)) return Damaged();
    for (std::size_t i = 0; i < kLengthBytes; ++i) {
      size |= static_cast<uint32_t>(static_cast<uint8_t>(length[i])) << (8 * i);
    }
    if (size > kRecordBytesMax) return Damaged();
    if (size == 0) {
      std::string end(sizeof(Sha256) + 1, '\0');  // Nothing is behind it.
      Read(&end);
      return end == seal_.bytes() ? false : Damaged();
    }
    record->assign(size, '\0');
    if (!Read(record)) return Damaged();
    seal_.Add(*record);
    return true;
  }
  bool damaged() const { return damaged_; }

 private:
  bool Damaged() {
    damaged_ = true;
    return false;
  }
  // Fills `bytes`; false, and shortens them, where there are not so many.
  bool Read(std::string* bytes) const {
    std::size_t done = 0;
    while (done < bytes->size()) {
      const ssize_t count = read(fd_, bytes->data() + done, bytes->size() - done);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) break;
      done += static_cast<std::size_t>(count);
    }
    const bool whole = done == bytes->size();
    bytes->resize(done);
    return whole;
  }

  int fd_;
  Seal seal_;
  bool damaged_ = false;
};

absl::Status WriteState(const LastGood& state, const AppendBytes& append) {
  RecordWriter writer(append);
  SavedHeader header;
  header.set_format(kStateFormat);
  header.set_generation(state.generation);
  WEFT_RETURN_IF_ERROR(writer.Add(header));
  for (const SourceOffer& source : state.sources) {
    SavedSource piece;
    piece.set_origin(source.origin);
    piece.set_open(source.open);
    std::size_t bytes = 0;
    for (const EntryPtr& entry : source.said) {
      SavedEntry& saved = *piece.add_entries();
      saved.set_kind(static_cast<uint32_t>(entry->kind));
      saved.set_implied(entry->implied);
      saved.set_message(entry->bytes);
      bytes += entry->bytes.size() + 16;
      if (bytes < kPieceBytes) continue;
      WEFT_RETURN_IF_ERROR(writer.Add(piece));
      piece.clear_entries();
      bytes = 0;
    }
    // Also of a source that says nothing: it was taken.
    if (bytes > 0 || source.said.empty()) WEFT_RETURN_IF_ERROR(writer.Add(piece));
  }
  return writer.Finish();
}

bool TakePiece(const SavedSource& piece, std::vector<SourceOffer>* sources) {
  if (sources->empty() || sources->back().origin != piece.origin()) {
    SourceOffer& source = sources->emplace_back();
    source.origin = piece.origin();
    source.open = piece.open();
  }
  for (const SavedEntry& saved : piece.entries()) {
    if (saved.kind() >= kEntryKinds) return false;
    sources->back().said.push_back(
        MakeEntry(static_cast<EntryKind>(saved.kind()), saved.message(), saved.implied()));
  }
  return true;
}

}  // namespace

absl::StatusOr<LastGood> LoadLastGood(const std::string& directory) {
  const std::string path = PathOf(directory);
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
  RecordReader reader(fd.get());
  std::string record;
  SavedHeader header;
  LastGood last_good;
  bool good = reader.Next(&record) && header.ParseFromString(record);
  if (good && header.format() != kStateFormat) {
    return absl::DataLossError(absl::StrCat(path, ": format ", header.format(), " is not ", kStateFormat));
  }
  last_good.generation = header.generation();
  while (good && reader.Next(&record)) {
    SavedSource piece;
    good = piece.ParseFromString(record) && TakePiece(piece, &last_good.sources);
  }
  if (!good || reader.damaged()) return absl::DataLossError(absl::StrCat(path, ": damaged"));
  return last_good;
}

absl::StatusOr<std::unique_ptr<StateWriter>> StateWriter::Create(const std::string& directory) {
  if (mkdir(directory.c_str(), 0750) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("make directory ", directory));
  }
  if (access(directory.c_str(), W_OK | X_OK) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("write to directory ", directory));
  }
  WEFT_ASSIGN_OR_RETURN(UniqueFd lock, LockDirectory(directory, "weft-control"));
  UniqueFd error_fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!error_fd.valid()) return absl::ErrnoToStatus(errno, "make an eventfd");
  return std::unique_ptr<StateWriter>(new StateWriter(directory, std::move(lock), std::move(error_fd)));
}

StateWriter::StateWriter(std::string directory, UniqueFd lock, UniqueFd error_fd)
    : directory_(std::move(directory)), lock_(std::move(lock)), error_fd_(std::move(error_fd)) {
  // Signals are for the main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { Run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

StateWriter::~StateWriter() { (void)Finish(); }

absl::Status StateWriter::Finish() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  return TakeError();
}

void StateWriter::Write(LastGood state) {
  std::optional<LastGood> replaced(std::move(state));
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_.swap(replaced);
  }
  wake_.notify_one();
}

absl::Status StateWriter::TakeError() {
  const std::lock_guard<std::mutex> lock(mutex_);
  eventfd_t failed = 0;
  (void)eventfd_read(error_fd_.get(), &failed);
  return std::exchange(error_, absl::OkStatus());
}

absl::Status StateWriter::last_error() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return last_error_;
}

void StateWriter::Run() {
  // A thread's own on Linux: a change that has just come goes first.
  (void)setpriority(PRIO_PROCESS, 0, kWriterNice);
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || waiting_.has_value(); });
    if (!waiting_.has_value()) return;
    std::optional<LastGood> state = std::exchange(waiting_, std::nullopt);
    lock.unlock();
    const absl::Status status = ReplaceFile(
        PathOf(directory_), 0640, [&state](const AppendBytes& append) { return WriteState(*state, append); });
    state.reset();  // Entries that nobody else holds any more
    lock.lock();
    error_ = last_error_ = status;
    if (!error_.ok()) (void)eventfd_write(error_fd_.get(), 1);
  }
}

}  // namespace weft::control
