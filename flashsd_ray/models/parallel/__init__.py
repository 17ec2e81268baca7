"""A language model that is too large for one device, split over ranks that compute every layer together."""
