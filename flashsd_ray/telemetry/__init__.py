"""What the running system says about itself: log lines, metrics and traces."""
