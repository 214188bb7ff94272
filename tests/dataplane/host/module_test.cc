// SPDX-License-Identifier: Apache-2.0
// Loading modules: what is refused and with which words, the hash, the cache and whom it trusts.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_format.h"
#include "tests/dataplane/host/fixture.h"

namespace weft::host {
namespace {

using ::testing::HasSubstr;

// The binary format, as far as the tests need it: sections of bytes, lengths below 128.
std::string Section(char id, const std::string& body) {
  return std::string{id, static_cast<char>(body.size())} + body;
}
std::string Name(const std::string& text) { return std::string(1, static_cast<char>(text.size())) + text; }
std::string Binary(const std::string& sections) { return std::string("\0asm\1\0\0\0", 8) + sections; }
// Types 0: (i32) -> i32, 1: (i32, i32, i32) -> i32, 2: () -> ().
const std::string kTypes = Section(1, std::string("\3\x60\1\x7f\1\x7f\x60\3\x7f\x7f\x7f\1\x7f\x60\0\0", 16));
// Functions 0 and 1 of types 0 and 1, exported as the ABI asks, and memory 0.
std::string Handlers(const std::string& memory, const std::string& handle = "weft_handle") {
  return Section(3, std::string("\2\0\1", 3)) + Section(5, memory) +
         Section(7, std::string("\3") + Name("memory") + std::string("\2\0", 2) + Name("weft_alloc") +
                        std::string("\0\0", 2) + Name(handle) + std::string("\0\1", 2)) +
         Section(10, std::string("\2\4\0\x41\1\x0b\4\0\x41\0\x0b", 11));
}
const std::string kOnePage("\1\0\1", 3);

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

absl::StatusOr<std::shared_ptr<const Module>> Load(const std::string& bytes,
                                                   const ModuleCache* cache = nullptr,
                                                   const std::optional<Sha256>& expected = std::nullopt) {
  return Module::Load(SharedEngine(), bytes, "m.wasm", expected, cache);
}

class ModuleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/weft-module-test-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string directory_;
};

TEST_F(ModuleTest, SmallestModuleLoadsAndIsALeaf) {
  auto module = Load(Binary(kTypes + Handlers(kOnePage)));
  ASSERT_TRUE(module.ok()) << module.status();
  EXPECT_TRUE((*module)->leaf());
}

TEST_F(ModuleTest, NotAModuleIsRefused) {
  for (const char* bytes : {"", "hello, I am text", "\177ELF\2\1\1"}) {
    const absl::Status status = Load(bytes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("m.wasm is not a WebAssembly module"));
  }
  EXPECT_EQ(Load(Binary("garbage")).status().code(), absl::StatusCode::kInvalidArgument);
  std::string tool = Read(GuestPath("test_tool"));
  EXPECT_EQ(Load(tool.substr(0, tool.size() / 2)).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ModuleTest, ComponentIsRefusedByName) {
  EXPECT_THAT(std::string(Load(std::string("\0asm\x0d\0\1\0", 8)).status().message()),
              HasSubstr("component"));
}

TEST_F(ModuleTest, ModuleWithoutHandlerIsRefused) {
  const absl::Status status = Load(Binary(kTypes + Handlers(kOnePage, "something_else"))).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no handler"));
}

TEST_F(ModuleTest, HandlerOfAnotherTypeIsRefused) {
  std::string module = Binary(kTypes + Handlers(kOnePage));
  const size_t functions = module.find(std::string("\3\3\2\0\1", 5));
  ASSERT_NE(functions, std::string::npos);
  module[functions + 4] = 0;  // weft_handle becomes an (i32) -> i32.
  EXPECT_THAT(std::string(Load(module).status().message()), HasSubstr("weft_handle(i32, i32, i32) -> i32"));
}

TEST_F(ModuleTest, UnknownImportIsRefusedByName) {
  const std::string import =
      Section(2, std::string("\1") + Name("env") + Name("launch_missiles") + std::string("\0\2", 2));
  std::string handlers = Handlers(kOnePage);
  // The imported function is number 0, so the exported ones are 1 and 2.
  for (auto [from, to] :
       {std::pair{std::string("weft_alloc\0\0", 12), std::string("weft_alloc\0\1", 12)},
        std::pair{std::string("weft_handle\0\1", 13), std::string("weft_handle\0\2", 13)}}) {
    handlers.replace(handlers.find(from), from.size(), to);
  }
  const absl::Status status = Load(Binary(kTypes + import + handlers)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("launch_missiles"));
}

TEST_F(ModuleTest, EightGiBOfDeclaredMemoryAreRefused) {
  // 131,072 pages, as a 32-bit and as a 64-bit memory; then the 4 GiB that 32 bits do allow.
  for (const std::string& memory : {std::string("\1\0\x80\x80\x08", 5), std::string("\1\4\x80\x80\x08", 5),
                                    std::string("\1\0\x80\x80\x04", 5)}) {
    const absl::Status status = Load(Binary(kTypes + Handlers(memory))).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("memory")) << status;
  }
}

TEST_F(ModuleTest, WrongHashIsRefusedBeforeAnythingElse) {
  const std::string bytes = Binary(kTypes + Handlers(kOnePage));
  EXPECT_TRUE(Load(bytes, nullptr, Sha256Of(bytes)).ok());
  const absl::Status status = Load("not even a module", nullptr, Sha256Of(bytes)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("SHA-256"));
}

TEST_F(ModuleTest, MissingFileAndDirectoryAreRefused) {
  EXPECT_EQ(Module::LoadFile(SharedEngine(), directory_ + "/none", std::nullopt, nullptr).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_FALSE(Module::LoadFile(SharedEngine(), directory_, std::nullopt, nullptr).ok());
}

TEST_F(ModuleTest, SecondLoadComesFromTheCache) {
  auto cache = ModuleCache::Open(directory_ + "/cache");
  ASSERT_TRUE(cache.ok()) << cache.status();
  const std::string bytes = Read(GuestPath("test_tool"));
  auto first = Load(bytes, cache->get());
  ASSERT_TRUE(first.ok());
  EXPECT_FALSE((*first)->from_cache());
  auto second = Load(bytes, cache->get());
  ASSERT_TRUE(second.ok());
  EXPECT_TRUE((*second)->from_cache());
  struct stat info;
  ASSERT_EQ(stat((directory_ + "/cache").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST_F(ModuleTest, ModuleFromTheCacheRuns) {
  auto cache = ModuleCache::Open(directory_ + "/cache");
  const std::string bytes = Read(GuestPath("test_tool"));
  ASSERT_TRUE(Load(bytes, cache->get()).ok());
  FakeMesh mesh;
  Host host(SharedEngine(), {}, mesh, mesh, mesh);
  auto function = host.Add("demo/tool", *Load(bytes, cache->get()), {});
  ASSERT_TRUE(function.ok());
  Status refusal;
  InCall* call = host.Begin(**function, 2, {}, false, false, &refusal);
  memcpy(call->room, "eX", 2);
  call->mesh = 1;
  host.Run(call);
  EXPECT_EQ(mesh.replies[1].bytes, "eX");
}

TEST_F(ModuleTest, CacheOpenToOthersIsNotTrusted) {
  const std::string path = directory_ + "/cache";
  ASSERT_TRUE(ModuleCache::Open(path).ok());
  for (mode_t mode : {0770, 0707, 0701}) {
    chmod(path.c_str(), mode);
    EXPECT_EQ(ModuleCache::Open(path).status(),
              absl::PermissionDeniedError(
                  absl::StrFormat("%s has mode %04o, open to others: not trusted", path, mode)));
  }
}

TEST_F(ModuleTest, CacheBehindASymbolicLinkIsNotTrusted) {
  ASSERT_EQ(symlink("/tmp", (directory_ + "/cache").c_str()), 0);
  EXPECT_EQ(ModuleCache::Open(directory_ + "/cache").status().code(), absl::StatusCode::kPermissionDenied);
}

TEST_F(ModuleTest, CacheOfAnotherUserIsNotTrusted) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to give a directory to another user";
  const std::string path = directory_ + "/cache";
  ASSERT_TRUE(ModuleCache::Open(path).ok());
  ASSERT_EQ(chown(path.c_str(), 12345, 12345), 0);
  EXPECT_EQ(ModuleCache::Open(path).status().code(), absl::StatusCode::kPermissionDenied);
}

TEST_F(ModuleTest, CachedFileThatIsNotOursAloneIsCompiledAnew) {
  auto cache = ModuleCache::Open(directory_ + "/cache");
  const std::string bytes = Binary(kTypes + Handlers(kOnePage));
  ASSERT_TRUE(Load(bytes, cache->get()).ok());
  for (const auto& entry : std::filesystem::directory_iterator(directory_ + "/cache")) {
    chmod(entry.path().c_str(), 0666);
  }
  auto again = Load(bytes, cache->get());
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE((*again)->from_cache());
}

TEST_F(ModuleTest, DamagedCacheFileIsCompiledAnewAndReplaced) {
  auto cache = ModuleCache::Open(directory_ + "/cache");
  const std::string bytes = Binary(kTypes + Handlers(kOnePage));
  ASSERT_TRUE(Load(bytes, cache->get()).ok());
  for (const auto& entry : std::filesystem::directory_iterator(directory_ + "/cache")) {
    std::ofstream(entry.path(), std::ios::trunc) << "not native code";
  }
  auto again = Load(bytes, cache->get());
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE((*again)->from_cache());
  EXPECT_TRUE((*Load(bytes, cache->get()))->from_cache());
}

// The only file of the cache.
std::string OnlyFile(const std::string& directory) {
  std::string found;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    EXPECT_EQ(found, "");
    found = entry.path().string();
  }
  return found;
}

TEST_F(ModuleTest, CacheFileWithOneFlippedBitIsCompiledAnewAndReplaced) {
  auto cache = ModuleCache::Open(directory_ + "/cache");
  const std::string bytes = Binary(kTypes + Handlers(kOnePage));
  ASSERT_TRUE(Load(bytes, cache->get()).ok());
  const std::string path = OnlyFile(directory_ + "/cache");
  const std::string good = Read(path);
  ASSERT_GT(good.size(), 1000u);
  // In the name of the format, the checksum, the code's head, among instructions, at the end.
  for (const size_t at : {size_t{0}, size_t{9}, size_t{39}, size_t{40}, size_t{60}, good.size() / 3,
                          good.size() / 2, good.size() - 100, good.size() - 1}) {
    std::string damaged = good;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    std::ofstream(path, std::ios::trunc | std::ios::binary) << damaged;
    auto again = Load(bytes, cache->get());
    ASSERT_TRUE(again.ok());
    EXPECT_FALSE((*again)->from_cache()) << "byte " << at;
    EXPECT_TRUE((*Load(bytes, cache->get()))->from_cache()) << "byte " << at;
  }
}

TEST_F(ModuleTest, CacheFileOfAnotherLengthIsCompiledAnewAndReplaced) {
  auto cache = ModuleCache::Open(directory_ + "/cache");
  const std::string bytes = Binary(kTypes + Handlers(kOnePage));
  ASSERT_TRUE(Load(bytes, cache->get()).ok());
  const std::string path = OnlyFile(directory_ + "/cache");
  const std::string good = Read(path);
  for (const size_t length : {size_t{0}, size_t{7}, size_t{40}, size_t{41}, good.size() / 2, good.size() - 1,
                              good.size() + 1, good.size() + 4096}) {
    std::string other = good;
    other.resize(length, '\0');
    std::ofstream(path, std::ios::trunc | std::ios::binary) << other;
    auto again = Load(bytes, cache->get());
    ASSERT_TRUE(again.ok());
    EXPECT_FALSE((*again)->from_cache()) << length << " bytes";
    EXPECT_TRUE((*Load(bytes, cache->get()))->from_cache()) << length << " bytes";
  }
}

TEST_F(ModuleTest, CacheFileOfAnotherModuleIsCompiledAnew) {
  auto cache = ModuleCache::Open(directory_ + "/cache");
  const std::string bytes = Binary(kTypes + Handlers(kOnePage));
  ASSERT_TRUE(Load(bytes, cache->get()).ok());
  const std::string path = OnlyFile(directory_ + "/cache");
  const std::string other = Read(GuestPath("test_tool"));
  std::filesystem::remove(path);
  ASSERT_TRUE(Load(other, cache->get()).ok());
  // Intact, but another function's code.
  std::filesystem::rename(OnlyFile(directory_ + "/cache"), path);
  auto again = Load(bytes, cache->get());
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE((*again)->from_cache());
  EXPECT_TRUE((*Load(bytes, cache->get()))->from_cache());
}

TEST_F(ModuleTest, CacheKeepsABoundedNumberOfFiles) {
  auto cache = ModuleCache::Open(directory_ + "/cache");
  for (int i = 0; i < ModuleCache::kFilesMax + 10; ++i) {
    ASSERT_TRUE((*cache)->Store(Sha256Of(absl::StrCat(i)), "test", absl::MakeConstSpan("code", 4)).ok());
  }
  int files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory_ + "/cache"))
    ++files;
  EXPECT_EQ(files, ModuleCache::kFilesMax);
}

TEST_F(ModuleTest, CacheForgetsWhatWasHalfWrittenWhenItsProcessEnded) {
  auto cache = ModuleCache::Open(directory_ + "/cache");
  const std::string left = directory_ + "/cache/00-test.cwasm.1.new",
                    written = directory_ + "/cache/01-test.cwasm.2.new";
  for (const std::string& path : {left, written}) std::ofstream(path) << "half";
  std::filesystem::last_write_time(left,
                                   std::filesystem::file_time_type::clock::now() - std::chrono::hours(2));
  ASSERT_TRUE((*cache)->Store(Sha256Of("x"), "test", absl::MakeConstSpan("code", 4)).ok());
  EXPECT_FALSE(std::filesystem::exists(left));
  EXPECT_TRUE(std::filesystem::exists(written)) << "somebody may be writing it";
}

TEST(TickerTest, SleepsWhileNoGuestRunsAndWakesForTheNext) {
  Ticker& ticker = SharedEngine().ticker();
  const uint64_t give_up_ns = NowNs() + 30 * kNsPerSecond;
  for (int round = 0; round < 5; ++round) {
    while (!ticker.asleep() && NowNs() < give_up_ns) usleep(1000);
    ASSERT_TRUE(ticker.asleep());
    const uint64_t before = ticker.ticks();
    ticker.Enter();
    while (ticker.ticks() < before + 50 && NowNs() < give_up_ns) usleep(1000);
    EXPECT_GE(ticker.ticks(), before + 50);
    EXPECT_EQ(ticker.interval_ms(), Ticker::kTickMs) << "it is one guest that runs on";
    ticker.Leave();
  }
}

// Each look of the ticker takes the guests' core away.
TEST(TickerTest, LooksSeldomWhileGuestsComeAndGoOrCallOut) {
  Ticker& ticker = SharedEngine().ticker();
  for (const bool call_out : {false, true}) {
    const uint64_t before = ticker.ticks(), begin_ns = NowNs();
    if (call_out) ticker.Enter();
    uint64_t pauses = 0;  // In which this thread was off its core for as long as a guest may run.
    for (int i = 0; i < 4000; ++i) {
      const uint64_t step_ns = NowNs();
      call_out ? ticker.Progress() : ticker.Enter();
      usleep(20);
      if (!call_out) ticker.Leave();
      pauses += NowNs() - step_ns >= kNsPerMs;
    }
    if (call_out) ticker.Leave();
    const uint64_t passed_ms = (NowNs() - begin_ns) / kNsPerMs;
    // One in 8 ms, and 20 more after a pause; twice that, since a look may come late, too.
    EXPECT_LE(ticker.ticks() - before, passed_ms / 4 + 40 * pauses)
        << passed_ms << " ms, calling out: " << call_out;
  }
}

}  // namespace
}  // namespace weft::host
