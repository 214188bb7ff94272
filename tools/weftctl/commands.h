// SPDX-License-Identifier: Apache-2.0
// The commands of weftctl. Each prints its result to standard output, what went wrong to standard error as
// "weftctl: …", and returns the exit code: 0 done, 1 failed. Wrong usage (2) is found before they are called.
#ifndef WEFT_TOOLS_WEFTCTL_COMMANDS_H_
#define WEFT_TOOLS_WEFTCTL_COMMANDS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "dataplane/api/admin.pb.h"
#include "tools/weftctl/output.h"

namespace weft::ctl {

struct Global {
  std::string run_dir = "/run/weft";
  Format format = Format::kTable;

  std::string AdminSocket() const { return run_dir + "/admin.sock"; }
  std::string ControlSocket() const { return run_dir + "/control.sock"; }
};

struct CallArguments {
  std::string function;
  std::string payload;
  bool has_payload = false;
  std::string file;     // "-" is standard input.
  std::string call_as;  // Empty: the namespace of the function.
  absl::Duration timeout = absl::Seconds(10);
};

int RunStatus(const Global& global);
int RunChanges(const Global& global);
int RunCheck(const Global& global);
// `what`: nodes, functions, hosts, routes or channels.
int RunGet(const Global& global, const std::string& what);
int RunExplain(const Global& global, const std::string& caller, const std::string& callee);
int RunDrain(const Global& global, const std::string& host, absl::Duration timeout);
int RunCall(const Global& global, const CallArguments& arguments);
int RunValidate(const Global& global, const std::string& path);
int RunVersion(const Global& global);
// `shell`: bash, zsh or fish.
int RunCompletion(const std::string& shell);
// Names for completion scripts, one a line; prints nothing where the agent does not answer.
int RunNames(const Global& global, const std::string& what);

// Prints "weftctl: doing: why" to standard error; returns 1.
int Fail(const std::string& doing, const absl::Status& why);
void Print(const Global& global, const std::string& kind, uint64_t generation,
           const std::vector<api::Item>& items);

}  // namespace weft::ctl

#endif  // WEFT_TOOLS_WEFTCTL_COMMANDS_H_
