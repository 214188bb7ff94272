/* SPDX-License-Identifier: Apache-2.0 */
/* The same headers seen by a C compiler, as the BPF programs see them. */
#include "bpf/abi/drop_reason.h"
#include "bpf/abi/packet.h"
#include "bpf/abi/steer.h"

unsigned long WeftHeaderBytesInC(void) { return sizeof(struct weft_packet_header); }
unsigned long WeftSteerKeyBytesInC(void) { return sizeof(struct weft_steer_key); }
unsigned long WeftSteerTableBytesInC(void) { return sizeof(struct weft_steer_table); }
int WeftDropReasonCountInC(void) { return WEFT_DROP_REASON_COUNT; }
