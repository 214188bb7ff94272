#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the network of this example and writes it as integers to digits_weights.h.

    python3 -m pip install numpy        # the only dependency; the weights that are committed come from version 2.4.6
    python3 train.py                    # 10 s; prints accuracies, rewrites digits_weights.h

The network: 8x8 image, 3x3 convolution to 8 channels, ReLU, 2x2 maximum, 3x3 convolution to 16 channels, ReLU, 2x2 maximum,
64 numbers, 10 scores. It is trained in floating point on the first 1,437 images, moved, turned, stretched and blurred a
little anew each time, with seed 1 (the first that was tried), then rounded: weights to 8 bits by a power of two per layer,
activations to 0..127 by a right shift. Nothing is chosen by looking at the 360 held-out images; their accuracy and a hash of
all their scores, computed here in whole numbers, go into digits_weights.h so that the C code can be checked against this file.
"""
import gzip
import hashlib
import pathlib

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE / 'data' / 'digits.csv.gz'
TRAINING, CHANNELS1, CHANNELS2, CLASSES = 1437, 8, 16, 10
SEED, EPOCHS, BATCH, RATE, DECAY, SHIFT = 1, 120, 64, 4e-3, 1e-4, 0.3


def load():
    with gzip.open(DATA, 'rt') as lines:
        table = np.array([[int(value) for value in line.split(',')] for line in lines])
    return table[:, :64], table[:, 64]


def scale(images):
    """What vision/scale does: stretches each image so that its darkest pixel is 127."""
    most = np.maximum(images.max(1, keepdims=True), 1)
    return (images * 127 + most // 2) // most


def vary(images, rng):
    """Each image moved by up to SHIFT pixels, turned, sheared and resized a little, with noise."""
    n = len(images)
    border = np.zeros((n, 10, 10))
    border[:, 1:9, 1:9] = images.reshape(n, 8, 8)
    column = lambda low, high: rng.uniform(low, high, n)[:, None, None]
    y, x = np.mgrid[0:8, 0:8] - 3.5
    move_x, move_y, shear = column(-SHIFT, SHIFT), column(-SHIFT, SHIFT), column(-0.15, 0.15)
    size, turn = column(0.9, 1.1), column(-0.15, 0.15)
    from_x = np.clip((x * np.cos(turn) - y * np.sin(turn)) * size + shear * y + move_x + 4.5, 0, 8.999)
    from_y = np.clip((x * np.sin(turn) + y * np.cos(turn)) * size + move_y + 4.5, 0, 8.999)
    x0, y0 = from_x.astype(int), from_y.astype(int)
    part_x, part_y = from_x - x0, from_y - y0
    each = np.arange(n)[:, None, None]
    varied = (border[each, y0, x0] * (1 - part_x) * (1 - part_y) + border[each, y0, x0 + 1] * part_x * (1 - part_y) +
              border[each, y0 + 1, x0] * (1 - part_x) * part_y + border[each, y0 + 1, x0 + 1] * part_x * part_y)
    return np.clip(varied.reshape(n, 64) + rng.normal(0, 0.05, (n, 64)), 0, 1)


def neighbours(x):
    """(n, h, w, c) to (n, h, w, 9c): the 3x3 neighbourhood of each place, row by row, zeros outside."""
    n, h, w, c = x.shape
    padded = np.zeros((n, h + 2, w + 2, c), x.dtype)
    padded[:, 1:-1, 1:-1] = x
    return np.concatenate([padded[:, i:i + h, j:j + w] for i in range(3) for j in range(3)], 3)


def neighbours_back(gradient, c):
    n, h, w, _ = gradient.shape
    padded = np.zeros((n, h + 2, w + 2, c))
    for k in range(9):
        i, j = divmod(k, 3)
        padded[:, i:i + h, j:j + w] += gradient[..., k * c:(k + 1) * c]
    return padded[:, 1:-1, 1:-1]


def quads(x):
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(n, h // 2, w // 2, c, 4)


def quads_back(gradient, winners):
    n, h, w, c = gradient.shape
    spread = np.zeros((n, h, w, c, 4))
    np.put_along_axis(spread, winners[..., None], gradient[..., None], 4)
    return spread.reshape(n, h, w, c, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(n, 2 * h, 2 * w, c)


def forward(x, p):
    near1 = neighbours(x.reshape(-1, 8, 8, 1))
    full1 = np.maximum(near1 @ p[0] + p[1], 0)
    pooled1 = quads(full1)
    near2 = neighbours(pooled1.max(4))
    full2 = np.maximum(near2 @ p[2] + p[3], 0)
    pooled2 = quads(full2)
    flat = pooled2.max(4).reshape(len(x), -1)
    return near1, full1, pooled1, near2, full2, pooled2, flat, flat @ p[4] + p[5]


def gradients(x, labels, p):
    near1, full1, pooled1, near2, full2, pooled2, flat, scores = forward(x, p)
    error = np.exp(scores - scores.max(1, keepdims=True))
    error /= error.sum(1, keepdims=True)
    error[np.arange(len(x)), labels] -= 1
    error /= len(x)
    back2 = quads_back((error @ p[4].T).reshape(len(x), 2, 2, CHANNELS2), pooled2.argmax(4)) * (full2 > 0)
    back1 = quads_back(neighbours_back(back2 @ p[2].T, CHANNELS1), pooled1.argmax(4)) * (full1 > 0)
    return [near1.reshape(-1, 9).T @ back1.reshape(-1, CHANNELS1), back1.sum((0, 1, 2)),
            near2.reshape(-1, 9 * CHANNELS1).T @ back2.reshape(-1, CHANNELS2), back2.sum((0, 1, 2)),
            flat.T @ error, error.sum(0)]


def train(images, labels):
    rng = np.random.default_rng(SEED)
    layer = lambda inputs, outputs: rng.normal(0, np.sqrt(2 / inputs), (inputs, outputs))
    p = [layer(9, CHANNELS1), np.zeros(CHANNELS1), layer(9 * CHANNELS1, CHANNELS2), np.zeros(CHANNELS2),
         layer(4 * CHANNELS2, CLASSES), np.zeros(CLASSES)]
    mean, square, step = [0 * a for a in p], [0 * a for a in p], 0
    for epoch in range(EPOCHS):
        rate = RATE * 0.5 * (1 + np.cos(np.pi * epoch / EPOCHS))
        order, varied = rng.permutation(len(images)), vary(images, rng)
        for at in range(0, len(images), BATCH):
            batch = order[at:at + BATCH]
            step += 1
            for j, g in enumerate(gradients(varied[batch], labels[batch], p)):
                g = g + (DECAY * p[j] if j % 2 == 0 else 0)
                mean[j] = 0.9 * mean[j] + 0.1 * g
                square[j] = 0.999 * square[j] + 0.001 * g * g
                p[j] = p[j] - rate * (mean[j] / (1 - 0.9**step)) / (np.sqrt(square[j] / (1 - 0.999**step)) + 1e-8)
    return p


def weight_bits(weights):
    """The largest power of two by which these weights still fit into 8 bits."""
    return int(np.floor(np.log2(127 / np.abs(weights).max())))


def activate(sums, shift):
    """What the C code does to a sum: rounds it to a multiple of 2^shift, then keeps 0..127."""
    return np.clip((sums + (1 << (shift - 1))) >> shift, 0, 127)


def quantise(p, images):
    """Integer weights, biases and shifts; a shift is the least with which 99.9 % of the training activations fit."""
    network, x, unit = [], images.reshape(-1, 8, 8, 1), 127.0
    for j in (0, 2, 4):
        bits = weight_bits(p[j])
        weights = np.round(p[j] * 2.0**bits).astype(np.int64)
        unit *= 2.0**bits
        bias = np.round(p[j + 1] * unit).astype(np.int64)
        shift = 0
        if j < 4:
            sums = neighbours(x) @ weights + bias
            shift = max(1, int(np.ceil(np.log2(np.quantile(np.maximum(sums, 1), 0.999) / 127))))
            x = quads(activate(sums, shift)).max(4)
            unit /= 2.0**shift
        network.append((weights, bias, shift))
    return network


def infer(network, images):
    """The network in whole numbers: what network.c has to reproduce to the last bit."""
    x = images.reshape(-1, 8, 8, 1)
    for weights, bias, shift in network[:2]:
        x = quads(activate(neighbours(x) @ weights + bias, shift)).max(4)
    weights, bias, _ = network[2]
    return x.reshape(len(images), -1) @ weights + bias


def c_array(kind, name, values):
    numbers = [str(int(v)) for v in values.flatten()]
    rows = [', '.join(numbers[i:i + 24]) for i in range(0, len(numbers), 24)]
    return f'static const {kind} {name}[{len(numbers)}] = {{\n    ' + ',\n    '.join(rows) + '};\n'


def write_header(network, correct, held_out, scores_hash):
    text = f'''// SPDX-License-Identifier: Apache-2.0
// Written by train.py with seed {SEED}, numpy {np.__version__}, from data/digits.csv.gz
// (SHA-256 {hashlib.sha256(DATA.read_bytes()).hexdigest()}).
// Do not edit: train again. clang-format off
#ifndef WEFT_EXAMPLES_DIGITS_DIGITS_WEIGHTS_H_
#define WEFT_EXAMPLES_DIGITS_DIGITS_WEIGHTS_H_

#include <stdint.h>

// Of the {held_out} images that training never saw, so many are read right.
#define DIGITS_HELD_OUT {held_out}
#define DIGITS_HELD_OUT_CORRECT {correct}
// First 8 bytes of the SHA-256 of all their scores, image by image, as 32-bit little-endian numbers.
#define DIGITS_SCORES_HASH 0x{scores_hash}ULL

#define DIGITS_CHANNELS1 {CHANNELS1}
#define DIGITS_CHANNELS2 {CHANNELS2}
#define DIGITS_SHIFT1 {network[0][2]}
#define DIGITS_SHIFT2 {network[1][2]}

'''
    comments = ['// [place in the 3x3 neighbourhood][channel out]', '// [place][channel in][channel out]',
                '// [row][column][channel][class]']
    for i, (weights, bias, _) in enumerate(network, 1):
        text += comments[i - 1] + '\n'
        text += c_array('int8_t', f'digits_weights{i}', weights) + c_array('int32_t', f'digits_bias{i}', bias)
    text += '\n#endif  // WEFT_EXAMPLES_DIGITS_DIGITS_WEIGHTS_H_\n'
    (HERE / 'digits_weights.h').write_text(text)


def main():
    raw, labels = load()
    images = scale(raw)
    p = train(images[:TRAINING] / 127.0, labels[:TRAINING])
    network = quantise(p, images[:TRAINING])
    share = lambda scores, wanted: float((scores.argmax(1) == wanted).mean())
    scores = infer(network, images)
    print(f'training images: {share(forward(images[:TRAINING] / 127.0, p)[-1], labels[:TRAINING]):.4f} in floating point, '
          f'{share(scores[:TRAINING], labels[:TRAINING]):.4f} in integers')
    held_out, wanted = scores[TRAINING:], labels[TRAINING:]
    print(f'held-out images: {share(forward(images[TRAINING:] / 127.0, p)[-1], wanted):.4f} in floating point, '
          f'{share(held_out, wanted):.4f} in integers')
    digest = hashlib.sha256(held_out.astype('<i4').tobytes()).hexdigest()[:16]
    write_header(network, int((held_out.argmax(1) == wanted).sum()), len(wanted), digest)


if __name__ == '__main__':
    main()
