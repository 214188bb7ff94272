// SPDX-License-Identifier: Apache-2.0
#include "tests/support/ledger.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <utility>

#include "dataplane/base/check.h"
#include "dataplane/base/fd.h"

namespace weft::test {
namespace {

// Executions of all ids, then outcomes of all ids.
constexpr std::size_t kBytes = 2 * static_cast<std::size_t>(Ledger::kIds);

std::atomic_ref<uint8_t> At(const Mapping& mapping, std::size_t index) {
  WEFT_CHECK(index < kBytes);
  return std::atomic_ref<uint8_t>(reinterpret_cast<uint8_t*>(mapping.data())[index]);
}

}  // namespace

Ledger::Ledger(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  WEFT_CHECK(fd.valid());
  struct stat about;
  WEFT_CHECK(fstat(fd.get(), &about) == 0);
  if (about.st_size == 0) {
    WEFT_CHECK(ftruncate(fd.get(), static_cast<off_t>(kBytes)) == 0);
    WEFT_CHECK(fchmod(fd.get(), 0666) == 0);
  }
  auto mapping = Mapping::Create(fd.get(), kBytes, Mapping::Access::kReadWrite);
  WEFT_CHECK(mapping.ok());
  mapping_ = *std::move(mapping);
}

uint8_t Ledger::Execute(uint32_t id) {
  // Relaxed: each byte stands for itself, and is read after the writers have ended.
  return At(mapping_, id).fetch_add(1, std::memory_order_relaxed);
}

void Ledger::End(uint32_t id, Outcome outcome) {
  At(mapping_, std::size_t{kIds} + id).store(static_cast<uint8_t>(outcome), std::memory_order_relaxed);
}

uint8_t Ledger::executions(uint32_t id) const { return At(mapping_, id).load(std::memory_order_relaxed); }

Ledger::Outcome Ledger::outcome(uint32_t id) const {
  return static_cast<Outcome>(At(mapping_, std::size_t{kIds} + id).load(std::memory_order_relaxed));
}

Ledger::Totals Ledger::Count() const {
  Totals totals;
  for (uint32_t id = 0; id < kIds; ++id) {
    const uint8_t times = executions(id);
    const Outcome end = outcome(id);
    totals.executed += times > 0;
    totals.executions += times;
    totals.executed_twice += times > 1;
    totals.ok += end == Outcome::kOk;
    totals.failed += end == Outcome::kFailed;
    totals.ok_not_executed += end == Outcome::kOk && times == 0;
  }
  return totals;
}

}  // namespace weft::test
