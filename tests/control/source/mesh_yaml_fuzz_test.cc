// SPDX-License-Identifier: Apache-2.0
// Mutated mesh files: whatever stands there, loading ends, and ends either with a mesh that can be merged or
// with errors that name the file. Replays the committed corpus, then mutates it with a fixed seed.
// WEFT_FUZZ_ROUNDS=N runs longer; WEFT_FUZZ_SEED chooses another path.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "control/model/merge.h"
#include "control/source/mesh_yaml.h"
#include "dataplane/base/random.h"
#include "tests/support/temporary_directory.h"

namespace weft::control {
namespace {

constexpr char kWhole[] = R"(version: 1
nodes:
- {name: n1, address: "10.0.0.7:4810", zone: a}
functions:
- name: vision/scale
  idempotent: true
  state: keep
  timeout: 250ms
  retries: 3
  limits: {concurrent_calls: 7, calls_per_second: 100, memory: 16MiB, run_time: 2s}
endpoints:
- function: vision/scale
  node: n1
  host: h1
  module: /m/scale.wasm
  sha256: 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
  weight: 7
  state: draining
allow:
- {from: web/*, to: vision/scale}
)";

// Pieces that mean something to YAML or to the loader.
constexpr const char* kPieces[] = {"&a ",
                                   "*a",
                                   "!!str ",
                                   "? ",
                                   ": ",
                                   "- ",
                                   "{",
                                   "}",
                                   "[",
                                   "]",
                                   "|\n",
                                   ">\n",
                                   "---\n",
                                   "...\n",
                                   "%YAML 1.2\n",
                                   "\"",
                                   "'",
                                   "#",
                                   "\t",
                                   "\n",
                                   "<<: ",
                                   "null",
                                   "~",
                                   "0x7f",
                                   "1e400",
                                   ".inf",
                                   "-",
                                   ": : ",
                                   ",",
                                   "version: 1\n",
                                   "\xef\xbb\xbf",
                                   "\xff\xfe",
                                   "\xc0\x80",
                                   "\\u0000",
                                   "99999999999999999999",
                                   "nodes:",
                                   "limits:",
                                   "module: /dev/zero\n"};

std::vector<std::string> Corpus() {
  std::vector<std::string> corpus = {kWhole};
  for (const auto& entry : std::filesystem::directory_iterator(WEFT_CORPUS_DIR)) {
    corpus.push_back(test::ReadFile(entry.path().string()));
  }
  return corpus;
}

std::string Mutate(const std::vector<std::string>& corpus, Random* random) {
  std::string text = corpus[random->Below(corpus.size())];
  for (uint64_t i = 1 + random->Below(6); i > 0; --i) {
    const std::size_t at = random->Below(text.size() + 1);
    switch (random->Below(6)) {
      case 0:
        text.insert(at, kPieces[random->Below(std::size(kPieces))]);
        break;
      case 1:
        text.erase(at, random->Below(20));
        break;
      case 2:
        if (at < text.size()) text[at] = static_cast<char>(random->Below(256));
        break;
      case 3:
        text.insert(at, text.substr(random->Below(text.size() + 1), random->Below(60)));
        break;
      case 4: {
        const std::string& other = corpus[random->Below(corpus.size())];
        text = text.substr(0, at) + other.substr(random->Below(other.size() + 1));
        break;
      }
      default:
        text.insert(at, std::string(1 + random->Below(600), "[{- :"[random->Below(5)]));
    }
  }
  return text;
}

void LoadAndCheck(const std::string& text) {
  ModuleHasher hasher;
  const LoadedMesh loaded = LoadMesh(text, "/f.yaml", &hasher);
  for (const std::string& line : loaded.errors) {
    ASSERT_TRUE(absl::StartsWith(line, "/f.yaml:")) << line;
    ASSERT_LT(line.size(), 800u);
  }
  ASSERT_LE(loaded.errors.size(), 21u);
  const SourceMesh* sources[] = {&loaded.mesh};
  for (const MeshError& error : Merge(sources).errors) ASSERT_EQ(error.origin, "/f.yaml");
}

TEST(MeshYamlFuzzTest, TheCorpusLoadsOrIsRefused) {
  const std::vector<std::string> corpus = Corpus();
  EXPECT_GT(corpus.size(), 10u);
  for (const std::string& text : corpus) LoadAndCheck(text);
}

TEST(MeshYamlFuzzTest, MutatedFilesLoadOrAreRefused) {
  const char* rounds_text = std::getenv("WEFT_FUZZ_ROUNDS");
  const char* seed_text = std::getenv("WEFT_FUZZ_SEED");
  const uint64_t rounds = rounds_text == nullptr ? 4'000 : std::strtoull(rounds_text, nullptr, 10);
  Random random(seed_text == nullptr ? 1 : std::strtoull(seed_text, nullptr, 10));
  const std::vector<std::string> corpus = Corpus();
  uint64_t good = 0;
  for (uint64_t round = 0; round < rounds; ++round) {
    const std::string text = Mutate(corpus, &random);
    SCOPED_TRACE(text);
    LoadAndCheck(text);
    if (HasFatalFailure()) return;
    ModuleHasher hasher;
    good += LoadMesh(text, "/f.yaml", &hasher).errors.empty() ? 1 : 0;
  }
  // Both sides of the fence were visited.
  EXPECT_GT(good, 0u);
  EXPECT_LT(good, rounds);
}

TEST(MeshYamlFuzzTest, EveryPrefixOfAFileIsRefusedOrSaysWholeLines) {
  const std::string text = kWhole;
  for (std::size_t bytes = 0; bytes < text.size(); ++bytes) {
    LoadAndCheck(text.substr(0, bytes));
    ModuleHasher hasher;
    const LoadedMesh loaded = LoadMesh(text.substr(0, bytes), "/f.yaml", &hasher);
    EXPECT_TRUE(!loaded.errors.empty() || text[bytes - 1] == '\n') << bytes;
  }
}

}  // namespace
}  // namespace weft::control
