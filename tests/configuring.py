"""Configurations as tests write them. Owns nothing but what it is given a folder for."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import pytest

from vspcd.config import ConfigError, load

EXAMPLE = Path(__file__).parent.parent / "conf" / "vspcd.yaml"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "vspcd.yaml"
    path.write_text(text)
    return path


def problems(*overrides: str, path: Optional[Path] = None, root: Optional[Path] = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides, root)
    return caught.value.problems
