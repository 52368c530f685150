from collections.abc import AsyncIterator

import pytest

from tests.serve_app.modelcache.asking import Server


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    yield server
    await server.service.close()
