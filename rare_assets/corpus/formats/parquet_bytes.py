"""Read the strings of a Parquet file as bytes, where one that is no UTF-8 would cost all others.

Polars refuses a whole part of a file for one broken string and has no option for it. The footer says what a
column is: in a copy, its strings are declared as BSON, which is bytes, by values of the same length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_MAGIC = b"PAR1"
# A schema's element in Thrift's compact protocol: name, converted type UTF8, perhaps a field's id, perhaps
# the logical type STRING.
_ELEMENT = rb"\x18%b%b\x25(\x00)(?:\x35[\x80-\xff]*[\x00-\x7f])?(?:[\x4c\x1c](\x1c)\x00\x00)?"
_BSON_CONVERTED, _BSON_LOGICAL = 0x28, 0xDC
# Arrow's own schema, kept beside, would say again that they are strings.
_ARROW, _NOT_ARROW = b"ARROW:schema", b"arrow_schema"


def declare_bytes(path: Path, columns: Iterable[str]) -> bool:
    """Declare the strings of some columns as bytes, in place. Return True if there are any.

    Args:
        path: a copy of the file.
        columns: names of columns, or of fields within structs.
    """
    with path.open("r+b") as file:
        file.seek(-8, 2)
        end = file.read()
        size = int.from_bytes(end[:4], "little")
        if end[4:] != _MAGIC or size > file.tell() - 8:
            return False
        place = file.seek(-8 - size, 2)
        footer = bytearray(file.read(size))
        found = False
        for column in columns:
            name = column.encode()
            pattern = _ELEMENT % (_varint(len(name)), re.escape(name))
            for element in re.finditer(pattern, bytes(footer), re.DOTALL):
                found = True
                footer[element.start(1)] = _BSON_CONVERTED
                if element[2]:
                    footer[element.start(2)] = _BSON_LOGICAL
        if found:
            file.seek(place)
            file.write(bytes(footer).replace(_ARROW, _NOT_ARROW))
    return found


def _varint(number: int) -> bytes:
    encoded = b""
    while number >= 0x80:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return re.escape(encoded + bytes([number]))
