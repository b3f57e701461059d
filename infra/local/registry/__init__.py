"""Apicurio, the schema registry."""
