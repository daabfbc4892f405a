"""Environments of another interpreter or machine, over a small protocol of msgpack messages.

`server` is one file that needs only numpy and msgpack, Python 3.9 or later: it runs with the interpreter that has the
simulator. `client` and `body` are this side of it.
"""
