"""Generated from protos/flashsd/v1 by `make protos`; not written by hand."""
