// SPDX-License-Identifier: Apache-2.0
// What the load client and the echo server of the fault tests say to each other. A request is the id (4
// bytes) and a pattern that follows from it; a response is the id, the server's tag (4 bytes) and the
// pattern, as long as the request.
#ifndef WEFT_TESTS_SUPPORT_LOAD_FORMAT_H_
#define WEFT_TESTS_SUPPORT_LOAD_FORMAT_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace weft::test {

inline constexpr uint32_t kLoadBytesMin = 8;

// One successful call in the load client's file of starts.
struct LoadStart {
  uint64_t started_ns;  // CLOCK_MONOTONIC, before the call was given to the library.
  uint32_t id;
  uint32_t tag;  // Of the server that answered.
};
static_assert(sizeof(LoadStart) == 16);

inline std::byte PatternByte(uint32_t id, std::size_t place) {
  return static_cast<std::byte>(id * 31 + place * 7 + (id >> 8));
}
inline void FillPattern(std::span<std::byte> bytes, uint32_t id) {
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = PatternByte(id, i);
}
inline bool CheckPattern(std::span<const std::byte> bytes, uint32_t id) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != PatternByte(id, i)) return false;
  }
  return true;
}

// `request` holds at least kLoadBytesMin bytes.
inline void WriteRequest(std::span<std::byte> request, uint32_t id) {
  std::memcpy(request.data(), &id, sizeof(id));
  FillPattern(request.subspan(sizeof(id)), id);
}
// False where the request is not one, or was damaged.
inline bool CheckRequest(std::span<const std::byte> request, uint32_t* id) {
  if (request.size() < kLoadBytesMin) return false;
  std::memcpy(id, request.data(), sizeof(*id));
  return CheckPattern(request.subspan(sizeof(*id)), *id);
}
inline void WriteResponse(std::span<std::byte> response, uint32_t id, uint32_t tag) {
  std::memcpy(response.data(), &id, sizeof(id));
  std::memcpy(response.data() + sizeof(id), &tag, sizeof(tag));
  FillPattern(response.subspan(2 * sizeof(id)), id);
}
inline bool CheckResponse(std::span<const std::byte> response, std::size_t bytes, uint32_t id,
                          uint32_t* tag) {
  uint32_t answered = 0;
  if (response.size() != bytes || bytes < kLoadBytesMin) return false;
  std::memcpy(&answered, response.data(), sizeof(answered));
  std::memcpy(tag, response.data() + sizeof(answered), sizeof(*tag));
  return answered == id && CheckPattern(response.subspan(2 * sizeof(answered)), id);
}

}  // namespace weft::test

#endif  // WEFT_TESTS_SUPPORT_LOAD_FORMAT_H_
