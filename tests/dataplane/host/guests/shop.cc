// SPDX-License-Identifier: Apache-2.0
// A C++ guest: asks two functions at once and answers with the first price. Test of sdk/cpp and
// dataplane/host.
#include "sdk/cpp/weft_guest.hpp"

WEFT_FUNCTION(fn, request) {
  (void)fn;
  weft::Call<64> one("shop/north", weft::Bytes(request));
  weft::Call<64> two("shop/south", weft::Bytes(request));
  const uint32_t first = weft::WaitAny(one, two);
  const weft::Answer answer = first == 0 ? one.Wait() : two.Wait();
  // What is too long for its room has no bytes there.
  return answer.ok() || answer.status == WEFT_SHORT ? weft::Reply(answer.bytes) : answer.status;
}
