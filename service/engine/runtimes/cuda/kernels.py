"""Triton kernels for many images at a time, of which only those with an open gate are computed.

Features are (N, side, side, C) in the precision that serves; sums, gates and logits are in fp32. A gate writes the
numbers of the open images and how many there are into device memory. The convolutions of its block are matrix products
over the pixels of those images alone: gathered on the way in, added to the shortcut in place on the way out. Programs
beyond the list end at once, so that one launch does whatever the gate decides, and one CUDA
graph a whole network.

What is no number stays so, lest an overflow pass for an answer.

`header` holds the number of images of the batch and whether they are pixels, two int32.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_images(
    pixels,  # (N, SIDE, SIDE, 3) uint8; the same memory as
    tensors,  # (N, 3, SIDE, SIDE) fp32
    header,
    means,  # (4,) fp32, of values from 0 to 255
    scales,  # (4,) fp32
    images,  # (N, SIDE, SIDE, CHANNELS)
    counts,  # (counters,) int32, which become 0
    counters,
    SIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Normalise the pixels of images, or take what is normalised already. Programs: (N x blocks of an image)."""
    size: tl.constexpr = SIDE * SIDE
    blocks: tl.constexpr = (size + BLOCK - 1) // BLOCK
    program = tl.program_id(0)
    if program == 0:
        for counter in range(counters):
            tl.store(counts + counter, 0)
    image = program // blocks
    if image < tl.load(header):
        pixel = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
        channel = tl.arange(0, CHANNELS)
        inside = (pixel < size)[:, None] & (channel < 3)[None, :]
        if tl.load(header + 1) != 0:
            at = (image * size + pixel)[:, None] * 3 + channel[None, :]
            colours = tl.load(pixels + at, mask=inside, other=0).to(tl.float32)
            colours -= tl.load(means + channel, mask=channel < 3, other=0.0)[None, :]
            values = colours * tl.load(scales + channel, mask=channel < 3, other=0.0)[None, :]
        else:
            at = (image * 3 + channel)[None, :] * size + pixel[:, None]
            values = tl.load(tensors + at, mask=inside, other=0.0)
        to = (image * size + pixel)[:, None] * CHANNELS + channel[None, :]
        tl.store(images + to, values.to(images.dtype.element_ty), mask=(pixel < size)[:, None])


