// SPDX-License-Identifier: Apache-2.0
#include "control/source/kubernetes/child_output.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"

namespace weft::control {
namespace {

std::vector<char*> PointersTo(std::vector<std::string>* texts) {
  std::vector<char*> pointers;
  for (std::string& text : *texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// The daemon's blocked and ignored signals are none of the program's.
int Spawn(std::vector<std::string> command, std::vector<std::string> environment, int output, pid_t* pid) {
  for (char** each = environ; *each != nullptr; ++each) environment.emplace_back(*each);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, defaults;
  sigemptyset(&none);
  sigemptyset(&defaults);
  for (const int signal : {SIGHUP, SIGPIPE, SIGTERM, SIGINT}) sigaddset(&defaults, signal);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  const int error = posix_spawnp(pid, command[0].c_str(), &actions, &attributes, PointersTo(&command).data(),
                                 PointersTo(&environment).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

}  // namespace

void ChildOutput::Start(const std::vector<std::string>& command, const std::vector<std::string>& environment,
                        uint64_t now_ns, Done done) {
  End();
  name_ = command[0];
  done_ = std::move(done);
  text_.clear();
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Finish(absl::ErrnoToStatus(errno, "make a pipe"));
  output_.Reset(ends[0]);
  const UniqueFd input(ends[1]);
  fcntl(output_.get(), F_SETFL, O_NONBLOCK);
  if (const int error = Spawn(command, environment, input.get(), &pid_); error != 0) {
    pid_ = -1;
    return Finish(absl::ErrnoToStatus(error, absl::StrCat("run ", name_)));
  }
  ended_.Reset(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
  if (!ended_.valid()) {
    absl::Status status = absl::ErrnoToStatus(errno, absl::StrCat("watch ", name_));
    End();
    return Finish(std::move(status));
  }
  until_ns_ = now_ns + kWaitNs;
}

void ChildOutput::AddPollEntries(std::vector<pollfd>* entries) const {
  if (!busy()) return;
  entries->push_back({ended_.get(), POLLIN, 0});
  if (output_.valid()) entries->push_back({output_.get(), POLLIN, 0});
}

void ChildOutput::OnEvents(const std::vector<pollfd>& entries) {
  if (!busy()) return;
  bool ended = false;
  for (const pollfd& entry : entries) {
    if (entry.revents == 0) continue;
    ended |= entry.fd == ended_.get();
    if (output_.valid() && entry.fd == output_.get()) Read();
  }
  if (text_.size() > kBytesMax) {
    End();
    return Finish(absl::ResourceExhaustedError(absl::StrCat(name_, " prints too much")));
  }
  if (!ended) return;
  if (output_.valid()) Read();
  const int status = End();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return Finish(std::move(text_));
  Finish(absl::UnavailableError(WIFEXITED(status)
                                    ? absl::StrCat(name_, " failed with ", WEXITSTATUS(status))
                                    : absl::StrCat(name_, " died by signal ", WTERMSIG(status))));
}

void ChildOutput::OnTime(uint64_t now_ns) {
  if (!busy() || now_ns < until_ns_) return;
  End();
  Finish(absl::UnavailableError(absl::StrCat(name_, " does not end")));
}

void ChildOutput::Read() {
  char buffer[4096];
  while (text_.size() <= kBytesMax) {
    const ssize_t bytes = read(output_.get(), buffer, sizeof(buffer));
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes == 0) output_.Reset();
    if (bytes <= 0) return;
    text_.append(buffer, static_cast<std::size_t>(bytes));
  }
}

int ChildOutput::End() {
  int status = 0;
  if (pid_ > 0) {
    kill(pid_, SIGKILL);  // Of what has ended, nothing is left to kill but its number, which is ours to free.
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
  }
  pid_ = -1;
  ended_.Reset();
  output_.Reset();
  return status;
}

void ChildOutput::Finish(absl::StatusOr<std::string> output) {
  output_.Reset();
  const Done done = std::exchange(done_, nullptr);
  if (done) done(std::move(output));
}

}  // namespace weft::control
