"""What each stage costs, measured, and a simulation that says how far more lanes help and which part stops them."""
