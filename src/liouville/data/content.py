"""What a file of bytes is: unpacked, decoded to UTF-8 with one kind of line end, or named if it is no table."""

from __future__ import annotations

__all__ = ["RATIO", "foreign", "normalised", "unpacked"]

import codecs
import json
import re
import zlib

GZIP = b"\x1f\x8b"
RATIO = 20.0  # a table of text is rarely packed to less than a twentieth
_SMALL, _AT_ONCE, _LOOKED_AT = 1 << 22, 1 << 20, 1 << 20  # bytes

_STARTS = (  # how files begin that are sometimes given in place of a table
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"FEA1", "a Feather file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls)"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file"),
    (b"%PDF-", "a PDF document"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04\x95", "a Python pickle"),
    (b"\x80\x05\x95", "a Python pickle"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"(\xb5/\xfd", "a Zstandard archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (GZIP, "a gzip file within a gzip file"),
    (b"version https://git-lfs", "a pointer of Git LFS, in place of the file"),
    (b"@relation", "an ARFF file"),
    (b"%%MatrixMarket", "a Matrix Market file"),
)
_ZIPPED = (  # the first that a zip archive holds tells its kind
    (b"xl/", "an Excel workbook (.xlsx)"),
    (b"opendocument.spreadsheet", "a LibreOffice spreadsheet (.ods)"),
    (b"word/", "a Word document"),
    (b".npy", "a NumPy archive (.npz)"),
    (b"data.pkl", "a PyTorch file"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MARKS = (  # longest first
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def unpacked(content: bytes, name: str, most: float = RATIO) -> bytes:
    """The bytes themselves, or those that a gzip file of one or more members holds.

    Args:
        content: of the file.
        name: of the file, for messages.
        most: how many times its own size a gzip file may unpack to; 4 MiB are always allowed.

    Raises:
        ValueError: the gzip data is cut, damaged, followed by something else, or unpacks to more than that.
    """
    if not content.startswith(GZIP):
        return content
    limit = max(_SMALL, int(most * len(content)))
    whole, rest = bytearray(), content
    while rest.startswith(GZIP):
        packed = zlib.decompressobj(wbits=31)
        try:
            for start in range(0, len(rest), _AT_ONCE):
                part = packed.unconsumed_tail + rest[start : start + _AT_ONCE]
                whole += packed.decompress(part, limit + 1 - len(whole))
                if len(whole) > limit:
                    raise ValueError(
                        f"{name} unpacks to more than {limit:,} bytes, {most:g} times its own size; if that is right, "
                        "unpack it by hand (gzip -d), or raise the limit (--unpack)."
                    )
                if packed.eof:
                    rest = packed.unused_data + rest[start + _AT_ONCE :]
                    break
        except zlib.error as error:
            raise ValueError(
                f"{name} is truncated or corrupted: its gzip data does not unpack ({error}); copy it again."
            ) from error
        if not packed.eof:
            raise ValueError(
                f"{name} is truncated or corrupted: its gzip data does not unpack (it ends too early); copy it again."
            )
    if rest.strip(b"\0"):
        raise ValueError(
            f"{name} is truncated or corrupted: its gzip data does not unpack ({len(rest)} bytes that are no gzip "
            "data follow it); copy it again."
        )
    return bytes(whole)


def foreign(content: bytes) -> str | None:
    """What a file is that is no table of text, in words; None where nothing speaks against a table.

    Examples:
        >>> foreign(b"PAR1..."), foreign(b"a,b")
        ('a Parquet file', None)
    """
    if content.startswith(b"PK\x03\x04"):
        return next((what for part, what in _ZIPPED if part in content), "a zip archive")
    for start, what in _STARTS:
        if content.startswith(start):
            return what
    head = content.removeprefix(codecs.BOM_UTF8)[:1000].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "a page of HTML"
    if head.startswith((b"<?xml", b"<!doctype", b"<svg", b"<graphml")):
        return "XML"
    if head.startswith((b"{", b"[")) and _is_json(content):
        return "JSON"
    return None


def _is_json(content: bytes) -> bool:
    """Whether the whole, or the first line of it, is JSON."""
    content = content.removeprefix(codecs.BOM_UTF8)
    if len(content) > _LOOKED_AT:  # JSON takes many times its bytes when it is read: its beginning has to do
        return re.match(rb"\s*(\{\s*[\"}]|\[\s*[\[{\"\]0-9-])", content) is not None
    content = content.strip()
    for text in (content.split(b"\n", 1)[0], content):
        try:
            json.loads(text)
        except RecursionError:
            return True
        except ValueError:
            continue
        return True
    return False


def normalised(content: bytes, name: str) -> tuple[bytes, str | None]:
    """The text as UTF-8 without a mark, its lines ended by LF; and a note where its encoding had to be guessed.

    Raises:
        ValueError: this is no text, or a character in it cannot be decoded.
    """
    encoding = next((e for mark, e in _MARKS if content.startswith(mark)), None) or _unmarked(content)
    note = None
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise ValueError(
                f"{name} begins like {encoding.removesuffix('-sig').upper()}, but its byte {error.start + 1} does not "
                "fit; save it as UTF-8."
            ) from error
        text, line = content.decode("cp1252", errors="replace"), content[: error.start].count(b"\n") + 1
        note = f"{name} is not UTF-8 (line {line}); its letters were read as Windows-1252."
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\x1a")  # the last ends files of DOS
    if bad := _CONTROL.search(text):
        if note or len(_CONTROL.findall(text)) > 8:
            raise ValueError(f"{name} is neither text nor .npy nor an IDX file of unsigned bytes.")
        what = "a NUL character" if bad[0] == "\0" else f"the control character U+{ord(bad[0]):04X}"
        line = text.count("\n", 0, bad.start()) + 1
        raise ValueError(f"{name}, line {line}: there is {what}; the file may be damaged, write it again.")
    return text.encode(), note


def _unmarked(content: bytes) -> str:
    """UTF-16 without a mark is known by the zeros beside its ASCII characters."""
    head = content[:2000]
    half = len(head) // 2
    if half >= 2 and len(content) % 2 == 0:
        if head[1::2].count(0) > 0.8 * half and 0 not in head[0::2]:
            return "utf-16-le"
        if head[0::2].count(0) > 0.8 * half and 0 not in head[1::2]:
            return "utf-16-be"
    return "utf-8"
