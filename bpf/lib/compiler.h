/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What the pure parts of the BPF programs need from either compiler: BPF's and the host's, C or C++.
 * Everything in bpf/lib is inline, has no state, calls no helper, and so runs in plain unit tests too.
 */
#ifndef WEFT_BPF_LIB_COMPILER_H_
#define WEFT_BPF_LIB_COMPILER_H_

#include <linux/types.h>

#define WEFT_INLINE static inline __attribute__((always_inline, unused))
#define WEFT_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define WEFT_UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define WEFT_BE16(value) ((__be16)__builtin_bswap16(value))
#define WEFT_FROM_BE16(value_be) __builtin_bswap16((__u16)(value_be))
#define WEFT_FROM_BE32(value_be) __builtin_bswap32((__u32)(value_be))
#define WEFT_BE32(value) ((__be32)__builtin_bswap32(value))
#else
#define WEFT_BE16(value) ((__be16)(value))
#define WEFT_FROM_BE16(value_be) ((__u16)(value_be))
#define WEFT_FROM_BE32(value_be) ((__u32)(value_be))
#define WEFT_BE32(value) ((__be32)(value))
#endif

/* The four bytes at `at`, whatever its alignment: BPF's compiler would fetch them one by one. */
WEFT_INLINE __u32 weft_load32(const void* at) {
#ifdef __bpf__
  return *(const __u32*)at;
#else
  __u32 value;
  __builtin_memcpy(&value, at, sizeof(value));
  return value;
#endif
}

#endif /* WEFT_BPF_LIB_COMPILER_H_ */
