// SPDX-License-Identifier: Apache-2.0
// A Kubernetes API server on its own etcd: a function is a Service without an address and one EndpointSlice
// of ten pods, each with a weft-host. An endpoint's weight is not said there: instead it is drained, and
// comes back.
#include <atomic>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "bench/control/change_source.h"
#include "bench/control/http_writer.h"
#include "dataplane/base/status.h"
#include "tests/support/kube.h"
#include "tests/support/temporary_directory.h"

namespace weft::bench {
namespace {

constexpr char kServices[] = "/api/v1/namespaces/default/services";
constexpr char kSlices[] = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
constexpr int kFillers = 8;

std::string NodeJson(int node) {
  return absl::StrCat(R"({"metadata":{"name":")", NodeName(node),
                      R"("},"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.)", node + 1,
                      "\"}]}}");
}

std::string ServiceJson(int function) {
  return absl::StrCat(
      R"({"metadata":{"name":")", FunctionName(function),
      R"("},"spec":{"clusterIP":"None","ports":[{"name":"weft","port":4810,"appProtocol":"weft/host"}]}})");
}

// `draining`: a bit for each endpoint; `without`: one that is not there, or -1.
std::string SliceJson(int function, unsigned draining, int without) {
  std::string endpoints;
  for (int i = 0; i < kEndpointsPerFunction; ++i) {
    if (i == without) continue;
    const bool ready = (draining >> i & 1) == 0;
    absl::StrAppend(&endpoints, endpoints.empty() ? "" : ",", R"({"addresses":["10.)", 1 + function / 60'000,
                    ".", function / 250 % 250, ".", 1 + function % 250, R"("],"nodeName":")",
                    NodeName(NodeOf(function, i)), R"(","conditions":{"ready":)", ready ? "true" : "false",
                    R"(,"serving":true,"terminating":)", ready ? "false" : "true",
                    R"(},"targetRef":{"kind":"Pod","namespace":"default","name":"p","uid":")",
                    absl::StrFormat("%08x-4a1d-4e57-9d3c-%012x", function, i), "\"}}");
  }
  return absl::StrCat(
      R"({"metadata":{"name":")", FunctionName(function), R"(-1","labels":{"kubernetes.io/service-name":")",
      FunctionName(function),
      R"("}},"addressType":"IPv4","ports":[{"name":"weft","port":4810,"appProtocol":"weft/host"}],)",
      R"("endpoints":[)", endpoints, "]}");
}

// In the answer the object's own version comes first.
uint64_t VersionOf(const std::string& answer) {
  constexpr absl::string_view kKey = R"("resourceVersion":")";
  const std::size_t at = answer.find(kKey.data(), 0, kKey.size());
  uint64_t version = 0;
  if (at == std::string::npos) return 0;
  const std::size_t begin = at + kKey.size();
  return absl::SimpleAtoi(answer.substr(begin, answer.find('"', begin) - begin), &version) ? version : 0;
}

class KubeWriter final : public ChangeWriter {
 public:
  KubeWriter(HttpWriter::Options options, int functions) : http_(std::move(options)), functions_(functions) {}

  absl::StatusOr<uint64_t> Write(uint64_t event) override {
    const ChangeEvent change = EventOf(event, functions_);
    // Of one function a removal comes first in a pass, then its end, the second weight, and the first, whose
    // place here is taken by who drains: never as it was before.
    const auto first_of = [](int pass) { return pass < 0 ? 0u : pass % 2 == 0 ? 1u : 2u; };
    const bool weight = change.kind == ChangeEvent::Kind::kWeight;
    const unsigned draining = !weight                ? first_of(change.pass - 1)
                              : change.endpoint == 0 ? first_of(change.pass)
                              : change.endpoint == 1 ? 8u
                                                     : 16u;
    const int without = change.kind == ChangeEvent::Kind::kRemove ? change.endpoint : -1;
    const std::string path = absl::StrCat(kSlices, "/", FunctionName(change.function), "-1");
    WEFT_ASSIGN_OR_RETURN(const std::string answer,
                          http_.Ask("PUT", path, SliceJson(change.function, draining, without)));
    const uint64_t version = VersionOf(answer);
    if (version == 0) return absl::InternalError(absl::StrCat("no version in the answer to PUT ", path));
    return version;
  }

 private:
  HttpWriter http_;
  int functions_;
};

class KubeChangeSource final : public ChangeSource {
 public:
  std::string name() const override { return "kubernetes"; }
  Numbering numbering() const override { return Numbering::kByCount; }
  std::string Settings() const override {
    return absl::StrCat("kubernetes:\n  kubeconfig: ", directory_ / "kubeconfig", "\n");
  }
  std::vector<std::string> WatchArguments() const override {
    return {kube_.url(), kube_.token(), kube_.Options().tls.ca};
  }

  absl::Status Fill(int functions, const std::function<void(const std::string&)>& progress) override {
    functions_ = functions;
    test::WriteFile(
        directory_ / "kubeconfig",
        absl::StrCat("current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n",
                     "clusters: [{name: k, cluster: {server: \"", kube_.url(),
                     "\", certificate-authority: ", kube_.Options().tls.ca,
                     "}}]\nusers: [{name: u, user: {token: ", kube_.token(), "}}]\n"));
    std::atomic<int> next{0};
    std::atomic<int> left{kFillers};
    std::mutex mutex;  // Of what follows
    absl::Status failed;
    const auto fill = [&] {
      HttpWriter http(Options());
      absl::Status status;
      for (int i; status.ok() && (i = next.fetch_add(1, std::memory_order_relaxed)) < functions;) {
        if (i < kNodes) status = http.Ask("POST", "/api/v1/nodes", NodeJson(i)).status();
        if (status.ok()) status = http.Ask("POST", kServices, ServiceJson(i)).status();
        if (status.ok()) status = http.Ask("POST", kSlices, SliceJson(i, 0, -1)).status();
      }
      if (!status.ok()) {
        const std::lock_guard<std::mutex> lock(mutex);
        failed = status;
      }
      left.fetch_sub(1, std::memory_order_release);
    };
    std::vector<std::thread> threads;
    for (int i = 0; i < kFillers; ++i) threads.emplace_back(fill);
    while (left.load(std::memory_order_acquire) > 0) {
      absl::SleepFor(absl::Milliseconds(100));
      progress(absl::StrCat("kubernetes: ", std::min(functions, next.load(std::memory_order_relaxed)), " of ",
                            functions, " functions"));
    }
    for (std::thread& thread : threads) thread.join();
    return failed;
  }

  absl::StatusOr<std::unique_ptr<ChangeWriter>> NewWriter() override {
    return std::make_unique<KubeWriter>(Options(), functions_);
  }

 private:
  HttpWriter::Options Options() const {
    return {.server = kube_.url(), .ca = kube_.Options().tls.ca, .token = kube_.token()};
  }

  test::Kube kube_;
  test::TemporaryDirectory directory_;
  int functions_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ChangeSource>> NewKubeChangeSource() {
  if (!test::Kube::Installed())
    return absl::NotFoundError("no kube-apiserver on this machine: tools/setup test builds it");
  return std::make_unique<KubeChangeSource>();
}

}  // namespace weft::bench
