// SPDX-License-Identifier: Apache-2.0
#include "tools/weftctl/policy_store.h"

#include <poll.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "control/config/control_config.h"
#include "control/source/etcd/etcd_json.h"
#include "control/source/etcd/etcd_keys.h"
#include "control/source/mesh_yaml.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"

namespace weft::ctl {
namespace {

constexpr int64_t kPageEntries = 2'000;
constexpr int kWaitMsMax = 1'000;
constexpr std::size_t kChangedShownMax = 5;

constexpr char kWhatIsNeeded[] =
    "this is for policy in etcd: --config FILE names a weft-control.yaml whose `etcd` section says where it "
    "is. Without etcd, policy stands in mesh files, which are edited in place";

StoredObject ObjectOf(const control::EtcdEntry& entry, const std::string& prefix) {
  StoredObject stored;
  stored.key = std::string(absl::StripPrefix(entry.key, prefix));
  stored.value = entry.value;
  stored.revision = entry.mod_revision;
  absl::StatusOr<control::EtcdName> name = control::ParseEtcdKey(stored.key);
  absl::Status status = name.status();
  if (status.ok()) {
    stored.live = name->live;
    status = control::LoadObject(entry.value, entry.key, &name->object);
  }
  if (status.ok()) {
    stored.object = std::move(name->object);
  } else {
    stored.problem = std::string(status.message());
  }
  return stored;
}

int WaitMs(uint64_t wake_ns) {
  if (wake_ns == 0) return kWaitMsMax;
  const uint64_t now_ns = NowNs();
  if (wake_ns <= now_ns) return 0;
  return static_cast<int>(std::min<uint64_t>((wake_ns - now_ns) / kNsPerMs + 1, kWaitMsMax));
}

}  // namespace

absl::StatusOr<std::unique_ptr<PolicyStore>> PolicyStore::Open(const std::string& config_path) {
  absl::StatusOr<control::ControlConfig> config = control::LoadControlConfig(config_path);
  if (absl::IsNotFound(config.status()) || absl::IsPermissionDenied(config.status())) {
    return absl::Status(config.status().code(), absl::StrCat(config.status().message(), "; ", kWhatIsNeeded));
  }
  if (!config.ok()) return config.status();
  if (!config->etcd.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat(config_path, " has no `etcd` section; ", kWhatIsNeeded));
  }
  WEFT_ASSIGN_OR_RETURN(std::unique_ptr<control::HttpClient> http, control::HttpClient::Create());
  return std::unique_ptr<PolicyStore>(new PolicyStore(*std::move(config->etcd), std::move(http)));
}

// Every request ends by itself: HttpRequest::timeout_ms.
absl::StatusOr<std::string> PolicyStore::Ask(const std::string& path, const std::string& body) {
  std::optional<absl::StatusOr<std::string>> answer;
  connection_.Call(path, body, [&answer](absl::StatusOr<std::string> reply) { answer = std::move(reply); });
  while (!answer.has_value()) {
    http_->OnTime(NowNs());
    std::vector<pollfd> entries;
    http_->AddPollEntries(&entries);
    poll(entries.data(), entries.size(), WaitMs(http_->wake_ns()));
    http_->OnEvents(entries);
  }
  return *std::move(answer);
}

absl::StatusOr<std::vector<StoredObject>> PolicyStore::List() {
  std::vector<StoredObject> objects;
  control::EtcdRange range;
  range.key = options_.prefix;
  range.range_end = control::EtcdPrefixEnd(options_.prefix);
  range.limit = kPageEntries;
  for (std::size_t silent = 0;;) {
    const absl::StatusOr<std::string> reply = Ask("/v3/kv/range", control::EtcdRangeJson(range));
    if (absl::IsUnavailable(reply.status()) && ++silent < options_.endpoints.size()) {
      connection_.Rotate();
      continue;
    }
    if (!reply.ok()) return reply.status();
    WEFT_ASSIGN_OR_RETURN(const control::EtcdRangeReply page, control::ParseEtcdRange(*reply));
    range.revision = page.revision;
    for (const control::EtcdEntry& entry : page.entries) objects.push_back(ObjectOf(entry, options_.prefix));
    if (!page.more || page.entries.empty()) return objects;
    range.key = page.entries.back().key + '\0';
  }
}

absl::StatusOr<int64_t> PolicyStore::Commit(const std::vector<PolicyWrite>& writes) {
  int64_t revision = 0;
  for (std::size_t begin = 0; begin < writes.size(); begin += kWritesMax) {
    const std::size_t end = std::min(begin + kWritesMax, writes.size());
    const absl::StatusOr<int64_t> committed = CommitSome({writes.begin() + static_cast<std::ptrdiff_t>(begin),
                                                          writes.begin() + static_cast<std::ptrdiff_t>(end)});
    if (!committed.ok()) {
      return absl::Status(committed.status().code(),
                          absl::StrCat(committed.status().message(), "; ", begin, " of ", writes.size(),
                                       " objects were written before"));
    }
    revision = *committed;
  }
  return revision;
}

absl::StatusOr<int64_t> PolicyStore::CommitSome(const std::vector<PolicyWrite>& writes) {
  std::vector<control::EtcdCompare> compares;
  std::vector<control::EtcdOp> ops;
  for (const PolicyWrite& write : writes) {
    const std::string key = Prefixed(write.key);
    compares.push_back({control::EtcdCompare::Target::kModRevision, key, write.revision_before});
    ops.push_back({write.remove, key, write.value, 0});
  }
  const absl::StatusOr<std::string> reply = Ask("/v3/kv/txn", control::EtcdTxnJson(compares, ops));
  if (absl::IsUnavailable(reply.status())) {
    return absl::UnavailableError(absl::StrCat(
        reply.status().message(), "; whether this was written is not known: look, and do it again"));
  }
  if (!reply.ok()) return reply.status();
  WEFT_ASSIGN_OR_RETURN(const control::EtcdTxnReply txn, control::ParseEtcdTxn(*reply));
  if (!txn.succeeded) return WhatChanged(writes);
  return txn.revision;
}

absl::Status PolicyStore::WhatChanged(const std::vector<PolicyWrite>& writes) {
  std::vector<std::string> changed;
  WEFT_ASSIGN_OR_RETURN(const std::vector<StoredObject> now, List());
  for (const PolicyWrite& write : writes) {
    const auto it =
        std::lower_bound(now.begin(), now.end(), write.key,
                         [](const StoredObject& a, const std::string& key) { return a.key < key; });
    const int64_t revision = it != now.end() && it->key == write.key ? it->revision : 0;
    if (revision == write.revision_before) continue;
    changed.push_back(absl::StrCat(
        write.key, revision == 0 ? " is gone" : absl::StrCat(" is at revision ", revision), ", not ",
        write.revision_before == 0 ? "missing" : absl::StrCat("at ", write.revision_before)));
  }
  const std::size_t count = changed.size();
  if (count > kChangedShownMax) changed.resize(kChangedShownMax);
  return absl::AbortedError(absl::StrCat("changed meanwhile: ", absl::StrJoin(changed, "; "),
                                         count > kChangedShownMax ? "; …" : "", "; nothing was written"));
}

}  // namespace weft::ctl
