/* SPDX-License-Identifier: Apache-2.0 */
#include "network.h"

#include "digits_weights.h"

enum { kSide = 8, kSide2 = 4, kSide3 = 2, kActivationMax = 127 };

/* Rounds a sum to a multiple of 2^shift and keeps what an activation can be. */
static uint8_t activate(int32_t sum, int shift) {
  const int32_t rounded = (sum + (1 << (shift - 1))) >> shift;
  return rounded < 0 ? 0 : rounded > kActivationMax ? kActivationMax : (uint8_t)rounded;
}

/* 3x3 convolution of a square picture with zeros around it, activation, and the maximum of each 2x2 quad.
   `in` is [side][side][in_channels], `out` [side/2][side/2][out_channels], `weights`
   [9][in_channels][out_channels]. */
static inline void convolve(const uint8_t* in, int side, int in_channels, const int8_t* weights,
                            const int32_t* bias, int shift, uint8_t* out, int out_channels) {
  for (int i = 0; i < side / 2 * (side / 2) * out_channels; ++i) out[i] = 0;
  for (int y = 0; y < side; ++y) {
    for (int x = 0; x < side; ++x) {
      int32_t sums[DIGITS_CHANNELS2]; /* The more of the two. */
      for (int o = 0; o < out_channels; ++o) sums[o] = bias[o];
      for (int place = 0; place < 9; ++place) {
        const int from_y = y + place / 3 - 1, from_x = x + place % 3 - 1;
        if (from_y < 0 || from_y >= side || from_x < 0 || from_x >= side) continue;
        for (int i = 0; i < in_channels; ++i) {
          const int32_t value = in[(from_y * side + from_x) * in_channels + i];
          const int8_t* row = weights + (place * in_channels + i) * out_channels;
          for (int o = 0; o < out_channels; ++o) sums[o] += value * row[o];
        }
      }
      uint8_t* quad = out + (y / 2 * (side / 2) + x / 2) * out_channels;
      for (int o = 0; o < out_channels; ++o) {
        const uint8_t value = activate(sums[o], shift);
        if (value > quad[o]) quad[o] = value;
      }
    }
  }
}

void digits_scale(const uint8_t raw[DIGITS_PIXELS], uint8_t scaled[DIGITS_PIXELS]) {
  uint32_t most = 1;
  for (int i = 0; i < DIGITS_PIXELS; ++i) most = raw[i] > most ? raw[i] : most;
  for (int i = 0; i < DIGITS_PIXELS; ++i) {
    scaled[i] = (uint8_t)((raw[i] * (uint32_t)kActivationMax + most / 2) / most);
  }
}

int digits_classify(const uint8_t scaled[DIGITS_PIXELS], int32_t scores[DIGITS_CLASSES]) {
  uint8_t half[kSide2 * kSide2 * DIGITS_CHANNELS1];
  uint8_t quarter[kSide3 * kSide3 * DIGITS_CHANNELS2];
  convolve(scaled, kSide, 1, digits_weights1, digits_bias1, DIGITS_SHIFT1, half, DIGITS_CHANNELS1);
  convolve(half, kSide2, DIGITS_CHANNELS1, digits_weights2, digits_bias2, DIGITS_SHIFT2, quarter,
           DIGITS_CHANNELS2);
  for (int digit = 0; digit < DIGITS_CLASSES; ++digit) scores[digit] = digits_bias3[digit];
  for (int i = 0; i < kSide3 * kSide3 * DIGITS_CHANNELS2; ++i) {
    for (int digit = 0; digit < DIGITS_CLASSES; ++digit) {
      scores[digit] += quarter[i] * digits_weights3[i * DIGITS_CLASSES + digit];
    }
  }
  int best = 0;
  for (int digit = 1; digit < DIGITS_CLASSES; ++digit) best = scores[digit] > scores[best] ? digit : best;
  return best;
}
