"""Measurements: every speed is a ratio of two things timed alternately in one process."""
