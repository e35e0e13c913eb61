"""Bundles: all that a benchmark needs at a site, as one file that can be carried there."""
