// SPDX-License-Identifier: Apache-2.0
// Sixteen bytes as two words that are stored at once. A processor hands what was just stored to a load that
// lies within one store; a load that spans several waits until all of them have left for the cache. So what
// is written field by field and read whole soon after, as by a cipher, is composed in registers instead. Any
// thread.
#ifndef WEFT_DATAPLANE_BASE_WORDS_H_
#define WEFT_DATAPLANE_BASE_WORDS_H_

#include <cstdint>
#include <cstring>

namespace weft {

using WordPair [[gnu::vector_size(16)]] = uint64_t;
static_assert(sizeof(WordPair) == 16);

inline void StoreWords(void* to, uint64_t first, uint64_t second) {
  const WordPair words{first, second};
  std::memcpy(to, &words, sizeof(words));
}

}  // namespace weft

#endif  // WEFT_DATAPLANE_BASE_WORDS_H_
