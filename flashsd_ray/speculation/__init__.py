"""Pure maths and policy of drafting and acceptance; sees models only through the protocols in interfaces.py."""
