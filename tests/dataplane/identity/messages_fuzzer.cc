// SPDX-License-Identifier: Apache-2.0
// libFuzzer's way into FuzzMessages. Built by Clang only, on demand: ninja messages_fuzzer, then
//   ../transport/corpus.py unpack corpus.txt DIR && messages_fuzzer DIR
// What it finds goes to the corpus as a line of hex, which the test replays.
#include "tests/dataplane/identity/fuzz_messages.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  weft::identity::FuzzMessages(absl::string_view(reinterpret_cast<const char*>(data), bytes));
  return 0;
}
