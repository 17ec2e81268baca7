"""Each measurement from its options to its table: a module for each, with a function ``report``."""
