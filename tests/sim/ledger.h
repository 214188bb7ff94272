// SPDX-License-Identifier: Apache-2.0
// What became of each message of a run, by a tag that it carries: how often it was executed, how it ended,
// whether its bytes were right. Tells the first contradiction.
#ifndef WEFT_TESTS_SIM_LEDGER_H_
#define WEFT_TESTS_SIM_LEDGER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "dataplane/transport/event.h"

namespace weft::sim {

// The smallest message: tag and response size.
inline constexpr uint32_t kTaggedBytesMin = 16;

struct Entry {
  uint32_t from = 0;
  uint32_t to = 0;
  uint32_t bytes = 0;
  uint32_t response_bytes = 0;
  bool one_way = false;
  bool cancelled = false;  // The caller gave it up.
  bool ended = false;
  bool to_crashed = false;  // The callee's node died while this was outstanding.
  uint32_t executed = 0;
  uint64_t began_ns = 0;
};

class Ledger {
 public:
  // A new message's tag.
  uint64_t Begin(const Entry& entry);
  // Takes back the last Begin: it was not accepted.
  void Undo() { entries_.pop_back(); }
  // The payload of message `tag`, or of its response.
  std::vector<uint8_t> RequestBytes(uint64_t tag) const;
  std::vector<uint8_t> ResponseBytes(uint64_t tag) const;

  // A request or one-way message was delivered at `node`. Returns its tag; an empty `*error` means that all
  // is well.
  uint64_t Executed(uint32_t node, const transport::Event& event, std::string* error);
  // A message ended at its sender. What codes besides OK may occur is the caller's to say.
  void Ended(uint32_t node, const transport::Event& event, bool unavailable_allowed, bool exhausted_allowed,
             std::string* error);

  Entry& entry(uint64_t tag) { return entries_[tag]; }
  uint64_t size() const { return entries_.size(); }
  uint64_t ended() const { return ended_; }
  uint64_t succeeded() const { return succeeded_; }
  // The first message that has not ended, or ~0, among those whose sender lives.
  uint64_t FirstOpen() const;
  // The senders' calls are gone with it.
  void Forget(uint32_t node);
  // The node's memory of what it took is gone: a message outstanding there may be lost.
  void MarkCrashed(uint32_t node);

 private:
  static void Fill(std::vector<uint8_t>* bytes, uint64_t tag);
  static bool Matches(const uint8_t* data, uint32_t bytes, const std::vector<uint8_t>& expected);

  std::vector<Entry> entries_;
  uint64_t ended_ = 0;
  uint64_t succeeded_ = 0;
};

}  // namespace weft::sim

#endif  // WEFT_TESTS_SIM_LEDGER_H_
