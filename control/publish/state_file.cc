// SPDX-License-Identifier: Apache-2.0
#include "control/publish/state_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "control/publish/state.pb.h"
#include "dataplane/base/durable_file.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

constexpr uint32_t kStateFormat = 1;
// Larger files are none of ours: 100,000 endpoints take some 20 MiB.
constexpr std::size_t kStateBytesMax = std::size_t{256} << 20;
// SHA-256 of the message, before it: a torn or rotten file is told from a good one.
constexpr std::size_t kDigestBytes = sizeof(Sha256);

std::string PathOf(const std::string& directory) { return directory + "/state.pb"; }

absl::StatusOr<std::string> ReadWhole(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("open ", path));
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("stat ", path));
  if (static_cast<std::size_t>(info.st_size) > kStateBytesMax) {
    return absl::DataLossError(absl::StrCat(path, ": larger than any state of ours"));
  }
  std::string bytes(static_cast<std::size_t>(info.st_size), '\0');
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t count = read(fd.get(), bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return absl::ErrnoToStatus(errno, absl::StrCat("read ", path));
    if (count == 0) bytes.resize(done);
    done += static_cast<std::size_t>(count);
  }
  return bytes;
}

std::string DigestOf(absl::string_view message) {
  const Sha256 digest = Sha256Of(message);
  return std::string(digest.begin(), digest.end());
}

template <typename T>
api::Mesh* PartOf(const Said<T>& said, SavedSource* saved) {
  return said.implied ? saved->mutable_implied() : saved->mutable_mesh();
}

template <typename T, typename List>
void Take(const List& list, bool implied, std::vector<Said<T>>* out) {
  for (const T& value : list) out->push_back({value, Where{}, implied});
}

void TakeMesh(const api::Mesh& saved, bool implied, SourceMesh* mesh) {
  Take(saved.nodes(), implied, &mesh->nodes);
  Take(saved.functions(), implied, &mesh->functions);
  Take(saved.endpoints(), implied, &mesh->endpoints);
  Take(saved.allow(), implied, &mesh->allow);
}

}  // namespace

std::string EncodeLastGood(uint64_t generation, const std::map<std::string, SourceMesh>& sources) {
  SavedState state;
  state.set_format(kStateFormat);
  state.set_generation(generation);
  for (const auto& [origin, mesh] : sources) {
    SavedSource* saved = state.add_sources();
    saved->set_origin(origin);
    saved->set_open(mesh.open);
    for (const auto& said : mesh.nodes) *PartOf(said, saved)->add_nodes() = said.value;
    for (const auto& said : mesh.functions) *PartOf(said, saved)->add_functions() = said.value;
    for (const auto& said : mesh.endpoints) *PartOf(said, saved)->add_endpoints() = said.value;
    for (const auto& said : mesh.allow) *PartOf(said, saved)->add_allow() = said.value;
  }
  const std::string message = state.SerializeAsString();
  return DigestOf(message) + message;
}

absl::StatusOr<LastGood> LoadLastGood(const std::string& directory) {
  const std::string path = PathOf(directory);
  WEFT_ASSIGN_OR_RETURN(std::string bytes, ReadWhole(path));
  const absl::string_view all(bytes);
  SavedState state;
  if (all.size() < kDigestBytes || all.substr(0, kDigestBytes) != DigestOf(all.substr(kDigestBytes)) ||
      !state.ParseFromString(bytes.substr(kDigestBytes))) {
    return absl::DataLossError(absl::StrCat(path, ": damaged"));
  }
  if (state.format() != kStateFormat) {
    return absl::DataLossError(absl::StrCat(path, ": format ", state.format(), " is not ", kStateFormat));
  }
  LastGood last_good;
  last_good.generation = state.generation();
  for (const SavedSource& saved : state.sources()) {
    SourceMesh& mesh = last_good.sources.emplace_back();
    mesh.origin = saved.origin();
    mesh.open = saved.open();
    TakeMesh(saved.mesh(), false, &mesh);
    TakeMesh(saved.implied(), true, &mesh);
  }
  return last_good;
}

absl::StatusOr<std::unique_ptr<StateWriter>> StateWriter::Create(const std::string& directory) {
  if (mkdir(directory.c_str(), 0750) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("make directory ", directory));
  }
  if (access(directory.c_str(), W_OK | X_OK) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("write to directory ", directory));
  }
  return std::unique_ptr<StateWriter>(new StateWriter(directory));
}

StateWriter::StateWriter(std::string directory) : directory_(std::move(directory)) {
  // Signals are for the main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { Run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

StateWriter::~StateWriter() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void StateWriter::Write(std::string bytes) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_ = std::move(bytes);
  }
  wake_.notify_one();
}

absl::Status StateWriter::TakeError() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(error_, absl::OkStatus());
}

void StateWriter::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || waiting_.has_value(); });
    if (!waiting_.has_value()) return;
    const std::string bytes = *std::exchange(waiting_, std::nullopt);
    lock.unlock();
    const absl::Status status = ReplaceFile(PathOf(directory_), bytes, 0640);
    lock.lock();
    error_ = status;
  }
}

}  // namespace weft::control
