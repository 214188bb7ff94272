// SPDX-License-Identifier: Apache-2.0
#include "control/source/kubernetes/kube_source.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

// Functions prepared between two looks at what has come: about a millisecond.
constexpr std::size_t kPrepareMax = 64;

}  // namespace

absl::StatusOr<std::unique_ptr<KubeSource>> KubeSource::Create(KubeOptions kube,
                                                               const KubeWatchOptions& options) {
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<HttpClient> http, HttpClient::Create());
  return std::unique_ptr<KubeSource>(new KubeSource(std::move(kube), options, std::move(http)));
}

KubeSource::KubeSource(KubeOptions kube, const KubeWatchOptions& options, std::unique_ptr<HttpClient> http)
    : http_(std::move(http)),
      access_(kube),
      state_(kube.port),
      statuses_(&access_, http_.get(), options.seed) {
  for (std::size_t kind = 0; kind < kKubeKinds; ++kind) {
    KubeWatchOptions of_kind = options;
    of_kind.seed += kind;
    watches_.push_back(
        std::make_unique<KubeWatch>(static_cast<KubeKind>(kind), of_kind, &access_, http_.get(), &state_));
  }
  watches_[static_cast<std::size_t>(KubeKind::kPolicy)]->SetOnItem(
      [this](const KubeItem& item, bool gone, uint64_t now_ns) {
        if (gone) {
          statuses_.Forget(KubeKind::kPolicy, item.key);
        } else if (item.verdict.has_value()) {
          statuses_.Take(item.key, *item.verdict, now_ns);
        }
      });
}

void KubeSource::AddPollEntries(std::vector<pollfd>* entries) const {
  http_->AddPollEntries(entries);
  access_.AddPollEntries(entries);
}

std::vector<SourceChange> KubeSource::OnEvents(const std::vector<pollfd>& entries, uint64_t now_ns) {
  for (const auto& watch : watches_) watch->SetNow(now_ns);
  http_->OnEvents(entries);
  access_.OnEvents(entries);
  return TakeChanges(now_ns);
}

uint64_t KubeSource::wake_ns() const {
  uint64_t wake_ns = 0;
  const auto earlier = [&wake_ns](uint64_t at_ns) {
    if (at_ns != 0 && (wake_ns == 0 || at_ns < wake_ns)) wake_ns = at_ns;
  };
  earlier(http_->wake_ns());
  earlier(access_.wake_ns());
  earlier(statuses_.wake_ns());
  for (const auto& watch : watches_) earlier(watch->wake_ns());
  if (!spoken_ && state_.unsaid()) earlier(1);
  return wake_ns;
}

std::vector<SourceChange> KubeSource::OnTime(uint64_t now_ns) {
  for (const auto& watch : watches_) watch->SetNow(now_ns);
  http_->OnTime(now_ns);
  access_.OnTime(now_ns);
  for (const auto& watch : watches_) watch->OnTime(now_ns);
  statuses_.OnTime(now_ns);
  // What a list has told so far is made into entries while the server makes its next page.
  if (!spoken_ && state_.unsaid()) prepared_.push_back(state_.Prepare(Name(), kPrepareMax));
  return TakeChanges(now_ns);
}

std::vector<SourceChange> KubeSource::TakeChanges(uint64_t now_ns) {
  std::vector<SourceChange> changes;
  if (!std::all_of(watches_.begin(), watches_.end(), [](const auto& watch) { return watch->listed(); })) {
    return changes;
  }
  route_statuses_.Update(&state_, &statuses_, now_ns);
  if (!state_.changed() && spoken_) {
    // Events that change nothing are no cause of what comes later.
    for (const auto& watch : watches_) (void)watch->TakeCause();
    return changes;
  }
  SourceChange& change = changes.emplace_back();
  change.origin = Name();
  change.cause = absl::StrCat("kubernetes event ", Health().events);
  // The oldest event of those that made it; none where a list did.
  const bool first = !std::exchange(spoken_, true);
  bool by_list = first;
  for (const auto& watch : watches_) {
    const KubeWatch::Cause cause = watch->TakeCause();
    by_list |= cause.by_list;
    if (cause.event_ns != 0 && (change.event_ns == 0 || cause.event_ns < change.event_ns)) {
      change.event_ns = cause.event_ns;
    }
  }
  if (by_list) change.event_ns = 0;
  if (first) prepared_.push_back(state_.PrepareAll(change.origin));
  change.offer = state_.TakeOffer(change.origin);
  return changes;
}

std::vector<std::string> KubeSource::TakeNotes() {
  std::vector<std::string> notes;
  for (const auto& watch : watches_) {
    std::vector<std::string> more = watch->TakeNotes();
    std::move(more.begin(), more.end(), std::back_inserter(notes));
  }
  std::vector<std::string> of_routes = route_statuses_.TakeNotes();
  std::move(of_routes.begin(), of_routes.end(), std::back_inserter(notes));
  if (access_.problem() != told_) {
    told_ = access_.problem();
    if (!told_.empty()) notes.push_back(absl::StrCat("kubernetes: ", told_, "; trying again"));
  }
  return notes;
}

std::string KubeSource::Describe() const {
  return absl::StrCat("kubernetes ", access_.server(), " (", state_.services(), " services)");
}

SourceHealth KubeSource::Health() const {
  SourceHealth health;
  health.synced = true;
  health.refused = state_.refused().size();
  health.problem = access_.problem();
  for (const auto& watch : watches_) {
    health.synced &= watch->synced();
    health.events += watch->events();
    health.errors += watch->errors();
    health.last_event_ns = std::max(health.last_event_ns, watch->last_event_ns());
    health.revision = std::max(health.revision, watch->revision());
    if (watch->lost_ns() != 0 && (health.lost_ns == 0 || watch->lost_ns() < health.lost_ns)) {
      health.lost_ns = watch->lost_ns();
    }
    if (health.problem.empty() && !watch->problem().empty()) {
      health.problem = absl::StrCat(KubeKindName(watch->kind()), ": ", watch->problem());
    }
  }
  if (health.problem.empty()) health.problem = statuses_.problem();
  if (health.problem.empty() && !state_.refused().empty()) health.problem = state_.refused().begin()->second;
  return health;
}

}  // namespace weft::control
