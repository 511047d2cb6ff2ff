"""Weakly-supervised semantic segmentation with Self-Regulation: tensors and arrays in, the same out.

A tour:
    config      what can be set, with documentation, ranges and sources
    artifacts   HDF5 files that are named by what they depend on
    backbones   feature extractors with their weights
    networks    plain networks of two structures, and exits around them for training
    losses      MEA, SR-F and SR-L
    cams        class activation maps
    crf         dense CRF pseudo-masks; local_refiner: the same task on a GPU
    metrics     what is right and what is wrong with a mask
    train       the one training loop
    processes   torchrun's processes, and what they agree on
    overview    pictures to look at
    tiles       a network on images of any size
    onnx_graph  a network as ONNX; onnx_network runs it without torch
    formats     masks for other programs

Shape legend everywhere: B batch, C classes, K classes present, D channels, N exits, H W image, h w map.
"""
