"""Schedules of faults against real servers and real processes, and an independent check of what is left."""
