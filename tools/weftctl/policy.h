// SPDX-License-Identifier: Apache-2.0
// `weftctl apply`, `get policy`, `delete` and `edit`: the objects that stand in etcd. Exit codes as in
// commands.h.
#ifndef WEFT_TOOLS_WEFTCTL_POLICY_H_
#define WEFT_TOOLS_WEFTCTL_POLICY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tools/weftctl/commands.h"

namespace weft::ctl {

struct PolicyArguments {
  std::string config = "/etc/weft/weft-control.yaml";
  std::string path;                  // apply: mesh file, directory of them, or - for standard input.
  std::vector<std::string> objects;  // Keys below the prefix; `get`: the beginnings of such, too.
  int64_t if_revision = -1;          // Of the one object; -1: any.
  bool dry_run = false;
};

int RunGetPolicy(const Global& global, const PolicyArguments& arguments);
int RunApply(const Global& global, const PolicyArguments& arguments);
int RunDelete(const Global& global, const PolicyArguments& arguments);
// Opens the one object in $VISUAL or $EDITOR. What is written fails where another wrote meanwhile.
int RunEdit(const Global& global, const PolicyArguments& arguments);
// Keys for completion scripts, one a line; prints nothing where etcd does not answer.
int RunPolicyNames(const PolicyArguments& arguments);

}  // namespace weft::ctl

#endif  // WEFT_TOOLS_WEFTCTL_POLICY_H_
