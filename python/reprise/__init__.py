"""Reprise: everything that a running model remembers is one object, a capsule. Snapshot, restore, fork, roll back, move.

    model = reprise.Model("model.gguf")
    session = model.session()
    session.prefill("It is a truth universally acknowledged")
    here = session.snapshot()                       # microseconds; nothing is copied
    print(session.complete(40).text)
    session.restore(here)                           # the same tokens would follow again, bit for bit
    futures = session.fork(here, 8)                 # next_batch decodes them as one batch

Layout and Execution give the same verbs to anything that steps, without a language model.
"""

from ._reprise import (
    Capsule,
    ChatPrompt,
    Completion,
    Execution,
    Lane,
    Layout,
    Model,
    ModelInfo,
    PrefillReport,
    Sampling,
    Session,
    SpeculationStats,
    State,
    Step,
    Store,
    StoreEntry,
    StoreOptions,
    StoreStats,
    Token,
    Tokens,
    next_batch,
)
from ._reprise import VERSION as __version__
from .errors import (
    CancelledError,
    CorruptError,
    Error,
    ExhaustedError,
    InternalError,
    InvalidArgumentError,
    IoError,
    MismatchError,
    NotFoundError,
    UnsupportedError,
)

__all__ = [
    "__version__",
    "Capsule",
    "ChatPrompt",
    "Completion",
    "Execution",
    "Lane",
    "Layout",
    "Model",
    "ModelInfo",
    "PrefillReport",
    "Sampling",
    "Session",
    "SpeculationStats",
    "State",
    "Step",
    "Store",
    "StoreEntry",
    "StoreOptions",
    "StoreStats",
    "Token",
    "Tokens",
    "next_batch",
    "CancelledError",
    "CorruptError",
    "Error",
    "ExhaustedError",
    "InternalError",
    "InvalidArgumentError",
    "IoError",
    "MismatchError",
    "NotFoundError",
    "UnsupportedError",
]
