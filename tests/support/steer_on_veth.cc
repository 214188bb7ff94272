// SPDX-License-Identifier: Apache-2.0
#include "tests/support/steer_on_veth.h"

#include <net/if.h>

#include <utility>

#include "dataplane/base/status.h"

namespace weft::test {

absl::StatusOr<SteerOnVeth> SteerOnVeth::Attach(const NetworkNamespace& where,
                                                const control::SteerConfig& config, bool generic) {
  const InNamespace scope(where);
  WEFT_ASSIGN_OR_RETURN(control::SteerProgram program, control::SteerProgram::Load(config));
  const int index = static_cast<int>(if_nametoindex(VethPair::kInterface));
  WEFT_ASSIGN_OR_RETURN(UniqueFd link, program.Attach(index, generic));
  WEFT_ASSIGN_OR_RETURN(port::SteerTable table, program.MapTable());
  table.SetComplete();
  return SteerOnVeth(std::move(program), std::move(link), std::move(table));
}

}  // namespace weft::test
