// SPDX-License-Identifier: Apache-2.0
// Follows all objects of one kind at a Kubernetes API server: lists them in pages, then watches from the
// list's version on. A watch that ended goes on at the version of its last event or bookmark; where the
// server has forgotten that one (410), or has gone back behind it, all is listed again. What an empty or
// older list does not hold stays. One thread.
#ifndef WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_WATCH_H_
#define WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_WATCH_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "control/source/http_client.h"
#include "control/source/kubernetes/kube_access.h"
#include "control/source/kubernetes/kube_json.h"
#include "control/source/kubernetes/kube_state.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/random.h"

namespace weft::control {

struct KubeWatchOptions {
  uint64_t seed = 1;  // Of the pauses' jitter
  uint64_t page_entries = 500;
  uint64_t watch_s = 300;  // A watch is begun anew so often, with the token of the day, and jitter.
  // After which one that the server has not ended by then is given up: what stands still in between, as a
  // stopped server or a proxy without one, answers TCP and says nothing.
  uint64_t overdue_ms = 10'000;
  bool allow_shrink = false;
  uint64_t absent_ns = 30 * kNsPerSecond;  // Between two looks for a kind that the server does not know
};

class KubeWatch {
 public:
  // All outlive the watch.
  KubeWatch(KubeKind kind, const KubeWatchOptions& options, KubeAccess* access, HttpClient* http,
            KubeState* state)
      : kind_(kind), options_(options), access_(access), http_(http), state_(state), random_(options.seed) {}
  KubeWatch(const KubeWatch&) = delete;
  KubeWatch& operator=(const KubeWatch&) = delete;
  ~KubeWatch() { Cancel(); }

  uint64_t wake_ns() const {  // CLOCK_MONOTONIC; 0: never
    if (!waiting_.empty()) return 1;
    return access_->ready() ? retry_at_ns_ : 0;
  }
  // Is told of each object that is listed or watched, with the time, and of each that is gone by an event.
  using OnItem = std::function<void(const KubeItem& item, bool gone, uint64_t now_ns)>;
  void SetOnItem(OnItem on_item) { on_item_ = std::move(on_item); }
  // `now_ns` is also the time of what the HTTP client then tells.
  void OnTime(uint64_t now_ns);
  void SetNow(uint64_t now_ns) { now_ns_ = now_ns; }

  bool synced() const { return synced_; }  // It was listed whole, and its watch stands.
  bool listed() const { return listed_; }  // … at some time
  uint64_t events() const { return events_; }
  uint64_t last_event_ns() const { return last_event_ns_; }
  uint64_t errors() const { return errors_; }
  uint64_t lost_ns() const { return lost_ns_; }
  const std::string& problem() const { return problem_; }
  uint64_t revision() const { return revision_; }
  // What came since the last call.
  struct Cause {
    uint64_t event_ns = 0;  // CLOCK_MONOTONIC of the oldest event of the watch; 0: none
    bool by_list = false;   // A list also did.
  };
  Cause TakeCause() { return std::exchange(cause_, {}); }
  KubeKind kind() const { return kind_; }
  std::vector<std::string> TakeNotes() { return std::exchange(notes_, {}); }

 private:
  void Send(const std::string& query, uint64_t timeout_ms, HttpHandlers handlers);
  void List();
  void AskPage();
  // Gathers the answer in `buffer_`.
  HttpHandlers WholeBody(std::function<void(const absl::Status&, long)> done);
  // What was gathered.
  absl::StatusOr<KubePage> PageOf(const absl::Status& status, long code);
  // `body` as a page of the kind.
  absl::StatusOr<KubePage> ReadPage(std::string* body) const;
  void TakePage(const absl::Status& status, long code);
  bool TakeWaiting();
  void EndList();
  void Check();
  void Watch();
  void TakeOpen(long code);
  void TakePiece(absl::string_view piece, long code);
  void TakeLine(absl::string_view line);
  void TakeItems(KubePage* page);
  void TakeItem(KubeItem item);
  void TakeEnd(const absl::Status& status, long code);
  // What the answer with `code` and this body says; OK where it is 200.
  absl::Status StatusOf(const absl::Status& status, long code);
  void ListAgain(const std::string& why);
  void Absent(const std::string& why);
  void Fail(const absl::Status& why);
  void Rest();
  void Note(absl::string_view what);
  void Cancel();

  KubeKind kind_;
  KubeWatchOptions options_;
  KubeAccess* access_;
  HttpClient* http_;
  KubeState* state_;
  Random random_;

  OnItem on_item_;

  HttpClient::RequestId request_ = 0;
  std::string buffer_;          // The body so far; of a watch, the line that has begun
  std::string version_;         // Where the watch goes on; empty: it is to be listed.
  uint64_t revision_ = 0;       // The same as a number, the highest seen; 0 where the server's is none
  std::string next_;            // Of a list under way: the next page
  std::string waiting_;         // … and the page before that, which is read while the server makes the next
  bool check_ = false;          // It failed: whether the server is where it was is asked first.
  uint64_t open_since_ns_ = 0;  // Of the watch; 0: it does not stand.

  bool synced_ = false;
  bool listed_ = false;
  Cause cause_;
  uint64_t now_ns_ = 0;
  uint64_t retry_at_ns_ = 1;  // At once; 0: not waiting
  uint64_t pause_ns_ = 0;
  uint64_t events_ = 0;
  uint64_t last_event_ns_ = 0;
  uint64_t errors_ = 0;
  uint64_t lost_ns_ = 0;
  std::string problem_;
  std::vector<std::string> notes_;
};

}  // namespace weft::control

#endif  // WEFT_CONTROL_SOURCE_KUBERNETES_KUBE_WATCH_H_
