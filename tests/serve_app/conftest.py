from collections.abc import AsyncIterator

import pytest

from tests.serve_app.fakes import World, make_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = make_world()
    yield world
    await world.keeper.stop()
    await world.uses.stop()
