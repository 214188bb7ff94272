// SPDX-License-Identifier: Apache-2.0
// What the fuzzer and the replay of its corpus both run: bytes become the text of genuine datagrams from a
// peer that holds the keys, and are applied to a core with calls of its own outstanding.
#ifndef WEFT_TESTS_DATAPLANE_TRANSPORT_FUZZ_CORE_H_
#define WEFT_TESTS_DATAPLANE_TRANSPORT_FUZZ_CORE_H_

#include <cstddef>
#include <cstdint>

namespace weft::transport {

// Aborts where an invariant of the core breaks; the sanitizers watch the rest.
void FuzzCore(const uint8_t* data, std::size_t bytes);

}  // namespace weft::transport

#endif  // WEFT_TESTS_DATAPLANE_TRANSPORT_FUZZ_CORE_H_
