"""Audit, rebuilding and collection."""
