"""`python -m dealrec` is the command line."""

from dealrec.cli import main

main()
