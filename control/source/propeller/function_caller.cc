// SPDX-License-Identifier: Apache-2.0
#include "control/source/propeller/function_caller.h"

#include <pthread.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/time/time.h"
#include "dataplane/base/status.h"
#include "weft/mesh.h"

namespace weft::control {
namespace {

constexpr absl::Duration kAttachTime = absl::Seconds(5);
// What a call waits at most for its turn while others are under way.
constexpr absl::Duration kTurn = absl::Milliseconds(10);

}  // namespace

absl::StatusOr<std::unique_ptr<FunctionCaller>> FunctionCaller::Create(std::string run_dir, std::string ns) {
  WEFT_ASSIGN_OR_RETURN(UniqueFd done_fd, (JobQueue<FunctionCall, FunctionCallEnded>::MakeFd()));
  return std::unique_ptr<FunctionCaller>(
      new FunctionCaller(std::move(run_dir), std::move(ns), std::move(done_fd)));
}

FunctionCaller::FunctionCaller(std::string run_dir, std::string ns, UniqueFd done_fd)
    : run_dir_(std::move(run_dir)),
      ns_(std::move(ns)),
      queue_(std::move(done_fd)),
      thread_([this] { Loop(); }) {
  pthread_setname_np(thread_.native_handle(), "weft-caller");
}

FunctionCaller::~FunctionCaller() {
  queue_.Stop();
  thread_.join();
}

void FunctionCaller::Loop() {
  for (bool stopped = false; !stopped;) {
    std::optional<FunctionCall> call = under_way_.empty() ? queue_.Take() : queue_.TryTake(&stopped);
    if (call.has_value()) {
      UnderWay& begun = under_way_.emplace_back();
      begun.caller = this;
      begun.call = *std::move(call);
      begun.self = std::prev(under_way_.end());
      if (absl::Status status = Begin(begun); !status.ok()) {
        queue_.Finish({begun.call.id, std::move(status), ""});
        under_way_.erase(begun.self);
      }
    } else if (under_way_.empty()) {
      break;  // Take() ends so at Stop() alone.
    } else {
      Client(*mesh_).Wait(kTurn);
    }
  }
  mesh_.reset();  // Before the buffers that its calls have borrowed.
}

absl::Status FunctionCaller::Attach() {
  if (mesh_ != nullptr) return absl::OkStatus();
  MeshOptions options;
  options.run_dir = run_dir_;
  options.admin = true;
  options.call_as = ns_;
  options.poll_time = absl::ZeroDuration();
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<Mesh> mesh, Mesh::Create(options));
  WEFT_RETURN_IF_ERROR(mesh->Attach(kAttachTime));
  mesh_ = std::move(mesh);
  return absl::OkStatus();
}

absl::Status FunctionCaller::Begin(UnderWay& call) {
  WEFT_RETURN_IF_ERROR(Attach());
  Client client(*mesh_);
  Note(call.call.function);
  WEFT_ASSIGN_OR_RETURN(const Function function, client.Resolve(call.call.function, "", kAttachTime));
  call.reply.resize(kReplyBytesMax);
  return client
      .CallAsync(function, std::as_bytes(std::span(call.call.payload)),
                 std::as_writable_bytes(std::span(call.reply)), Ended, &call)
      .status();
}

// Tasks, and with them the functions that they name, come and go for as long as this process lives.
void FunctionCaller::Note(const std::string& function) {
  known_[function] = ++calls_;
  Client client(*mesh_);
  // One that is being called is kept, as if it were called now: they are few.
  for (std::size_t i = 0; i <= under_way_.size() && known_.size() > kKnownMax; ++i) {
    const auto oldest = std::min_element(known_.begin(), known_.end(),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
    if (client.Forget(oldest->first)) {
      known_.erase(oldest);
    } else {
      oldest->second = ++calls_;
    }
  }
}

void FunctionCaller::Ended(void* context, const CallResult& result) {
  UnderWay& call = *static_cast<UnderWay*>(context);
  FunctionCaller& caller = *call.caller;
  call.reply.resize(result.ok() ? result.response_bytes : 0);
  caller.queue_.Finish({std::move(call.call.id), result.status(), std::string(call.reply)});
  caller.under_way_.erase(call.self);
}

}  // namespace weft::control
