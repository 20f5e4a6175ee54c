"""Semantic segmentation: one base, and a file for each published network."""
