// SPDX-License-Identifier: Apache-2.0
// Modules that are run once: from control to a host, and what became of them back. Nothing of it outlives the
// connections, so that a restart of anybody runs no module a second time.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "dataplane/agent/admission.h"
#include "dataplane/agent/server.h"
#include "dataplane/api/run_once.h"
#include "dataplane/base/function_id.h"
#include "dataplane/base/status.h"
#include "dataplane/base/text.h"
#include "spdlog/spdlog.h"

namespace weft::agent {

absl::StatusOr<UniqueFd> Server::OpenModule(const std::string& path) {
  UniqueFd module(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!module.valid()) {
    return absl::UnavailableError(
        absl::StrCat("module ", path, ": ", absl::ErrnoToStatus(errno, "open").ToString()));
  }
  struct stat about;
  if (fstat(module.get(), &about) != 0 || !S_ISREG(about.st_mode)) {
    return absl::UnavailableError(absl::StrCat("module ", path, ": not a regular file"));
  }
  return module;
}

// Hands the module on, or says why not.
absl::Status Server::HandOnRun(SessionId asker, api::RunOnce& run) {
  WEFT_RETURN_IF_ERROR(CheckRunOnce(run));
  WEFT_RETURN_IF_ERROR(CheckFunctionName(run.function().name()));
  WEFT_RETURN_IF_ERROR(CheckLabel(run.host(), "host"));
  const Session* const session = engine_->state().FindHost(run.host());
  const auto connection = session == nullptr ? connections_.end() : connections_.find(session->id);
  if (connection == connections_.end() || session->is_client || session->is_engine) {
    return absl::UnavailableError(absl::StrCat("host ", run.host(), " is not attached"));
  }
  if (session->draining)
    return absl::UnavailableError(absl::StrCat("host ", run.host(), " is being drained"));
  if (!connection->second->runs_once) {
    return absl::UnimplementedError(absl::StrCat("host ", run.host(), " runs no module once"));
  }
  WEFT_RETURN_IF_ERROR(CheckMayServe(*session->tenant, session->is_client, run.function().name()));
  const auto of_host = std::count_if(runs_.begin(), runs_.end(),
                                     [&](const auto& entry) { return entry.first.first == session->id; });
  if (static_cast<std::size_t>(of_host) >= kRunsMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("host ", run.host(), " has ", kRunsMax, " runs to do already"));
  }
  if (runs_.contains({session->id, run.run()})) return absl::AlreadyExistsError("it runs already");
  WEFT_ASSIGN_OR_RETURN(UniqueFd module, OpenModule(run.module()));
  const std::string function = run.function().name();
  if (const auto known = engine_->model().functions().find(function);
      known != engine_->model().functions().end()) {
    *run.mutable_function() = known->second;
  }
  run.clear_host();
  run.clear_module();
  runs_[{session->id, run.run()}] = asker;
  spdlog::info("{} is run once on host {}", function, session->host);
  api::ToHost message;
  *message.mutable_run_once() = std::move(run);
  std::vector<UniqueFd> fds;
  fds.push_back(std::move(module));
  SendTo(*connection->second, message.SerializeAsString(), std::move(fds));
  return absl::OkStatus();
}

void Server::StartRun(SessionId asker, api::RunOnce run) {
  api::RunEnded ended;
  ended.set_run(std::string(Utf8Prefix(run.run(), kRunNameBytesMax)));
  if (const absl::Status status = HandOnRun(asker, run); !status.ok()) {
    ended.set_error(std::string(Utf8Prefix(status.message(), kRunErrorBytesMax)));
    TellRunEnded(asker, std::move(ended));
  }
}

// Of one that nobody waits for any more, as after a restart of control or of this process, nothing is said.
void Server::TakeRunEnded(SessionId host, const api::RunEnded& told) {
  const auto found = runs_.find({host, told.run()});
  if (found == runs_.end()) return;
  const SessionId asker = found->second;
  runs_.erase(found);
  api::RunEnded ended = told;
  if (ended.result().size() > kRunResultBytesMax) {
    ended.clear_result();
    ended.set_error("the host sent a result that is too long");
  }
  ended.set_error(std::string(Utf8Prefix(ended.error(), kRunErrorBytesMax)));
  TellRunEnded(asker, std::move(ended));
}

void Server::TellRunEnded(SessionId asker, api::RunEnded ended) {
  api::AdminReply reply;
  *reply.mutable_run_ended() = std::move(ended);
  Reply(asker, reply);
}

// A connection is gone, of a host or of control.
void Server::ForgetRuns(SessionId id, const std::string& reason) {
  std::vector<std::pair<SessionId, api::RunEnded>> lost;
  std::erase_if(runs_, [&](const auto& entry) {
    const auto& [key, asker] = entry;
    if (key.first == id) {
      api::RunEnded& ended = lost.emplace_back(asker, api::RunEnded()).second;
      ended.set_run(key.second);
      ended.set_error(absl::StrCat("its host has left: ", Utf8Prefix(reason, kRunErrorBytesMax / 2)));
    }
    return key.first == id || asker == id;
  });
  for (auto& [asker, ended] : lost) TellRunEnded(asker, std::move(ended));
}

}  // namespace weft::agent
