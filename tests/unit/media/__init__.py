"""Tests of flashsd_ray.media."""
