"""The edges: an OpenAI-compatible HTTP interface and gRPC, both written against actors/service.py alone."""
