// SPDX-License-Identifier: Apache-2.0
// What control has a host run once: who may ask, what is refused, what is handed on, and who is told of the
// end.
#include "dataplane/api/run_once.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>
#include <optional>

#include "absl/strings/str_cat.h"
#include "tests/dataplane/agent/server_fixture.h"

namespace weft::agent::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class RunOnceTest : public ServerTest {
 protected:
  api::RunOnce RunOf(const std::string& name) {
    api::RunOnce run;
    run.set_run(name);
    run.mutable_function()->set_name("web/job");
    run.set_host("a");
    run.set_module(directory_ / "module");
    run.set_sha256(std::string(32, 'x'));
    run.set_entry("job");
    run.add_args("a");
    run.add_env("TOKEN=s3cret");
    run.add_inputs(-7);
    return run;
  }
  static void Ask(AdminPeer& admin, const api::RunOnce& run) {
    api::AdminRequest request;
    *request.mutable_run_once() = run;
    admin.Send(request);
  }
  // The error of a run that ends at once.
  static std::string Refused(AdminPeer& admin, const api::RunOnce& run) {
    Ask(admin, run);
    const std::optional<api::AdminReply> reply = admin.Next();
    if (!reply.has_value() || !reply->has_run_ended()) return "no answer";
    EXPECT_EQ(reply->run_ended().run(), run.run().substr(0, kRunNameBytesMax));
    return reply->run_ended().error();
  }
  static void End(Peer& host, const std::string& run, const std::string& result) {
    api::FromHost message;
    message.mutable_run_ended()->set_run(run);
    message.mutable_run_ended()->set_result(result);
    host.Send(message);
  }
};

TEST_F(RunOnceTest, AModuleIsHandedToItsHostAndTheEndToWhoAsked) {
  Start();
  weft::test::WriteFile(directory_ / "module", "wasm");
  Peer host(agent_sock());
  ASSERT_TRUE(host.Hello("a", {}, true));
  AdminPeer control(admin_sock());
  AdminPeer other(admin_sock());
  Ask(control, RunOf("r1"));
  ASSERT_TRUE(host.PumpUntil([&] { return host.runs().size() == 1; }));
  const api::RunOnce& run = host.runs()[0];
  EXPECT_EQ(run.run(), "r1");
  EXPECT_EQ(run.function().name(), "web/job");
  EXPECT_EQ(run.module(), "");  // Its descriptor is enough.
  EXPECT_EQ(run.sha256(), std::string(32, 'x'));
  EXPECT_EQ(run.entry(), "job");
  EXPECT_THAT(run.args(), ElementsAre("a"));
  EXPECT_THAT(run.env(), ElementsAre("TOKEN=s3cret"));
  EXPECT_THAT(run.inputs(), ElementsAre(-7));
  char bytes[8];
  ASSERT_EQ(host.module_fds().size(), 1u);
  EXPECT_EQ(pread(host.module_fds()[0].get(), bytes, sizeof bytes, 0), 4);
  End(host, "never asked for", "x");
  End(host, "r1", "printed");
  End(host, "r1", "twice");
  std::optional<api::AdminReply> reply = control.Next();
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->run_ended().run(), "r1");
  EXPECT_EQ(reply->run_ended().result(), "printed");
  EXPECT_EQ(reply->run_ended().error(), "");
  // Too long a result is no result, and the host goes on.
  Ask(control, RunOf("r2"));
  ASSERT_TRUE(host.PumpUntil([&] { return host.runs().size() == 2; }));
  End(host, "r2", std::string(kRunResultBytesMax + 1, 'x'));
  reply = control.Next();
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->run_ended().run(), "r2");
  EXPECT_EQ(reply->run_ended().result(), "");
  EXPECT_THAT(reply->run_ended().error(), HasSubstr("too long"));
  // Nobody else heard of any.
  EXPECT_FALSE(other.Ask(api::Query::HOSTS).empty());
}

TEST_F(RunOnceTest, WhatCannotBeRunIsRefusedByName) {
  Start();
  weft::test::WriteFile(directory_ / "module", "wasm");
  AdminPeer control(admin_sock());
  EXPECT_EQ(Refused(control, RunOf("r")), "host a is not attached");
  Peer old(agent_sock());
  ASSERT_TRUE(old.Hello("a"));
  EXPECT_EQ(Refused(control, RunOf("r")), "host a runs no module once");
  Peer host(agent_sock());
  ASSERT_TRUE(host.Hello("b", {}, true));
  const auto with = [&](const std::function<void(api::RunOnce*)>& change) {
    api::RunOnce run = RunOf("r");
    run.set_host("b");
    change(&run);
    return Refused(control, run);
  };
  EXPECT_THAT(with([](api::RunOnce* run) { run->mutable_function()->set_name("tuning/job"); }),
              HasSubstr("function_not_allowed"));
  EXPECT_NE(with([](api::RunOnce* run) { run->mutable_function()->set_name("No Name"); }), "");
  EXPECT_NE(with([](api::RunOnce* run) { run->set_host("No Name"); }), "");
  EXPECT_THAT(with([](api::RunOnce* run) { run->set_module("/nowhere"); }), HasSubstr("module /nowhere"));
  EXPECT_THAT(with([](api::RunOnce* run) { run->set_module("/dev/null"); }), HasSubstr("not a regular file"));
  EXPECT_THAT(with([](api::RunOnce* run) { run->add_args(std::string(kRunTextBytesMax, 'x')); }),
              HasSubstr("at most"));
  for (std::size_t i = 0; i < kRunsMax; ++i) {
    api::RunOnce run = RunOf(absl::StrCat("r", i));
    run.set_host("b");
    Ask(control, run);
  }
  EXPECT_THAT(with([](api::RunOnce*) {}), HasSubstr("runs to do already"));
  EXPECT_TRUE(host.PumpUntil([&] { return host.runs().size() == kRunsMax; }));
}

TEST_F(RunOnceTest, AHostThatLeavesEndsItsRunsAndControlThatLeavesForgetsThem) {
  Start();
  weft::test::WriteFile(directory_ / "module", "wasm");
  std::optional<Peer> host;
  host.emplace(agent_sock());
  ASSERT_TRUE(host->Hello("a", {}, true));
  std::optional<AdminPeer> control;
  control.emplace(admin_sock());
  Ask(*control, RunOf("r1"));
  ASSERT_TRUE(host->PumpUntil([&] { return host->runs().size() == 1; }));
  host.reset();
  const std::optional<api::AdminReply> reply = control->Next();
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->run_ended().run(), "r1");
  EXPECT_THAT(reply->run_ended().error(), HasSubstr("its host has left"));
  host.emplace(agent_sock());
  ASSERT_TRUE(host->Hello("a", {}, true));
  EXPECT_TRUE(host->runs().empty());  // Not handed over anew.
  Ask(*control, RunOf("r2"));
  ASSERT_TRUE(host->PumpUntil([&] { return host->runs().size() == 1; }));
  control.reset();
  AdminPeer next(admin_sock());
  End(*host, "r2", "nobody waits for it");
  EXPECT_EQ(Refused(next, RunOf("")), "the name of a run or of its function is empty or too long");
}

}  // namespace
}  // namespace weft::agent::test
