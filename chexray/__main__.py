"""`python -m chexray`, for environments whose scripts are not on PATH."""

from chexray.cli import main

if __name__ == "__main__":
    main()
