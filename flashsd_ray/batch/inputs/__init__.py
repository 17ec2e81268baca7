"""Corpora in: directories, patterns, manifests and shards become clips, one by one, and clips become frames."""

from flashsd_ray.batch.inputs.corpus import FORMATS, Corpus, InputFormat, InputOptions, open_input

__all__ = ["FORMATS", "Corpus", "InputFormat", "InputOptions", "open_input"]
