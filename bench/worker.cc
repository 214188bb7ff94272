// SPDX-License-Identifier: Apache-2.0
#include "bench/worker.h"

#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/base/unix_socket.h"

namespace weft::bench {
namespace {

constexpr int kWakeTimeoutMs = 5'000;

[[noreturn]] void ServeCommands(int control,
                                const std::function<Worker::Reply(const Worker::Command&)>& body) {
  for (;;) {
    Worker::Command command;
    const ssize_t received = recv(control, &command, sizeof(command), 0);
    if (received < 0 && errno == EINTR) continue;
    if (received != sizeof(command)) _exit(0);  // The coordinator closed its end.
    const char begun = 1;
    if (send(control, &begun, sizeof(begun), MSG_NOSIGNAL) != sizeof(begun)) _exit(1);
    const Worker::Reply reply = body(command);
    if (send(control, &reply, sizeof(reply), MSG_NOSIGNAL) != sizeof(reply)) _exit(1);
  }
}

}  // namespace

void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

uint64_t ProcessCpuNsOf(pid_t pid) {
  clockid_t clock;
  timespec used{};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) != 0) return 0;
  return static_cast<uint64_t>(used.tv_sec) * kNsPerSecond + static_cast<uint64_t>(used.tv_nsec);
}

bool BecomeUser(uid_t uid) {
  return setgroups(0, nullptr) == 0 && setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0;
}

bool CanSeparateUsers() { return geteuid() == 0; }

bool PinToCore(int core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(core, &cores);
  return sched_setaffinity(0, sizeof(cores), &cores) == 0;
}

Worker::Worker(Worker&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), control_(std::move(other.control_)) {}

Worker& Worker::operator=(Worker&& other) noexcept {
  if (this != &other) {
    Kill();
    pid_ = std::exchange(other.pid_, -1);
    control_ = std::move(other.control_);
  }
  return *this;
}

Worker::~Worker() { Kill(); }

absl::StatusOr<Worker> Worker::Start(const Options& options, std::function<Reply(const Command&)> body) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return absl::ErrnoToStatus(errno, "create a worker's control socket");
  }
  UniqueFd ours(ends[0]), theirs(ends[1]);
  const pid_t parent = getpid();
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid < 0) return absl::ErrnoToStatus(errno, "fork a worker");
  if (pid == 0) {
    ours.Reset();
    const bool pinned = options.core < 0 || PinToCore(options.core);
    if (CanSeparateUsers() && options.uid != 0 && !BecomeUser(options.uid)) {
      std::perror("weft-bench: take on the worker's user");
      _exit(1);
    }
    // After the change of user, which clears the setting.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    prctl(PR_SET_NAME, options.name);
    signal(SIGINT, SIG_IGN);  // The coordinator decides when a worker ends.
    if (!pinned)
      std::fprintf(stderr, "weft-bench: %s runs unpinned: no core %d\n", options.name, options.core);
    ServeCommands(theirs.get(), body);
  }
  Worker worker;
  worker.pid_ = pid;
  worker.control_ = std::move(ours);
  return worker;
}

absl::Status Worker::Run(const Command& command) {
  if (send(control_.get(), &command, sizeof(command), MSG_NOSIGNAL) != sizeof(command)) {
    return absl::UnavailableError(absl::StrCat("worker ", pid_, " is gone"));
  }
  WEFT_RETURN_IF_ERROR(WaitReady(control_.get(), POLLIN, kWakeTimeoutMs));
  char begun = 0;
  if (recv(control_.get(), &begun, sizeof(begun), 0) != sizeof(begun)) {
    return absl::UnavailableError(absl::StrCat("worker ", pid_, " ended before its block"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Worker::Reply> Worker::Finish(int timeout_ms) {
  WEFT_RETURN_IF_ERROR(WaitReady(control_.get(), POLLIN, timeout_ms));
  Reply reply;
  if (recv(control_.get(), &reply, sizeof(reply), 0) != sizeof(reply)) {
    return absl::UnavailableError(absl::StrCat("worker ", pid_, " died during its block"));
  }
  if (reply.failure[0] != 0) return absl::InternalError(reply.failure);
  return reply;
}

void Worker::Kill() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  control_.Reset();
}

}  // namespace weft::bench
