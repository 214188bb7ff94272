// SPDX-License-Identifier: Apache-2.0
// One load of a fault test: echo servers under users of their own, a client that calls them at a steady rate,
// and the ledger in which both write what happened.
#ifndef WEFT_TESTS_INTEGRATION_LOAD_RUN_H_
#define WEFT_TESTS_INTEGRATION_LOAD_RUN_H_

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/ledger.h"
#include "tests/support/load_format.h"
#include "tests/support/mesh.h"

namespace weft::test {

// The tenants of these tests: hosts `a` and `b` serve app/echo, host `caller` calls as namespace app, each
// under a user of its own; namespace `other` belongs to a fourth, `stranger`.
std::vector<Tenant> LoadTenants();
inline constexpr uid_t kUidA = kFirstTenantUid, kUidB = kFirstTenantUid + 1;
inline constexpr uid_t kUidCaller = kFirstTenantUid + 2, kUidStranger = kFirstTenantUid + 3;

class LoadRun {
 public:
  explicit LoadRun(Mesh& mesh);

  // An echo server as host `name` with `tag` in its answers, ready when this returns. `more`: how it fails.
  Process StartServer(const std::string& name, uid_t uid, int tag, std::vector<std::string> more = {});
  // A weft-host of the guest that does the same without a ledger, loaded and attached when this returns.
  Process StartGuestHost(const std::string& name, uid_t uid, int tag, std::vector<std::string> more = {});
  // A client that calls app/echo for `seconds`, calling when this returns.
  Process StartClient(double seconds, int rate, std::vector<std::string> more = {},
                      const std::string& host = "caller", uid_t uid = kUidCaller);
  // Waits for the client's end and returns what it printed. Empty, with a failure of the test, where it
  // printed none.
  nlohmann::json Finish(Process& client);
  Ledger::Totals Totals() const { return ledger_.Count(); }
  // Clients from now on write no ledger: for guests, which cannot.
  void WithoutLedger() { with_ledger_ = false; }

 private:
  Mesh& mesh_;
  Ledger ledger_;
  bool with_ledger_ = true;
  int runs_ = 0;
};

// What weft-control says of a change of the mesh file.
struct ProgrammedChange {
  uint64_t generation = 0;
  uint64_t programmed_ns = 0;  // CLOCK_MONOTONIC; 0: not yet
  double event_to_programmed_us = 0;
};
// The newest change, asked of weft-control's socket in `run_dir`; nothing where it does not answer.
std::optional<ProgrammedChange> NewestChange(const std::string& run_dir);

// The file that StartClient's option --starts names, by start.
std::vector<LoadStart> ReadStarts(const std::string& path);

}  // namespace weft::test

#endif  // WEFT_TESTS_INTEGRATION_LOAD_RUN_H_
