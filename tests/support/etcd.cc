// SPDX-License-Identifier: Apache-2.0
#include "tests/support/etcd.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "control/source/etcd/etcd_connection.h"
#include "control/source/etcd/etcd_keys.h"
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

std::string RangeOf(const std::string& key) {
  control::EtcdRange range;
  range.key = key;
  return control::EtcdRangeJson(range);
}

}  // namespace

// Below those that the kernel gives to whoever connects, in this test or another: one of those may be taken
// before the server listens there.
int FreePort() {
  static std::mt19937 random(std::random_device{}());
  for (;;) {
    const int port = std::uniform_int_distribution<int>(15'000, 30'000)(random);
    const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    if (bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) return port;
    WEFT_CHECK(errno == EADDRINUSE);
  }
}

bool Etcd::Installed() { return !EtcdProgram().empty(); }

Etcd::Etcd(EtcdSettings settings) : settings_(std::move(settings)) {
  const std::unique_ptr<InNamespace> inside = Inside();
  const char* scheme = settings_.server.certificate.empty() ? "http://" : "https://";
  url_ = absl::StrCat(scheme, settings_.address, ":", FreePort());
  if (settings_.peer_url.empty()) {
    settings_.peer_url = absl::StrCat("http://127.0.0.1:", FreePort());
    settings_.members = absl::StrCat(settings_.name, "=", settings_.peer_url);
  }
  absl::StatusOr<std::unique_ptr<control::HttpClient>> http = control::HttpClient::Create();
  WEFT_CHECK(http.ok());
  http_ = *std::move(http);
  Start();
}

std::unique_ptr<InNamespace> Etcd::Inside() const {
  return settings_.network == nullptr ? nullptr : std::make_unique<InNamespace>(*settings_.network);
}

void Etcd::Start() {
  const std::unique_ptr<InNamespace> inside = Inside();
  const bool alone = !absl::StrContains(settings_.members, ",");
  ProcessOptions options;
  options.arguments = {
      EtcdProgram(), absl::StrCat("--name=", settings_.name),
      absl::StrCat("--data-dir=", directory_ / "data"), absl::StrCat("--listen-client-urls=", url_),
      absl::StrCat("--advertise-client-urls=", url_), absl::StrCat("--listen-peer-urls=", settings_.peer_url),
      absl::StrCat("--initial-advertise-peer-urls=", settings_.peer_url),
      absl::StrCat("--initial-cluster=", settings_.members), "--unsafe-no-fsync",
      // Of one member: another start without its data is another cluster.
      absl::StrCat("--initial-cluster-token=",
                   alone ? absl::StrCat(directory_.path(),
                                        std::filesystem::exists(directory_ / "data") ? 0 : ++starts_)
                         : settings_.members)};
  if (!settings_.server.certificate.empty()) {
    options.arguments.insert(options.arguments.end(),
                             {absl::StrCat("--cert-file=", settings_.server.certificate),
                              absl::StrCat("--key-file=", settings_.server.key), "--client-cert-auth",
                              absl::StrCat("--trusted-ca-file=", settings_.server.ca)});
  }
  options.arguments.insert(options.arguments.end(), settings_.arguments.begin(), settings_.arguments.end());
  options.log = absl::StrCat(directory_ / "log");
  process_ = std::make_unique<Process>(options);
  if (alone) WaitUntilUp();
}

void Etcd::WaitUntilUp() {
  const bool up = Eventually([this] { return Ask("/v3/kv/range", RangeOf("/up")).ok(); }, absl::Seconds(20));
  if (!up)
    std::fprintf(stderr, "%s\n%s\n", Ask("/v3/kv/range", RangeOf("/up")).status().ToString().c_str(),
                 process_->Output().c_str());
  WEFT_CHECK(up);
}

void Etcd::Forget() { std::filesystem::remove_all(directory_ / "data"); }

void Etcd::Keep() {
  std::filesystem::copy(directory_ / "data", directory_ / "kept", std::filesystem::copy_options::recursive);
}

void Etcd::Return() {
  Forget();
  std::filesystem::rename(directory_ / "kept", directory_ / "data");
}

absl::StatusOr<std::string> Etcd::Ask(const std::string& path, const std::string& body) {
  const std::unique_ptr<InNamespace> inside = Inside();
  control::EtcdOptions options;
  options.endpoints = {url_};
  options.tls = settings_.client;
  options.user = user_;
  options.password = password_;
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

void Etcd::LoginAs(const std::string& user, const std::string& password) {
  user_ = user;
  password_ = password;
}

void Etcd::EnableUsers() {
  const auto ask = [this](const char* path, const std::string& body) { WEFT_CHECK(Ask(path, body).ok()); };
  ask("/v3/auth/user/add", R"({"name":"root","password":"root"})");
  ask("/v3/auth/role/add", R"({"name":"root"})");
  ask("/v3/auth/user/grant", R"({"user":"root","role":"root"})");
  ask("/v3/auth/user/add", R"({"name":"weft","password":"weft"})");
  ask("/v3/auth/role/add", R"({"name":"weft"})");
  ask("/v3/auth/role/grant",
      absl::StrCat(R"({"name":"weft","perm":{"permType":"READWRITE","key":")", absl::Base64Escape("/weft/"),
                   R"(","range_end":")", absl::Base64Escape(control::EtcdPrefixEnd("/weft/")), R"("}})"));
  ask("/v3/auth/user/grant", R"({"user":"weft","role":"weft"})");
  ask("/v3/auth/enable", "{}");
  LoginAs("root", "root");
}

EtcdCluster::EtcdCluster() {
  constexpr const char* kNames[] = {"a", "b", "c"};
  std::vector<std::string> urls;
  std::string members;
  for (const char* name : kNames) {
    urls.push_back(absl::StrCat("http://127.0.0.1:", FreePort()));
    absl::StrAppend(&members, members.empty() ? "" : ",", name, "=", urls.back());
  }
  for (std::size_t i = 0; i < urls.size(); ++i) {
    EtcdSettings settings;
    settings.name = kNames[i];
    settings.peer_url = urls[i];
    settings.members = members;
    members_.push_back(std::make_unique<Etcd>(std::move(settings)));
  }
  for (const std::unique_ptr<Etcd>& member : members_) member->WaitUntilUp();
}

std::vector<std::string> EtcdCluster::urls() const {
  std::vector<std::string> urls;
  for (const std::unique_ptr<Etcd>& member : members_) urls.push_back(member->url());
  return urls;
}

// Each tells its own id and that of the leader.
std::size_t EtcdCluster::Leader() {
  for (std::size_t i = 0; i < members_.size(); ++i) {
    const absl::StatusOr<std::string> status = members_[i]->Ask("/v3/maintenance/status", "{}");
    if (!status.ok()) continue;
    const nlohmann::json json = nlohmann::json::parse(*status, nullptr, false);
    if (json.contains("leader") && json["leader"] == json["header"]["member_id"]) return i;
  }
  WEFT_CHECK(false);
  return 0;
}

}  // namespace weft::test
