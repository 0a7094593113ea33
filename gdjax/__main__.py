"""`python -m gdjax` is `gdjax`."""

from gdjax.cli import main

if __name__ == "__main__":
    main()
