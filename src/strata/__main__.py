"""`python -m strata` is the command `strata`, installed or not. Imports no torch."""

from strata.command_line import main

if __name__ == "__main__":
    main()
