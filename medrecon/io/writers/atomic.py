"""Output that is either complete or absent: temporary files beside the target, renamed at the end."""

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medrecon.errors import UsageError


def _suffix(target: Path) -> str:
    """Suffix that libraries go by, the double one of compressed files included."""
    return "".join(target.suffixes[-2:]) if target.suffix == ".gz" else target.suffix


def _occupied(target: Path) -> bool:
    return target.is_symlink() or target.exists()  # a dangling link is occupied as well


def _refuse_file(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise UsageError(f"{target}: is a folder, expected the name of a file to write")
    if _occupied(target):
        if target.exists() and not target.is_file():
            raise UsageError(f"{target}: is neither a file nor a folder (a device or a pipe?); choose another output")
        if not overwrite:
            raise UsageError(f"{target}: exists already; choose another name or replace it with --overwrite")


def _missing_parents(folder: Path) -> list[Path]:
    """List the folders that are still to be made for ``folder`` to exist, outermost first."""
    missing: list[Path] = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    if not folder.is_dir():
        raise UsageError(f"{folder}: is a file, but the output needs a folder of this name; choose another output")
    return missing[::-1]


def _cannot_write(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"{folder}: cannot be written to ({error.strerror}); choose another folder for the output")


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Make a folder; take it away again where the work inside fails."""
    missing = _missing_parents(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        yield
    except BaseException:
        for made in reversed(missing):
            with contextlib.suppress(OSError):  # somebody else may have put a file there meanwhile
                made.rmdir()
        raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(target: Path, *, overwrite: bool = False) -> None:
    """Raise UsageError if the file ``target`` could not be written; leaves nothing behind.

    Meant for the start of a long computation. Folders that are missing are accepted (they will be
    made) as long as the nearest existing one takes new entries.
    """
    _refuse_file(target, overwrite)
    missing = _missing_parents(target.parent)
    folder = missing[0].parent if missing else target.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _cannot_write(folder, error) from error


@contextmanager
def atomic_path(target: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that takes its place when the block ends well.

    The temporary file has the suffix of the target and exists, empty, on entry. On any exception it
    is removed, together with the folders that were made for it.

    Parameters
    ----------
    target
        Where the file shall be; missing folders are made.
    overwrite
        Replace an existing file; otherwise that is a UsageError.
    """
    target = Path(target)
    _refuse_file(target, overwrite)
    with _folder(target.parent):
        temporary = target.parent / f".medrecon-{secrets.token_hex(8)}{_suffix(target)}"
        try:
            # 0o666 leaves the permissions to the user's umask, as any newly made file has them
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as error:
            raise _cannot_write(target.parent, error) from error
        try:
            yield temporary
            _sync(temporary)
            _refuse_file(target, overwrite)  # it may have come into being since
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        with contextlib.suppress(OSError):  # some file systems refuse to sync a folder
            _sync(target.parent)


def check_folder(target: Path, owned: str, *, overwrite: bool = False) -> None:
    """Raise UsageError if the folder ``target`` could not be (re)placed; leaves nothing behind.

    Parameters
    ----------
    target
        A folder that does not exist, is empty, or (with ``overwrite``) holds nothing but files whose
        whole name matches the regular expression ``owned``: no other file is ever deleted.
    owned
        What the names of the files of an earlier result look like.
    overwrite
        Accept the files of an earlier result.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError(f"{target}: exists and is not a folder, but the output is a folder; choose another name")
    if not target.is_dir():
        check_writable(target)
        return
    check_writable(target.parent / f".medrecon-{secrets.token_hex(8)}")
    entries = sorted(entry.name for entry in target.iterdir())
    if entries and not overwrite:
        raise UsageError(f"{target}: exists and holds {len(entries)} files; choose another name or use --overwrite")
    foreign = [name for name in entries if not re.fullmatch(owned, name) or not (target / name).is_file()]
    if foreign:
        raise UsageError(
            f"{target}: holds {len(foreign)} entries that are no earlier result of this name; "
            "they will not be deleted, choose another name"
        )


@contextmanager
def atomic_folder(target: Path, owned: str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a private temporary folder that takes the place of ``target`` when the block ends well.

    See :func:`check_folder` for what may stand at ``target`` before.
    """
    check_folder(target, owned, overwrite=overwrite)
    with _folder(target.parent):
        workplace = Path(tempfile.mkdtemp(prefix=".medrecon-", dir=target.parent))  # mode 0700
        try:
            result = workplace / "result"
            result.mkdir()  # the permissions of an ordinary new folder, inside the private one
            yield result
            for file in result.iterdir():
                _sync(file)
            check_folder(target, owned, overwrite=overwrite)
            if target.exists():
                target.rename(workplace / "former")
            try:
                result.rename(target)
            except OSError:
                if (workplace / "former").exists():
                    (workplace / "former").rename(target)
                raise
        finally:
            if target.exists() or not (workplace / "former").exists():  # never lose the earlier result
                shutil.rmtree(workplace, ignore_errors=True)
        with contextlib.suppress(OSError):
            _sync(target.parent)
