"""The learner's loader, beside arrays in memory."""
