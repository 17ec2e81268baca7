"""What outlives a request: encoded frames, sessions, ledgers; in memory, or in a Redis that may come and go."""
