"""The command `ablate`: what each part of self-regulation brings, over several seeds."""
