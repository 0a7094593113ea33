"""Start the application: `python -m experiments.run` is `gdjax`."""

from gdjax.cli import main

if __name__ == "__main__":
    main()
