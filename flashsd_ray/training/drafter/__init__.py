"""Drafter training for any target: questions in, answers of the target itself, a checkpoint out."""
