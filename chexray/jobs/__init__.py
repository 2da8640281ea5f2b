"""A run somewhere else: what of a config travels, handing it to a Ray cluster or to KubeRay, and how it is doing."""
