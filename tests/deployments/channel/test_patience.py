"""When the other end of an exchange has been silent for too long."""

from deployments.channel.patience import Patience, Silence

LIMITS = Patience(first_s=10, between_s=2)


def test_the_first_byte_has_its_limit_from_the_request() -> None:
    silence = Silence(LIMITS, 100)
    silence.waits(105)  # its beginning came, and its reader goes on waiting
    assert silence.error(110) is None
    error = silence.error(110.1)
    assert error is not None
    assert not error.has_begun


def test_then_each_piece_has_its_own() -> None:
    silence = Silence(LIMITS, 100)
    silence.waits(100)
    silence.begins()
    silence.reads()
    silence.waits(109)
    assert silence.error(111) is None
    error = silence.error(111.1)
    assert error is not None
    assert error.has_begun


def test_nobody_who_waits_is_no_silence() -> None:
    silence = Silence(LIMITS, 100)
    assert silence.error(1000) is None
    silence.waits(1000)
    silence.reads()
    silence.begins()
    assert silence.error(2000) is None
