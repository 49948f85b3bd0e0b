"""Measures: what the promises about speed and cost come to on a given machine."""
