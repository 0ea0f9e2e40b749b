"""What goes wrong in a way the user can mend."""

from __future__ import annotations


class RequestError(ValueError):
    """The request cannot be answered as it stands; the message is one line that says why and what to type instead."""
