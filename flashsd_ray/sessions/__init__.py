"""Live video: which frames of an unbounded stream are kept, when it is captioned, what a session remembers."""
