"""Torch: targets, drafters, compressors and their key/value caches; weights in, tensors out."""
