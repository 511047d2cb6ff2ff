"""The machine a command runs on: device, processes, workers, interruption, progress."""
