"""For all tests: hypothesis judges results, not the speed of a machine that others use too; bytecode is kept."""

import os
import sys

from hypothesis import HealthCheck, settings

settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")

# Thousands of daemons and tools are started: each would compile all that it reads.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
