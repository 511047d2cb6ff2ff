"""Weakly-supervised semantic segmentation with Self-Regulation: tensors and arrays in, the same out.

Shape legend everywhere: B batch, C classes, K classes present, D channels, N exits, H W image, h w map.
"""

IGNORE = 255
"""The label of pixels that are left out of training and scores: ignored in ground truth, uncertain in a pseudo-mask."""
