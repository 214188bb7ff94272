// SPDX-License-Identifier: Apache-2.0
#include "tests/support/etcd.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <optional>

#include "absl/strings/str_cat.h"
#include "control/source/etcd_connection.h"
#include "dataplane/base/check.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/fd.h"

namespace weft::test {
namespace {

// What tools/setup fetched, else the machine's own. Empty: there is none.
std::string EtcdProgram() {
  for (const char* path : {WEFT_SOURCE_DIR "/build/programs/etcd", "/usr/bin/etcd"}) {
    if (access(path, X_OK) == 0) return path;
  }
  return "";
}

// A port that was free a moment ago.
int FreePort() {
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  WEFT_CHECK(bind(socket.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
  WEFT_CHECK(getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
  return ntohs(address.sin_port);
}

std::string RangeOf(const std::string& key) {
  control::EtcdRange range;
  range.key = key;
  return control::EtcdRangeJson(range);
}

}  // namespace

bool Etcd::Installed() { return !EtcdProgram().empty(); }

Etcd::Etcd(const NetworkNamespace* network, const std::string& address) : network_(network) {
  const std::unique_ptr<InNamespace> inside = Inside();
  url_ = absl::StrCat("http://", address, ":", FreePort());
  peer_url_ = absl::StrCat("http://127.0.0.1:", FreePort());
  absl::StatusOr<std::unique_ptr<control::HttpClient>> http = control::HttpClient::Create();
  WEFT_CHECK(http.ok());
  http_ = *std::move(http);
  Start();
}

std::unique_ptr<InNamespace> Etcd::Inside() const {
  return network_ == nullptr ? nullptr : std::make_unique<InNamespace>(*network_);
}

void Etcd::Start() {
  const std::unique_ptr<InNamespace> inside = Inside();
  ProcessOptions options;
  options.arguments = {EtcdProgram(),
                       "--name=t",
                       absl::StrCat("--data-dir=", directory_ / "data"),
                       absl::StrCat("--listen-client-urls=", url_),
                       absl::StrCat("--advertise-client-urls=", url_),
                       absl::StrCat("--listen-peer-urls=", peer_url_),
                       absl::StrCat("--initial-advertise-peer-urls=", peer_url_),
                       absl::StrCat("--initial-cluster=t=", peer_url_),
                       absl::StrCat("--initial-cluster-token=", directory_.path(),
                                    std::filesystem::exists(directory_ / "data") ? 0 : ++starts_),
                       "--unsafe-no-fsync"};
  options.log = absl::StrCat(directory_ / "log");
  process_ = std::make_unique<Process>(options);
  const bool up = Eventually([this] { return Ask("/health", "").ok(); }, absl::Seconds(20));
  if (!up) std::fprintf(stderr, "%s\n", process_->Output().c_str());
  WEFT_CHECK(up);
}

void Etcd::Forget() { std::filesystem::remove_all(directory_ / "data"); }

absl::StatusOr<std::string> Etcd::Ask(const std::string& path, const std::string& body) {
  const std::unique_ptr<InNamespace> inside = Inside();
  control::EtcdOptions options;
  options.endpoints = {url_};
  control::EtcdConnection connection(&options, http_.get());
  std::optional<absl::StatusOr<std::string>> answer;
  connection.Call(path, body, [&answer](absl::StatusOr<std::string> reply) { answer = std::move(reply); });
  while (!answer.has_value()) {
    http_->OnTime(NowNs());
    std::vector<pollfd> entries;
    http_->AddPollEntries(&entries);
    poll(entries.data(), entries.size(), 1);
    http_->OnEvents(entries);
  }
  return *std::move(answer);
}

void Etcd::Put(const std::string& key, const std::string& value) {
  WEFT_CHECK(Ask("/v3/kv/txn", control::EtcdTxnJson({}, {{false, key, value, 0}})).ok());
}

void Etcd::Delete(const std::string& key) {
  WEFT_CHECK(Ask("/v3/kv/txn", control::EtcdTxnJson({}, {{true, key, "", 0}})).ok());
}

std::string Etcd::Get(const std::string& key) {
  const absl::StatusOr<std::string> reply = Ask("/v3/kv/range", RangeOf(key));
  WEFT_CHECK(reply.ok());
  const absl::StatusOr<control::EtcdRangeReply> range = control::ParseEtcdRange(*reply);
  WEFT_CHECK(range.ok());
  return range->entries.empty() ? "" : range->entries.front().value;
}

void Etcd::Compact() {
  const absl::StatusOr<control::EtcdRangeReply> range =
      control::ParseEtcdRange(*Ask("/v3/kv/range", RangeOf("/up")));
  WEFT_CHECK(range.ok());
  WEFT_CHECK(
      Ask("/v3/kv/compaction", absl::StrCat("{\"revision\":\"", range->revision, "\",\"physical\":true}"))
          .ok());
}

}  // namespace weft::test
