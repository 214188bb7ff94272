// SPDX-License-Identifier: Apache-2.0
#include "bench/control/agent_rows.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "bench/control/change_source.h"
#include "bench/node.h"
#include "bench/worker.h"
#include "dataplane/api/admin.pb.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/status.h"
#include "dataplane/base/unix_socket.h"
#include "dataplane/client/weft/client.h"

namespace weft::bench {
namespace {

constexpr uid_t kCallingUid = 64993;
constexpr std::size_t kPartBytes = 50 * 1024;
constexpr int kAnswerTimeoutMs = 30'000;

api::Endpoint EndpointOf(int function, int endpoint) {
  api::Endpoint made;
  made.set_function(absl::StrCat("app/", FunctionName(function)));
  made.set_node(NodeName(NodeOf(function, endpoint)));
  made.set_host("h");
  return made;
}

// Speaks to weftd as weft-control does.
class Programmer {
 public:
  static absl::StatusOr<Programmer> Connect(const std::string& run_dir) {
    WEFT_ASSIGN_OR_RETURN(UniqueFd socket, ConnectUnix(run_dir + "/admin.sock"));
    return Programmer(std::move(socket));
  }
  api::Program NewPart(bool snapshot) const {
    api::Program part;
    part.set_generation(generation_ + 1);
    part.set_snapshot(snapshot);
    return part;
  }
  absl::Status Send(const api::Program& part) {
    api::AdminRequest request;
    *request.mutable_program() = part;
    const std::string bytes = request.SerializeAsString();
    for (;;) {
      absl::Status sent = SendMessage(socket_.get(), bytes);
      if (!absl::IsUnavailable(sent)) return sent;
      WEFT_RETURN_IF_ERROR(WaitReady(socket_.get(), POLLOUT, kAnswerTimeoutMs));
    }
  }
  absl::Status WaitForAnswer() {
    ++generation_;
    for (;;) {
      const absl::StatusOr<ReceivedMessage> message = ReceiveMessage(socket_.get());
      if (absl::IsUnavailable(message.status())) {
        WEFT_RETURN_IF_ERROR(WaitReady(socket_.get(), POLLIN, kAnswerTimeoutMs));
        continue;
      }
      WEFT_RETURN_IF_ERROR(message.status());
      api::AdminReply reply;
      if (!reply.ParseFromString(message->bytes)) return absl::InternalError("weftd sent what is no answer");
      if (reply.has_failed()) return absl::InternalError(absl::StrCat("weftd: ", reply.failed().reason()));
      if (reply.has_programmed() && reply.programmed().generation() >= generation_) return absl::OkStatus();
    }
  }

 private:
  explicit Programmer(UniqueFd socket) : socket_(std::move(socket)) {}

  UniqueFd socket_;
  uint64_t generation_ = 0;
};

absl::Status SendMesh(Programmer& programmer, int functions) {
  api::Program part = programmer.NewPart(true);
  for (int node = 0; node < kNodes; ++node) part.mutable_upsert()->add_nodes()->set_name(NodeName(node));
  std::size_t bytes = part.ByteSizeLong();
  for (int function = 0; function < functions; ++function) {
    part.mutable_upsert()->add_functions()->set_name(absl::StrCat("app/", FunctionName(function)));
    for (int endpoint = 0; endpoint < kEndpointsPerFunction; ++endpoint) {
      api::Endpoint& added = *part.mutable_upsert()->add_endpoints();
      added = EndpointOf(function, endpoint);
      bytes += added.ByteSizeLong() + 32;
    }
    if (bytes < kPartBytes) continue;
    WEFT_RETURN_IF_ERROR(programmer.Send(part));
    part = programmer.NewPart(true);
    bytes = 0;
  }
  part.set_last(true);
  WEFT_RETURN_IF_ERROR(programmer.Send(part));
  return programmer.WaitForAnswer();
}

// Every third change takes the endpoint away that the next brings back; every fourth is of a function that
// the callers call.
absl::Status Change(Programmer& programmer, int functions, int samples, Histogram* times) {
  for (int i = 0; i < samples; ++i) {
    const int function = i % 4 == 0 ? i / 4 % kAgentCalled : static_cast<int>(i * int64_t{7'919} % functions);
    api::Program delta = programmer.NewPart(false);
    delta.set_last(true);
    if (i % 3 == 1) {
      *delta.add_delete_endpoints() = EndpointOf(function, i % kEndpointsPerFunction);
    } else {
      api::Endpoint& endpoint = *delta.mutable_upsert()->add_endpoints();
      endpoint = EndpointOf(function, i % kEndpointsPerFunction);
      endpoint.set_weight(static_cast<uint32_t>(1 + i % 900));
    }
    const uint64_t sent_ns = NowNs();
    WEFT_RETURN_IF_ERROR(programmer.Send(delta));
    WEFT_RETURN_IF_ERROR(programmer.WaitForAnswer());
    times->Record(NowNs() - sent_ns);
    usleep(1'000);
  }
  return absl::OkStatus();
}

// Asks for the routes of the functions, then waits for the end; its keeper thread answers weftd meanwhile.
absl::Status Ask(const std::string& run_dir) {
  MeshOptions options;
  options.run_dir = run_dir;
  WEFT_ASSIGN_OR_RETURN(const std::unique_ptr<Mesh> mesh, Mesh::Create(options));
  WEFT_RETURN_IF_ERROR(mesh->Attach());
  Client client(*mesh);
  for (int i = 0; i < kAgentCalled; ++i) {
    (void)client.Resolve(
        absl::StrCat("app/", FunctionName(i)));  // There is nobody to call, and that may change.
  }
  for (;;) client.Wait(absl::Seconds(1));
}

}  // namespace

absl::StatusOr<AgentRun> RunAgent(int functions, int samples) {
  WEFT_ASSIGN_OR_RETURN(const std::unique_ptr<Node> node,
                        Node::Start({{.uid = kCallingUid, .hosts = {}, .serve = {}, .call_as = "app"}}, ""));
  WEFT_ASSIGN_OR_RETURN(Programmer programmer, Programmer::Connect(node->run_dir()));
  AgentRun run;
  const uint64_t begun_ns = NowNs();
  WEFT_RETURN_IF_ERROR(SendMesh(programmer, functions));
  run.snapshot_s = static_cast<double>(NowNs() - begun_ns) / 1e9;
  usleep(1'000'000);  // Until it is on disk.
  WEFT_RETURN_IF_ERROR(Change(programmer, functions, samples, &run.bare));
  std::vector<Worker> callers;
  const std::string run_dir = node->run_dir();
  for (int i = 0; i < kAgentCallers; ++i) {
    WEFT_ASSIGN_OR_RETURN(
        callers.emplace_back(), Worker::Start({-1, kCallingUid, "bench-caller"}, [=](const Worker::Command&) {
          Worker::Reply reply;
          absl::SNPrintF(reply.failure, sizeof(reply.failure), "%s", Ask(run_dir).ToString());
          return reply;
        }));
    WEFT_RETURN_IF_ERROR(callers.back().Run({}));
  }
  usleep(1'000'000);  // Until all have asked.
  WEFT_RETURN_IF_ERROR(Change(programmer, functions, samples, &run.callers));
  return run;
}

}  // namespace weft::bench
