"""What the program survives: hostile files, damage, kills and faults. ``python -m torture`` runs all of it.

fuzz      mutated input files: each ends in success or in a message
damage    artifacts and caches with flipped, missing or foreign bytes: found, set aside, computed anew
kill      SIGKILL at random moments, then the same command: the same bits at last
faults    full disks, vanished folders, dead workers: a message of few lines, and nothing lost

Everything is drawn from a seed that is printed. The test suite runs a short form of each.
"""
