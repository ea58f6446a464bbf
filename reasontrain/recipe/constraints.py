"""Constraints that several settings share."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Lt
from pydantic import Field

Count = Annotated[int, Ge(0)]
Seed = Annotated[int, Ge(0), Lt(2**62)]
Decay = Annotated[float, Ge(0), Lt(1)]
KIND = Field(discriminator="kind")
Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
