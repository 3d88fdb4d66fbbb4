"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake in what the user gave; its text is one line that says how to mend it.

    The command line prints that line and exits with status 2, without a traceback.
    """
