"""How good masks are, with ground truth and without.

With ground truth: `confusion` (IoU and related scores), `sweep` (the seed at every threshold), `boundary` (Boundary
IoU), `failures` (what self-regulation is about). Without: `indicators`. Between two runs or several seeds: `intervals`.
"""
