// SPDX-License-Identifier: Apache-2.0
// The messages of etcd's JSON gateway (v3), as far as weft speaks it: what is asked as text, what is answered
// from text. 64-bit numbers are JSON strings there, keys and values base64. Pure; any thread.
#ifndef WEFT_CONTROL_SOURCE_ETCD_ETCD_JSON_H_
#define WEFT_CONTROL_SOURCE_ETCD_ETCD_JSON_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace weft::control {

struct EtcdRange {
  std::string key;
  std::string range_end;  // Empty: `key` alone.
  int64_t revision = 0;   // 0: now
  int64_t limit = 0;      // 0: all
};

struct EtcdEntry {
  std::string key;
  std::string value;
  int64_t mod_revision = 0;
  int64_t lease = 0;
};

struct EtcdRangeReply {
  int64_t revision = 0;  // Of the whole store
  uint64_t cluster = 0;
  bool more = false;
  std::vector<EtcdEntry> entries;
};

struct EtcdEvent {
  bool deleted = false;
  EtcdEntry entry;  // Without a value where deleted.
};

// One line of a watch.
struct EtcdWatchReply {
  int64_t revision = 0;
  uint64_t cluster = 0;
  bool created = false;
  bool cancelled = false;
  std::string reason;            // Of the cancellation
  int64_t compact_revision = 0;  // Not 0: what was asked for is compacted away up to here.
  std::vector<EtcdEvent> events;
};

struct EtcdCompare {
  enum class Target : uint8_t { kCreateRevision, kModRevision, kLease };
  Target target = Target::kModRevision;
  std::string key;
  int64_t equals = 0;
};

struct EtcdOp {
  bool remove = false;
  std::string key;
  std::string value;
  int64_t lease = 0;  // 0: none
};

// Bodies of POST requests; the path is in the name's comment.
std::string EtcdRangeJson(const EtcdRange& range);                               // /v3/kv/range
std::string EtcdWatchJson(const std::string& key, const std::string& range_end,  // /v3/watch
                          int64_t start_revision);
std::string EtcdTxnJson(const std::vector<EtcdCompare>& compares,  // /v3/kv/txn
                        const std::vector<EtcdOp>& ops);
std::string EtcdGrantJson(int64_t ttl_s);  // /v3/lease/grant
std::string EtcdLeaseJson(int64_t lease);  // /v3/lease/keepalive, …/revoke
std::string EtcdLoginJson(const std::string& user, const std::string& password);  // /v3/auth/authenticate

// Answers. Text that is none is INTERNAL; an error that etcd sends has etcd's code and words.
absl::StatusOr<EtcdRangeReply> ParseEtcdRange(absl::string_view text);
absl::StatusOr<EtcdWatchReply> ParseEtcdWatch(absl::string_view text);
struct EtcdTxnReply {
  bool succeeded = false;
  int64_t revision = 0;
};
absl::StatusOr<EtcdTxnReply> ParseEtcdTxn(absl::string_view text);
struct EtcdLeaseReply {
  int64_t id = 0;
  int64_t ttl_s = 0;  // Of a keep-alive: 0 where the lease is gone.
};
absl::StatusOr<EtcdLeaseReply> ParseEtcdLease(absl::string_view text);
absl::StatusOr<std::string> ParseEtcdToken(absl::string_view text);

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_ETCD_ETCD_JSON_H_
