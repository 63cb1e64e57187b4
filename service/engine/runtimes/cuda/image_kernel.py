"""A Triton kernel for small images, of which one program runs one through the whole network, then takes the next.

A closed gate is a branch of that program: nothing is listed, gathered or launched for it. Features lie in memory of the
program's own, small enough for the caches. It is for networks of three stages, each of half the side and twice the
channels of the one before, with two convolutions of 3 x 3 a block: those for CIFAR (He et al. 2015, section 4.2).

`table` has a row of four int32 for each block: whether it has a gate, and where its weights, its vectors and its margin
are. A block's weights are those of its projection, if any, and of its two convolutions; its vectors are their biases in
that order, then the gate's hidden weight, hidden bias, margin weight and margin bias.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _convolve(
    source,
    target,
    weight,
    bias,
    SIDE: tl.constexpr,
    C: tl.constexpr,
    K: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    ADDS: tl.constexpr,
    RELU: tl.constexpr,
    MOST_ROWS: tl.constexpr,
    MOST_DEPTH: tl.constexpr,
):
    """A convolution of one image, from (SIDE, SIDE, C) to (SIDE / STRIDE, SIDE / STRIDE, K)."""
    OUT: tl.constexpr = SIDE // STRIDE
    PADDING: tl.constexpr = KERNEL // 2
    ROWS: tl.constexpr = min(MOST_ROWS, OUT * OUT)
    DEPTH: tl.constexpr = min(MOST_DEPTH, C)
    column = tl.arange(0, K)
    for first in range(0, OUT * OUT, ROWS):
        pixel = first + tl.arange(0, ROWS)
        top = (pixel // OUT) * STRIDE - PADDING
        left = (pixel % OUT) * STRIDE - PADDING
        sums = tl.zeros((ROWS, K), tl.float32)
        for begin in range(0, KERNEL * KERNEL * C, DEPTH):
            tap = begin // C
            down = top + tap // KERNEL
            right = left + tap % KERNEL
            inside = (down >= 0) & (down < SIDE) & (right >= 0) & (right < SIDE)
            at = (down * SIDE + right) * C + begin % C
            values = tl.load(source + at[:, None] + tl.arange(0, DEPTH)[None, :], mask=inside[:, None], other=0.0)
            factors = tl.load(weight + (begin + tl.arange(0, DEPTH))[:, None] * K + column[None, :])
            sums = tl.dot(values, factors, sums, input_precision="ieee")
        sums += tl.load(bias + column)[None, :]
        to = target + (pixel * K)[:, None] + column[None, :]
        if ADDS:
            sums += tl.load(to).to(tl.float32)
        if RELU:
            sums = tl.maximum(sums, 0.0, propagate_nan=tl.PropagateNan.ALL)
        tl.store(to, sums.to(target.dtype.element_ty))
    tl.debug_barrier()  # other threads of the program read what this one wrote


@triton.jit
def _average(features, PIXELS: tl.constexpr, C: tl.constexpr):
    ROWS: tl.constexpr = min(PIXELS, 128)
    channel = tl.arange(0, C)
    total = tl.zeros((C,), tl.float32)
    for begin in range(0, PIXELS, ROWS):
        pixel = begin + tl.arange(0, ROWS)
        total += tl.sum(tl.load(features + (pixel * C)[:, None] + channel[None, :]).to(tl.float32), axis=0)
    return total / PIXELS


@triton.jit
def _margin(features, gate, PIXELS: tl.constexpr, C: tl.constexpr, HIDDEN: tl.constexpr):
    mean = _average(features, PIXELS, C)
    unit = tl.arange(0, HIDDEN)
    factors = tl.load(gate + unit[:, None] * C + tl.arange(0, C)[None, :])
    hidden = tl.load(gate + HIDDEN * C + unit) + tl.sum(factors * mean[None, :], axis=1)
    hidden = tl.maximum(hidden, 0.0, propagate_nan=tl.PropagateNan.ALL)
    weighted = hidden * tl.load(gate + HIDDEN * C + HIDDEN + unit)
    return tl.sum(weighted, axis=0) + tl.load(gate + HIDDEN * C + 2 * HIDDEN)


@triton.jit
def _opens(
    features, row, gate, margins, offset, threshold, PIXELS: tl.constexpr, C: tl.constexpr, HIDDEN: tl.constexpr
):
    """Whether a block runs; a gate's margin is noted."""
    opens = tl.load(row) == 0
    if not opens:
        margin = _margin(features, gate, PIXELS, C, HIDDEN)
        tl.store(margins + tl.load(row + 3), margin)
        opens = margin + offset > threshold
    return opens


