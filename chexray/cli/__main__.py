"""`python -m chexray.cli`, the same as `chexray`."""

from chexray.cli import main

main()
