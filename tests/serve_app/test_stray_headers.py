"""What clients may not tell Ray."""

import pytest

from serve_app.stray_headers import without_strays


@pytest.mark.parametrize(
    "name",
    [
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"x-session-id",
        b"x_session_id",
        b"serve_multiplexed_model_id",
        b"serve-multiplexed-model-id",
    ],
)
def test_headers_of_rays_are_taken_away(name: bytes) -> None:
    assert without_strays([(b"host", b"x"), (name, b"\xff"), (b"accept", b"*/*")]) == [(b"host", b"x"), (b"accept", b"*/*")]


def test_names_that_are_no_ascii_are_taken_away() -> None:
    assert without_strays([(b"x-\xff", b"x"), (b"accept", b"*/*")]) == [(b"accept", b"*/*")]


def test_a_request_id_that_can_be_sent_back_stays() -> None:
    assert without_strays([(b"x-request-id", b"r-1")]) == [(b"x-request-id", b"r-1")]


@pytest.mark.parametrize("given", [b"\xff\xfe", b"", b"a b", b"a\r\nset-cookie: b", b"x" * 129])
def test_another_one_gives_way(given: bytes) -> None:
    ((name, value),) = without_strays([(b"x-request-id", given)])
    assert name == b"x-request-id"
    assert value != given
    assert value.decode().isalnum()


def test_what_the_application_refuses_is_left_to_it() -> None:
    assert without_strays([(b"x-mygo-tenant", b"\xff")]) == [(b"x-mygo-tenant", b"\xff")]
