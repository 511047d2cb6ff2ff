"""What an artifact is made of, and the fingerprint that follows from it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wsss.json_files import canonical_json

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What an artifact is and what it was made of: the material of its fingerprint."""

    stage: str
    version: int
    seed: int
    data: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    classes: tuple[str, ...] = ()
    software: Mapping[str, str] = field(default_factory=dict)

    @property
    def material(self) -> dict[str, Any]:
        """All that the fingerprint depends on, as plain JSON values."""
        return {
            "schema": SCHEMA,
            "stage": self.stage,
            "version": self.version,
            "seed": self.seed,
            "data": self.data,
            "config": dict(self.config),
            "inputs": dict(self.inputs),
        }

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of sha256 over the material's canonical JSON."""
        return hashlib.sha256(canonical_json(self.material).encode()).hexdigest()[:16]
