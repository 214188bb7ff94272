// SPDX-License-Identifier: Apache-2.0
#include "dataplane/call/access_table.h"

#include <bit>

#include "dataplane/base/check.h"

namespace weft {

AccessTable::AccessTable(const std::vector<AccessEntry>& entries)
    : slots_(std::bit_ceil(entries.size() * 2 + 2)), mask_(slots_.size() - 1) {
  for (const AccessEntry& entry : entries) {
    WEFT_CHECK(entry.function != nullptr);
    if (Find(entry.caller_index, entry.function_id) != nullptr) continue;
    uint64_t at = Hash(entry.caller_index, entry.function_id) & mask_;
    while (slots_[at].function != nullptr) at = (at + 1) & mask_;
    slots_[at] = entry;
    ++size_;
  }
}

const AccessEntry* AccessTable::FindBeyond(uint32_t caller_index, uint64_t function_id) const {
  for (uint64_t at = Hash(caller_index, function_id) & mask_; slots_[at].function != nullptr;
       at = (at + 1) & mask_) {
    if (slots_[at].function_id == function_id && slots_[at].caller_index == caller_index) return &slots_[at];
  }
  return nullptr;
}

bool AccessTable::KnowsCaller(uint32_t caller_index) const {
  for (const AccessEntry& slot : slots_) {
    if (slot.function != nullptr && slot.caller_index == caller_index) return true;
  }
  return false;
}

}  // namespace weft
