// SPDX-License-Identifier: Apache-2.0
// Pools, tenants, functions and events of the core.
#include "dataplane/transport/core.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/attributes.h"
#include "dataplane/base/check.h"
#include "dataplane/base/status.h"

namespace weft::transport {
namespace {

absl::Status Check(const Config& config) {
  if (config.datagram_bytes_max > WEFT_PACKET_BYTES_MAX || config.datagram_bytes_max < kDatagramBytesLeast) {
    return absl::InvalidArgumentError("datagram_bytes_max is out of range");
  }
  if (config.slots_per_peer == 0 || config.slots_per_peer > 1u << kIdSlotBits) {
    return absl::InvalidArgumentError("slots_per_peer is out of range");
  }
  if (!std::has_single_bit(config.packets_in_flight_max) || config.packets_in_flight_max < 256) {
    return absl::InvalidArgumentError("packets_in_flight_max must be a power of two of at least 256");
  }
  if (config.peers_max == 0 || config.peers_max > 1u << 20) {
    return absl::InvalidArgumentError("peers_max is out of range");
  }
  if (config.oldest_share_one_in == 0 || config.granted_messages_max == 0 ||
      config.grant_quantum_segments == 0) {
    return absl::InvalidArgumentError("grants must go to somebody");
  }
  return absl::OkStatus();
}

uint64_t MixedHash(uint64_t id) { return (id ^ (id >> 29)) * 0x9e3779b97f4a7c15; }

}  // namespace

absl::StatusOr<std::unique_ptr<Core>> Core::Create(const Config& config) {
  WEFT_RETURN_IF_ERROR(Check(config));
  WEFT_ASSIGN_OR_RETURN(BlockPool blocks, BlockPool::Create(config.memory_bytes));
  return std::unique_ptr<Core>(new Core(config, std::move(blocks)));
}

Core::Core(const Config& config, BlockPool blocks)
    : config_(config),
      segment_bytes_(SegmentBytesFor(config.datagram_bytes_max)),
      blocks_(std::move(blocks)),
      tenants_(config.tenants_max),
      short_tenants_(config.tenants_max),
      functions_(std::bit_ceil(2 * config.functions_max)),
      peers_(config.peers_max),
      keys_(config.key_index_bits == 0 ? KeyTable(config.peers_max, config.key_generation_first)
                                       : KeyTable(config.key_index_bits, config.key_index_first,
                                                  config.key_indices, config.key_generation_first)),
      out_(config.messages_out_max),
      in_(config.messages_in_max),
      events_(std::bit_ceil(2 * config.messages_in_max + config.calls_max + config.messages_out_max)),
      event_mask_(events_.size() - 1),
      turns_to_oldest_(config.oldest_share_one_in),
      urgent_peers_(config.peers_max),
      grants_(config_, segment_bytes_, in_.data()),
      timers_(config.peers_max + 1) {
  for (uint32_t i = config.messages_out_max; i > 0; --i) free_out_.push_back(i - 1);
  for (uint32_t i = config.messages_in_max; i > 0; --i) free_in_.push_back(i - 1);
}

Core::~Core() = default;

void Core::SetTenantLimit(TenantIndex tenant, uint64_t limit_bytes) {
  WEFT_CHECK(tenant.value < tenants_.size());
  tenants_[tenant.value].limit_bytes = limit_bytes;
}

// The place of `function`, or the free one where it would go.
std::size_t Core::FunctionPlace(uint64_t function) const {
  std::size_t place = MixedHash(function) & (functions_.size() - 1);
  while (functions_[place].id != 0 && functions_[place].id != function) {
    place = (place + 1) & (functions_.size() - 1);
  }
  return place;
}

absl::Status Core::SetFunction(FunctionId function, TenantIndex tenant) {
  if (function.value == 0) return absl::InvalidArgumentError("function id 0");
  if (tenant.value >= tenants_.size()) return absl::InvalidArgumentError("no such tenant");
  Function& entry = functions_[FunctionPlace(function.value)];
  if (entry.id == 0) {
    if (function_count_ == config_.functions_max) {
      return absl::ResourceExhaustedError(
          absl::StrCat("this engine has its ", config_.functions_max, " functions already"));
    }
    ++function_count_;
  }
  entry = {function.value, tenant};
  return absl::OkStatus();
}

void Core::RemoveFunction(FunctionId function) {
  std::size_t hole = FunctionPlace(function.value);
  if (functions_[hole].id == 0) return;
  functions_[hole] = Function{};
  --function_count_;
  // What was displaced past the hole moves up.
  for (std::size_t at = (hole + 1) & (functions_.size() - 1); functions_[at].id != 0;
       at = (at + 1) & (functions_.size() - 1)) {
    const Function moved = std::exchange(functions_[at], Function{});
    functions_[FunctionPlace(moved.id)] = moved;
  }
}

const TenantIndex* Core::TenantOf(uint64_t function) const {
  if (function == 0) return nullptr;
  const Function& entry = functions_[FunctionPlace(function)];
  return entry.id == 0 ? nullptr : &entry.tenant;
}

WEFT_HOT bool Core::TryAllocate(uint32_t tenant, std::size_t bytes, Block* block) {
  TenantUse& use = tenants_[tenant];
  const uint32_t order = BlockPool::OrderOf(bytes);
  const std::size_t charge = std::size_t{kBlockUnitBytes} << order;
  if (use.used_bytes + charge > use.limit_bytes) {
    memory_was_short_ = true;
    short_tenants_[tenant] = 1;
    return false;
  }
  if (!blocks_.TryAllocateOrder(order, block)) {
    memory_was_short_ = pool_was_short_ = true;
    return false;
  }
  use.used_bytes += charge;
  use.peak_bytes = std::max(use.peak_bytes, use.used_bytes);
  return true;
}

WEFT_HOT void Core::FreeBlock(uint32_t tenant, Block* block) {
  if (!block->valid()) return;
  tenants_[tenant].used_bytes -= std::size_t{kBlockUnitBytes} << block->order;
  blocks_.Free(block);
}

// Zeroed words, from a block of their own.
bool Core::TryAllocateBits(uint32_t tenant, uint32_t words, Block* block, uint64_t** first) {
  if (!TryAllocate(tenant, words * sizeof(uint64_t), block)) return false;
  *first = reinterpret_cast<uint64_t*>(blocks_.Data(*block));
  std::fill_n(*first, words, 0);
  return true;
}

uint32_t Core::TakeOut() {
  if (free_out_.empty()) return kNone;
  const uint32_t out = free_out_.back();
  free_out_.pop_back();
  out_[out].Renew();
  return out;
}

void Core::FreeOut(uint32_t out) {
  OutMessage& message = out_[out];
  if (message.live) {
    const bool had_turn = message.ready.linked && !message.blocked;
    RemoveReady(out);
    GrantsInHand(message) -= message.UnusedGrantBytes();
    // The turn goes to another: where nothing is in flight no acknowledgement will give out the next.
    if (had_turn) ReleaseBlocked(*peers_[message.peer]);
    if (message.segments > 1) out_by_age_.Remove(out_.data(), out);
    if (message.owed.linked) answers_owed_.Remove(out_.data(), out);
  }
  FreeBlock(message.tenant, &message.block);
  if (message.segments > 1) FreeBlock(message.tenant, &message.bits_block);
  message.live = false;
  ++message.generation;
  free_out_.push_back(out);
}

uint32_t Core::TakeIn() {
  if (free_in_.empty()) return kNone;
  const uint32_t in = free_in_.back();
  free_in_.pop_back();
  in_[in].Renew();
  return in;
}

void Core::RemoveFromLists(uint32_t in) {
  InMessage& message = in_[in];
  ReleaseHeld(message);
  grants_.Remove(in);
  if (message.pending.linked) peers_[message.peer]->grants_to_send.Remove(in_.data(), in);
  if (message.partial.linked) peers_[message.peer]->partial.Remove(in_.data(), in);
}

void Core::FreeIn(uint32_t in) {
  InMessage& message = in_[in];
  if (message.WaitsForMore()) {
    RemoveFromLists(in);
    FreeBlock(message.tenant, &message.bits_block);
  }
  FreeBlock(message.tenant, &message.block);
  message.state = InState::kFree;
  ++message.generation;
  free_in_.push_back(in);
}

// The event behind all others, to be filled in where it lies: a copy would be read before it has been
// written.
Event& Core::NewEvent() {
  WEFT_DCHECK(event_tail_ - event_head_ < events_.size());
  Event& event = events_[event_tail_++ & event_mask_];
  event = Event{};
  return event;
}

bool Core::NextEvent(Event* event) {
  if (event_head_ == event_tail_) return false;
  *event = events_[event_head_++ & event_mask_];
  // The ring has room for the worst case, megabytes; a core that keeps up stays in its first lines.
  if (event_head_ == event_tail_) event_head_ = event_tail_ = 0;
  if (event->kind == EventKind::kCompleted) --calls_outstanding_;
  return true;
}

void Core::Release(const Event& event) {
  if (event.message != kNone) FreeIn(event.message);
}

uint64_t Core::NextTimerNs(uint64_t now_ns) const {
  uint64_t next = std::min(timers_.NextNs(), grants_.NextNs(now_ns));
  if (!urgent_.empty() || !send_queue_.empty()) {
    const uint64_t link = config_.link_bits_per_second == 0 || link_free_ns_ < config_.pacing_slack_ns
                              ? 0
                              : link_free_ns_ - config_.pacing_slack_ns;
    next = std::min(next, link);
  }
  return next;
}

}  // namespace weft::transport
