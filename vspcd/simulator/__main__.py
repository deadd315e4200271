"""``python -m vspcd.simulator``: the simulator without vspcctl."""

from __future__ import annotations

import argparse
import sys

from vspcd.simulator.main import run
from vspcd.simulator.options import add_arguments

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    sys.exit(run(parser.parse_args()))
