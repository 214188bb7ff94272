// SPDX-License-Identifier: Apache-2.0
// etcd, filled with weft's own keys: an endpoint is one key, and so is a node. Functions have none: they
// follow from their endpoints.
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "bench/control/change_source.h"
#include "bench/control/http_writer.h"
#include "control/source/etcd/etcd_json.h"
#include "dataplane/base/status.h"
#include "tests/support/etcd.h"

namespace weft::bench {
namespace {

constexpr char kPrefix[] = "/weft/";
// Of one transaction; etcd is told to allow it.
constexpr std::size_t kOpsMax = 2'000;

std::string EndpointKey(int function, int endpoint) {
  return absl::StrCat(kPrefix, "endpoints/", NodeName(NodeOf(function, endpoint)), "/h/app/",
                      FunctionName(function));
}

class EtcdWriter final : public ChangeWriter {
 public:
  EtcdWriter(const std::string& url, int functions) : http_({.server = url}), functions_(functions) {}

  absl::StatusOr<uint64_t> Write(uint64_t event) override {
    const ChangeEvent change = EventOf(event, functions_);
    const std::string key = absl::Base64Escape(EndpointKey(change.function, change.endpoint));
    absl::StatusOr<std::string> answer;
    if (change.kind == ChangeEvent::Kind::kRemove) {
      answer = http_.Ask("POST", "/v3/kv/deleterange", absl::StrCat("{\"key\":\"", key, "\"}"));
    } else {
      const std::string value = absl::Base64Escape(absl::StrCat("{\"weight\": ", change.weight, "}"));
      answer =
          http_.Ask("POST", "/v3/kv/put", absl::StrCat("{\"key\":\"", key, "\",\"value\":\"", value, "\"}"));
    }
    WEFT_RETURN_IF_ERROR(answer.status());
    WEFT_ASSIGN_OR_RETURN(const control::EtcdRangeReply reply, control::ParseEtcdRange(*answer));
    return static_cast<uint64_t>(reply.revision);
  }

 private:
  HttpWriter http_;
  int functions_;
};

class EtcdChangeSource final : public ChangeSource {
 public:
  EtcdChangeSource() : etcd_(SettingsOf()) {}

  std::string name() const override { return "etcd"; }
  Numbering numbering() const override { return Numbering::kBySource; }
  std::string Settings() const override {
    return absl::StrCat("etcd:\n  endpoints: [\"", etcd_.url(), "\"]\n");
  }
  std::vector<std::string> WatchArguments() const override { return {etcd_.url()}; }

  absl::Status Fill(int functions, const std::function<void(const std::string&)>& progress) override {
    functions_ = functions;
    std::vector<control::EtcdOp> ops;
    for (int node = 0; node < kNodes; ++node) {
      ops.push_back({false, absl::StrCat(kPrefix, "nodes/", NodeName(node)),
                     absl::StrCat("{\"address\": \"10.0.0.", node + 1, ":4810\"}")});
    }
    for (int function = 0; function < functions; ++function) {
      for (int endpoint = 0; endpoint < kEndpointsPerFunction; ++endpoint) {
        ops.push_back({false, EndpointKey(function, endpoint), "{}"});
      }
      if (ops.size() < kOpsMax - kEndpointsPerFunction && function + 1 < functions) continue;
      WEFT_RETURN_IF_ERROR(
          etcd_.Ask("/v3/kv/txn", control::EtcdTxnJson({}, std::exchange(ops, {}))).status());
      progress(absl::StrCat("etcd: ", function + 1, " of ", functions, " functions"));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<ChangeWriter>> NewWriter() override {
    return std::make_unique<EtcdWriter>(etcd_.url(), functions_);
  }

 private:
  static test::EtcdSettings SettingsOf() {
    test::EtcdSettings settings;
    settings.arguments = {absl::StrCat("--max-txn-ops=", kOpsMax), "--quota-backend-bytes=4294967296"};
    return settings;
  }

  test::Etcd etcd_;
  int functions_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ChangeSource>> NewEtcdChangeSource() {
  if (!test::Etcd::Installed())
    return absl::NotFoundError("no etcd on this machine: tools/setup test fetches it");
  return std::make_unique<EtcdChangeSource>();
}

}  // namespace weft::bench
