"""What several of these tests use."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.serve_app.contexts.house import House, house_of


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with house_of(tmp_path) as house:
        yield house
