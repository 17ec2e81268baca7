"""The gRPC edge: one servicer for a plain server and for Ray Serve's proxy, and the plain server around it."""
