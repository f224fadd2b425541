"""What went wrong, in one line."""


def one_line(error: BaseException, about: object = None) -> str:
    """The message of an error on one line, which names what it is about."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return text if about is None or str(about) in text else f"{about}: {text}"
