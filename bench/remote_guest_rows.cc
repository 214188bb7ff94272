// SPDX-License-Identifier: Apache-2.0
// Calls from guest to guest on two nodes as they ship: weftd, weft-control and weft-host in two namespaces,
// all processes of a node on one core. The engine runs inside the hosts, by AF_XDP or UDP, or in the
// two weftd, by AF_XDP.
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/guest_invoker.h"
#include "bench/node.h"
#include "bench/pair_row.h"
#include "bench/remote_network.h"
#include "bench/remote_rows.h"
#include "bench/worker.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/identity/authority.h"
#include "tests/support/mesh.h"
#include "tests/support/network.h"
#include "tests/support/temporary_directory.h"

namespace weft::bench {
namespace {

using test::VethPair;

constexpr char kCallerHost[] = "bench-caller";
constexpr char kCalleeHost[] = "bench-callee";
constexpr int64_t kValidS = 3600;

// What the scope starts runs on `core`.
class OnCore {
 public:
  explicit OnCore(int core) {
    sched_getaffinity(0, sizeof(before_), &before_);
    PinToCore(core);
  }
  ~OnCore() { sched_setaffinity(0, sizeof(before_), &before_); }
  OnCore(const OnCore&) = delete;
  OnCore& operator=(const OnCore&) = delete;

 private:
  cpu_set_t before_;
};

class TwoNodes {
 public:
  static absl::StatusOr<std::unique_ptr<TwoNodes>> Start(bool inside, bool by_af_xdp) {
    if (!test::Mesh::Privileged() || !VethPair::Privileged())
      return absl::PermissionDeniedError("two nodes need root");
    std::unique_ptr<TwoNodes> nodes(new TwoNodes(inside, by_af_xdp));
    WEFT_RETURN_IF_ERROR(nodes->MakeNodes());
    nodes->StartHost(kNear, kCallerHost, kCallerUid, "bench/caller", "bench_caller");
    nodes->StartHost(kFar, kCalleeHost, kCalleeUid, "bench/keep", "bench_callee");
    absl::Status status =
        nodes->invoker_.Start(nodes->meshes_[kNear]->run_dir(), {GuestInvoker::Callee::kKeep});
    if (status.ok()) status = nodes->CheckWay();
    if (status.ok()) return nodes;
    return absl::Status(status.code(), absl::StrCat(status.message(), "; ", nodes->Logs()));
  }

  absl::StatusOr<Block> RunBlock(uint64_t duration_ns) {
    return invoker_.RunBlock(
        {}, duration_ns,
        {hosts_[0].pid(), hosts_[1].pid(), meshes_[kNear]->agent().pid(), meshes_[kFar]->agent().pid()});
  }

 private:
  // weftd's own AF_XDP socket has the first queue, that of the engine inside a host the second.
  TwoNodes(bool inside, bool by_af_xdp)
      : inside_(inside), by_af_xdp_(by_af_xdp), veth_({.queues = inside ? 2 : 1}) {}

  static const char* NodeOf(int side) { return side == kNear ? "n1" : "n2"; }
  static const char* AddressOf(int side) {
    return side == kNear ? VethPair::kNearAddress : VethPair::kFarAddress;
  }

  absl::Status MakeNodes() {
    const int64_t now_s = time(nullptr);
    const identity::Validity validity{now_s - 60, now_s + kValidS};
    WEFT_ASSIGN_OR_RETURN(const identity::Authority authority,
                          identity::Authority::Make("bench.test", validity));
    test::WriteFile(files_ / "ca.crt", authority.ToPem().certificate);
    for (const int side : {kNear, kFar}) {
      WEFT_ASSIGN_OR_RETURN(const identity::PemPair pem, authority.IssueNode(NodeOf(side), validity));
      const std::string name = files_ / NodeOf(side);
      for (const auto& [file, text] : {std::pair(name + ".key", pem.key), {name + ".crt", pem.certificate}}) {
        test::WriteFile(file, text);
        if (chmod(file.c_str(), 0600) != 0 || chown(file.c_str(), test::kAgentUid, test::kAgentUid) != 0)
          return absl::ErrnoToStatus(errno, absl::StrCat("give away ", file));
      }
      test::NodeOptions options;
      options.node = NodeOf(side);
      options.network = side == kNear ? &veth_.near() : &veth_.far();
      options.settings = absl::StrCat("listen: ", AddressOf(side), ":4810\nidentity: {certificate: ", name,
                                      ".crt, key: ", name, ".key, ca: ", files_ / "ca.crt", "}\n");
      if (by_af_xdp_) {
        options.steer = VethPair::kInterface;
        absl::StrAppend(&options.settings, "interface: ", VethPair::kInterface, "\n");
      }
      const OnCore core(side == kNear ? kCallerCore : kCalleeCore);
      meshes_[side] = std::make_unique<test::Mesh>(Tenants(), std::move(options));
      meshes_[side]->SetMesh(MeshYaml());
      meshes_[side]->StartAgent();
      meshes_[side]->StartControl();
    }
    return absl::OkStatus();
  }
  std::vector<test::Tenant> Tenants() const {
    const bool raw = inside_ && by_af_xdp_;
    return {{"caller", kCallerUid, {kCallerHost}, {"bench/*"}, "bench", "", inside_, raw},
            {"callee", kCalleeUid, {kCalleeHost}, {"bench/*"}, "bench", "", inside_, raw},
            {"invoker", kInvokerUid, {}, {}, "bench", "", false, false}};
  }
  static std::string MeshYaml() {
    return absl::StrCat("version: 1\nnodes:\n- {name: n1, address: \"", AddressOf(kNear),
                        ":4810\"}\n- {name: n2, address: \"", AddressOf(kFar),
                        ":4810\"}\nfunctions:\n- {name: bench/caller}\n- {name: bench/keep}\nendpoints:\n"
                        "- {function: bench/caller, node: n1, host: ",
                        kCallerHost, "}\n- {function: bench/keep, node: n2, host: ", kCalleeHost, "}\n");
  }

