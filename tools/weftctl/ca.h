// SPDX-License-Identifier: Apache-2.0
// `weftctl ca`: a development CA and certificates of nodes, as files.
#ifndef WEFT_TOOLS_WEFTCTL_CA_H_
#define WEFT_TOOLS_WEFTCTL_CA_H_

#include <cstdint>
#include <string>

#include "tools/weftctl/commands.h"

namespace weft::ctl {

struct CaArguments {
  std::string directory;
  std::string trust_domain;
  std::string node;
  std::string out;          // Of the node's files; empty: `directory`.
  std::string certificate;  // To be revoked; empty: `directory`/`node`.pem.
  uint32_t days = 0;        // Not 0.
  bool replace = false;
};

// Makes the directory, ca.pem and ca-key.pem in it. Never overwrites.
int RunCaInit(const Global& global, const CaArguments& arguments);
// Writes NODE.pem and NODE-key.pem. Overwrites only to replace.
int RunCaIssue(const Global& global, const CaArguments& arguments);
// Adds a certificate to the revocation list in ca.pem, which agents read with the CA.
int RunCaRevoke(const Global& global, const CaArguments& arguments);

}  // namespace weft::ctl

#endif  // WEFT_TOOLS_WEFTCTL_CA_H_
