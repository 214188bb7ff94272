// SPDX-License-Identifier: Apache-2.0
// The images of this example, for native programs: the demo's driver and the tests.
#ifndef WEFT_EXAMPLES_DIGITS_IMAGES_H_
#define WEFT_EXAMPLES_DIGITS_IMAGES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "examples/digits/network.h"

namespace weft::digits {

// The images before this one trained the network; those from it on are held out.
inline constexpr std::size_t kTrainingImages = 1'437;

struct Image {
  std::array<uint8_t, DIGITS_PIXELS> pixels;  // 0 to 16.
  int digit;                                  // What a person wrote.
};

// Reads all images of a gzipped file of lines of 64 pixels and a digit. Blocks. The error names file and
// line.
absl::StatusOr<std::vector<Image>> LoadImages(const std::string& path);

// What the chain of three functions must answer for `image`, its count aside, which is 0.
digits_answer ReferenceAnswer(const Image& image);

}  // namespace weft::digits

#endif  // WEFT_EXAMPLES_DIGITS_IMAGES_H_
