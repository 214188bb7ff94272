// SPDX-License-Identifier: Apache-2.0
// The XDP program `steer` on one end of a veth pair, without weft-control, for tests of what stands behind
// it: a port puts its socket into xsks_fd() and has its key ids let through by table(). Detached with the
// object.
#ifndef WEFT_TESTS_SUPPORT_STEER_ON_VETH_H_
#define WEFT_TESTS_SUPPORT_STEER_ON_VETH_H_

#include "absl/status/statusor.h"
#include "control/bpf/steer_program.h"
#include "dataplane/port/steer_table.h"
#include "tests/support/network.h"

namespace weft::test {

class SteerOnVeth {
 public:
  // Attaches it to `weft0` of `where`: `generic`, on socket buffers, as weft-control does on a veth, or in
  // the driver.
  static absl::StatusOr<SteerOnVeth> Attach(const NetworkNamespace& where,
                                            const control::SteerConfig& config = {}, bool generic = true);

  int xsks_fd() const { return program_.maps().xsks; }
  port::SteerTable& table() { return table_; }
  const control::SteerProgram& program() const { return program_; }

 private:
  SteerOnVeth(control::SteerProgram program, UniqueFd link, port::SteerTable table)
      : program_(std::move(program)), link_(std::move(link)), table_(std::move(table)) {}

  control::SteerProgram program_;
  UniqueFd link_;
  port::SteerTable table_;
};

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_STEER_ON_VETH_H_
