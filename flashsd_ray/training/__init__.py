"""Drafter training, the demo world and the demo target."""
