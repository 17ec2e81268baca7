"""The town, the target that describes it, and drafters for any target."""
