"""One lane in one process: the scheduler's loop around an encoder, a target and a drafter."""
