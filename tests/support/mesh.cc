// SPDX-License-Identifier: Apache-2.0
#include "tests/support/mesh.h"

#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "dataplane/base/check.h"
#include "dataplane/base/unix_socket.h"

namespace weft::test {
namespace {

std::string AgentYaml(const std::vector<Tenant>& tenants, const NodeOptions& options) {
  std::string yaml = absl::StrCat("node: ", options.node, "\ncontrol_user: ", kControlUid, "\n",
                                  options.settings, "admit:\n");
  for (const Tenant& tenant : tenants) {
    absl::StrAppend(&yaml, "  - tenant: ", tenant.name, "\n    user: ", tenant.uid, "\n    hosts: [",
                    absl::StrJoin(tenant.hosts, ", "), "]\n    serve: [");
    absl::StrAppend(&yaml,
                    absl::StrJoin(tenant.serve, ", ",
                                  [](std::string* out, const std::string& name) {
                                    absl::StrAppend(out, "\"", name, "\"");  // A star begins an alias.
                                  }),
                    "]\n");
    if (!tenant.call_as.empty()) absl::StrAppend(&yaml, "    call_as: ", tenant.call_as, "\n");
    if (!tenant.limits.empty()) absl::StrAppend(&yaml, "    limits: ", tenant.limits, "\n");
    if (tenant.engine_inside) absl::StrAppend(&yaml, "    engine: inside\n");
    if (tenant.raw_packets) absl::StrAppend(&yaml, "    raw_packets: true\n");
  }
  return yaml;
}

void MakeDirectory(const std::string& path, uid_t owner) {
  WEFT_CHECK(mkdir(path.c_str(), 0755) == 0);
  if (geteuid() == 0) WEFT_CHECK(chown(path.c_str(), owner, owner) == 0);
}

uid_t As(uid_t uid) { return Mesh::Privileged() ? uid : 0; }

}  // namespace

std::string Program(const std::string& name) { return absl::StrCat(WEFT_BIN_DIR, "/", name); }

bool Mesh::Privileged() { return geteuid() == 0; }

Mesh::Mesh(std::vector<Tenant> tenants, NodeOptions options) : options_(std::move(options)) {
  MakeDirectory(run_dir(), kAgentUid);
  MakeDirectory(path("agent"), kAgentUid);
  MakeDirectory(path("control"), kControlUid);
  // weft-control makes its own socket beside weftd's, and both run without privilege.
  WEFT_CHECK(chmod(run_dir().c_str(), 01777) == 0);
  if (!options_.steer.empty()) bpffs_ = std::make_unique<BpffsMount>(run_dir() + "/bpf", kControlUid);
  WriteFile(path("weftd.yaml"), AgentYaml(tenants, options_));
}

void Mesh::StartAgent(const std::string& capabilities) {
  agent_.reset();
  agent_.emplace(StartCapable("weftd", {"--config", path("weftd.yaml"), "--state-dir", path("agent")},
                              As(kAgentUid), absl::StrCat("weftd.", logs_++, ".log"),
                              options_.capabilities.empty() ? capabilities : options_.capabilities));
  const bool up = Eventually(
      [&] { return !agent_->Running() || ConnectUnix(run_dir() + "/agent.sock").ok(); }, absl::Seconds(20));
  if (!up || !agent_->Running()) std::fprintf(stderr, "weftd did not start:\n%s\n", agent_->Output().c_str());
  WEFT_CHECK(up && agent_->Running());
}

void Mesh::RunControl(std::vector<std::string> arguments) {
  Process control = StartCapable("weft-control", std::move(arguments), As(kControlUid),
                                 absl::StrCat("control.", logs_++, ".log"), "bpf,net_admin");
  const std::optional<int> code = control.Wait(absl::Seconds(20));
  if (code != 0) std::fprintf(stderr, "weft-control: %s\n", control.Output().c_str());
  WEFT_CHECK(code == 0);
}

void Mesh::StartControl(std::vector<std::string> more) {
  control_.reset();
  std::vector<std::string> arguments = {"--source", path("mesh.yaml")};
  if (!options_.control.empty()) {
    WriteFile(path("weft-control.yaml"), options_.control);
    arguments = {"--config", path("weft-control.yaml")};
  }
  arguments.insert(arguments.end(), {"--state-dir", path("control")});
  if (!options_.steer.empty()) {
    arguments.insert(arguments.end(), {"--steer", options_.steer, "--agent-user", absl::StrCat(kAgentUid)});
  }
  for (std::string& argument : more) arguments.push_back(std::move(argument));
  control_.emplace(StartCapable("weft-control", std::move(arguments), As(kControlUid),
                                absl::StrCat("control.", logs_++, ".log"), "bpf,net_admin"));
}

Process Mesh::StartCapable(const std::string& program, std::vector<std::string> arguments, uid_t uid,
                           const std::string& log, const std::string& capabilities) {
  std::optional<InNamespace> inside;
  if (options_.network != nullptr) inside.emplace(*options_.network);
  if (options_.steer.empty() && options_.capabilities.empty())
    return Start(program, std::move(arguments), uid, log);
  std::string set = "-all";
  for (const absl::string_view one : absl::StrSplit(capabilities, ',')) absl::StrAppend(&set, ",+", one);
  ProcessOptions options;
  // The change of user clears the signal that Process has the kernel send at this one's death.
  options.arguments = {"/usr/bin/setpriv",
                       "--pdeathsig",
                       "KILL",
                       "--reuid",
                       absl::StrCat(uid),
                       "--regid",
                       absl::StrCat(uid),
                       "--clear-groups",
                       "--bounding-set",
                       set,
                       "--inh-caps",
                       set,
                       "--ambient-caps",
                       set,
                       "--no-new-privs",
                       Program(program)};
  for (std::string& argument : arguments) options.arguments.push_back(std::move(argument));
  options.arguments.insert(options.arguments.end(), {"--run-dir", run_dir()});
  options.log = path(log);
  return Process(options);
}

void Mesh::SetMesh(const std::string& yaml) { WriteFile(path("mesh.yaml"), yaml); }

Process Mesh::Start(const std::string& program, std::vector<std::string> arguments, uid_t uid,
                    const std::string& log) {
  ProcessOptions options;
  options.arguments = {Program(program)};
  for (std::string& argument : arguments) options.arguments.push_back(std::move(argument));
  options.arguments.insert(options.arguments.end(), {"--run-dir", run_dir()});
  options.uid = uid;
  options.log = path(log);
  return Process(options);
}

Process Mesh::StartHost(const std::string& name, uid_t uid, const std::vector<std::string>& serve) {
  std::vector<std::string> arguments = {"--name", name};
  for (const std::string& item : serve) arguments.insert(arguments.end(), {"--serve", item});
  return Start("weft-host", std::move(arguments), As(uid), absl::StrCat("host.", name, ".", logs_++, ".log"));
}

Ran Mesh::Ctl(std::vector<std::string> arguments, const std::string& input_file) {
  arguments.insert(arguments.begin(), {Program("weftctl"), "--run-dir", run_dir()});
  return Run(std::move(arguments), 0, absl::Seconds(30), input_file);
}

bool Mesh::WaitForHost(const std::string& host, absl::Duration timeout) {
  return WaitForCtl({"get", "hosts"}, host, timeout);
}

bool Mesh::WaitForCtl(const std::vector<std::string>& arguments, const std::string& text,
                      absl::Duration timeout) {
  return Eventually([&] { return Ctl(arguments).output.find(text) != std::string::npos; }, timeout);
}

}  // namespace weft::test
