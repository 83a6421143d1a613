"""Long prompts of many pictures and notes with a question about one of them."""

from __future__ import annotations
