"""`python -m registry_tools` is the command line `registry-tools`."""

import sys

from registry_tools.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
