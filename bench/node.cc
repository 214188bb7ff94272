// SPDX-License-Identifier: Apache-2.0
#include "bench/node.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "bench/worker.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"
#include "dataplane/base/status.h"
#include "dataplane/base/unix_socket.h"

namespace weft::bench {
namespace {

constexpr uint64_t kStartTimeoutNs = 20 * kNsPerSecond;
constexpr uint64_t kEndTimeoutNs = 2 * kNsPerSecond;
constexpr useconds_t kLookAgainUs = 2'000;

std::string Quoted(const std::vector<std::string>& names) {
  return absl::StrJoin(names, ", ", [](std::string* out, const std::string& name) {
    absl::StrAppend(out, "\"", name, "\"");  // A star begins an alias in YAML.
  });
}

void AppendTenant(std::string* yaml, const std::string& name, const NodeTenant& tenant) {
  absl::StrAppend(yaml, "  - tenant: ", name, "\n    user: ", tenant.uid, "\n    hosts: [",
                  Quoted(tenant.hosts), "]\n    serve: [", Quoted(tenant.serve), "]\n");
  if (!tenant.call_as.empty()) absl::StrAppend(yaml, "    call_as: ", tenant.call_as, "\n");
  if (!tenant.limits.empty()) absl::StrAppend(yaml, "    limits: ", tenant.limits, "\n");
}

std::string AgentYaml(const std::vector<NodeTenant>& tenants) {
  const bool separate = CanSeparateUsers();
  std::string yaml =
      absl::StrCat("node: bench\ncontrol_user: ", separate ? kControlUid : geteuid(), "\nadmit:\n");
  if (separate) {
    for (std::size_t i = 0; i < tenants.size(); ++i) AppendTenant(&yaml, absl::StrCat("t", i), tenants[i]);
    return yaml;
  }
  // One user is one tenant.
  NodeTenant all{.uid = geteuid(), .hosts = {}, .serve = {}, .call_as = {}};
  for (const NodeTenant& tenant : tenants) {
    all.hosts.insert(all.hosts.end(), tenant.hosts.begin(), tenant.hosts.end());
    all.serve.insert(all.serve.end(), tenant.serve.begin(), tenant.serve.end());
    if (!tenant.call_as.empty()) all.call_as = tenant.call_as;
    if (!tenant.limits.empty()) all.limits = tenant.limits;
  }
  AppendTenant(&yaml, "all", all);
  return yaml;
}

absl::Status MakeDirectory(const std::string& path, uid_t owner, mode_t mode) {
  if (mkdir(path.c_str(), mode) != 0 || chmod(path.c_str(), mode) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("make directory ", path));
  }
  if (CanSeparateUsers() && chown(path.c_str(), owner, owner) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("give directory ", path, " to user ", owner));
  }
  return absl::OkStatus();
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  return file.good() ? absl::OkStatus() : absl::ErrnoToStatus(errno, absl::StrCat("write ", path));
}

bool WaitForEnd(pid_t pid, uint64_t timeout_ns) {
  const uint64_t end_ns = NowNs() + timeout_ns;
  for (;;) {
    const pid_t ended = waitpid(pid, nullptr, WNOHANG);
    if (ended == pid || (ended < 0 && errno == ECHILD)) return true;
    if (NowNs() > end_ns) return false;
    usleep(kLookAgainUs);
  }
}

}  // namespace

std::string SiblingProgram(const std::string& name) {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
}

std::string GuestPath(const std::string& name) {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() / "guests" /
         (name + ".wasm");
}

Node::Node(std::string directory) : directory_(std::move(directory)), run_dir_(directory_ + "/run") {}

