// SPDX-License-Identifier: Apache-2.0
// Replays the committed corpus of the fuzzer, then the same inputs with bytes changed.
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "dataplane/base/random.h"
#include "tests/dataplane/transport/fuzz_core.h"

namespace weft::transport {
namespace {

std::vector<std::vector<uint8_t>> Corpus() {
  std::ifstream file(WEFT_CORPUS);
  std::vector<std::vector<uint8_t>> corpus;
  std::string line;
  while (std::getline(file, line)) {
    if (line.empty() || line[0] == '#') continue;
    std::vector<uint8_t> bytes;
    for (size_t i = 0; i + 1 < line.size(); i += 2) {
      bytes.push_back(static_cast<uint8_t>(std::stoi(line.substr(i, 2), nullptr, 16)));
    }
    corpus.push_back(bytes);
  }
  return corpus;
}

TEST(CorpusTest, EveryInputOfTheCorpusIsTakenWithoutHarm) {
  const auto corpus = Corpus();
  ASSERT_GT(corpus.size(), 20u);
  for (const auto& input : corpus) FuzzCore(input.data(), input.size());
}

TEST(CorpusTest, ChangedInputsAreTakenWithoutHarm) {
  Random random(1);
  for (const auto& input : Corpus()) {
    for (int round = 0; round < 4; ++round) {
      std::vector<uint8_t> changed = input;
      for (int i = 0; i < 3 && !changed.empty(); ++i) {
        changed[random.Below(changed.size())] = static_cast<uint8_t>(random.Next());
      }
      FuzzCore(changed.data(), changed.size());
    }
  }
}

}  // namespace
}  // namespace weft::transport
