"""The text of files that are laid out for people: HTML, PDF and Word.

A parser meets files that nobody checked. It works in a process of its own (`worker`), which gets as much
time and memory as a whole file is worth and is killed above; `process` speaks to it.
"""

import struct

# Before what is sent either way: the bytes of a JSON object, and those of the file or text behind it.
LENGTHS = struct.Struct("<II")


class Unusable(Exception):
    """Raised for a file that has no text to give, with a reason and what exactly is wrong."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
