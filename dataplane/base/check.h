// SPDX-License-Identifier: Apache-2.0
// Assertions for broken invariants: a failed one prints where and what, then aborts. WEFT_CHECK is always on
// and guards what could corrupt memory; WEFT_DCHECK is gone in release builds. Neither is for resources or
// input.
#ifndef WEFT_DATAPLANE_BASE_CHECK_H_
#define WEFT_DATAPLANE_BASE_CHECK_H_

#include <cstdio>
#include <cstdlib>

#define WEFT_CHECK(condition)                                                            \
  do {                                                                                   \
    if (!(condition)) [[unlikely]] {                                                     \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)

#ifdef NDEBUG
#define WEFT_DCHECK(condition) \
  do {                         \
    (void)sizeof(condition);   \
  } while (false)
#else
#define WEFT_DCHECK(condition) WEFT_CHECK(condition)
#endif

#endif  // WEFT_DATAPLANE_BASE_CHECK_H_
