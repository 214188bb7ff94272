// SPDX-License-Identifier: Apache-2.0
// One node of weft for a benchmark: weftd, weft-control and hosts as the real programs in a private
// directory, of users of their own where the run has root, pinned where asked. Everything ends with the
// object.
#ifndef WEFT_BENCH_NODE_H_
#define WEFT_BENCH_NODE_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace weft::bench {

// Users of the daemons; see worker.h for the two sides of a row.
inline constexpr uid_t kAgentUid = 64990;
inline constexpr uid_t kControlUid = 64991;

// One entry of weftd.yaml's `admit`. Without root all of them become one, since there is one user only.
struct NodeTenant {
  uid_t uid = 0;
  std::vector<std::string> hosts;
  std::vector<std::string> serve;
  std::string call_as;
  std::string limits = {};  // YAML flow mapping.
};

class Node {
 public:
  struct HostOptions {
    std::string name;
    uid_t uid = 0;
    int core = -1;                       // -1: any.
    std::vector<std::string> serve;      // NS/NAME=FILE
    std::vector<std::string> arguments;  // Further ones.
  };

  // Starts weftd, and weft-control on `mesh_yaml` where that is not empty. Blocks until both answer.
  static absl::StatusOr<std::unique_ptr<Node>> Start(const std::vector<NodeTenant>& tenants,
                                                     const std::string& mesh_yaml);
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // Starts weft-control on settings of its own instead, weft-control.yaml without its version, and without
  // anything that an earlier one has kept. Does not wait for it.
  absl::Status StartControl(const std::string& settings);
  // Ends a program that was started, within some seconds.
  void Stop(const std::string& name);
  // Where weft-control answers.
  std::string control_socket() const { return run_dir_ + "/control.sock"; }
  // Starts a weft-host; it serves soon after.
  absl::Status StartHost(const HostOptions& options);
  const std::string& run_dir() const { return run_dir_; }
  // Process of "weftd", "weft-control" or a host's name; -1 where it is none of them.
  pid_t pid(const std::string& name) const;
  // The last lines that the program wrote, to explain a failure.
  std::string LogOf(const std::string& name) const;

 private:
  explicit Node(std::string directory);
  // Copies the module of "NS/NAME=FILE" to where a host's user can read it, and names the copy in `served`:
  // the build may lie where only its owner can go.
  absl::Status CopyModule(std::string* served);
  absl::Status StartProgram(const std::string& name, std::vector<std::string> arguments, uid_t uid, int core);

  std::string directory_;
  std::string run_dir_;
  std::map<std::string, pid_t> pids_;
  std::vector<std::string> order_;
};

// Path of a program that lies beside this one, and of a guest of the same build.
std::string SiblingProgram(const std::string& name);
std::string GuestPath(const std::string& name);

}  // namespace weft::bench

#endif  // WEFT_BENCH_NODE_H_
