"""`python -m orchestratord` is the command `orchestratord`."""

from orchestratord.cli.main import main

if __name__ == "__main__":
    main()
