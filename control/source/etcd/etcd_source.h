// SPDX-License-Identifier: Apache-2.0
// The etcd source of weft-control: reads all objects below a prefix in pages of one revision, then watches
// from there. A lost watch goes on where it ended, at the next member; where that is compacted away,
// everything is read again. A read through the same member every few seconds tells a member that is cut off
// from its cluster. An object that cannot be read is told, and what it was before stays. An answer that is
// empty, older, or from another cluster takes nothing back, nor does a later list of the same store what was
// kept so: only an event does. The cluster that was left for another and answers again goes on where it was
// left: what only the other one held goes. What a list brings is said as a whole, what an event brings as the
// difference. One thread.
#ifndef WEFT_CONTROL_SOURCE_ETCD_ETCD_SOURCE_H_
#define WEFT_CONTROL_SOURCE_ETCD_ETCD_SOURCE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/source/etcd/etcd_connection.h"
#include "control/source/etcd/etcd_json.h"
#include "control/source/etcd/etcd_keys.h"
#include "control/source/object_reader.h"
#include "control/source/source.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/random.h"

namespace weft::control {

struct EtcdSourceOptions {
  EtcdOptions etcd;
  uint64_t seed = 1;                     // Of the pauses' jitter
  uint64_t probe_ns = 3 * kNsPerSecond;  // Between two reads through the watched member
  bool allow_shrink = false;             // Whether an answer that is empty, older or foreign may take back.
};

class EtcdSource final : public Source {
 public:
  // `http` outlives the source and is driven by it: nobody else calls its OnEvents().
  EtcdSource(EtcdSourceOptions options, HttpClient* http);

  // Source
  void AddPollEntries(std::vector<pollfd>* entries) const override { http_->AddPollEntries(entries); }
  std::vector<SourceChange> OnEvents(const std::vector<pollfd>& entries, uint64_t now_ns) override;
  uint64_t wake_ns() const override;
  std::vector<SourceChange> OnTime(uint64_t now_ns) override;
  bool Owns(absl::string_view origin) const override { return origin == origin_; }
  bool ReadsAtStart() const override { return false; }
  std::vector<std::string> TakeNotes() override { return std::exchange(notes_, {}); }
  std::string Name() const override { return origin_; }
  std::string Describe() const override;
  SourceHealth Health() const override;

 private:
  // A store as it was when another one answered in its place.
  struct Left {
    uint64_t cluster = 0;  // 0: none was left.
    int64_t revision = 0;
    SaidSet kept;  // What was kept then, but for what an event has named since
  };

  void List();
  void TakePage(absl::StatusOr<std::string> reply);
  void EndList();
  // Puts what stays though the list does not hold it among `listed_`.
  void KeepUnlisted();
  void Watch();
  void TakeLine(absl::string_view line);
  void Probe();
  void TakeProbe(const absl::StatusOr<std::string>& reply, int64_t revision_before);
  // Takes what stands at a key now, from the list under way or from an event. Where it cannot be read, what
  // stood there before stays.
  void Put(const EtcdEntry& entry, bool listing);
  void Delete(const std::string& key);
  // What stands at `key`; INVALID_ARGUMENT says why it cannot be read.
  absl::StatusOr<EntryPtr> EntryOf(const std::string& key, const std::string& value);
  // `key` says `after` from now on; null: nothing.
  void Change(const EntryPtr& key, const EntryPtr& after);
  void Fail(const absl::Status& why);
  std::vector<SourceChange> TakeChanges();
  std::string Prefixed(absl::string_view key) const;

  EtcdSourceOptions options_;
  HttpClient* http_;
  EtcdConnection watch_;
  EtcdConnection probe_;
  Random random_;
  std::string origin_;

  SaidSet objects_;
  SaidSet kept_;  // Those of them that no list since has held, and no event named
  std::map<std::string, std::string> refused_;  // By key: why what stands there cannot be read.
  int64_t revision_ = 0;                        // All events up to this one are in `objects_`.
  uint64_t cluster_ = 0;                        // 0: none was read yet.
  Left left_;

  // Of a list under way.
  SaidSet listed_;
  std::map<std::string, std::string> listed_refused_;
  int64_t list_revision_ = 0;
  uint64_t list_cluster_ = 0;

  bool synced_ = false;
  // Since the last TakeChanges()
  bool relisted_ = false;
  absl::flat_hash_map<EntryPtr, EntryPtr, SaidHash, SaidEq>
      changes_;            // What is said of each key; null: nothing
  uint64_t event_ns_ = 0;  // Of the oldest event; 0: none
  uint64_t now_ns_ = 0;
  uint64_t retry_at_ns_ = 1;  // At once; 0: not waiting
  uint64_t pause_ns_ = 0;
  uint64_t probe_at_ns_ = 0;
  uint64_t events_ = 0;
  uint64_t last_event_ns_ = 0;
  uint64_t errors_ = 0;
  uint64_t lost_ns_ = 0;
  std::string problem_;
  std::vector<std::string> notes_;
  ObjectReader reader_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_ETCD_ETCD_SOURCE_H_
