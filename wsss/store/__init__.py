"""What is kept on disk: atomic files, and artifacts in HDF5 named by a fingerprint."""
