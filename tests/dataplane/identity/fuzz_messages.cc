// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/identity/fuzz_messages.h"

#include <fstream>

#include "absl/strings/escaping.h"
#include "dataplane/base/check.h"
#include "dataplane/base/random.h"
#include "dataplane/identity/messages.h"

namespace weft::identity {

void FuzzMessages(absl::string_view bytes) {
  while (!bytes.empty()) {
    std::size_t length = 0;
    const auto decoded = Decode(bytes, &length);
    if (!decoded.ok() || !decoded->has_value()) return;
    WEFT_CHECK(length >= kFrameHeaderBytes && length <= bytes.size());
    WEFT_CHECK(Encode(**decoded) == bytes.substr(0, length));
    bytes.remove_prefix(length);
  }
}

std::vector<std::string> ReadCorpus(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> corpus;
  std::string line;
  while (std::getline(file, line)) {
    if (!line.empty() && line[0] != '#') corpus.push_back(absl::HexStringToBytes(line));
  }
  return corpus;
}

void FuzzChanged(const std::vector<std::string>& corpus, int rounds) {
  Random random(1);
  for (const std::string& input : corpus) {
    for (int round = 0; round < rounds; ++round) {
      std::string changed = input;
      for (uint64_t i = random.Below(4); i > 0 && !changed.empty(); --i) {
        changed[random.Below(changed.size())] = static_cast<char>(random.Next());
      }
      FuzzMessages(changed);
    }
  }
}

}  // namespace weft::identity
