"""What each part of the method brings: drafters that differ in one thing, trained on the same answers for as long."""
