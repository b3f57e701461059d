"""The analysts' views at ten million episodes."""
