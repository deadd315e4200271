"""Benches for the workers' tests, cleared away at their end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import setproctitle

from tests.workers.bench import Bench
from tests.workers.deaths import Failpoints

Benches = Callable[..., Bench]


@pytest.fixture(scope="session")
def mappings() -> list[object]:
    """Pages of workers, which are mapped for ever: unmapping one would close a number that others have by now."""
    return []


@pytest.fixture
def benches(tmp_path: Path, mappings: list[object]) -> Iterator[Benches]:
    """Makes benches; settings as in Bench."""
    made: list[Bench] = []
    title = setproctitle.getproctitle()

    def make(**settings: Any) -> Bench:
        made.append(Bench(tmp_path, **settings))
        mappings.append(made[-1].pages)
        return made[-1]

    yield make
    for bench in made:
        bench.close()
    setproctitle.setproctitle(title)


@pytest.fixture
def bench(benches: Benches) -> Bench:
    """A worker that has a console with nobody on it."""
    made = benches()
    made.own()
    return made


@pytest.fixture
def failpoints(monkeypatch: pytest.MonkeyPatch) -> Failpoints:
    """Workers on benches die where a test wants it."""
    return Failpoints(monkeypatch)
