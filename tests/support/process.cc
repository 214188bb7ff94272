// SPDX-License-Identifier: Apache-2.0
#include "tests/support/process.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "dataplane/base/check.h"
#include "dataplane/base/fd.h"
#include "tests/support/temporary_directory.h"

namespace weft::test {
namespace {

// Runs in the child between fork and exec: async-signal-safe calls only.
[[noreturn]] void Become(int program, char* const* arguments, uid_t uid, pid_t parent, int input, int output,
                         int error) {
  dup2(input, 0);
  dup2(output, 1);
  dup2(error, 2);
  if (uid != 0 && (setgroups(0, nullptr) != 0 || setgid(uid) != 0 || setuid(uid) != 0)) _exit(126);
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // After setuid, which clears it.
  if (getppid() != parent) _exit(126);
  syscall(SYS_execveat, program, "", arguments, environ, AT_EMPTY_PATH);
  _exit(127);
}

}  // namespace

Process::Process(ProcessOptions options) : options_(std::move(options)) { Start(); }

void Process::Start() {
  std::vector<char*> arguments;
  for (std::string& argument : options_.arguments) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  // Not close-on-exec for a script's sake: its interpreter opens /dev/fd/N.
  UniqueFd program(open(options_.arguments[0].c_str(), O_PATH));
  if (!program.valid()) std::fprintf(stderr, "cannot open %s\n", options_.arguments[0].c_str());
  WEFT_CHECK(program.valid());
  UniqueFd input(open(options_.input.empty() ? "/dev/null" : options_.input.c_str(), O_RDONLY | O_CLOEXEC));
  UniqueFd output(open(options_.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  WEFT_CHECK(input.valid() && output.valid());
  UniqueFd error;
  if (options_.split_error) {
    error.Reset(open((options_.log + ".err").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    WEFT_CHECK(error.valid());
  }
  const pid_t parent = getpid();
  pid_ = fork();
  WEFT_CHECK(pid_ >= 0);
  if (pid_ == 0) {
    Become(program.get(), arguments.data(), options_.uid, parent, input.get(), output.get(),
           error.valid() ? error.get() : output.get());
  }
}

Process::~Process() {
  if (pid_ > 0) Kill();
}

Process::Process(Process&& other) noexcept
    : options_(std::move(other.options_)), pid_(std::exchange(other.pid_, -1)), exit_(other.exit_) {}

Process& Process::operator=(Process&& other) noexcept {
  if (this != &other) {
    if (pid_ > 0) Kill();
    options_ = std::move(other.options_);
    pid_ = std::exchange(other.pid_, -1);
    exit_ = other.exit_;
  }
  return *this;
}

bool Process::Running() { return !Wait(absl::ZeroDuration()).has_value(); }

void Process::Signal(int signal) {
  if (!exit_ && pid_ > 0) kill(pid_, signal);
}

std::optional<int> Process::Wait(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (!exit_ && pid_ > 0) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      exit_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      break;
    }
    if (absl::Now() >= deadline) return std::nullopt;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return exit_;
}

void Process::Kill() {
  Signal(SIGKILL);
  Wait(absl::Seconds(30));
}

std::string Process::Output() const { return ReadFile(options_.log); }
std::string Process::ErrorOutput() const { return ReadFile(options_.log + ".err"); }

bool Process::WaitForOutput(const std::string& text, absl::Duration timeout) {
  bool ended = false;
  Eventually(
      [&] {
        ended = !Running();
        return ended || Output().find(text) != std::string::npos;
      },
      timeout);
  return Output().find(text) != std::string::npos;
}

Ran Run(std::vector<std::string> arguments, uid_t uid, absl::Duration timeout, const std::string& input) {
  TemporaryDirectory directory;
  ProcessOptions options;
  options.arguments = std::move(arguments);
  options.uid = uid;
  options.log = directory / "output";
  options.input = input;
  options.split_error = true;
  Process process(options);
  Ran ran;
  ran.exit_code = process.Wait(timeout).value_or(-1);
  ran.output = process.Output();
  ran.error = process.ErrorOutput();
  return ran;
}

}  // namespace weft::test
