"""From events to episodes: the materializer, and the index over what it stored."""
