// SPDX-License-Identifier: Apache-2.0
// What the fuzzer of the handshake's decoder and the replay of its corpus both run.
#ifndef WEFT_TESTS_DATAPLANE_IDENTITY_FUZZ_MESSAGES_H_
#define WEFT_TESTS_DATAPLANE_IDENTITY_FUZZ_MESSAGES_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace weft::identity {

// Decodes frame after frame. Aborts where one is taken that encoding would not have made so.
void FuzzMessages(absl::string_view bytes);
// Lines of hex; those that begin with # are comments.
std::vector<std::string> ReadCorpus(const std::string& path);
// Each input `rounds` times with some bytes changed, always the same.
void FuzzChanged(const std::vector<std::string>& corpus, int rounds);

}  // namespace weft::identity

#endif  // WEFT_TESTS_DATAPLANE_IDENTITY_FUZZ_MESSAGES_H_
