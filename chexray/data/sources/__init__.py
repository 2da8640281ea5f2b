"""Where a set of images comes from: one module a kind of source, all giving the same table."""
