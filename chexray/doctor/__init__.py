"""Looks at the machine, the cluster, the storage and the inputs of a run, and says for each failure the next move.

for check in examine(config):     one at a time, as each ends
    print(check.line)
"""

from chexray.doctor.checks import Check, examine

__all__ = ["Check", "examine"]
