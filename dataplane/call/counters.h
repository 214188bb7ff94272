// SPDX-License-Identifier: Apache-2.0
// What one host's call layer counts. Every message that is refused, dropped, retried or given up has a
// counter, so that for any two hosts: requests sent = requests received + what died with a channel, and
// requests received = executed + each kind of refusal and drop. Written by the owner thread only.
#ifndef WEFT_DATAPLANE_CALL_COUNTERS_H_
#define WEFT_DATAPLANE_CALL_COUNTERS_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace weft {

// X(name): the order is the order of reports.
#define WEFT_CALL_COUNTERS(X)                                                             \
  /* As caller. */                                                                        \
  X(calls_started) /* Calls that had a route, each counted once. */                       \
  X(calls_ok)      /* Answered with OK. */                                                \
  X(calls_failed)  /* Ended otherwise, for any reason below or the callee's own. */       \
  X(requests_sent) /* Messages: calls, one-ways and retries. */                           \
  X(one_way_sent)                                                                         \
  X(one_way_expired)    /* Waited for a route or room until their deadline. */            \
  X(one_way_broken_off) /* In parts: the channel closed, or not all was read in time. */  \
  X(retries)            /* Further tries of a call. */                                    \
  X(hedges)             /* Calls sent a second time because the first took long. */       \
  X(ejections)          /* Targets left alone since calls of them kept failing. */        \
  X(deadlines_fired)    /* Calls ended by their deadline. */                              \
  X(calls_cancelled)    /* Calls given up by their caller. */                             \
  X(calls_lost_to_peer) /* Calls in flight when a channel closed. */                      \
  X(no_route)           /* Calls that failed for want of a target. */                     \
  X(ring_full)          /* Requests that found no room in their ring. */                  \
  X(responses_received)                                                                   \
  X(responses_unexpected) /* Late, duplicate or forged: no such call on that channel. */  \
  X(responses_too_large)  /* Longer than the caller's buffer. */                          \
  /* As callee. */                                                                        \
  X(requests_received) /* Calls and one-ways, before any check. */                        \
  X(requests_admitted) /* Handed to a function. */                                        \
  X(one_way_received)                                                                     \
  X(dropped_expired)     /* The deadline had passed. */                                   \
  X(dropped_duplicate)   /* The request id was taken before. */                           \
  X(dropped_aborted)     /* Came in parts and never became whole. */                      \
  X(dropped_cancelled)   /* Cancelled before it ran. */                                   \
  X(refused_caller)      /* No such caller on that channel: forged, or revoked. */        \
  X(refused_function)    /* The caller may not call that function: forged, or revoked. */ \
  X(refused_absent)      /* The function is not served here, or no longer. */             \
  X(refused_concurrency) /* Too many calls of the function in flight. */                  \
  X(refused_rate)        /* Too many calls per second of the caller. */                   \
  X(refused_room)        /* No room: queue, nesting depth or message memory. */           \
  X(refused_malformed)   /* A trace flag without its bytes. */                            \
  X(cancels_received)                                                                     \
  X(responses_sent)                                                                       \
  X(responses_backlogged) /* Waited for room in the ring. */                              \
  X(responses_dropped)    /* The channel was gone, or its backlog full. */                \
  /* Channels. */                                                                         \
  X(channels_opened)                                                                      \
  X(channels_closed)                                                                      \
  X(channels_poisoned)                                                                    \
  X(peers_died)

struct CallCounters {
#define WEFT_DECLARE_COUNTER(name) uint64_t name = 0;
  WEFT_CALL_COUNTERS(WEFT_DECLARE_COUNTER)
#undef WEFT_DECLARE_COUNTER

  // visit(name, value) for each in order.
  template <typename Visit>
  void ForEach(Visit&& visit) const {
#define WEFT_VISIT_COUNTER(name) visit(absl::string_view(#name), name);
    WEFT_CALL_COUNTERS(WEFT_VISIT_COUNTER)
#undef WEFT_VISIT_COUNTER
  }
};

}  // namespace weft

#endif  // WEFT_DATAPLANE_CALL_COUNTERS_H_
