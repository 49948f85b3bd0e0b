"""The example site's settings and URLs."""
