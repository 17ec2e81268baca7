"""Measurements of the serving system: servers and load in processes of their own, as users and operators have them."""
