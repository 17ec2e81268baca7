"""Files bundled with the package."""
