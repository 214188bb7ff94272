// SPDX-License-Identifier: Apache-2.0
// Keys that peers seal with, by the id that this side chose. The low bits of an id index the table (XDP's
// array map is indexed the same way), the rest tell one use of the entry from another. Owner worker only.
#ifndef WEFT_DATAPLANE_TRANSPORT_KEY_TABLE_H_
#define WEFT_DATAPLANE_TRANSPORT_KEY_TABLE_H_

#include <bit>
#include <cstdint>
#include <vector>

#include "dataplane/base/check.h"
#include "dataplane/transport/index_list.h"
#include "dataplane/transport/sealing.h"

namespace weft::transport {

struct ReceiveKey {
  uint32_t id = 0;  // 0: free.
  uint32_t peer = kNone;
  uint8_t epoch = 0;
  SealKey key;
};

class KeyTable {
 public:
  KeyTable(uint32_t peers_max, uint32_t generation_first)
      : bits_(static_cast<uint32_t>(std::bit_width(4 * peers_max - 1))), entries_(std::size_t{1} << bits_) {
    generations_.assign(entries_.size(), generation_first);
  }
  // One of several tables behind one array map of 2^`index_bits` entries: it has `count` of them, from
  // `first` on.
  KeyTable(uint32_t index_bits, uint32_t first, uint32_t count, uint32_t generation_first)
      : bits_(index_bits), first_(first), entries_(count) {
    generations_.assign(entries_.size(), generation_first);
  }

  // Chooses an id that this table has not used, for `peer`; 0 where the table is full, which two epochs for
  // each peer cannot make it. Control path.
  uint32_t Reserve(uint32_t peer, uint8_t epoch) {
    for (std::size_t tried = 0; tried < entries_.size(); ++tried) {
      const std::size_t index = next_++ % entries_.size();
      ReceiveKey& entry = entries_[index];
      if (entry.id != 0) continue;
      const uint32_t generation_mask = (1u << (32 - bits_)) - 1;
      uint32_t generation = generations_[index]++ & generation_mask;
      if (generation == 0) generation = generations_[index]++ & generation_mask;
      entry.id = generation << bits_ | (first_ + static_cast<uint32_t>(index));
      entry.peer = peer;
      entry.epoch = epoch;
      return entry.id;
    }
    return 0;
  }

  // The live key of that id, or null.
  ReceiveKey* Find(uint32_t id) {
    const uint32_t index = (id & ((uint32_t{1} << bits_) - 1)) - first_;
    if (index >= entries_.size()) [[unlikely]]
      return nullptr;
    ReceiveKey& entry = entries_[index];
    return entry.id == id && id != 0 ? &entry : nullptr;
  }

  void Release(uint32_t id) {
    if (ReceiveKey* const entry = Find(id); entry != nullptr) {
      entry->key.Clear();
      entry->id = 0;
      entry->peer = kNone;
    }
  }

 private:
  uint32_t bits_;
  uint32_t first_ = 0;
  std::vector<ReceiveKey> entries_;
  std::vector<uint32_t> generations_;
  std::size_t next_ = 0;
};

}  // namespace weft::transport

#endif  // WEFT_DATAPLANE_TRANSPORT_KEY_TABLE_H_
