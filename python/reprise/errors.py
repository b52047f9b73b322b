"""What a call raises when it fails. The message is one sentence: what was wrong, where, and what to do."""


class Error(Exception):
    """Every error of Reprise is one. After it the live state stands at the last boundary that it reached."""


class InvalidArgumentError(Error, ValueError):
    """Asked for something that can never work."""


class NotFoundError(Error, LookupError):
    """A file, name or capsule is not there."""


class CorruptError(Error):
    """Bytes are damaged, truncated or lie about themselves."""


class MismatchError(Error):
    """Sound bytes of another model, layout or version."""


class ExhaustedError(Error):
    """A pool, budget or context is full."""


class UnsupportedError(Error):
    """A known thing that this build cannot do."""


class IoError(Error, OSError):
    """The operating system refused."""


class CancelledError(Error):
    """Stopped on request; what was committed stays committed."""


class InternalError(Error):
    """A defect of Reprise itself."""


BY_CODE = {  # the values of reprise::StatusCode
    1: InvalidArgumentError,
    2: NotFoundError,
    3: CorruptError,
    4: MismatchError,
    5: ExhaustedError,
    6: UnsupportedError,
    7: IoError,
    8: CancelledError,
    9: InternalError,
}
