"""The analyst's commands: a module for each group, and what they share."""
