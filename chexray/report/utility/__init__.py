"""Utility rows on a terminal: what each training set is worth on real test images, and how that differs from real."""
