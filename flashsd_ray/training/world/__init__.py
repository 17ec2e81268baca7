"""A seeded world of short clips and true captions.

Everything is a pure function of (seed, split): the scene, its pixels at any size and time, and what can be said
about it. It knows nothing of tokenizers, models or training.
"""
