"""Codecs: between pictures as people see them and the space a model works in."""

from __future__ import annotations

from nirvana.codec.identity import Identity, codec_from_config

__all__ = ["Identity", "codec_from_config"]
