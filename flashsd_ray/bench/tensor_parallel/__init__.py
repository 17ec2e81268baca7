"""A target split over ranks against the same target whole: tokens, memory, and time for each round."""
