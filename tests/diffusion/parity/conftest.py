"""Fixtures of the parity tests."""

from __future__ import annotations

from .reference import diffusers

__all__ = ["diffusers"]