Node::~Node() {
  while (!order_.empty()) Stop(std::string(order_.back()));
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

void Node::Stop(const std::string& name) {
  const auto found = pids_.find(name);
  if (found == pids_.end()) return;
  const pid_t pid = found->second;
  pids_.erase(found);
  std::erase(order_, name);
  kill(pid, SIGTERM);
  if (WaitForEnd(pid, kEndTimeoutNs)) return;
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
}

absl::Status Node::StartControl(const std::string& settings) {
  Stop("weft-control");
  const std::string state_dir = directory_ + "/control";
  std::error_code ignored;
  std::filesystem::remove_all(state_dir, ignored);
  WEFT_RETURN_IF_ERROR(MakeDirectory(state_dir, kControlUid, 0755));
  const std::string path = directory_ + "/weft-control.yaml";
  WEFT_RETURN_IF_ERROR(WriteFile(path, absl::StrCat("version: 1\n", settings)));
  return StartProgram("weft-control", {"--config", path, "--state-dir", state_dir}, kControlUid, -1);
}

absl::StatusOr<std::unique_ptr<Node>> Node::Start(const std::vector<NodeTenant>& tenants,
                                                  const std::string& mesh_yaml) {
  char name[] = "/tmp/weft-bench.XXXXXX";
  if (mkdtemp(name) == nullptr) return absl::ErrnoToStatus(errno, "make a directory in /tmp");
  std::unique_ptr<Node> node(new Node(name));
  if (chmod(name, 0755) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("chmod ", name));
  // weft-control makes its own socket beside weftd's, and both run without privilege.
  WEFT_RETURN_IF_ERROR(MakeDirectory(node->run_dir_, kAgentUid, 01777));
  WEFT_RETURN_IF_ERROR(MakeDirectory(node->directory_ + "/agent", kAgentUid, 0755));
  WEFT_RETURN_IF_ERROR(MakeDirectory(node->directory_ + "/control", kControlUid, 0755));
  WEFT_RETURN_IF_ERROR(WriteFile(node->directory_ + "/weftd.yaml", AgentYaml(tenants)));
  WEFT_RETURN_IF_ERROR(node->StartProgram(
      "weftd", {"--config", node->directory_ + "/weftd.yaml", "--state-dir", node->directory_ + "/agent"},
      kAgentUid, -1));
  for (const uint64_t end_ns = NowNs() + kStartTimeoutNs;
       !ConnectUnix(node->run_dir_ + "/agent.sock").ok();) {
    if (NowNs() > end_ns) {
      return absl::DeadlineExceededError(absl::StrCat("weftd does not answer: ", node->LogOf("weftd")));
    }
    usleep(kLookAgainUs);
  }
  if (!mesh_yaml.empty()) {
    WEFT_RETURN_IF_ERROR(WriteFile(node->directory_ + "/mesh.yaml", mesh_yaml));
    WEFT_RETURN_IF_ERROR(node->StartProgram(
        "weft-control",
        {"--source", node->directory_ + "/mesh.yaml", "--state-dir", node->directory_ + "/control"},
        kControlUid, -1));
  }
  return node;
}

absl::Status Node::StartHost(const HostOptions& options) {
  std::vector<std::string> arguments = {"--name", options.name};
  for (const std::string& item : options.serve) arguments.insert(arguments.end(), {"--serve", item});
  arguments.insert(arguments.end(), options.arguments.begin(), options.arguments.end());
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    if (arguments[i - 1] != "--serve" && arguments[i - 1] != "--keep") continue;
    WEFT_RETURN_IF_ERROR(CopyModule(&arguments[i]));
  }
  return StartProgram(options.name, std::move(arguments), options.uid, options.core);
}

absl::Status Node::CopyModule(std::string* served) {
  const std::size_t split = served->find('=');
  const std::filesystem::path from = served->substr(split + 1);
  const std::filesystem::path to = std::filesystem::path(directory_) / from.filename();
  std::error_code error;
  std::filesystem::copy_file(from, to, std::filesystem::copy_options::overwrite_existing, error);
  if (error)
    return absl::ErrnoToStatus(error.value(), absl::StrCat("copy ", from.string(), " to ", directory_));
  if (chmod(to.c_str(), 0644) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("chmod ", to.string()));
  *served = absl::StrCat(served->substr(0, split + 1), to.string());
  return absl::OkStatus();
}

absl::Status Node::StartProgram(const std::string& name, std::vector<std::string> arguments, uid_t uid,
                                int core) {
  const std::string program =
      SiblingProgram(name == "weftd" || name == "weft-control" ? name : std::string("weft-host"));
  arguments.insert(arguments.begin(), program);
  arguments.insert(arguments.end(), {"--run-dir", run_dir_});
  // Opened before the change of user, so that it may lie where that user cannot go.
  UniqueFd executable(open(program.c_str(), O_RDONLY | O_CLOEXEC));
  if (!executable.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("open ", program));
  const std::string log_path = absl::StrCat(directory_, "/", name, ".log");
  UniqueFd log(open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!log.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("open ", log_path));
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return absl::ErrnoToStatus(errno, absl::StrCat("fork for ", name));
  if (pid == 0) {
    RaiseDescriptorLimit();
    if (core >= 0) PinToCore(core);
    dup2(log.get(), STDOUT_FILENO);
    dup2(log.get(), STDERR_FILENO);
    if (CanSeparateUsers() && !BecomeUser(uid)) _exit(126);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(126);
    fexecve(executable.get(), argv.data(), environ);
    std::perror(program.c_str());
    _exit(127);
  }
  pids_[name] = pid;
  order_.push_back(name);
  return absl::OkStatus();
}

pid_t Node::pid(const std::string& name) const {
  const auto found = pids_.find(name);
  return found == pids_.end() ? -1 : found->second;
}

std::string Node::LogOf(const std::string& name) const {
  std::ifstream file(absl::StrCat(directory_, "/", name, ".log"));
  std::ostringstream all;
  all << file.rdbuf();
  constexpr std::size_t kTailBytes = 600;
  const std::string text = all.str();
  return text.size() <= kTailBytes ? text : text.substr(text.size() - kTailBytes);
}

}  // namespace weft::bench
