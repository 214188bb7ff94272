// SPDX-License-Identifier: Apache-2.0
// One node of weft for a test: weftd, weft-control and hosts as real processes under users of their own, in a
// private run directory. Everything ends with the object.
#ifndef WEFT_TESTS_SUPPORT_MESH_H_
#define WEFT_TESTS_SUPPORT_MESH_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/bpffs_mount.h"
#include "tests/support/network.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace weft::test {

// Users without an entry in /etc/passwd, far from what distributions hand out.
inline constexpr uid_t kAgentUid = 64000;
inline constexpr uid_t kControlUid = 64001;
inline constexpr uid_t kFirstTenantUid = 64010;

// One entry of weftd.yaml's `admit`.
struct Tenant {
  std::string name;
  uid_t uid = 0;
  std::vector<std::string> hosts;
  std::vector<std::string> serve;
  std::string call_as;
  std::string limits;  // YAML flow mapping, as in "{channels: 4}"; empty: the defaults.
  bool engine_inside = false;
  bool raw_packets = false;
};

struct NodeOptions {
  std::string node = "n1";
  std::string settings;                       // Further lines of weftd.yaml, at its top level.
  const NetworkNamespace* network = nullptr;  // Where weftd and weft-control run; null: the test's own.
  std::string control;                        // weft-control.yaml; empty: weft-control watches mesh.yaml.
  // Of weftd, and of weft-control as below, where nothing is steered: "net_raw,ipc_lock".
  std::string capabilities;
  // Interface that weft-control steers. Then a BPF file system is mounted for it, and both daemons have the
  // capabilities of the design and no others.
  std::string steer;
};

class Mesh {
 public:
  // Whether the tests can run as they should: several users need root.
  static bool Privileged();

  explicit Mesh(std::vector<Tenant> tenants, NodeOptions options = {});

  std::string run_dir() const { return directory_ / "run"; }
  std::string path(const std::string& name) const { return directory_ / name; }

  // Starts weftd and waits until its socket answers. After KillAgent() or StopAgent() it starts again on the
  // same state. `capabilities`: those that it has where the node is steered.
  void StartAgent(const std::string& capabilities = "net_raw,ipc_lock");
  // Starts weft-control on its options, or on the mesh YAML file path("mesh.yaml"), which SetMesh writes;
  // `more`: further arguments.
  void StartControl(std::vector<std::string> more = {});
  // Runs weft-control to its end with these arguments, on the same run directory and with its capabilities.
  void RunControl(std::vector<std::string> arguments);
  void SetMesh(const std::string& yaml);

  // Starts a program of the build's bin directory under `uid`, with --run-dir appended. Its log is path(log).
  Process Start(const std::string& program, std::vector<std::string> arguments, uid_t uid,
                const std::string& log);
  // Starts weft-host; each of `serve` is "NS/NAME=FILE".
  Process StartHost(const std::string& name, uid_t uid, const std::vector<std::string>& serve = {});
  // Runs weftctl as root to its end.
  Ran Ctl(std::vector<std::string> arguments, const std::string& input_file = {});

  // Waits until weftd says of `host` that it is attached / until `function` has `targets` ready endpoints.
  bool WaitForHost(const std::string& host, absl::Duration timeout = absl::Seconds(20));
  // Waits until `weftctl` output of `arguments` contains `text`.
  bool WaitForCtl(const std::vector<std::string>& arguments, const std::string& text,
                  absl::Duration timeout = absl::Seconds(20));

  // As Start, with `capabilities` ("net_raw,ipc_lock") and no other; in the node's namespace.
  Process StartCapable(const std::string& program, std::vector<std::string> arguments, uid_t uid,
                       const std::string& log, const std::string& capabilities);

  Process& agent() { return *agent_; }
  Process& control() { return *control_; }

 private:
  TemporaryDirectory directory_;
  NodeOptions options_;
  std::unique_ptr<BpffsMount> bpffs_;
  std::optional<Process> agent_;
  std::optional<Process> control_;
  int logs_ = 0;
};

// Path of a program of this build.
std::string Program(const std::string& name);

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_MESH_H_
