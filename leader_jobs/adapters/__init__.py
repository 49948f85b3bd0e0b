"""Bindings to frameworks: thin siblings, none of which knows another."""
