"""The command `predict`: images in, masks out."""
