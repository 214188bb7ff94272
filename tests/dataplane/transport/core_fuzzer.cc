// SPDX-License-Identifier: Apache-2.0
// libFuzzer's way into FuzzCore. Built by Clang only, on demand: ninja core_fuzzer, then
//   corpus.py unpack corpus.txt DIR && core_fuzzer DIR
// What it finds goes to the corpus as a line of hex, which the test replays.
#include "tests/dataplane/transport/fuzz_core.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  weft::transport::FuzzCore(data, bytes);
  return 0;
}
