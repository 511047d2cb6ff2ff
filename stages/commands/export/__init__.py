"""The command `export`: masks in the formats of other programs, or the network as ONNX."""
