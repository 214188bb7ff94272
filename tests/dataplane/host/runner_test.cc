// SPDX-License-Identifier: Apache-2.0
// Modules that are run once: what they are given, what is made of it, and what ends them.
#include "dataplane/host/runner.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <sstream>

#include "dataplane/api/run_once.h"
#include "tests/dataplane/host/fixture.h"

namespace weft::host {
namespace {

using ::testing::HasSubstr;

constexpr char kCommand[] = "test_command";

std::string Sha256Bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  const Sha256 hash = Sha256Of(bytes.str());
  return {reinterpret_cast<const char*>(hash.data()), hash.size()};
}

class RunnerTest : public ::testing::Test {
 protected:
  RunnerTest() : runner_(*Runner::Create(EngineOptions(), nullptr)) {}

  static api::RunOnce RunOf(std::vector<std::string> args, const std::string& guest = kCommand) {
    api::RunOnce run;
    run.set_run("r");
    run.mutable_function()->set_name("ns/fn");
    run.set_sha256(Sha256Bytes(GuestPath(guest)));
    run.set_entry("fn");
    for (std::string& arg : args) run.add_args(std::move(arg));
    return run;
  }
  static UniqueFd Open(const std::string& guest = kCommand) {
    return UniqueFd(open(GuestPath(guest).c_str(), O_RDONLY | O_CLOEXEC));
  }
  api::RunEnded Next() {
    pollfd entry{runner_->done_fd(), POLLIN, 0};
    if (poll(&entry, 1, 60'000) != 1) return {};
    std::vector<api::RunEnded> done = runner_->TakeDone();
    return done.size() == 1 ? done[0] : api::RunEnded();
  }
  api::RunEnded Run(const api::RunOnce& run, const std::string& guest = kCommand) {
    EXPECT_TRUE(runner_->TryAdd(run, Open(guest)));
    return Next();
  }

  std::unique_ptr<Runner> runner_;
};

TEST_F(RunnerTest, ACommandGetsArgumentsAndEnvironmentAndItsOutputIsTheResult) {
  api::RunOnce run = RunOf({"one", "two words"});
  run.add_env("OTHER=x");
  run.add_env("NAME=a=b");
  const api::RunEnded ended = Run(run);
  EXPECT_EQ(ended.run(), "r");
  EXPECT_EQ(ended.error(), "");
  EXPECT_EQ(ended.result(), "fn one two words NAME=a=b");
  EXPECT_EQ(Run(RunOf({})).result(), "fn NAME=none");  // Nothing is left of the run before.
}

TEST_F(RunnerTest, AnExportedFunctionGetsItsInputsAndItsValueIsTheResult) {
  api::RunOnce run = RunOf({});
  run.set_entry("add");
  run.add_inputs(-2);
  run.add_inputs(int64_t{1} << 40);
  EXPECT_EQ(Run(run).result(), "1099511627774");
  run.add_inputs(1);
  EXPECT_EQ(Run(run).error(), "`add` takes 2 inputs, and 3 were given");
  run.set_entry("half");
  run.mutable_inputs()->Clear();
  run.add_inputs(7);
  EXPECT_EQ(Run(run).result(), "3.5");
  run.set_entry("fn");
  EXPECT_EQ(Run(run).error(), "`_start` takes 0 inputs, and 1 were given");
}

TEST_F(RunnerTest, AModuleThatOnlyReckonsNeedsNoMemory) {
  // (func (export "run") (param i32) (result i32) local.get 0 i32.const 1 i32.add)
  const std::string module(
      "\0asm\1\0\0\0\1\6\1\x60\1\x7f\1\x7f\3\2\1\0\7\7\1\3run\0\0\x0a\x09\1\7\0\x20\0\x41\1\x6a\x0b", 40);
  UniqueFd file(memfd_create("module", MFD_CLOEXEC));
  ASSERT_EQ(write(file.get(), module.data(), module.size()), static_cast<ssize_t>(module.size()));
  const Sha256 hash = Sha256Of(module);
  api::RunOnce run = RunOf({});
  run.set_sha256({reinterpret_cast<const char*>(hash.data()), hash.size()});
  run.add_inputs(41);
  ASSERT_TRUE(runner_->TryAdd(std::move(run), std::move(file)));
  const api::RunEnded ended = Next();
  EXPECT_EQ(ended.error(), "");
  EXPECT_EQ(ended.result(), "42");
}

TEST_F(RunnerTest, WhatEndsARunBadlyIsToldByName) {
  const api::RunEnded failed = Run(RunOf({"exit"}));
  EXPECT_EQ(failed.error(), "it exited with code 3");
  EXPECT_EQ(failed.result(), "before");
  EXPECT_THAT(Run(RunOf({"trap"})).error(), HasSubstr("it failed: wasm `unreachable` instruction executed"));
  EXPECT_EQ(Run(RunOf({"much"})).error(),
            absl::StrCat("it printed more than ", kRunResultBytesMax, " bytes"));
  for (const char* what : {"spin", "sleep", "both"}) {
    api::RunOnce run = RunOf({what});
    run.mutable_function()->mutable_guest_limits()->set_run_ns_max(50 * kNsPerMs);
    const api::RunEnded ended = Run(run);
    EXPECT_EQ(ended.error(), "it ran longer than its limit of 50 ms") << what;
    EXPECT_GE(ended.elapsed_ns(), 50 * kNsPerMs);
    if (what == absl::string_view("sleep")) {
      EXPECT_LT(ended.cpu_ns(), ended.elapsed_ns());
    }
  }
  api::RunOnce large = RunOf({"memory"});
  const api::RunEnded grown = Run(large);
  EXPECT_EQ(grown.error(), "");
  EXPECT_GE(grown.memory_bytes(), uint64_t{32} << 20);
  EXPECT_LT(grown.memory_bytes(), uint64_t{64} << 20);
  EXPECT_GT(grown.cpu_ns(), 0u);
  large.mutable_function()->mutable_guest_limits()->set_memory_bytes_max(8 << 20);
  EXPECT_EQ(Run(large).error(), "it exited with code 4");
  EXPECT_EQ(Run(RunOf({"fine"})).error(), "");
}

TEST_F(RunnerTest, WhatCannotRunIsToldByName) {
  api::RunOnce run = RunOf({});
  run.set_sha256(std::string(32, 'x'));
  EXPECT_THAT(Run(run).error(), HasSubstr("does not have the SHA-256 that was announced"));
  EXPECT_EQ(Run(run).elapsed_ns(), 0u);  // It did not begin.
  run = RunOf({}, "test_tool");
  EXPECT_EQ(Run(run, "test_tool").error(), "the module exports no function `fn`, `_start`, `run` or `main`");
  run = RunOf({std::string(kRunTextBytesMax, 'x')});
  EXPECT_THAT(Run(run).error(), HasSubstr("bytes; at most 16384"));
  run = RunOf({});
  run.mutable_function()->mutable_guest_limits()->set_stack_bytes_max(1 << 30);
  EXPECT_THAT(Run(run).error(), HasSubstr("outside this host's"));
}

TEST_F(RunnerTest, RunsFollowEachOtherAndTheEndOfTheHostEndsThem) {
  api::RunOnce run = RunOf({"a"});
  for (const char* name : {"r1", "r2"}) {
    run.set_run(name);
    ASSERT_TRUE(runner_->TryAdd(run, Open()));
  }
  std::vector<std::string> ended;
  while (ended.size() < 2) {
    pollfd entry{runner_->done_fd(), POLLIN, 0};
    ASSERT_EQ(poll(&entry, 1, 60'000), 1);
    for (const api::RunEnded& each : runner_->TakeDone()) ended.push_back(each.run());
  }
  EXPECT_THAT(ended, ::testing::ElementsAre("r1", "r2"));
  // Each would last for its limit of a minute.
  EXPECT_TRUE(runner_->TryAdd(RunOf({"spin"}), Open()));
  for (std::size_t i = 1; i < kRunsMax; ++i) EXPECT_TRUE(runner_->TryAdd(RunOf({"sleep"}), Open()));
  // One may have begun; the rest waits, and no more do.
  EXPECT_FALSE(runner_->TryAdd(RunOf({"sleep"}), Open()) && runner_->TryAdd(RunOf({"sleep"}), Open()));
  const uint64_t begun_ns = NowNs();
  runner_.reset();
  EXPECT_LT(NowNs() - begun_ns, Runner::kRunNs);
}

TEST(RunOnceTest, WhatIsTooMuchOrNoTextIsRefused) {
  api::RunOnce good;
  good.set_run("r");
  good.set_sha256(std::string(32, 'x'));
  good.add_env("A=");
  EXPECT_TRUE(CheckRunOnce(good).ok());
  const auto refused = [&](const std::function<void(api::RunOnce*)>& spoil) {
    api::RunOnce bad = good;
    spoil(&bad);
    return !CheckRunOnce(bad).ok();
  };
  EXPECT_TRUE(refused([](api::RunOnce* run) { run->clear_run(); }));
  EXPECT_TRUE(refused([](api::RunOnce* run) { run->set_sha256("short"); }));
  EXPECT_TRUE(refused([](api::RunOnce* run) { run->add_env("NONE"); }));
  EXPECT_TRUE(refused([](api::RunOnce* run) { run->add_env("=x"); }));
  EXPECT_TRUE(refused([](api::RunOnce* run) { run->add_args(std::string("a\0b", 3)); }));
  EXPECT_TRUE(refused([](api::RunOnce* run) { run->set_entry(std::string(kRunNameBytesMax + 1, 'x')); }));
  EXPECT_TRUE(refused([](api::RunOnce* run) {
    for (int i = 0; i <= kRunTextsMax; ++i) run->add_args("");
  }));
  EXPECT_TRUE(refused([](api::RunOnce* run) {
    for (int i = 0; i <= kRunInputsMax; ++i) run->add_inputs(i);
  }));
}

}  // namespace
}  // namespace weft::host
