"""The private channel between the application's processes: HTTP exchanges, many at a time, over one authenticated connection.

Why not HTTP/1.1: of what a token costs on its way, most is system calls, one at each end for each stream. Here the tokens that an engine's
step gives to all its streams travel together. `benchmarks/NOTES.md` has the figures. A server runs any ASGI application.

    server                                client
    HELLO nonce                      →
                                     ←    PROOF nonce, HMAC over both
    WELCOME HMAC over both           →
                                     ←    REQUEST method, target, headers, body
    START status, headers            →
    DATA (as far as CREDIT allows)   →
                                     ←    CREDIT bytes that were taken
    END, or FAILED                   →
                                     ←    CANCEL at any time
"""
