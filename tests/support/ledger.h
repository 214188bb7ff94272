// SPDX-License-Identifier: Apache-2.0
// A file shared by the load programs of a fault test: one byte a request id, in which servers count
// executions and the client writes how the call ended. Since it is a file, it survives the kill -9 of those
// who write it.
#ifndef WEFT_TESTS_SUPPORT_LEDGER_H_
#define WEFT_TESTS_SUPPORT_LEDGER_H_

#include <cstdint>
#include <string>

#include "dataplane/base/mapping.h"

namespace weft::test {

class Ledger {
 public:
  // Room for ids 0 to kIds - 1: at 10,000 calls/s seven minutes.
  static constexpr uint32_t kIds = 1u << 22;

  enum class Outcome : uint8_t { kNone = 0, kOk = 1, kFailed = 2 };

  // Opens the file at `path`, or makes it, writable for everybody: servers run under other users.
  explicit Ledger(const std::string& path);

  // Counts an execution of `id`. Any process, any thread. Returns the count before.
  uint8_t Execute(uint32_t id);
  // The client's word on how `id` ended. Once an id.
  void End(uint32_t id, Outcome outcome);

  uint8_t executions(uint32_t id) const;
  Outcome outcome(uint32_t id) const;

  // What the whole run came to.
  struct Totals {
    uint64_t executed = 0;        // Ids that ran at least once.
    uint64_t executions = 0;      // Of all ids, each time they ran.
    uint64_t executed_twice = 0;  // Ids that ran more than once: never allowed.
    uint64_t ok = 0;
    uint64_t failed = 0;
    uint64_t ok_not_executed = 0;  // A success that nobody executed: never allowed.
  };
  Totals Count() const;

 private:
  Mapping mapping_;
};

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_LEDGER_H_
