"""The text of files that are laid out for people: HTML, PDF and Word.

A parser meets files that nobody checked. It works in a process of its own (`worker`), which gets as much
time and memory as a whole file is worth and is killed above; `process` speaks to it.
"""


class Unusable(Exception):
    """A file that has no text to give: a reason, and what exactly is wrong."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
