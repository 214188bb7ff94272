// SPDX-License-Identifier: Apache-2.0
#include "examples/digits/images.h"

#include <zlib.h>

#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "dataplane/base/status.h"

namespace weft::digits {
namespace {

constexpr int kDarkest = 16;
constexpr int kLineBytesMax = 1'024;  // 65 numbers of two digits with commas are below 200.

absl::StatusOr<Image> ParseLine(absl::string_view line) {
  const std::vector<absl::string_view> fields = absl::StrSplit(line, ',');
  if (fields.size() != DIGITS_PIXELS + 1) {
    return absl::InvalidArgumentError(absl::StrCat(fields.size(), " numbers instead of ", DIGITS_PIXELS + 1));
  }
  Image image{};
  for (std::size_t i = 0; i < fields.size(); ++i) {
    int value = -1;
    const int most = i < DIGITS_PIXELS ? kDarkest : DIGITS_CLASSES - 1;
    if (!absl::SimpleAtoi(fields[i], &value) || value < 0 || value > most) {
      return absl::InvalidArgumentError(absl::StrCat("\"", fields[i], "\" is not a number from 0 to ", most));
    }
    if (i < DIGITS_PIXELS) {
      image.pixels[i] = static_cast<uint8_t>(value);
    } else {
      image.digit = value;
    }
  }
  return image;
}

}  // namespace

absl::StatusOr<std::vector<Image>> LoadImages(const std::string& path) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile_s*)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (file == nullptr) return absl::NotFoundError(absl::StrCat("open ", path));
  std::vector<Image> images;
  char line[kLineBytesMax];
  while (gzgets(file.get(), line, sizeof(line)) != nullptr) {
    absl::string_view text(line);
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
    absl::StatusOr<Image> image = ParseLine(text);
    if (!image.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", images.size() + 1, ": ", image.status().message()));
    }
    images.push_back(*image);
  }
  int error = Z_OK;
  const char* reason = gzerror(file.get(), &error);
  if (error != Z_OK && error != Z_STREAM_END)
    return absl::DataLossError(absl::StrCat("read ", path, ": ", reason));
  return images;
}

digits_answer ReferenceAnswer(const Image& image) {
  std::array<uint8_t, DIGITS_PIXELS> scaled;
  digits_answer answer{};
  digits_scale(image.pixels.data(), scaled.data());
  answer.digit = static_cast<uint32_t>(digits_classify(scaled.data(), answer.scores));
  return answer;
}

}  // namespace weft::digits
