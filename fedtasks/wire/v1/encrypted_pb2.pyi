from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class EncryptionKey(_message.Message):
    __slots__ = ("modulus", "proof")
    MODULUS_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    modulus: bytes
    proof: bytes
    def __init__(self, modulus: _Optional[bytes] = ..., proof: _Optional[bytes] = ...) -> None: ...
