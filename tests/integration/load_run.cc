// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/load_run.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "dataplane/api/admin.pb.h"
#include "dataplane/base/unix_socket.h"

namespace weft::test {

std::vector<Tenant> LoadTenants() {
  return {
      {"a", kUidA, {"a"}, {"app/*"}, "app", ""},
      {"b", kUidB, {"b"}, {"app/*"}, "app", ""},
      {"caller", kUidCaller, {"caller", "caller2"}, {}, "app", ""},
      {"stranger", kUidStranger, {"stranger"}, {"other/*"}, "other", ""},
  };
}

LoadRun::LoadRun(Mesh& mesh) : mesh_(mesh), ledger_(mesh.path("ledger")) {}

Process LoadRun::StartServer(const std::string& name, uid_t uid, int tag, std::vector<std::string> more) {
  std::vector<std::string> arguments = {
      "--name", name, "--serve", "app/echo", "--tag", absl::StrCat(tag), "--ledger", mesh_.path("ledger")};
  arguments.insert(arguments.end(), more.begin(), more.end());
  Process server = mesh_.Start("weft-test-echo", std::move(arguments), uid,
                               absl::StrCat("echo.", name, ".", runs_++, ".log"));
  EXPECT_TRUE(server.WaitForOutput("serving", absl::Seconds(20))) << server.Output();
  return server;
}

Process LoadRun::StartGuestHost(const std::string& name, uid_t uid, int tag, std::vector<std::string> more) {
  const std::string module = mesh_.path("load_echo.wasm");
  WriteFile(module, ReadFile(WEFT_GUEST_DIR "/test_load_echo.wasm"));
  EXPECT_EQ(chmod(module.c_str(), 0644), 0);  // The hosts' users read it, wherever the build tree lies.
  std::vector<std::string> arguments = {"--name", name, "--no-cache", "--serve",
                                        absl::StrCat("app/echo=", module, "#", tag)};
  arguments.insert(arguments.end(), more.begin(), more.end());
  Process host =
      mesh_.Start("weft-host", std::move(arguments), uid, absl::StrCat("guest.", name, ".", runs_++, ".log"));
  EXPECT_TRUE(host.WaitForOutput("attached to node", absl::Seconds(30))) << host.Output();
  return host;
}

Process LoadRun::StartClient(double seconds, int rate, std::vector<std::string> more, const std::string& host,
                             uid_t uid) {
  std::vector<std::string> arguments = {"--function", "app/echo",         "--seconds", absl::StrCat(seconds),
                                        "--rate",     absl::StrCat(rate), "--name",    host};
  if (with_ledger_) arguments.insert(arguments.end(), {"--ledger", mesh_.path("ledger")});
  arguments.insert(arguments.end(), more.begin(), more.end());
  Process client =
      mesh_.Start("weft-test-load", std::move(arguments), uid, absl::StrCat("load.", runs_++, ".log"));
  EXPECT_TRUE(client.WaitForOutput("calling", absl::Seconds(20))) << client.Output();
  return client;
}

nlohmann::json LoadRun::Finish(Process& client) {
  EXPECT_TRUE(client.Wait(absl::Seconds(120)).has_value()) << "the client did not end";
  const std::string output = client.Output();
  const std::size_t begin = output.find('{');
  nlohmann::json result = begin == std::string::npos ? nlohmann::json()
                                                     : nlohmann::json::parse(output.substr(begin), nullptr,
                                                                             /*allow_exceptions=*/false);
  EXPECT_TRUE(result.is_object()) << output;
  return result;
}

std::optional<ProgrammedChange> NewestChange(const std::string& run_dir) {
  const absl::StatusOr<UniqueFd> socket = ConnectUnix(run_dir + "/control.sock");
  api::AdminRequest request;
  request.mutable_query()->set_kind(api::Query::STATUS);
  if (!socket.ok() || !SendMessage(socket->get(), request.SerializeAsString()).ok() ||
      !WaitReady(socket->get(), POLLIN, 10'000).ok())
    return std::nullopt;
  const absl::StatusOr<ReceivedMessage> message = ReceiveMessage(socket->get());
  api::AdminReply reply;
  if (!message.ok() || !reply.ParseFromString(message->bytes)) return std::nullopt;
  std::optional<ProgrammedChange> newest;
  for (const api::Item& item : reply.query_reply().items()) {
    if (item.fields().empty() || item.fields(0).name() != "change") continue;
    ProgrammedChange& change = newest.emplace();
    for (const auto& field : item.fields()) {
      if (field.name() == "change") change.generation = static_cast<uint64_t>(field.number());
      if (field.name() == "programmed_at_ns") change.programmed_ns = static_cast<uint64_t>(field.number());
      if (field.name() == "event_to_programmed_us") change.event_to_programmed_us = field.real();
    }
  }
  return newest;
}

std::vector<LoadStart> ReadStarts(const std::string& path) {
  const std::string bytes = ReadFile(path);
  std::vector<LoadStart> starts(bytes.size() / sizeof(LoadStart));
  std::memcpy(starts.data(), bytes.data(), starts.size() * sizeof(LoadStart));
  std::sort(starts.begin(), starts.end(),
            [](const LoadStart& a, const LoadStart& b) { return a.started_ns < b.started_ns; });
  return starts;
}

}  // namespace weft::test
