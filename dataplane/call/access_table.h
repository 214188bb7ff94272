// SPDX-License-Identifier: Apache-2.0
// What the peer of one channel may call, as the agent said: for each caller index the functions, with what
// each request is checked against. Looked up once a request; replaced as a whole by the agent's word. Owner
// thread only.
#ifndef WEFT_DATAPLANE_CALL_ACCESS_TABLE_H_
#define WEFT_DATAPLANE_CALL_ACCESS_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "dataplane/base/attributes.h"
#include "dataplane/call/local_function.h"
#include "dataplane/route/limits.h"

namespace weft {

struct AccessEntry {
  uint64_t function_id = 0;
  uint32_t caller_index = 0;
  LocalFunction* function = nullptr;
  CallRate* rate = nullptr;             // Of this caller for this function, over all its channels.
  const std::string* caller = nullptr;  // Its name; lives as long as the table names it.
};

class AccessTable {
 public:
  AccessTable() = default;
  // Allocates. Of two entries with the same caller and function one is kept.
  explicit AccessTable(const std::vector<AccessEntry>& entries);

  // The entry, or nullptr: the caller may not call that function. The result lives until the table is
  // replaced.
  WEFT_HOT const AccessEntry* Find(uint32_t caller_index, uint64_t function_id) const {
    const AccessEntry& slot = slots_[Hash(caller_index, function_id) & mask_];
    if (slot.function_id == function_id && slot.caller_index == caller_index && slot.function != nullptr)
        [[likely]]
      return &slot;
    return FindBeyond(caller_index, function_id);
  }
  // Whether any function may be called under that index: tells a forged caller from a forged function.
  bool KnowsCaller(uint32_t caller_index) const;
  // visit(const AccessEntry&) for all, in no order.
  template <typename Visit>
  void ForEach(Visit&& visit) const {
    for (const AccessEntry& slot : slots_) {
      if (slot.function != nullptr) visit(slot);
    }
  }
  uint32_t size() const { return size_; }

 private:
  // Function ids are hash values already; a peer can choose what it asks for, but not what is in the table.
  static uint64_t Hash(uint32_t caller_index, uint64_t function_id) {
    return (function_id ^ caller_index) * 0x9e3779b97f4a7c15 >> 32;
  }
  const AccessEntry* FindBeyond(uint32_t caller_index, uint64_t function_id) const;

  std::vector<AccessEntry> slots_ =
      std::vector<AccessEntry>(2);  // Open addressing; one slot at least is empty.
  uint64_t mask_ = 1;
  uint32_t size_ = 0;
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CALL_ACCESS_TABLE_H_
