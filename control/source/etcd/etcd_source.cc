// SPDX-License-Identifier: Apache-2.0
#include "control/source/etcd/etcd_source.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "dataplane/base/status.h"

namespace weft::control {
namespace {

constexpr int64_t kPageEntries = 2'000;
constexpr uint64_t kPauseMinNs = 20 * kNsPerMs;
constexpr uint64_t kPauseMaxNs = 2 * kNsPerSecond;

}  // namespace

EtcdSource::EtcdSource(EtcdSourceOptions options, HttpClient* http)
    : options_(std::move(options)),
      http_(http),
      watch_(&options_.etcd, http),
      probe_(&options_.etcd, http),
      random_(options_.seed),
      origin_(absl::StrCat("etcd:", options_.etcd.prefix)) {}

std::vector<SourceChange> EtcdSource::OnEvents(const std::vector<pollfd>& entries, uint64_t now_ns) {
  now_ns_ = now_ns;
  http_->OnEvents(entries);
  return TakeChanges();
}

uint64_t EtcdSource::wake_ns() const {
  uint64_t wake_ns = 0;
  for (const uint64_t at_ns : {retry_at_ns_, probe_at_ns_, http_->wake_ns()}) {
    if (at_ns != 0 && (wake_ns == 0 || at_ns < wake_ns)) wake_ns = at_ns;
  }
  return wake_ns;
}

std::vector<SourceChange> EtcdSource::OnTime(uint64_t now_ns) {
  now_ns_ = now_ns;
  http_->OnTime(now_ns);
  if (retry_at_ns_ != 0 && now_ns >= retry_at_ns_) {
    retry_at_ns_ = 0;
    if (revision_ == 0) {
      List();
    } else {
      Watch();
    }
  }
  if (probe_at_ns_ != 0 && now_ns >= probe_at_ns_) Probe();
  return TakeChanges();
}

// Pauses grow from 20 ms to 2 s, each cut by up to a half at random; each goes to another member.
void EtcdSource::Fail(const absl::Status& why) {
  const std::string problem(why.message());
  if (problem != problem_) notes_.push_back(absl::StrCat(origin_, ": ", problem, "; trying again"));
  problem_ = problem;
  ++errors_;
  if (synced_) lost_ns_ = now_ns_;
  synced_ = false;
  probe_at_ns_ = 0;
  watch_.Cancel();
  probe_.Cancel();
  watch_.Rotate();
  probe_.Rotate();
  pause_ns_ = std::clamp(pause_ns_ * 2, kPauseMinNs, kPauseMaxNs);
  retry_at_ns_ = now_ns_ + pause_ns_ - random_.Below(pause_ns_ / 2);
}

std::string EtcdSource::Prefixed(absl::string_view key) const {
  return absl::StrCat(options_.etcd.prefix, key);
}

void EtcdSource::List() {
  // A list that takes longer than until the next probe must not be begun again by it.
  probe_at_ns_ = 0;
  listed_.clear();
  listed_refused_.clear();
  list_revision_ = 0;
  EtcdRange range;
  range.key = options_.etcd.prefix;
  range.range_end = EtcdPrefixEnd(options_.etcd.prefix);
  range.limit = kPageEntries;
  watch_.Call("/v3/kv/range", EtcdRangeJson(range),
              [this](absl::StatusOr<std::string> reply) { TakePage(std::move(reply)); });
}

void EtcdSource::TakePage(absl::StatusOr<std::string> reply) {
  if (!reply.ok()) return Fail(reply.status());
  const absl::StatusOr<EtcdRangeReply> page = ParseEtcdRange(*reply);
  if (!page.ok()) return Fail(page.status());
  if (list_revision_ == 0) {
    list_revision_ = page->revision;
    list_cluster_ = page->cluster;
  }
  for (const EtcdEntry& entry : page->entries) Put(entry, true);
  if (!page->more || page->entries.empty()) return EndList();
  EtcdRange range;
  range.key = page->entries.back().key + '\0';  // The key behind the last one
  range.range_end = EtcdPrefixEnd(options_.etcd.prefix);
  range.limit = kPageEntries;
  range.revision = list_revision_;
  watch_.Call("/v3/kv/range", EtcdRangeJson(range),
              [this](absl::StatusOr<std::string> next) { TakePage(std::move(next)); });
}

void EtcdSource::KeepUnlisted() {
  const bool back = cluster_ != 0 && list_cluster_ == left_.cluster;
  const bool foreign = cluster_ != 0 && list_cluster_ != cluster_ && !back;
  const int64_t revision_before = back ? left_.revision : revision_;
  const bool older = !foreign && list_revision_ < revision_before;  // Those of two stores do not compare.
  const bool empty = listed_.empty() && !objects_.empty();
  const bool less = foreign || older || empty;
  if (foreign) left_ = {cluster_, revision_, kept_};
  SaidSet kept;
  for (const EntryPtr& held : less ? objects_ : back ? left_.kept : kept_) {
    if (listed_.insert(held).second) kept.insert(held);
  }
  kept_ = std::move(kept);
  if (back) left_ = {};
  if (less) {
    const std::string why = foreign ? "another cluster answers"
                            : older ? absl::StrCat("went back in time from revision ", revision_before)
                                    : "is empty";
    notes_.push_back(
        absl::StrCat(origin_, ": ", why, " (revision ", list_revision_, "): keeping ", kept_.size(),
                     " objects that it does not hold; start with --allow-shrink if they are to go"));
  }
}

void EtcdSource::EndList() {
  if (!options_.allow_shrink) KeepUnlisted();
  objects_ = std::exchange(listed_, {});
  refused_ = std::exchange(listed_refused_, {});
  revision_ = list_revision_;
  cluster_ = list_cluster_;
  relisted_ = true;
  changes_.clear();
  Watch();
}

void EtcdSource::Watch() {
  watch_.Stream(
      "/v3/watch", EtcdWatchJson(options_.etcd.prefix, EtcdPrefixEnd(options_.etcd.prefix), revision_ + 1),
      [this](absl::string_view line) { TakeLine(line); },
      [this](const absl::StatusOr<std::string>& end) { Fail(end.status()); });
}

void EtcdSource::TakeLine(absl::string_view line) {
  const absl::StatusOr<EtcdWatchReply> reply = ParseEtcdWatch(line);
  if (!reply.ok()) return Fail(reply.status());
  if (reply->compact_revision != 0 ||
      (reply->created && (reply->revision < revision_ || reply->cluster != cluster_))) {
    // What came between is not to be had, or the store is another one than it was.
    notes_.push_back(
        absl::StrCat(origin_, ": the watch cannot go on from revision ", revision_, "; reading all again"));
    return List();
  }
  if (reply->cancelled) {
    // Also for want of a good token: a watch that begins anew has the old one, and etcd says so only here.
    watch_.ForgetToken();
    return Fail(absl::UnavailableError(absl::StrCat("the watch was cancelled: ", reply->reason)));
  }
  if (reply->created) {
    synced_ = true;
    lost_ns_ = 0;
    problem_.clear();
    pause_ns_ = 0;
    probe_at_ns_ = now_ns_ + options_.probe_ns;
  }
  for (const EtcdEvent& event : reply->events) {
    ++events_;
    last_event_ns_ = now_ns_;
    if (event_ns_ == 0) event_ns_ = now_ns_;
    // Not the header's revision: a watcher that catches up is told of the present with the past.
    revision_ = std::max(revision_, event.entry.mod_revision);
    if (event.deleted) {
      Delete(std::string(absl::StripPrefix(event.entry.key, options_.etcd.prefix)));
    } else {
      Put(event.entry, false);
    }
  }
  if (reply->events.empty()) revision_ = std::max(revision_, reply->revision);  // A notice of progress
}

absl::StatusOr<EntryPtr> EtcdSource::EntryOf(const std::string& key, const std::string& value) {
  WEFT_ASSIGN_OR_RETURN(EtcdName name, ParseEtcdKey(key));
  WEFT_RETURN_IF_ERROR(reader_.Read(value, Prefixed(key), &name.object));
  return EntryOfObject(name.object, name.live);
}

void EtcdSource::Put(const EtcdEntry& entry, bool listing) {
  const std::string key(absl::StripPrefix(entry.key, options_.etcd.prefix));
  absl::StatusOr<EntryPtr> read = EntryOf(key, entry.value);
  if (read.ok()) {
    refused_.erase(key);
    if (!listing) return Change(*read, *read);
    // One copy of what is the same
    const auto before = objects_.find(*read);
    listed_.insert(before != objects_.end() && SameValue(*before, *read) ? *before : *std::move(read));
    return;
  }
  const absl::Status& status = read.status();
  const std::string why = absl::StrContains(status.message(), key)
                              ? std::string(status.message())
                              : absl::StrCat(Prefixed(key), ": ", status.message());
  ++errors_;
  if (refused_[key] != why) notes_.push_back(absl::StrCat(origin_, ": not taken: ", why));
  (listing ? listed_refused_ : refused_)[key] = why;
  if (!listing) return;
  const absl::StatusOr<EtcdName> name = ParseEtcdKey(key);
  if (!name.ok()) return;
  const auto before = objects_.find(EntryOfObject(name->object, name->live));
  if (before != objects_.end()) listed_.insert(*before);
}

void EtcdSource::Delete(const std::string& key) {
  refused_.erase(key);
  if (const absl::StatusOr<EtcdName> name = ParseEtcdKey(key); name.ok()) {
    Change(EntryOfObject(name->object, name->live), nullptr);
  }
}

void EtcdSource::Change(const EntryPtr& key, const EntryPtr& after) {
  kept_.erase(key);
  left_.kept.erase(key);
  const auto before = objects_.find(key);
  if (SameValue(before == objects_.end() ? nullptr : *before, after)) return;
  if (before != objects_.end()) objects_.erase(before);
  if (after != nullptr) objects_.insert(after);
  changes_.insert_or_assign(key, after);
}

// Linearizable, so that a member that has lost its leader does not answer.
void EtcdSource::Probe() {
  probe_at_ns_ = now_ns_ + options_.probe_ns;
  if (probe_.busy()) return Fail(absl::UnavailableError(absl::StrCat(probe_.member(), " does not answer")));
  EtcdRange range;
  range.key = options_.etcd.prefix;  // That one key alone, which nobody writes.
  probe_.Call(
      "/v3/kv/range", EtcdRangeJson(range),
      [this, before = revision_](const absl::StatusOr<std::string>& reply) { TakeProbe(reply, before); });
}

void EtcdSource::TakeProbe(const absl::StatusOr<std::string>& reply, int64_t revision_before) {
  if (!reply.ok()) return Fail(reply.status());
  const absl::StatusOr<EtcdRangeReply> range = ParseEtcdRange(*reply);
  if (!range.ok()) return Fail(range.status());
  if (range->cluster != cluster_ || range->revision < revision_before) {
    notes_.push_back(absl::StrCat(origin_, ": the store is another one than it was; reading all again"));
    List();
  }
}

std::vector<SourceChange> EtcdSource::TakeChanges() {
  std::vector<SourceChange> changes;
  const uint64_t event_ns = std::exchange(event_ns_, 0);
  const bool relisted = std::exchange(relisted_, false);
  if (!relisted && event_ns == 0) return changes;
  SourceChange& change = changes.emplace_back();
  change.origin = origin_;
  change.cause = absl::StrCat("etcd revision ", revision_);
  change.event_ns = relisted ? 0 : event_ns;
  change.offer.origin = origin_;
  change.offer.open = true;
  change.offer.allow_shrink = !relisted || options_.allow_shrink;  // An event that deletes means it.
  change.offer.whole = relisted;
  if (relisted) {
    change.offer.said.assign(objects_.begin(), objects_.end());
  } else {
    for (const auto& [key, after] : changes_) {
      (after != nullptr ? change.offer.said : change.offer.unsaid).push_back(after != nullptr ? after : key);
    }
  }
  changes_.clear();
  return changes;
}

std::string EtcdSource::Describe() const {
  return absl::StrCat("etcd ", watch_.member(), " ", options_.etcd.prefix, " (", objects_.size(), " objects",
                      kept_.empty() ? "" : absl::StrCat(", ", kept_.size(), " of them kept"), ")");
}

SourceHealth EtcdSource::Health() const {
  SourceHealth health;
  health.synced = synced_;
  health.events = events_;
  health.last_event_ns = last_event_ns_;
  health.revision = static_cast<uint64_t>(revision_);
  health.refused = refused_.size();
  health.errors = errors_;
  health.lost_ns = lost_ns_;
  health.problem = !problem_.empty() ? problem_ : !refused_.empty() ? refused_.begin()->second : "";
  return health;
}

}  // namespace weft::control
