"""The one exception that users are meant to read."""


class UserError(Exception):
    """Something the user can put right: a bad value, a missing file, data that do not match.

    The message is one sentence that names the field, file or line and says what was expected. The command
    line prints it alone (no traceback) and exits with code 2. Everything else that is raised is a bug.
    """
