// SPDX-License-Identifier: Apache-2.0
// The C network computes with the committed weights exactly what the training script computed in whole
// numbers, and reads the held-out images as well as the script said.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "dataplane/base/function_id.h"
#include "examples/digits/digits_weights.h"
#include "examples/digits/images.h"

namespace weft::digits {
namespace {

using ::testing::HasSubstr;

std::vector<Image> AllImages() {
  absl::StatusOr<std::vector<Image>> images = LoadImages(WEFT_DIGITS_DATA);
  EXPECT_TRUE(images.ok()) << images.status();
  return images.ok() ? *std::move(images) : std::vector<Image>();
}

TEST(DigitsTest, HeldOutAccuracyIsWhatTrainingReported) {
  const std::vector<Image> images = AllImages();
  ASSERT_EQ(images.size(), kTrainingImages + DIGITS_HELD_OUT);
  int correct = 0;
  for (std::size_t i = kTrainingImages; i < images.size(); ++i) {
    correct += ReferenceAnswer(images[i]).digit == static_cast<uint32_t>(images[i].digit) ? 1 : 0;
  }
  EXPECT_EQ(correct, DIGITS_HELD_OUT_CORRECT);
  EXPECT_GE(correct, DIGITS_HELD_OUT * 94 / 100);
}

TEST(DigitsTest, EveryScoreIsWhatTrainingComputed) {
  const std::vector<Image> images = AllImages();
  std::string scores;
  for (std::size_t i = kTrainingImages; i < images.size(); ++i) {
    const digits_answer answer = ReferenceAnswer(images[i]);
    scores.append(reinterpret_cast<const char*>(answer.scores), sizeof(answer.scores));
  }
  uint64_t hash = 0;
  const Sha256 digest = Sha256Of(scores);
  for (int i = 0; i < 8; ++i) hash = hash << 8 | digest[i];
  EXPECT_EQ(hash, DIGITS_SCORES_HASH);
}

TEST(DigitsTest, ScaleStretchesTheDarkestPixelTo127AndKeepsAnEmptyImageEmpty) {
  uint8_t raw[DIGITS_PIXELS] = {0, 4, 8}, scaled[DIGITS_PIXELS];
  digits_scale(raw, scaled);
  EXPECT_EQ(scaled[0], 0);
  EXPECT_EQ(scaled[1], 64);
  EXPECT_EQ(scaled[2], 127);
  std::memset(raw, 0, sizeof(raw));
  digits_scale(raw, scaled);
  for (uint8_t pixel : scaled) EXPECT_EQ(pixel, 0);
}

class LoadTest : public ::testing::Test {
 protected:
  absl::Status Load(const std::string& text) {
    const std::string path = ::testing::TempDir() + "/digits_test.csv.gz";
    gzFile file = gzopen(path.c_str(), "wb");
    gzputs(file, text.c_str());
    gzclose(file);
    const absl::Status status = LoadImages(path).status();
    std::remove(path.c_str());
    return status;
  }
  static std::string Line(const std::string& last) {
    std::string line;
    for (int i = 0; i < DIGITS_PIXELS; ++i) line += "1,";
    return line + last + "\n";
  }
};

TEST_F(LoadTest, BadLineIsNamed) {
  EXPECT_TRUE(Load(Line("9") + Line("0")).ok());
  EXPECT_THAT(Load(Line("9") + Line("10")).ToString(), HasSubstr(":2: \"10\" is not a number from 0 to 9"));
  EXPECT_THAT(Load(Line("x")).ToString(), HasSubstr(":1: \"x\""));
  EXPECT_THAT(Load("1,2\n").ToString(), HasSubstr(":1: 2 numbers instead of 65"));
  EXPECT_THAT(Load("17," + Line("1").substr(2)).ToString(), HasSubstr("\"17\" is not a number from 0 to 16"));
}

TEST_F(LoadTest, MissingFileIsNamed) {
  EXPECT_THAT(LoadImages("/nonexistent/x.gz").status().ToString(), HasSubstr("/nonexistent/x.gz"));
}

}  // namespace
}  // namespace weft::digits
