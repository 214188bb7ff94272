/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Why a datagram was not taken. The XDP program counts what it drops per key, the transport what it drops
 * itself; some reasons are of both. The names are what `weftctl status` and the metrics show. A number is
 * never given another meaning.
 */
#ifndef WEFT_BPF_ABI_DROP_REASON_H_
#define WEFT_BPF_ABI_DROP_REASON_H_

/* X(name, number, text) */
#define WEFT_DROP_REASONS(X)                                                  \
  X(NONE, 0, "none")                                                          \
  X(TOO_SHORT, 1, "too_short")       /* below WEFT_PACKET_BYTES_MIN */        \
  X(TOO_LONG, 2, "too_long")         /* above WEFT_PACKET_BYTES_MAX */        \
  X(BAD_VERSION, 3, "bad_version")   /* version, suite or reserved bits */    \
  X(UNKNOWN_KEY, 4, "unknown_key")   /* no live key has that id */            \
  X(RATE_LIMITED, 5, "rate_limited") /* the key's bucket is empty */          \
  X(NO_SOCKET, 6, "no_socket")       /* no AF_XDP socket on the queue */      \
  X(WRONG_EPOCH, 7, "wrong_epoch")   /* header's epoch is not the key's */    \
  X(REPLAYED, 8, "replayed")         /* counter seen, or too old to tell */   \
  X(BAD_TAG, 9, "bad_tag")           /* forged, corrupted or wrong key */     \
  X(MALFORMED, 10, "malformed")      /* genuine, but a frame is invalid */    \
  X(NO_ROOM, 11, "no_room")          /* a pool or a tenant's limit is full */ \
  X(PEER_CLOSED, 12, "peer_closed")  /* the session has ended */              \
  X(BAD_LENGTH, 13, "bad_length")    /* frame, IP and UDP lengths disagree */ \
  X(NO_KEYS, 14, "no_keys")          /* steer has not been told its keys */

enum weft_drop_reason {
#define WEFT_DROP_REASON_ENUM(name, number, text) WEFT_DROP_##name = number,
  WEFT_DROP_REASONS(WEFT_DROP_REASON_ENUM)
#undef WEFT_DROP_REASON_ENUM
      WEFT_DROP_REASON_COUNT
};

#endif /* WEFT_BPF_ABI_DROP_REASON_H_ */
