// SPDX-License-Identifier: Apache-2.0
// What each packet in flight to one peer carried, by its counter: rings of packets and of the frames in them.
// An acknowledged or lost packet is handed back to the core frame by frame, which alone knows what to do
// about it. Owner worker only; memory is taken once.
#ifndef WEFT_DATAPLANE_TRANSPORT_SENT_LOG_H_
#define WEFT_DATAPLANE_TRANSPORT_SENT_LOG_H_

#include <bit>
#include <cstdint>
#include <vector>

#include "dataplane/base/check.h"
#include "dataplane/transport/frame.h"

namespace weft::transport {

// A frame whose loss matters. `object` and `generation` name a message in its pool; a notice keeps its id
// there.
struct SentFrame {
  FrameType type;
  MessageKind kind;
  uint16_t code;  // REJECT.
  uint32_t object;
  uint32_t generation;
  uint32_t segment;  // DATA; kNone for an announcement.
};
static_assert(sizeof(SentFrame) == 16);

class SentLog {
 public:
  // Room for `packets_max` counters between the oldest in flight and the newest, and four frames for each:
  // both rings are powers of two.
  explicit SentLog(uint32_t packets_max)
      : packets_(packets_max),
        outstanding_(packets_max / 64),
        frames_(std::size_t{4} * packets_max),
        packet_mask_(packets_max - 1),
        word_mask_(packets_max / 64 - 1),
        frame_mask_(4 * packets_max - 1) {
    WEFT_CHECK(std::has_single_bit(packets_max) && packets_max >= 64);
  }

  bool empty() const { return in_flight_packets_ == 0; }
  uint64_t in_flight_bytes() const { return in_flight_bytes_; }
  // Whether all that is in flight still fits if `counter` is sent next; else the oldest must be given up
  // first. A word less than packets_max: the newest could else lie, a lap later, in the oldest's word of
  // `outstanding_`.
  bool Spans(uint64_t counter) const { return empty() || counter - oldest_ < packets_.size() - 64; }
  uint64_t oldest() const { return oldest_; }
  uint32_t frames_free() const {
    return static_cast<uint32_t>(frames_.size() -
                                 (empty() ? 0 : next_frame_ - RecordOf(oldest_).first_frame));
  }

  // Begins the record of packet `counter`; AddFrame and Finish follow before the next Begin.
  void Begin() { begun_frame_ = next_frame_; }
  void AddFrame(const SentFrame& frame) { frames_[next_frame_++ & frame_mask_] = frame; }
  bool HasFrames() const { return next_frame_ != begun_frame_; }
  // Keeps what was added under `counter`, above all earlier ones. Without frames nothing is kept.
  void Finish(uint64_t counter, uint32_t bytes, uint64_t now_ns) {
    if (!HasFrames()) return;
    packets_[counter & packet_mask_] = {now_ns, begun_frame_,
                                        static_cast<uint16_t>(next_frame_ - begun_frame_),
                                        static_cast<uint16_t>(bytes)};
    if (empty()) oldest_ = counter;
    Word(counter) |= Bit(counter);
    newest_ = counter;
    ++in_flight_packets_;
    in_flight_bytes_ += bytes;
  }

  bool IsOutstanding(uint64_t counter) const {
    return !empty() && counter >= oldest_ && counter <= newest_ &&
           (outstanding_[counter / 64 & word_mask_] & Bit(counter)) != 0;
  }
  uint64_t SentNs(uint64_t counter) const { return RecordOf(counter).sent_ns; }

  // The outstanding packets among the 64 from `base`, a multiple of 64, as bits.
  uint64_t OutstandingWord(uint64_t base) const {
    if (empty() || base / 64 < oldest_ / 64 || base / 64 > newest_ / 64) return 0;
    return outstanding_[base / 64 & word_mask_];
  }

  // Ends the record of an outstanding packet and calls visit(frame) for each of its frames. Returns its
  // bytes.
  template <typename Visit>
  uint32_t Take(uint64_t counter, Visit&& visit) {
    WEFT_DCHECK(IsOutstanding(counter));
    const Packet packet = RecordOf(counter);
    Word(counter) &= ~Bit(counter);
    --in_flight_packets_;
    in_flight_bytes_ -= packet.bytes;
    if (counter == oldest_ && !empty()) AdvanceOldest();
    for (uint32_t i = 0; i < packet.frames; ++i) {
      visit(frames_[(packet.first_frame + i) & frame_mask_]);
    }
    return packet.bytes;
  }

 private:
  struct Packet {
    uint64_t sent_ns;
    uint32_t first_frame;
    uint16_t frames;
    uint16_t bytes;
  };

  static uint64_t Bit(uint64_t counter) { return uint64_t{1} << (counter % 64); }
  uint64_t& Word(uint64_t counter) { return outstanding_[counter / 64 & word_mask_]; }
  const Packet& RecordOf(uint64_t counter) const { return packets_[counter & packet_mask_]; }
  // There is an outstanding packet above oldest_: finds it, at most a word a step.
  void AdvanceOldest() {
    uint64_t word = Word(oldest_) & ~((Bit(oldest_) << 1) - 1);
    if (oldest_ % 64 == 63) word = 0;
    uint64_t base = oldest_ & ~uint64_t{63};
    while (word == 0) {
      base += 64;
      word = Word(base);
    }
    oldest_ = base + static_cast<uint32_t>(std::countr_zero(word));
  }

  std::vector<Packet> packets_;
  std::vector<uint64_t> outstanding_;
  std::vector<SentFrame> frames_;
  const uint32_t packet_mask_, word_mask_, frame_mask_;
  uint64_t oldest_ = 0;
  uint64_t newest_ = 0;
  uint32_t next_frame_ = 0;
  uint32_t begun_frame_ = 0;
  uint32_t in_flight_packets_ = 0;
  uint64_t in_flight_bytes_ = 0;
};

}  // namespace weft::transport

#endif  // WEFT_DATAPLANE_TRANSPORT_SENT_LOG_H_
