"""Mutated input files: each must end in success or in a message for the user, in bounded time and memory.

mutations   how bytes and texts are spoilt
hostile     files made to attack, tried before the mutated ones
targets     what reads them: one entry point of the program per kind of file
guard       what nothing may do meanwhile: write elsewhere, unpickle, start a program
worker      one process that tries cases; a case that kills it is a finding
campaign    starts workers, collects findings, keeps the bytes
"""
