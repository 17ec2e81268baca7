"""What leaves a process: msgpack between our own parts and in stores, protobuf to clients; never pickle from outside."""
