// SPDX-License-Identifier: Apache-2.0
// One weft-control's etcd source and presence, driven by a test as the daemon's loop would.
#ifndef WEFT_TESTS_CONTROL_SOURCE_ETCD_LOOP_H_
#define WEFT_TESTS_CONTROL_SOURCE_ETCD_LOOP_H_

#include <poll.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "control/source/etcd/etcd_presence.h"
#include "control/source/etcd/etcd_source.h"
#include "control/source/http_client.h"
#include "dataplane/base/clock.h"
#include "tests/control/source/said_mesh.h"
#include "tests/control/source/source_turn.h"
#include "tests/support/turns.h"

namespace weft::control {

class EtcdLoop {
 public:
  explicit EtcdLoop(const EtcdOptions& etcd, uint64_t lease_s = 2) : http_(*HttpClient::Create()) {
    EtcdSourceOptions options;
    options.etcd = etcd;
    options.probe_ns = 200 * kNsPerMs;
    source_ = std::make_unique<EtcdSource>(options, http_.get());
    EtcdPresenceOptions presence;
    presence.etcd = etcd;
    presence.address = "10.0.0.1:4810";
    presence.lease_s = lease_s;
    presence_ = std::make_unique<EtcdPresence>(presence, http_.get());
  }

  void Turn() {
    presence_->OnTime(NowNs());
    TurnSource(*source_, [this](std::vector<SourceChange> changes) { Take(std::move(changes)); });
    for (const std::string& note : source_->TakeNotes()) absl::StrAppend(&notes_, note, "\n");
    for (const std::string& note : presence_->TakeNotes()) absl::StrAppend(&notes_, note, "\n");
  }
  template <typename Done>
  bool RunUntil(Done&& done, uint64_t timeout_ns = 20 * kNsPerSecond) {
    return test::TurnUntil([&] { Turn(); }, done, timeout_ns);
  }
  void RunFor(uint64_t ns) {
    RunUntil([] { return false; }, ns);
  }
  // Until it is in step with etcd and holds these nodes.
  bool RunUntilNodes(const std::vector<std::string>& nodes) {
    return RunUntil([&] { return source_->Health().synced && nodes_ == nodes; });
  }

  EtcdSource& source() { return *source_; }
  EtcdPresence& presence() { return *presence_; }
  const std::vector<std::string>& nodes() const { return nodes_; }
  const std::set<std::string>& zones() const { return zones_; }
  std::size_t fewest() const { return fewest_; }  // Nodes that were said at any time
  const std::string& notes() const { return notes_; }

 private:
  void Take(std::vector<SourceChange> changes) {
    for (const SourceChange& change : changes) {
      nodes_.clear();
      zones_.clear();
      said_.Take(change.offer);
      for (const auto& node : said_.mesh().nodes) {
        nodes_.push_back(node.value.name());
        zones_.insert(node.value.zone());
      }
      std::sort(nodes_.begin(), nodes_.end());
      fewest_ = std::min(fewest_, nodes_.size());
    }
  }

  std::unique_ptr<HttpClient> http_;
  std::unique_ptr<EtcdSource> source_;
  std::unique_ptr<EtcdPresence> presence_;
  SaidMesh said_;
  std::vector<std::string> nodes_;
  std::set<std::string> zones_;
  std::size_t fewest_ = SIZE_MAX;
  std::string notes_;
};

}  // namespace weft::control

#endif  // WEFT_TESTS_CONTROL_SOURCE_ETCD_LOOP_H_