  void StartHost(int side, const std::string& name, uid_t uid, const std::string& function,
                 const std::string& guest) {
    test::Mesh& mesh = *meshes_[side];
    const std::string module = mesh.path(guest + ".wasm");
    test::WriteFile(module, test::ReadFile(GuestPath(guest)));
    chmod(module.c_str(), 0644);
    const OnCore core(side == kNear ? kCallerCore : kCalleeCore);
    hosts_.push_back(mesh.Start("weft-host",
                                {"--name", name, "--no-cache", "--keep", absl::StrCat(function, "=", module),
                                 "--engine", inside_ ? "inside" : "shared"},
                                uid, name + ".log"));
  }

  // The calls go as the row's name says, or there is no row.
  absl::Status CheckWay() {
    test::Mesh& near = *meshes_[kNear];
    if (!inside_) {
      if (!near.WaitForCtl({"status"}, "af_xdp"))
        return absl::UnavailableError("the near weftd has no AF_XDP");
      return absl::OkStatus();
    }
    if (!near.WaitForCtl({"get", "routes"}, absl::StrCat("n2/", kCalleeHost)))
      return absl::UnavailableError("no route to the engine inside the callee's host");
    for (const auto& mesh : meshes_) {
      if (by_af_xdp_ && !mesh->WaitForCtl({"status"}, "af_xdp of 1"))
        return absl::UnavailableError("an engine inside a host has no AF_XDP");
    }
    const auto out = [&] { return CounterOf(near, absl::StrCat("engine:n1/", kCallerHost)); };
    const int64_t before = out();
    WEFT_RETURN_IF_ERROR(RunBlock(kNsPerMs).status());
    if (out() <= before) return absl::InternalError("the engine inside the caller's host carries no call");
    return absl::OkStatus();
  }
  static int64_t CounterOf(test::Mesh& node, const std::string& host) {
    const nlohmann::json report =
        nlohmann::json::parse(node.Ctl({"get", "hosts", "-o", "json"}).output, nullptr, false);
    if (!report.is_object()) return 0;
    for (const nlohmann::json& item : report.value("items", nlohmann::json::array())) {
      if (item.value("host", "") == host) return item.value("engine_requests_out", int64_t{0});
    }
    return 0;
  }
  std::string Logs() const {
    std::string logs;
    for (const auto& mesh : meshes_) absl::StrAppend(&logs, mesh->agent().Output());
    for (const test::Process& host : hosts_) absl::StrAppend(&logs, host.Output());
    return logs;
  }

  const bool inside_;
  const bool by_af_xdp_;
  test::TemporaryDirectory files_;
  VethPair veth_;
  std::unique_ptr<test::Mesh> meshes_[2];
  std::vector<test::Process> hosts_;
  GuestInvoker invoker_;
};

class RemoteGuestRow final : public Row {
 public:
  RemoteGuestRow(RowSpec spec, bool inside, bool by_af_xdp)
      : Row(std::move(spec)), inside_(inside), by_af_xdp_(by_af_xdp) {}

  absl::Status Setup() override {
    WEFT_ASSIGN_OR_RETURN(nodes_, TwoNodes::Start(inside_, by_af_xdp_));
    return absl::OkStatus();
  }
  absl::StatusOr<Block> RunBlock(uint64_t duration_ns) override {
    if (nodes_ == nullptr) return absl::FailedPreconditionError("not set up");
    return nodes_->RunBlock(duration_ns);
  }
  void Teardown() override { nodes_.reset(); }

 private:
  const bool inside_;
  const bool by_af_xdp_;
  std::unique_ptr<TwoNodes> nodes_;
};

}  // namespace

void AddRemoteGuestRows(std::vector<std::unique_ptr<Row>>* rows) {
  rows->push_back(std::make_unique<RemoteGuestRow>(
      RowSpec{.name = "weft/guest_to_guest_inside",
              .bytes = 64,
              .against = {"limit/af_xdp_raw", "limit/udp_spin"},
              .note = "engines inside both hosts, each with an AF_XDP socket of weftd's; a node a core"},
      /*inside=*/true, /*by_af_xdp=*/true));
  rows->push_back(
      std::make_unique<RemoteGuestRow>(RowSpec{.name = "weft/guest_to_guest_inside_udp",
                                               .bytes = 64,
                                               .against = {"limit/af_xdp_raw", "limit/udp_spin"},
                                               .note = "the same by UDP, as for tenants without raw_packets"},
                                       /*inside=*/true, /*by_af_xdp=*/false));
  rows->push_back(std::make_unique<RemoteGuestRow>(
      RowSpec{.name = "weft/guest_to_guest_shared",
              .bytes = 64,
              .against = {"limit/af_xdp_raw"},
              .note = "engines in both weftd, by AF_XDP; host and weftd of a node share a core"},
      /*inside=*/false, /*by_af_xdp=*/true));
}

}  // namespace weft::bench
