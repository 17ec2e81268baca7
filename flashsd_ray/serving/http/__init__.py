"""(to be said)"""