@triton.jit
def convolve(
    source,  # (N, SIDE, SIDE, C): at the image's own place, or, of open images alone, one after the other
    weight,  # (KERNEL * KERNEL * C, K)
    bias,  # (K,) fp32
    target,  # (N, OUT, OUT, K): as `source`
    listed,  # (N,) int32: numbers of the open images
    count,  # (1,) int32: how many
    is_open,  # (N,) int32: read where only closed images have a ReLU
    SIDE: tl.constexpr,
    OUT: tl.constexpr,
    C: tl.constexpr,
    K: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    GATHERS: tl.constexpr,  # whether `source` has all images
    SCATTERS: tl.constexpr,  # whether `target` has all images
    ADDS: tl.constexpr,  # to what is in `target`
    RELU: tl.constexpr,  # 0: none, 1: of all, 2: of the closed images
    LISTED: tl.constexpr,  # whether only listed images are run; otherwise the first `count`
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """A convolution as a matrix product whose rows are the pixels of the images that are run.

    Programs: as many as there are tiles of ROWS x COLUMNS where all images are open.
    """
    tiles_across: tl.constexpr = K // COLUMNS
    depth: tl.constexpr = KERNEL * KERNEL * C
    rows = (tl.program_id(0) // tiles_across) * ROWS + tl.arange(0, ROWS)
    ends = tl.load(count) * (OUT * OUT)
    if (tl.program_id(0) // tiles_across) * ROWS < ends:
        valid = rows < ends
        place = rows // (OUT * OUT)
        pixel = rows % (OUT * OUT)
        image = place
        if LISTED:
            image = tl.load(listed + place, mask=valid, other=0)
        read = image if GATHERS else place
        written = image if SCATTERS else place
        top = (pixel // OUT) * STRIDE - PADDING
        left = (pixel % OUT) * STRIDE - PADDING
        columns = (tl.program_id(0) % tiles_across) * COLUMNS + tl.arange(0, COLUMNS)
        sums = tl.zeros((ROWS, COLUMNS), tl.float32)
        for begin in range(0, depth, DEPTH):
            if C % DEPTH == 0:  # a step stays within one place of the window
                tap = begin // C
                down = top + tap // KERNEL
                right = left + tap % KERNEL
                inside = valid & (down >= 0) & (down < SIDE) & (right >= 0) & (right < SIDE)
                at = ((read * SIDE + down) * SIDE + right) * C + begin % C
                values = tl.load(source + at[:, None] + tl.arange(0, DEPTH)[None, :], mask=inside[:, None], other=0.0)
                factors = tl.load(weight + (begin + tl.arange(0, DEPTH))[:, None] * K + columns[None, :])
            else:  # few channels: a step spans several places
                step = begin + tl.arange(0, DEPTH)
                tap = step // C
                down = top[:, None] + (tap // KERNEL)[None, :]
                right = left[:, None] + (tap % KERNEL)[None, :]
                inside = valid[:, None] & (down >= 0) & (down < SIDE) & (right >= 0) & (right < SIDE)
                inside &= (step < depth)[None, :]
                at = ((read * SIDE)[:, None] + down) * SIDE + right
                values = tl.load(source + at * C + (step % C)[None, :], mask=inside, other=0.0)
                factors = tl.load(
                    weight + step[:, None] * K + columns[None, :], mask=(step < depth)[:, None], other=0.0
                )
            sums = tl.dot(values, factors, sums, input_precision="ieee")
        sums += tl.load(bias + columns)[None, :]
        to = target + (written * (OUT * OUT) + pixel)[:, None] * K + columns[None, :]
        if ADDS:
            sums += tl.load(to, mask=valid[:, None], other=0.0).to(tl.float32)
        if RELU == 1:
            sums = tl.maximum(sums, 0.0, propagate_nan=tl.PropagateNan.ALL)
        if RELU == 2:
            opened = tl.load(is_open + image, mask=valid, other=0) != 0
            sums = tl.where(opened[:, None], sums, tl.maximum(sums, 0.0, propagate_nan=tl.PropagateNan.ALL))
        tl.store(to, sums.to(target.dtype.element_ty), mask=valid[:, None])


@triton.jit
def max_pool(
    source,  # (N, SIDE, SIDE, C)
    target,  # (N, OUT, OUT, C)
    header,
    SIDE: tl.constexpr,
    OUT: tl.constexpr,
    C: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The largest values under a window, of features that are not negative. Programs: blocks of N x OUT x OUT."""
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    ends = tl.load(header) * (OUT * OUT)
    if tl.program_id(0) * BLOCK < ends:
        valid = rows < ends
        image = rows // (OUT * OUT)
        top = (rows % (OUT * OUT)) // OUT * STRIDE - PADDING
        left = rows % OUT * STRIDE - PADDING
        channel = tl.arange(0, C)
        largest = tl.zeros((BLOCK, C), tl.float32)
        for tap in range(KERNEL * KERNEL):
            down = top + tap // KERNEL
            right = left + tap % KERNEL
            inside = valid & (down >= 0) & (down < SIDE) & (right >= 0) & (right < SIDE)
            at = ((image * SIDE + down) * SIDE + right) * C
            values = tl.load(source + at[:, None] + channel[None, :], mask=inside[:, None], other=0.0)
            largest = tl.maximum(largest, values.to(tl.float32), propagate_nan=tl.PropagateNan.ALL)
        to = target + rows[:, None] * C + channel[None, :]
        tl.store(to, largest.to(target.dtype.element_ty), mask=valid[:, None])


@triton.jit
def decide(
    features,  # (N, PIXELS, C)
    hidden_weight,  # (HIDDEN, C) fp32
    hidden_bias,  # (HIDDEN,) fp32
    margin_weight,  # (HIDDEN,) fp32
    margin_bias,  # (1,) fp32
    offsets,  # (N,) fp32
    header,
    threshold,
    margins,  # (N, gates) fp32
    listed,  # (N,) int32
    count,  # (1,) int32, 0 before
    is_open,  # (N,) int32
    position,  # of the gate
    gates,
    PIXELS: tl.constexpr,
    C: tl.constexpr,
    HIDDEN: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """A gate: the mean over all pixels, a hidden layer, a margin. Programs: one for each image.

    Sums are taken in an order of their own, whatever else is in the batch. Open images are listed in the order in which
    programs come to it, on which no result depends.
    """
    image = tl.program_id(0)
    if image < tl.load(header):
        unit = tl.arange(0, HIDDEN)
        hidden = tl.load(hidden_bias + unit)
        for first in range(0, C, CHANNELS):
            channel = first + tl.arange(0, CHANNELS)
            total = tl.zeros((CHANNELS,), tl.float32)
            for begin in range(0, PIXELS, ROWS):
                pixel = begin + tl.arange(0, ROWS)
                at = (image * PIXELS + pixel)[:, None] * C + channel[None, :]
                values = tl.load(features + at, mask=(pixel < PIXELS)[:, None], other=0.0)
                total += tl.sum(values.to(tl.float32), axis=0)
            factors = tl.load(hidden_weight + unit[:, None] * C + channel[None, :])
            hidden += tl.sum(factors * (total / PIXELS)[None, :], axis=1)
        hidden = tl.maximum(hidden, 0.0, propagate_nan=tl.PropagateNan.ALL)
        margin = tl.sum(hidden * tl.load(margin_weight + unit), axis=0) + tl.load(margin_bias)
        tl.store(margins + image * gates + position, margin)
        opened = margin + tl.load(offsets + image) > threshold
        tl.store(is_open + image, opened.to(tl.int32))
        if opened:
            tl.store(listed + tl.atomic_add(count, 1), image)


@triton.jit
def average(
    features,  # (N, PIXELS, C)
    means,  # (N, C) fp32
    header,
    PIXELS: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The mean over all pixels. Programs: (N x blocks of channels)."""
    blocks: tl.constexpr = C // CHANNELS
    image = tl.program_id(0) // blocks
    if image < tl.load(header):
        channel = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
        total = tl.zeros((CHANNELS,), tl.float32)
        for begin in range(0, PIXELS, ROWS):
            pixel = begin + tl.arange(0, ROWS)
            at = (image * PIXELS + pixel)[:, None] * C + channel[None, :]
            total += tl.sum(tl.load(features + at, mask=(pixel < PIXELS)[:, None], other=0.0).to(tl.float32), axis=0)
        tl.store(means + image * C + channel, total / PIXELS)


@triton.jit
def classify(
    means,  # (N, C) fp32
    weight,  # (CLASSES, C) fp32
    bias,  # (CLASSES,) fp32
    logits,  # (N, CLASSES) fp32
    header,
    C: tl.constexpr,
    CLASSES: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The fully connected layer. Programs: (N x blocks of classes)."""
    blocks: tl.constexpr = (CLASSES + BLOCK - 1) // BLOCK
    image = tl.program_id(0) // blocks
    if image < tl.load(header):
        number = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
        known = number < CLASSES
        total = tl.load(bias + number, mask=known, other=0.0)
        for first in range(0, C, CHANNELS):
            channel = first + tl.arange(0, CHANNELS)
            factors = tl.load(weight + number[:, None] * C + channel[None, :], mask=known[:, None], other=0.0)
            total += tl.sum(factors * tl.load(means + image * C + channel)[None, :], axis=1)
        tl.store(logits + image * CLASSES + number, total, mask=known)
