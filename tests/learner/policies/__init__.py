"""Artifacts and policies."""