@triton.jit
def _blocks(
    features,
    inner,
    weights,
    vectors,
    table,
    count,
    margins,
    offset,
    threshold,
    SIDE: tl.constexpr,
    C: tl.constexpr,
    HIDDEN: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Blocks that leave the shape as it is, in place."""
    for block in range(count):
        row = table + 4 * block
        weight = weights + tl.multiple_of(tl.load(row + 1), 16)
        vector = vectors + tl.multiple_of(tl.load(row + 2), 16)
        if _opens(features, row, vector + 2 * C, margins, offset, threshold, SIDE * SIDE, C, HIDDEN):
            _convolve(features, inner, weight, vector, SIDE, C, C, 3, 1, False, True, ROWS, DEPTH)
            second = weight + 9 * C * C
            _convolve(inner, features, second, vector + C, SIDE, C, C, 3, 1, True, True, ROWS, DEPTH)


@triton.jit
def _halving_block(
    features,
    inner,
    target,
    weights,
    vectors,
    row,
    margins,
    offset,
    threshold,
    SIDE: tl.constexpr,
    C: tl.constexpr,
    HIDDEN: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """A block that halves the side and doubles the channels."""
    K: tl.constexpr = 2 * C
    weight = weights + tl.multiple_of(tl.load(row + 1), 16)
    vector = vectors + tl.multiple_of(tl.load(row + 2), 16)
    if _opens(features, row, vector + 3 * K, margins, offset, threshold, SIDE * SIDE, C, HIDDEN):
        _convolve(features, target, weight, vector, SIDE, C, K, 1, 2, False, False, ROWS, DEPTH)
        first = weight + C * K
        _convolve(features, inner, first, vector + K, SIDE, C, K, 3, 2, False, True, ROWS, DEPTH)
        second = first + 9 * C * K
        _convolve(inner, target, second, vector + 2 * K, SIDE // 2, K, K, 3, 1, True, True, ROWS, DEPTH)
    else:
        _convolve(features, target, weight, vector, SIDE, C, K, 1, 2, False, True, ROWS, DEPTH)


@triton.jit
def run_images(
    images,  # (N, SIDE, SIDE, 16)
    offsets,  # (N,) fp32
    header,  # of which the first int32 is the number of images
    queue,  # (1,) int32, 0 before: the image that is next
    threshold,
    weights,
    vectors,  # fp32
    table,  # (blocks, 4) int32
    stem_weight,
    stem_bias,  # fp32
    classifier_weight,  # (CLASSES, 4 * WIDTH) fp32
    classifier_bias,  # (CLASSES,) fp32
    scratch,  # for each program, features of three stages and within blocks
    logits,  # (N, CLASSES) fp32
    margins,  # (N, gates) fp32
    gates,
    first,  # blocks of the first stage; of the others, but for their first blocks
    second,
    third,
    SIDE: tl.constexpr,
    WIDTH: tl.constexpr,
    CLASSES: tl.constexpr,
    CLASS_BLOCK: tl.constexpr,
    HIDDEN: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """The whole network. Programs: any number; each has (11/4) SIDE * SIDE * WIDTH values of `scratch`."""
    SIZE: tl.constexpr = SIDE * SIDE * WIDTH
    HALF: tl.constexpr = SIDE // 2
    QUARTER: tl.constexpr = SIDE // 4
    DOUBLE: tl.constexpr = 2 * WIDTH
    FOURFOLD: tl.constexpr = 4 * WIDTH
    early = scratch + tl.program_id(0).to(tl.int64) * (11 * SIZE // 4)
    inner = early + SIZE
    middle = inner + SIZE
    late = middle + SIZE // 2
    batch = tl.load(header)
    image = tl.atomic_add(queue, 1)
    while image < batch:
        offset = tl.load(offsets + image)
        to = margins + image * gates
        picture = images + image * (SIDE * SIDE * 16)
        _convolve(picture, early, stem_weight, stem_bias, SIDE, 16, WIDTH, 3, 1, False, True, ROWS, DEPTH)
        row = table
        _blocks(early, inner, weights, vectors, row, first, to, offset, threshold, SIDE, WIDTH, HIDDEN, ROWS, DEPTH)
        row += 4 * first
        _halving_block(
            early, inner, middle, weights, vectors, row, to, offset, threshold, SIDE, WIDTH, HIDDEN, ROWS, DEPTH
        )
        row += 4
        _blocks(middle, inner, weights, vectors, row, second, to, offset, threshold, HALF, DOUBLE, HIDDEN, ROWS, DEPTH)
        row += 4 * second
        _halving_block(
            middle, inner, late, weights, vectors, row, to, offset, threshold, HALF, DOUBLE, HIDDEN, ROWS, DEPTH
        )
        row += 4
        _blocks(
            late, inner, weights, vectors, row, third, to, offset, threshold, QUARTER, FOURFOLD, HIDDEN, ROWS, DEPTH
        )
        mean = _average(late, QUARTER * QUARTER, FOURFOLD)
        channel = tl.arange(0, FOURFOLD)
        for begin in range(0, CLASSES, CLASS_BLOCK):
            number = begin + tl.arange(0, CLASS_BLOCK)
            known = number < CLASSES
            at = number[:, None] * FOURFOLD + channel[None, :]
            factors = tl.load(classifier_weight + at, mask=known[:, None], other=0.0)
            answer = tl.sum(factors * mean[None, :], axis=1) + tl.load(classifier_bias + number, mask=known, other=0.0)
            tl.store(logits + image * CLASSES + number, answer, mask=known)
        tl.debug_barrier()  # before the next image's features are written over these
        image = tl.atomic_add(queue, 1)
