"""What the program survives: hostile files (`test_hostile`), and kills, damage and errors (`test_survival`).

`make test` runs a short form. `make torture` runs the long one.
"""
