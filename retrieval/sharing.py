"""How places that all tenants have together are divided, so that nobody can take all of them."""


def has_room(own: int, taken: int, more: int, places: int) -> bool:
    """Whether who has `own` of the `taken` places may take `more`: up to as many as were free.

    So one who takes all he can has half of the places, two have a third each, and there always is one for the next (dynamic
    thresholds: Choudhury and Hahne 1998).
    """
    return own + more <= places - taken
