// SPDX-License-Identifier: Apache-2.0
//
// The C++ interface of a weft guest, over sdk/c/weft_guest.h. C++20; nothing of the standard library is
// linked, so a guest builds with -nostdlib++ -fno-exceptions -fno-rtti. Include it in one source file.
//
//     #include "sdk/cpp/weft_guest.hpp"
//
//     // Asks both shops and answers with the first price that arrives.
//     WEFT_FUNCTION(fn, request) {
//       weft::Call<64> one("shop/north", weft::Bytes(request));
//       weft::Call<64> two("shop/south", weft::Bytes(request));
//       const uint32_t first = weft::WaitAny(one, two);
//       const weft::Answer answer = first == 0 ? one.Wait() : two.Wait();
//       return answer.ok() ? weft::Reply(answer.bytes) : answer.status;
//     }
#ifndef WEFT_SDK_CPP_WEFT_GUEST_HPP_
#define WEFT_SDK_CPP_WEFT_GUEST_HPP_

#include <stddef.h>
#include <stdint.h>

#include "sdk/c/weft_guest.h"

namespace weft {

// A borrowed run of bytes.
struct Bytes {
  const uint8_t* data = nullptr;
  uint32_t size = 0;

  constexpr Bytes() = default;
  constexpr Bytes(const uint8_t* bytes, uint32_t count) : data(bytes), size(count) {}
  explicit Bytes(weft_bytes bytes) : data(bytes.data), size(bytes.size) {}
  explicit Bytes(const char* text) : data(reinterpret_cast<const uint8_t*>(text)), size(strlen(text)) {}
  // The object representation of a plain value.
  template <typename T>
  static Bytes Of(const T& value) {
    return {reinterpret_cast<const uint8_t*>(&value), sizeof(T)};
  }
};

// How a call ended. `bytes` is the answer, or the error's message; it points into the room given to the call.
// Of an answer that does not fit there, WEFT_SHORT, it is empty.
struct Answer {
  uint32_t status = WEFT_OK;
  Bytes bytes;
  bool ok() const { return status == WEFT_OK; }
  static Answer In(const uint8_t* room, weft_outcome outcome) {
    return {outcome.status, {room, outcome.status == WEFT_SHORT ? 0 : outcome.size}};
  }
};

inline uint32_t Reply(Bytes bytes) { return weft_reply(bytes.data, bytes.size); }

// Calls and waits. The answer is written to `room`.
template <size_t kRoom>
Answer CallNow(const char* name, Bytes request, uint8_t (&room)[kRoom], int64_t timeout_ns = 0) {
  return Answer::In(room, weft_call_within(name, request.data, request.size, room, kRoom, timeout_ns));
}

// A call under way with room for an answer of up to kRoom bytes. It stays where it is: the host writes into
// it.
template <uint32_t kRoom>
class Call {
 public:
  Call(const char* name, Bytes request, int64_t timeout_ns = 0)
      : outcome_(weft_start(name, request.data, request.size, room_, kRoom, timeout_ns)) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  // A call must not outlive its room: the host writes there until the outcome has been taken.
  ~Call() { (void)Wait(); }

  bool pending() const { return outcome_.status == WEFT_PENDING; }
  uint32_t handle() const { return outcome_.size; }
  // Waits for the end. Further calls return the same answer.
  Answer Wait() {
    if (pending()) outcome_ = weft_wait(handle());
    return Answer::In(room_, outcome_);
  }

 private:
  uint8_t room_[kRoom];
  weft_outcome outcome_;
};

// The index of a call that has ended: the first of those that had ended already, else the first to end.
template <typename... Calls>
uint32_t WaitAny(Calls&... calls) {
  const bool pending[] = {calls.pending()...};
  for (uint32_t i = 0; i < sizeof...(calls); ++i) {
    if (!pending[i]) return i;
  }
  const uint32_t handles[] = {calls.handle()...};
  return weft_wait_any(handles, sizeof...(calls));
}

}  // namespace weft

#endif  // WEFT_SDK_CPP_WEFT_GUEST_HPP_
