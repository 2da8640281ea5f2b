"""Downstream utility: classifiers trained on real and synthetic radiographs, tested on real ones. No Ray, no files of
a run: arrays and a storage in, committed models, predictions and scores out."""
