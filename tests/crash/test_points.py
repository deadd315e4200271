"""A process dies at each of the named points, and its console goes on without a byte lost, doubled or out of order.

A sample: ``make test-crash`` goes to each point a thousand times.
"""

from __future__ import annotations

import pytest

from tests.crash.conftest import Visit
from tests.crash.variants import ROUND, VARIANTS

KILLS = 2
OTHERS = [name for name in VARIANTS if name != ROUND]
PARTS = 3


@pytest.mark.parametrize("point", VARIANTS[ROUND].points)
def test_nothing_is_lost_when_a_process_dies_at(point: str, visit: Visit) -> None:
    visit(ROUND, [point], KILLS)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("variant", OTHERS)
def test_nothing_is_lost_when_processes_die_one_after_the_other(
    variant: str, part: int, visit: Visit
) -> None:
    visit(variant, VARIANTS[variant].points[part::PARTS], 1)
