// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/ledger.h"

#include <algorithm>
#include <cstring>

namespace weft::sim {

uint64_t Ledger::Begin(const Entry& entry) {
  entries_.push_back(entry);
  return entries_.size() - 1;
}

// Every eight bytes differ from those of other tags and places.
void Ledger::Fill(std::vector<uint8_t>* bytes, uint64_t tag) {
  uint64_t word = (tag + 1) * 0x9e3779b97f4a7c15;
  for (std::size_t i = kTaggedBytesMin; i < bytes->size(); i += 8) {
    word = word * 6364136223846793005 + 1442695040888963407;
    std::memcpy(bytes->data() + i, &word, std::min<std::size_t>(8, bytes->size() - i));
  }
}

std::vector<uint8_t> Ledger::RequestBytes(uint64_t tag) const {
  const Entry& entry = entries_[tag];
  std::vector<uint8_t> bytes(std::max(entry.bytes, kTaggedBytesMin));
  const uint64_t size = entry.response_bytes;
  std::memcpy(bytes.data(), &tag, 8);
  std::memcpy(bytes.data() + 8, &size, 8);
  Fill(&bytes, tag);
  return bytes;
}

std::vector<uint8_t> Ledger::ResponseBytes(uint64_t tag) const {
  std::vector<uint8_t> bytes(entries_[tag].response_bytes);
  Fill(&bytes, ~tag);
  return bytes;
}

bool Ledger::Matches(const uint8_t* data, uint32_t bytes, const std::vector<uint8_t>& expected) {
  return bytes == expected.size() && (bytes == 0 || std::memcmp(data, expected.data(), bytes) == 0);
}

uint64_t Ledger::Executed(uint32_t node, const transport::Event& event, std::string* error) {
  uint64_t tag = ~uint64_t{0};
  if (event.payload_bytes >= kTaggedBytesMin) std::memcpy(&tag, event.payload, 8);
  if (tag >= entries_.size()) {
    *error = "delivered what nobody sent";
    return 0;
  }
  Entry& entry = entries_[tag];
  if (!Matches(event.payload, event.payload_bytes, RequestBytes(tag))) {
    *error = "message " + std::to_string(tag) + " arrived with wrong bytes";
  } else if (entry.to != node) {
    *error = "message " + std::to_string(tag) + " arrived at the wrong node";
  } else if (++entry.executed > 1) {
    *error = "message " + std::to_string(tag) + " was executed twice";
  }
  return tag;
}

void Ledger::Ended(uint32_t node, const transport::Event& event, bool unavailable_allowed,
                   bool exhausted_allowed, std::string* error) {
  const uint64_t tag = event.user;
  Entry& entry = entries_[tag];
  const std::string name = "message " + std::to_string(tag);
  if (entry.ended) *error = name + " ended twice";
  if (entry.from != node) *error = name + " ended at the wrong node";
  entry.ended = true;
  ++ended_;
  if (!event.maybe_executed && entry.executed > 0)
    *error = name + " was executed though reported as surely not";
  switch (event.code) {
    case absl::StatusCode::kOk:
      ++succeeded_;
      if (entry.executed != 1 && !entry.to_crashed) *error = name + " succeeded without having been executed";
      if (!entry.one_way && !Matches(event.payload, event.payload_bytes, ResponseBytes(tag))) {
        *error = name + " was answered with wrong bytes";
      }
      return;
    case absl::StatusCode::kCancelled:
      if (!entry.cancelled) *error = name + " was cancelled by nobody";
      return;
    case absl::StatusCode::kUnavailable:
      if (!unavailable_allowed)
        *error = name + " ended with UNAVAILABLE, though nothing died and nothing was cut";
      return;
    case absl::StatusCode::kResourceExhausted:
      if (!exhausted_allowed) *error = name + " ended with RESOURCE_EXHAUSTED, though there was room";
      return;
    default:
      *error = name + " ended with an impossible code";
  }
}

uint64_t Ledger::FirstOpen() const {
  for (std::size_t tag = 0; tag < entries_.size(); ++tag) {
    if (!entries_[tag].ended) return tag;
  }
  return ~uint64_t{0};
}

void Ledger::Forget(uint32_t node) {
  for (Entry& entry : entries_) {
    if (entry.from == node && !entry.ended) {
      entry.ended = true;
      ++ended_;
    }
  }
}

void Ledger::MarkCrashed(uint32_t node) {
  for (Entry& entry : entries_) {
    if (entry.to == node && !entry.ended) entry.to_crashed = true;
  }
}

}  // namespace weft::sim
