// SPDX-License-Identifier: Apache-2.0
// Which packet counters of a session have been taken: what a second copy of a packet is refused by, and what
// an ACK tells the peer. Owner worker only.
#ifndef WEFT_DATAPLANE_TRANSPORT_REPLAY_WINDOW_H_
#define WEFT_DATAPLANE_TRANSPORT_REPLAY_WINDOW_H_

#include <algorithm>
#include <array>
#include <cstdint>

namespace weft::transport {

// 64 words of 64: a packet may be overtaken by 4,032 others and is still taken. 100 Gb/s of 1,500 B packets
// is 8.3 a us, so that is 480 us of reordering.
inline constexpr uint64_t kReplayWords = 64;

class ReplayWindow {
 public:
  // Whether `counter` is new and not too old to tell. Asked before the tag is checked; changes nothing.
  bool IsFresh(uint64_t counter) const {
    if (empty_) return true;
    if (counter / 64 + kReplayWords <= largest_ / 64) return false;
    if (counter > largest_) return true;
    return (words_[counter / 64 % kReplayWords] >> (counter % 64) & 1) == 0;
  }

  // Notes a fresh `counter`, after its tag has been verified.
  void Note(uint64_t counter) {
    if (empty_ || counter > largest_) {
      const uint64_t from = empty_ ? 0 : largest_ / 64 + 1;
      const uint64_t to = counter / 64;
      // Words that the window moves over are cleared: at most all of them.
      for (uint64_t w = to >= from + kReplayWords ? to + 1 - kReplayWords : from; w <= to; ++w) {
        words_[w % kReplayWords] = 0;
      }
      largest_ = counter;
      empty_ = false;
    }
    words_[counter / 64 % kReplayWords] |= uint64_t{1} << (counter % 64);
  }

  bool empty() const { return empty_; }
  uint64_t largest() const { return largest_; }
  // The word that holds `counter`'s bit; 0 for what is out of the window.
  uint64_t WordOf(uint64_t counter) const {
    if (empty_ || counter / 64 + kReplayWords <= largest_ / 64) return 0;
    return words_[counter / 64 % kReplayWords];
  }
  void Reset() { *this = ReplayWindow(); }

 private:
  std::array<uint64_t, kReplayWords> words_{};
  uint64_t largest_ = 0;
  bool empty_ = true;
};

}  // namespace weft::transport

#endif  // WEFT_DATAPLANE_TRANSPORT_REPLAY_WINDOW_H_
