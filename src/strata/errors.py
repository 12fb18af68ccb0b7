"""What can go wrong through no fault of the code, and how a user hears of it.

Conventions: a message is one sentence that says what was expected, what came, and what to do.
"""


class UserError(Exception):
    """Bad input: settings, a file or a machine that cannot do what was asked (exit status 2)."""


class Interrupted(Exception):
    """Stopped by a signal after everything was saved; worth another attempt (exit status 75)."""
