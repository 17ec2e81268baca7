"""The town: a larger world of clips and captions, with colours, counts, interactions, events and several styles of answer.

Everything is a pure function of (seed, split), as in the demo world, whose brushes and renderer it uses.
"""
