/* SPDX-License-Identifier: Apache-2.0 */
/* What the three functions of this example compute, in whole numbers and without any library: compiled to
   Wasm for the guests and natively for the reference that their answers are checked against. Any thread. */
#ifndef WEFT_EXAMPLES_DIGITS_NETWORK_H_
#define WEFT_EXAMPLES_DIGITS_NETWORK_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DIGITS_PIXELS 64
#define DIGITS_CLASSES 10

/* vision/scale: stretches an image of 8x8 pixels from 0 to 255 so that its darkest is 127; an empty one stays
 * 0. */
void digits_scale(const uint8_t raw[DIGITS_PIXELS], uint8_t scaled[DIGITS_PIXELS]);

/* vision/classify: scores of the ten digits for a scaled image (0 to 127 a pixel), and the digit with the
   highest score, the lower of two equal ones. */
int digits_classify(const uint8_t scaled[DIGITS_PIXELS], int32_t scores[DIGITS_CLASSES]);

/* What vision/classify answers, and vision/scale hands on: 48 bytes, little-endian as Wasm is. */
typedef struct {
  int32_t scores[DIGITS_CLASSES];
  uint32_t digit;
  uint32_t count; /* How often vision/tally has been told of this digit, this time included. */
} digits_answer;

/* What vision/classify tells vision/tally, which answers with the 4 bytes of the count. */
typedef struct {
  uint32_t digit;
} digits_vote;

#ifdef __cplusplus
} /* extern "C" */
static_assert(sizeof(digits_answer) == 48 && sizeof(digits_vote) == 4, "message formats");
#endif

#endif /* WEFT_EXAMPLES_DIGITS_NETWORK_H_ */
