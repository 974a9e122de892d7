"""Reading files of tensors that others wrote, without running anything in them.

Files are zip archives with a checksum of every member, which are compared here because torch.load does not. What torch
wrote before version 1.6, and on request since (`set_crc32_options(False)`), has none: damaged numbers do not show.

torch keeps what its reader may call in one list for the whole process. While a file is read here that list holds
nothing but numpy's stand-ins, whatever the program around has put there, and one thread reads at a time. Threads that
call torch.load themselves in that moment find the list so.
"""

from __future__ import annotations

import io
import pickle
import re
import threading
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from tfnas.core.errors import InputError
from tfnas.utils.pickles import NUMPY_NAMES, PICKLE_ERRORS, NestedTooDeeply, check_nesting

_ZIP_START = b"PK\x03\x04"
_PICKLE_START = b"\x80"  # as torch wrote them before version 1.6
_IS_FOLDER = 0x10  # a member that is marked so has no bytes for torch
_OLD_PICKLES = 5  # magic number, version, system, document, names of the storages, and then the tensors' bytes
_TORCHS_PROTOCOL = 2  # of later ones its reader knows a part
_REFUSED_NAME = re.compile(r"GLOBAL ([\w.]+) (?:was not an allowed|whose module)|refused: ([\w.]+)")
_DAMAGED = "is no readable checkpoint: it is damaged, or was cut short; copy it again"


class UnreadableFile(InputError):
    """The file cannot be read; `reason` is the message without its name."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source} {reason}")
        self.reason = reason


def load_plain(path: Path) -> Any:
    """What torch.save wrote, on the CPU, if it is tensors, numbers (also numpy's), text and containers.

    Raises InputError for a file that is damaged or holds anything else; nothing in it is run.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check the path") from error
    with file:
        return load_plain_bytes(file, str(path))


def load_plain_bytes(file: IO[bytes], source: str) -> Any:
    """The same from an open file; `source` is what messages call it."""
    is_archive = _check_whole(file, source)
    protocol = 0
    try:
        with _numpys_names_alone(), warnings.catch_warnings():  # which is for one thread at a time, too
            warnings.simplefilter("ignore", UserWarning)  # on pickle protocols: what follows from them is an error
            warnings.simplefilter("ignore", DeprecationWarning)  # of backslashes in names
            protocol = _check_pickles(file, is_archive)
            document = torch.load(file, map_location="cpu", weights_only=True)
    except NestedTooDeeply as error:
        raise UnreadableFile(source, f"is no readable checkpoint: its content is {error}") from error
    except PICKLE_ERRORS as error:
        if is_archive and not isinstance(error, pickle.UnpicklingError):  # its list of members, which has no checksum
            raise UnreadableFile(source, _DAMAGED) from error
        raise UnreadableFile(source, _other_things(source, is_archive, protocol, str(error))) from error
    if not is_archive and file.read(1):
        raise UnreadableFile(source, "is no readable checkpoint: it has trailing data; write or copy it again")
    return document


def _check_whole(file: IO[bytes], source: str) -> bool:
    """Whether the open file is an archive, rewound. Raises InputError where it is cut off, damaged or another kind."""
    start = file.read(len(_ZIP_START))
    if not start:
        raise UnreadableFile(source, "is empty: it was not written to its end; write or copy it again")
    if start != _ZIP_START and start[:1] != _PICKLE_START:
        raise UnreadableFile(
            source, "is no readable checkpoint: it does not begin as files of tensors (.pt, .pth.tar) do"
        )
    if start == _ZIP_START and _is_damaged(file):
        raise UnreadableFile(source, _DAMAGED)
    file.seek(0)
    return start == _ZIP_START


def _is_damaged(file: IO[bytes]) -> bool:
    """Whether the archive lacks its end, has a member twice or as a folder, or one that differs from its checksum."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            twice = len({member.filename for member in members}) < len(members)
            if twice or any(member.external_attr & _IS_FOLDER for member in members):
                return True
            return any(member.CRC for member in members) and archive.testzip() is not None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error):
        return True


_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def _numpys_names_alone() -> Iterator[None]:
    """Let torch's reader call numpy's stand-ins, and nothing that the program around allows, in one thread at a time.

    Afterwards all is allowed that was before, and what another thread has allowed meanwhile.
    """
    ours: list[Any] = [(stand_in, name) for name, stand_in in NUMPY_NAMES.items()]
    with _ONE_AT_A_TIME:
        before = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(ours)
        try:
            yield
        finally:
            others = [allowed for allowed in torch.serialization.get_safe_globals() if allowed not in ours]
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals([*before, *others])


def _check_pickles(file: IO[bytes], is_archive: bool) -> int:
    """The highest protocol of the pickles that torch will read, the file rewound.

    Raises NestedTooDeeply, or one of `PICKLE_ERRORS`.
    """
    if is_archive:  # through torch's own reader of archives, so that what is checked is what it reads
        protocol = check_nesting(io.BytesIO(torch._C.PyTorchFileReader(file).get_record("data.pkl")))
    else:
        protocol = max(check_nesting(file) for _ in range(_OLD_PICKLES))
    file.seek(0)
    return protocol


def _other_things(source: str, is_archive: bool, protocol: int, error: str) -> str:
    """Why a whole file is refused, and what to save instead; `error` names the class or function that it asks for."""
    found = _REFUSED_NAME.search(error)
    name = "" if found is None else found[found.lastindex or 0]
    if not name and protocol > _TORCHS_PROTOCOL:
        return (
            f"is no readable checkpoint: it was saved with pickle protocol {protocol}, and files of tensors are read "
            f"in protocol {_TORCHS_PROTOCOL}: save it again without pickle_protocol, torch.save(checkpoint, path)"
        )
    what = "numpy.ndarray" if name.endswith("multiarray._reconstruct") else name
    return (
        f"is no readable checkpoint: {'' if is_archive else 'it is damaged, or '}it contains objects other than "
        f"tensors, numbers, text and containers{f' ({what})' if what else ''}, which are refused because loading them "
        "could run code. Give the weights alone: torch.save(model.state_dict(), 'weights.pt') where they were trained, "
        "or, if you trust the file (and with checkpoint.state_dict() if it is a whole module), "
        f"checkpoint = torch.load({source!r}, weights_only=False); "
        "torch.save(checkpoint['state_dict'], 'weights.pt')"
    )
