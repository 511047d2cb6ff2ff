"""Pixel-adaptive local refinement on tensors: what a GPU can do in place of a dense CRF.

Every pixel takes the weighted mean of its neighbours' probabilities, again and again; the weights say how alike
neighbours are in colour and how near. Neighbours are the eight of a 3x3 window at several dilations. The kernels are
PAR's (Ru et al., *Learning Affinity from Attention*, CVPR 2022, arXiv 2203.02664), which follow PAMR's (Araslanov and
Roth, *Single-Stage Semantic Segmentation from Image Labels*, CVPR 2020, arXiv 2005.08104).

Everything is computed in float32, whatever the inputs: differences of colours are lost in half precision.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

DILATIONS = (1, 2, 4, 8, 12, 24)
"""In pixels; both papers'."""
ITERATIONS = 10
"""Both papers'."""
COLOUR = 0.3
"""w1 of PAR: bandwidth of the colour kernel, in standard deviations of the neighbourhood."""
POSITION = 0.3
"""w2 of PAR: bandwidth of the position kernel, likewise."""
POSITION_WEIGHT = 0.01
"""w3 of PAR: weight of the position kernel beside the colour kernel's 1."""
SMALLEST = 1e-4
"""Added to a colour's standard deviation: far below a step of 1/255, so that it matters in flat regions alone."""


def refine_local(
    image: Tensor,
    probabilities: Tensor,
    *,
    iterations: int = ITERATIONS,
    dilations: Sequence[int] = DILATIONS,
    colour: float = COLOUR,
) -> Tensor:
    """Refine class probabilities along the image's colours.

    Args:
        image: (3, H, W) or (B, 3, H, W) in [0, 1].
        probabilities: (B, K, H, W) on the same device.
        iterations: how often neighbours are averaged; 0 changes nothing.
        dilations: see `local_affinity`.
        colour: see `local_affinity`.

    Returns:
        (B, K, H, W) float32: convex combinations of the input's values, so what sums to 1 over K still does. Borders
        repeat. Neighbours are added one by one: the N maps of the affinity (8 per dilation, 48 as published) are the
        largest part of the memory, 0.3 GB a megapixel in all with K = 3 (measured), and do not grow with K.

    Raises:
        ValueError: image and probabilities differ in size, or no dilation.
    """
    if image.ndim == 3:
        image = image[None].expand(len(probabilities), -1, -1, -1)
    if image.shape[0] != probabilities.shape[0] or image.shape[2:] != probabilities.shape[2:]:
        raise ValueError(
            f"expected an image and probabilities (B, K, H, W) of one size, got {tuple(image.shape)} and "
            f"{tuple(probabilities.shape)}"
        )
    affinity = local_affinity(image, dilations=dilations, colour=colour)
    refined = probabilities.float()
    for _ in range(iterations):
        total = torch.zeros_like(refined)
        for index, neighbour in enumerate(_neighbours(refined, dilations)):
            total.addcmul_(affinity[:, index : index + 1], neighbour)
        refined = total
    return refined


def local_affinity(image: Tensor, *, dilations: Sequence[int] = DILATIONS, colour: float = COLOUR) -> Tensor:
    """How much each pixel takes from each of its neighbours.

    Colour: softmax over the neighbours n of the mean over channels of -(|I_n - I| / (w1 s))^2, with s the standard
    deviation of the channel over the neighbourhood. Position: softmax of -(|P_n - P| / (w2 s))^2, with s that of the
    distances. The affinity is their sum, weighted 1 and w3, divided by 1 + w3.

    Args:
        image: (B, 3, H, W) in [0, 1].
        dilations: distances of the eight neighbours, in pixels; one window of 3x3 each.
        colour: w1. Smaller: fewer, more alike neighbours count.

    Returns:
        (B, N, H, W) float32, N = 8 neighbours per dilation, in the order of `_offsets`; sums to 1 over N.

    Raises:
        ValueError: not three colours, or no dilation.
    """
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"expected images (B, 3, H, W), got {tuple(image.shape)}")
    if not dilations:
        raise ValueError("expected at least one dilation")
    image = image.float()
    scale = 1 / (colour * (_deviation(image, dilations) + SMALLEST))  # (B, 3, H, W)
    batch, _, height, width = image.shape
    kernel = image.new_empty((batch, 8 * len(dilations), height, width))
    for index, neighbour in enumerate(_neighbours(image, dilations)):
        kernel[:, index] = (neighbour - image).mul_(scale).square_().mean(1)
    kernel.neg_().sub_(kernel.amax(1, keepdim=True)).exp_()
    kernel.div_(kernel.sum(1, keepdim=True))
    position = _position_kernel(dilations).to(kernel.device)
    return kernel.add_(POSITION_WEIGHT * position[:, None, None]).div_(1 + POSITION_WEIGHT)


def _position_kernel(dilations: Sequence[int]) -> Tensor:
    """(N,) float32, sums to 1: the same at every pixel."""
    distances = torch.tensor(_offsets(dilations), dtype=torch.float32).norm(dim=1)
    deviation = distances.std(correction=0)
    return torch.softmax(-((distances / (POSITION * deviation)) ** 2), 0)


def _deviation(image: Tensor, dilations: Sequence[int]) -> Tensor:
    """(B, 3, H, W) -> the same: standard deviation of each channel over the neighbours."""
    first, second = torch.zeros_like(image), torch.zeros_like(image)
    for neighbour in _neighbours(image, dilations):
        difference = neighbour - image  # keeps flat regions at exactly zero
        first.add_(difference)
        second.addcmul_(difference, difference)
    count = 8 * len(dilations)
    return (second / count - (first / count) ** 2).clamp_min_(0).sqrt_()


def _neighbours(maps: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """(B, K, H, W) -> per offset a view of that shape: the neighbour of each pixel; borders repeat."""
    height, width = maps.shape[2:]
    margin = max(dilations)
    padded = F.pad(maps, (margin, margin, margin, margin), mode="replicate")
    for dy, dx in _offsets(dilations):
        top, left = margin + dy, margin + dx
        yield padded[:, :, top : top + height, left : left + width]


def _offsets(dilations: Sequence[int]) -> list[tuple[int, int]]:
    """(dy, dx) of every neighbour: dilation by dilation, rows from the top, without the pixel itself."""
    steps = (-1, 0, 1)
    return [(d * y, d * x) for d in dilations for y in steps for x in steps if (y, x) != (0, 0)]
