"""Protobuf messages to this package's types and back: pure, strict, and without a server.

What is wrong with a message is an InvalidRequestError that names the field; pictures are not decoded here.
"""
