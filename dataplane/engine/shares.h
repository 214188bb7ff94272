// SPDX-License-Identifier: Apache-2.0
// How many of a pool's records each of those that share it has. Each gets as many as are left over for all
// others, so whoever comes first does not get all of them, and no number of them per user needs to be chosen:
// who is alone gets half, who comes second a quarter at least. Owner thread only; a few instructions a
// record.
#ifndef WEFT_DATAPLANE_ENGINE_SHARES_H_
#define WEFT_DATAPLANE_ENGINE_SHARES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "dataplane/base/attributes.h"

namespace weft::engine {

class Shares {
 public:
  Shares() = default;
  // Of `users`, by number from 0. One that shares with nobody may have everything.
  explicit Shares(std::size_t users) : of_(users), step_(users > 1 ? 1 : 0) {}

  // `left`: records of the pool that nobody has.
  WEFT_HOT bool MayTake(uint32_t user, std::size_t left) const {
    return user < of_.size() && of_[user] < left;
  }
  WEFT_HOT void Take(uint32_t user) { of_[user] += step_; }
  WEFT_HOT void Give(uint32_t user) { of_[user] -= step_; }
  uint32_t Of(uint32_t user) const { return of_[user]; }

 private:
  std::vector<uint32_t> of_;
  uint32_t step_ = 0;
};

}  // namespace weft::engine

#endif  // WEFT_DATAPLANE_ENGINE_SHARES_H_
