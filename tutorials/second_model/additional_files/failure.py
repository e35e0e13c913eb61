"""What stops a task: a message for the person whose data it is."""


class Failure(Exception):
    """The input cannot be used. The message names the file and says what is wrong with it."""
