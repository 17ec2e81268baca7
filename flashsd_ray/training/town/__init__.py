"""The town: a world of short clips and true answers, with colours, counts, interactions, events and several styles.

Everything is a pure function of (seed, split): the scene, its pixels at any size and time, and what can be said about it.
Only `evaluate` knows of models.
"""
