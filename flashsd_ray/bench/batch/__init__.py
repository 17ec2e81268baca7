"""Offline captioning measured: against a plain pipeline, under kills, with several drivers, over large inputs."""
